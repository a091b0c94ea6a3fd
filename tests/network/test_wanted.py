"""A job that has asked hears that another client waits for its slot, on real hosts; docs/protocol.md section 4.4."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from cexec.protocol.base.limits import QUEUED_INTERVAL
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.lab import Host
from tests.network.test_replay import recorded, replay
from tests.service import Application, Service
from tests.slot_holder import ENDED, RUNNING, WANTED, SlotHolder
from tests.waiting import PATIENCE

HOLDER, WORKER, OTHER, FOURTH = 1, 2, 3, 4  # hosts
QUIET_JOBS = 12  # of another client, in a slot that is free


def serve(service: StartService, host: Host | None, slots: int = 1) -> Service:
    """A worker that runs what its clients say."""
    return service("sh", "-c", 'eval "$PEER_RUN"', options=["-j", str(slots)], host=host)


@contextmanager
def start(application: Application, host: Host, script: str = "echo mine") -> Iterator[subprocess.Popen[bytes]]:
    """A client with a job, by default a short one; it is killed at the end if it still waits or runs."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    argv = command("cexec", application.public, f"RUN={script}")
    with host.popen(argv, env=clean_environment(), **pipes) as client:
        try:
            yield client
        finally:
            client.kill()


def test_a_job_hears_once_that_another_client_waits_and_goes_on_if_its_client_takes_no_notice(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    made = lab(3)
    worker = serve(service, made.host(WORKER))
    with SlotHolder(application, made.host(HOLDER)) as holder:
        holder.heard(RUNNING)
        assert holder.knows
        with start(application, made.host(OTHER)) as waiting:
            holder.heard(WANTED)
            with pytest.raises(subprocess.TimeoutExpired):  # as long as it takes until the worker says anything again
                waiting.wait(QUEUED_INTERVAL)
            assert (holder.count(WANTED), holder.count(ENDED)) == (1, 0)
            holder.leave()
            assert waiting.communicate(timeout=PATIENCE)[0] == b"mine\n"
            assert waiting.returncode == 0
    worker.wait_for(" broken ")  # it hung up while its job ran


def test_a_client_that_gives_its_slot_back_gets_it_again_when_the_other_one_is_done(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    made = lab(3)
    serve(service, made.host(WORKER))
    with SlotHolder(application, made.host(HOLDER), gives_back=True) as holder:
        for turn in range(1, 4):
            holder.heard(RUNNING, holder.count(ENDED) + 1)
            with start(application, made.host(OTHER)) as other:
                assert other.communicate(timeout=PATIENCE)[0] == b"mine\n"
            assert other.returncode == 0
            holder.heard(WANTED, turn)
            holder.heard(ENDED, turn)
        holder.heard(RUNNING, holder.count(ENDED) + 1)
        assert holder.count(WANTED) == holder.count(ENDED)  # once for each of its jobs


def test_two_programs_of_one_person_on_one_machine_hear_of_each_other(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    """They are one client.  The one that has the slot does not hear of itself, although its lease waits, too."""
    made = lab(2)
    serve(service, made.host(WORKER))
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(SlotHolder(application, made.host(HOLDER), gives_back=True)) for _ in range(2)
        )
        for turns in range(1, 4):
            first.heard(ENDED, turns)
            second.heard(ENDED, turns)


def test_nobody_is_told_while_a_slot_is_free(application: Application, lab: MakeLab, service: StartService) -> None:
    made = lab(4)
    worker = serve(service, made.host(WORKER), slots=2)
    with SlotHolder(application, made.host(HOLDER)) as holder:
        holder.heard(RUNNING)
        for number in range(QUIET_JOBS):
            ended = application.run("RUN=sleep 0.3", host=made.host(OTHER))
            assert ended.returncode == 0, ended.stderr
            assert len(worker.lines_with(" finished ", number + 1)) == number + 1  # its slot is free again
        assert holder.count(WANTED) == 0
        with start(application, made.host(FOURTH), "sleep 600"):
            worker.lines_with(" started ", QUIET_JOBS + 2)  # else the short one might be first
            with start(application, made.host(OTHER)):
                holder.heard(WANTED)  # so it would have heard


def test_a_job_does_not_hear_of_announcements_that_a_stranger_sends_again(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    """Without a proof an announcement causes no word, wherever it seems to come from and however often it comes."""
    made = lab(4)
    neighbours = [f"neigh add 10.77.0.{100 + n} lladdr 02:00:00:00:77:77 dev eth0" for n in range(100)]
    worker = serve(service, made.host(WORKER))
    made.host(WORKER).ip(*neighbours)
    with SlotHolder(application, made.host(HOLDER)) as holder:
        holder.heard(RUNNING)
        data = recorded(application, 20)
        for _ in range(10):
            replay(made.host(FOURTH), data)
            listed = made.host(OTHER).run(command("cps", application.public), env=clean_environment(),
                                          capture_output=True, text=True)  # fmt: skip
            assert listed.returncode == 0, listed.stderr
        assert holder.count(WANTED) == 0
        assert worker.process.poll() is None
        with start(application, made.host(OTHER)):
            holder.heard(WANTED)


def test_clients_that_do_not_ask_are_told_nothing(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    """A frame that they have not asked for would end their jobs."""
    made = lab(3)
    worker = serve(service, made.host(WORKER))
    with start(application, made.host(HOLDER), "sleep 3; echo first") as first:
        worker.wait_for(" started ")
        with start(application, made.host(OTHER)) as second:
            assert first.communicate(timeout=PATIENCE)[:2] == (b"first\n", b"")
            assert second.communicate(timeout=PATIENCE)[0] == b"mine\n"
    tasks = command("cmap", application.public, "-n0", "--peer", "RUN=sleep 0.4; echo task", ":::", *"12345678")
    with made.host(HOLDER).popen(tasks, env=clean_environment(), stdout=subprocess.PIPE) as cmap:
        for _ in range(2):
            assert application.run("RUN=echo mine", host=made.host(OTHER)).stdout == b"mine\n"
        assert cmap.communicate(timeout=PATIENCE)[0] == b"task\n" * 8
    assert cmap.returncode == 0
