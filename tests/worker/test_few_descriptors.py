"""What a worker does that runs out of descriptors: what fails leaves none open, and the next try works."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cexec.system.host.load_command import INTERVAL, LoadCommand
from cexec.system.process import process
from cexec.system.storage.program_cache import ProgramCache
from cexec.worker.jobs.private_directory import FileProblem, PrivateDirectory
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.report_memory import ReportMemory
from cexec.worker.jobs.supervisor import FORK
from cexec.worker.jobs.supervisor_link import SupervisorLink
from tests.few_descriptors import descriptors_of, few_descriptors
from tests.waiting import wait_until

MOST = 12  # descriptors are enough for each of the attempts below

Attempt = Callable[[], Callable[[], object]]
"""Does something that needs descriptors; returns what puts it away.  Raises `OSError` when there are too few."""


def spawning(tmp_path: Path) -> Attempt:
    def attempt() -> Callable[[], object]:
        pid = process.spawn("/bin/true", ["true"], {}, {0: 0, 1: 1, 2: 2}, process.become_ordinary)
        return lambda: os.waitpid(pid, 0)

    return attempt


def a_memory_for_reports(tmp_path: Path) -> Attempt:
    def attempt() -> Callable[[], object]:
        made = ReportMemory.create()

        def close() -> None:
            nonlocal made
            made.close_fd()
            del made

        return close

    return attempt


def a_private_file(tmp_path: Path) -> Attempt:
    directory = PrivateDirectory()
    names = (f"a/b/{number}" for number in range(2 * MOST))

    def attempt() -> Callable[[], object]:
        try:
            fd = directory.create(next(names))
        except FileProblem as problem:
            raise OSError(errno.EMFILE, str(problem)) from None
        return lambda: os.close(fd)

    return attempt


def a_draft_of_a_program(tmp_path: Path) -> Attempt:
    cache = ProgramCache(os.fspath(tmp_path / "programs"), 1_000_000)
    return lambda: cache.draft(10).discard


@pytest.mark.usefixtures("process_end")  # a private directory is open as long as its job
@pytest.mark.parametrize("kind", [spawning, a_memory_for_reports, a_private_file, a_draft_of_a_program])
def test_what_fails_for_want_of_descriptors_leaves_none_open(kind: Callable[[Path], Attempt], tmp_path: Path) -> None:
    attempt = kind(tmp_path)
    attempt()()  # what is opened once and kept is open now
    failed = []
    for count in range(MOST + 1):
        before = descriptors_of()
        with few_descriptors(count):
            try:
                close = attempt()
            except OSError as error:
                assert error.errno == errno.EMFILE
                failed.append(count)
            else:
                close()
        assert descriptors_of() == before, f"with {count} descriptors"
    assert failed and failed == list(range(len(failed))) and len(failed) < MOST


def test_a_load_command_that_gets_no_pipe_is_tried_again_and_leaves_no_descriptor() -> None:
    command = LoadCommand("echo 1")
    now, before = 0.0, descriptors_of()
    for count in range(4):
        with few_descriptors(count):
            command.handle_timeout(now)
        assert not command.pid and descriptors_of() == before, f"with {count} descriptors"
        assert (command.complaint() is not None) == (count == 0)
        now += INTERVAL
    command.handle_timeout(now)
    assert command.pid
    command.close()
    os.waitpid(command.pid, 0)


@pytest.fixture
def link() -> SupervisorLink:
    true = process.resolve("true", os.environ["PATH"])
    return SupervisorLink.fork(Program(true, [], {}, allow_arguments=False))


def test_a_job_process_that_cannot_be_started_leaves_no_descriptor(link: SupervisorLink) -> None:
    failed = []
    for count in range(MOST):
        before = descriptors_of()
        with few_descriptors(count):
            try:
                started = link.start()
            except OSError:
                failed.append(count)
            else:
                break
        assert descriptors_of() == before, f"with {count} descriptors"
    started.close()
    wait_until(link.hear)
    assert failed == [0, 1, 2, 3]
    link.close()


@pytest.mark.parametrize("missing", [1, 2])
def test_a_supervisor_without_descriptors_says_so_and_keeps_none(link: SupervisorLink, missing: int) -> None:
    """It hears of a job process, and its ends do not come with the message."""
    link.start().close()
    wait_until(link.hear)  # so it has put away what it has inherited
    before = descriptors_of(link.pid)
    control = socket.socket(fileno=os.dup(link.fileno()))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = 7
    with ours, theirs, control:
        socket.send_fds(control, [b"%s %d" % (FORK, number)], [theirs.fileno()] * (2 - missing))
        answer = b""

        def answered() -> bool:
            nonlocal answer
            try:
                answer = control.recv(100)
            except BlockingIOError:
                return False
            return True

        wait_until(answered)
    assert answer.split()[1:] == [b"%d" % number, b"%d" % errno.EMFILE]
    wait_until(lambda: descriptors_of(link.pid) == before)
    link.close()
