"""The memory in which a job process notes its reports: what was written is read once, in order, and nothing else is."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.worker.jobs.report_memory import RING, NoteReader, Notes, ReportMemory
from cexec.worker.jobs.reports import (
    JOBS_AHEAD,
    MAXIMUM_REPORT,
    WAKE,
    Broken,
    Idle,
    JobFinished,
    ProgramStarted,
    Report,
    Starting,
    Taken,
    Word,
    encode,
)
from cexec.worker.jobs.worker_link import WorkerGone, WorkerLink
from tests.environment import ROOT, local_environment
from tests.needs import require_namespaces


def made() -> ReportMemory:
    memory = ReportMemory.create()
    memory.close_fd()
    return memory


def finished(*, ahead: bool) -> JobFinished:
    return JobFinished(0, sent=0, received=0, cpu=0.0, reason="", duration=0.0, idle=True, ahead=ahead)


def test_notes_are_read_in_order_also_where_the_ring_begins_again() -> None:
    memory = made()
    notes, reader, chance = Notes(memory), NoteReader(memory), random.Random(7)
    for turn in range(2000):
        written = [bytes([turn & 0xFF]) * chance.randrange(1, MAXIMUM_REPORT) for _ in range(chance.randrange(4))]
        for report in written:
            notes.write(report)
        assert [reader.read() for _ in written] == written
        assert reader.read() == b""


def test_all_that_a_process_may_say_before_it_needs_an_answer_has_room() -> None:
    memory = made()
    notes, reader = Notes(memory), NoteReader(memory)
    longest = [b"t" * 19, b"s", b"p" * 5, b"f" * MAXIMUM_REPORT] * (2 * JOBS_AHEAD)
    for _ in range(5):
        for report in longest:
            notes.write(report)
        assert [reader.read() for _ in longest] == longest


@pytest.mark.parametrize("place", range(13))
def test_a_note_that_is_not_complete_is_not_there_yet(place: int) -> None:
    """A process may be killed in it, and some processors let others see the bytes in another order."""
    memory = made()
    Notes(memory).write(b"abc")
    kept = memory.ring[place]
    memory.ring[place] = kept ^ 0x10
    reader = NoteReader(memory)
    assert reader.read() == b""
    memory.ring[place] = kept
    assert reader.read() == b"abc"


@given(st.binary(max_size=64))
def test_any_bytes_are_no_note_and_do_no_harm(data: bytes) -> None:
    memory = made()
    memory.ring[: len(data)] = data
    assert NoteReader(memory).read() == b""


def test_nobody_can_make_the_memory_smaller() -> None:
    memory = ReportMemory.create()
    for size in (0, 2 * RING):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(memory.fd, size)
    memory.close_fd()


def test_a_process_that_was_killed_leaves_what_it_has_noted() -> None:
    memory = ReportMemory.create()
    pid = os.fork()
    if pid == 0:
        Notes(ReportMemory.attach(memory.fd)).write(b"the last word")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert NoteReader(memory).read() == b"the last word"
    memory.close_fd()


class Link:
    """Both ends of a link."""

    def __init__(self) -> None:
        self.worker, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.worker.setblocking(False)
        self.memory = made()
        self.link = WorkerLink(channel, self.memory)

    def woken(self) -> bool:
        try:
            return self.worker.recv(16) == WAKE
        except BlockingIOError:
            return False

    def say(self, word: Word) -> None:
        self.worker.send(word.value)
        self.memory.words += 1

    def close(self) -> None:
        self.worker.close()
        self.link.channel.close()


QUIET: list[Report] = [Taken(bytes(16), 1), Starting(), ProgramStarted(1), finished(ahead=True)]
URGENT: list[Report] = [Broken("x"), Idle(), finished(ahead=False)]


@pytest.mark.parametrize(
    ("reports", "watched", "quiet", "woken"),
    [(QUIET, False, False, True), (QUIET, True, False, False), (QUIET, False, True, False), (URGENT, True, True, True)],
)
def test_a_worker_that_looks_by_itself_is_woken_only_where_a_slot_depends_on_it(
    reports: list[Report], watched: bool, quiet: bool, woken: bool
) -> None:
    link = Link()
    link.memory.watched = watched
    reader = NoteReader(link.memory)
    for report in reports:
        link.link.tell(report, quiet=quiet)
        assert link.woken() is woken
        assert reader.read() == encode(report)
    link.close()


def test_words_are_read_when_the_memory_says_so_or_the_socket_is_readable() -> None:
    link = Link()
    assert link.link.words(ready=False) == []
    link.say(Word.OFFER)
    link.say(Word.LAST)
    assert link.link.words(ready=False) == [Word.OFFER, Word.LAST]
    link.worker.send(Word.ASK.value)  # the memory will say so in a moment
    assert link.link.words(ready=False) == []
    assert link.link.words(ready=True) == [Word.ASK]
    link.memory.words += 1
    link.say(Word.AHEAD)
    assert link.link.words(ready=False) == [Word.AHEAD]
    link.close()


def test_words_that_were_meant_for_an_earlier_connection_hide_no_later_one() -> None:
    link = Link()
    link.say(Word.LAST)
    link.link.channel.recv(16)  # as `assignment.receive` does
    assert link.link.words(ready=False) == []
    link.say(Word.OFFER)
    assert link.link.words(ready=False) == [Word.OFFER]
    link.close()


@pytest.mark.parametrize("end", [lambda link: link.worker.close(), lambda link: link.worker.shutdown(socket.SHUT_WR)])
def test_the_end_of_the_worker_is_found(end: Callable[[Link], None]) -> None:
    link = Link()
    end(link)
    with pytest.raises(WorkerGone):
        link.link.words(ready=True)
    link.link.tell(Idle())
    link.close()


def test_where_there_is_no_file_in_memory_another_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refused)
    memory = ReportMemory.create()
    memory.words = 3
    assert ReportMemory.attach(os.dup(memory.fd)).words == 3
    memory.close_fd()


FULL_DISK = """
import os, tempfile
from cexec.worker.jobs.report_memory import ReportMemory

def refused(*_):
    raise PermissionError

os.memfd_create = refused
try:
    ReportMemory.create().words = 3
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_is_an_error_where_there_is_no_file_in_memory(tmp_path: Path) -> None:
    """Regression: a hole in a file stood for the memory, and a signal killed cservice when it wrote there."""
    require_namespaces()
    script = 'mount -t tmpfs -o size=64k none "$TMPDIR" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", FULL_DISK]
    environment = local_environment({"TMPDIR": str(tmp_path)})
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "No space left on device\n"), done.stderr
