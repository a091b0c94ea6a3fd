"""The supervisor with real processes: what it starts, what it reports, and that it ends whatever a program does."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cexec.system.io.wakeup import wait_readable
from cexec.system.process import process
from cexec.system.process.orphans import PRIVATE_PREFIX
from cexec.system.storage.directories import runtime_directory
from cexec.worker.jobs import supervisor as supervisors
from cexec.worker.jobs.job_process import JobProcess
from cexec.worker.jobs.process_states import Gone, State
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.supervisor_link import SupervisorLink
from tests.waiting import PATIENCE, wait_until


@pytest.fixture
def link() -> Iterator[SupervisorLink]:
    made = forked(in_a_hurry)
    yield made
    made.close()


def served() -> Program:
    return Program(process.resolve("true", os.environ["PATH"]), [], {}, allow_arguments=False)


def children(link: SupervisorLink) -> list[psutil.Process]:
    (own,) = [child for child in psutil.Process().children() if child.pid == link.pid]
    return own.children()


def heard(link: SupervisorLink, count: int = 1) -> list[JobProcess]:
    """The next job processes that have ended."""
    found: list[JobProcess] = []

    def some() -> bool:
        found.extend(link.hear())
        return len(found) >= count

    wait_until(some)
    return found


def end_of(one: JobProcess) -> str:
    """How it ended, in words, if it had a connection."""
    (step,) = one.steps(0.0)
    assert isinstance(step.report, Gone)
    return step.report.reason


def test_a_job_process_is_started_and_its_end_is_reported(link: SupervisorLink) -> None:
    one, other = link.start(), link.start()
    wait_until(lambda: len(children(link)) == 2)
    one.terminate()
    assert heard(link) == [one]
    assert (end_of(one), one.state) == ("", State.GONE)
    wait_until(lambda: len(children(link)) == 1)
    assert list(other.steps(0.0)) == []
    other.terminate()
    assert heard(link) == [other]


def test_a_job_process_that_is_killed_is_told_from_one_that_ends(link: SupervisorLink) -> None:
    one = link.start()
    wait_until(lambda: len(children(link)) == 1)
    children(link)[0].kill()
    assert heard(link) == [one]
    one.state = State.TAKEN  # a process without a job leaves nothing to explain
    assert end_of(one) == "the job's process was killed by signal 9"


def forked(prepare: Callable[[], None]) -> SupervisorLink:
    """A supervisor in a process where `prepare` has been called."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            supervisors.run(served(), theirs)
        finally:
            os._exit(0)
    theirs.close()
    ours.setblocking(False)
    return SupervisorLink(pid, ours)


def refuse_to_fork() -> None:
    """As at a limit of processes."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    os.fork = refuse


def test_no_room_for_a_process_costs_this_connection_only() -> None:
    link = forked(refuse_to_fork)
    one = link.start()
    assert heard(link) == [one]
    one.state = State.TAKEN
    assert end_of(one) == "no process for it: resource temporarily unavailable"
    assert not link.lost
    link.close()


def have_room_for_one_descriptor() -> None:
    """As at a limit of descriptors; it is kept from running for a moment each time that it has closed one."""
    receive, close = socket.recv_fds, os.close

    def receive_one(*arguments: int) -> tuple[bytes, list[int], int, None]:
        data, fds, flags, _ = receive(*arguments)  # type: ignore[arg-type]
        for fd in fds[1:]:
            close(fd)
        return data, fds[:1], flags, None

    def close_slowly(fd: int) -> None:
        close(fd)
        time.sleep(0.3)

    socket.recv_fds = receive_one  # type: ignore[assignment]
    os.close = close_slowly


def test_a_process_for_which_a_descriptor_lacked_is_told_of_before_its_channel_is_closed() -> None:
    """Regression: a worker that gave it a connection meanwhile told the client of a broken pipe."""
    link = forked(have_room_for_one_descriptor)
    one = link.start()
    assert wait_readable([one.fileno()], PATIENCE)
    assert link.hear() == [one]
    assert one.no_room == "too many open files"
    one.close()
    link.close()


def in_a_hurry() -> None:
    supervisors.PATIENCE = 0.2


@pytest.mark.parametrize("end", [SupervisorLink.end, SupervisorLink.close], ids=["jobs are ended", "worker ends"])
def test_a_job_process_that_its_program_has_stopped_does_not_keep_the_worker(
    end: Callable[[SupervisorLink], None],
) -> None:
    """Regression: after `kill -STOP $PPID` cservice could not be told to end."""
    link = forked(in_a_hurry)
    one = link.start()
    wait_until(lambda: len(children(link)) == 1)
    (stopped,) = children(link)
    stopped.suspend()
    wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED)
    one.terminate()
    end(link)
    assert psutil.wait_procs([stopped], timeout=PATIENCE)[1] == []
    link.close()


def test_a_job_process_that_its_program_has_stopped_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it kept its slot until cservice was started again, also without a client."""
    monkeypatch.setattr(supervisors, "STOPPED_PATIENCE", 2.5)
    link = forked(in_a_hurry)
    one, other = link.start(), link.start()
    wait_until(lambda: len(children(link)) == 2)
    stopped, briefly = sorted(children(link), key=lambda child: child.pid)
    stopped.suspend()
    briefly.suspend()
    briefly.resume()
    assert heard(link) == [one]
    assert list(other.steps(0.0)) == [] and briefly.is_running()
    link.close()


def test_a_process_that_makes_no_sense_is_killed_although_it_is_stopped(link: SupervisorLink) -> None:
    one = link.start()
    wait_until(lambda: len(children(link)) == 1)
    (stopped,) = children(link)
    stopped.suspend()
    one.distrust("it says nothing")
    assert heard(link) == [one]
    assert end_of(one) == "the job's process was ended: it says nothing"


def test_a_worker_that_is_gone_leaves_no_supervisor() -> None:
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        link = SupervisorLink.fork(served())
        link.start()
        wait_until(lambda: len(children(link)) == 1)
        pids = [link.pid, *(child.pid for child in children(link))]
        os.write(writing, " ".join(map(str, pids)).encode())
        signal.pause()
    family = [psutil.Process(int(pid)) for pid in os.read(reading, 100).split()]
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    assert len(family) == 2 and psutil.wait_procs(family, timeout=PATIENCE)[1] == []
    for fd in (reading, writing):
        os.close(fd)


def test_what_another_process_leaves_on_disk_is_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two job processes die one after the other: the one that sweeps looks again."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    records = runtime_directory()
    program = served()
    program.records = records
    link = SupervisorLink.fork(program)
    started = [link.start() for _ in range(2)]
    wait_until(lambda: len(children(link)) == 2)
    for number, child in enumerate(children(link)):
        left = tmp_path / f"{PRIVATE_PREFIX}{number}"
        (left / "sub").mkdir(parents=True)
        record = Path(records) / f"{number}-record"
        record.write_text(json.dumps({"mark": "", "directory": str(left)}) + "\n")
        record.chmod(0o600)
        child.kill()
    wait_until(lambda: os.listdir(records) == [] and not list(tmp_path.glob(f"{PRIVATE_PREFIX}*")))
    assert set(heard(link, 2)) == set(started)
    link.close()
