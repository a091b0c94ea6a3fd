"""A job process's way to its worker: reports upwards, words downwards.

Contract: `tell(report)` notes a report in the shared memory, which takes no system call.  It wakes the worker where the
worker has to do something for it, and, unless the report is `quiet`, where the worker does not look by itself.  A quiet
report is read with the next one, or when this process has ended, however that was.  `note` and `wake_for` are the two
halves of `tell`, for a report that has to be there before something else is done.  `words` returns what the worker has
said since the last call; it raises `WorkerGone` when the worker has ended, or ends its jobs.  Nothing here blocks.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cexec.worker.jobs.report_memory import Notes
from cexec.worker.jobs.reports import WAKE, JobFinished, ProgramStarted, Report, Starting, Taken, Word, encode

if TYPE_CHECKING:
    from cexec.worker.jobs.report_memory import ReportMemory

_UNHURRIED = frozenset((Taken, Starting, ProgramStarted))
MAXIMUM_WORD = 16  # bytes of the longest word


class WorkerGone(Exception):
    """The worker has ended, or ends its jobs."""


class WorkerLink:
    """`channel` is this process's end of a SOCK_SEQPACKET socketpair, `memory` what it shares with the worker."""

    __slots__ = ("_memory", "_notes", "_read", "channel")

    def __init__(self, channel: socket.socket, memory: ReportMemory) -> None:
        self.channel = channel
        self._memory = memory
        self._notes = Notes(memory)
        self._read = 0  # words that have been read

    def fileno(self) -> int:
        return self.channel.fileno()

    def tell(self, report: Report, *, quiet: bool = False) -> None:
        self.note(report)
        self.wake_for(report, quiet=quiet)

    def note(self, report: Report) -> None:
        """Puts a report where the worker finds it, even if this process is killed in the next moment."""
        self._notes.write(encode(report))

    def wake_for(self, report: Report, *, quiet: bool = False) -> None:
        """Wakes the worker if it has to read this report, which was noted, now."""
        if not _can_wait(report) or (not quiet and not self._memory.watched):
            self.wake()

    def wake(self) -> None:
        """Lets the worker read what has been noted."""
        try:
            self.channel.send(WAKE, socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has not read earlier ones yet, or has gone; the watch on the socket says so

    def words(self, *, ready: bool) -> list[Word]:
        """Returns the new ones.  `ready`: the socket is readable; else it is read only if the memory says so."""
        found: list[Word] = []
        while (told := self._memory.words) != self._read or ready:
            ready = False
            try:
                found.append(Word(self.channel.recv(MAXIMUM_WORD, socket.MSG_DONTWAIT)))
                self._read = (self._read + 1) & 0xFFFFFFFF
            except BlockingIOError:
                self._read = told  # the difference were words for an earlier connection
                break
            except (OSError, ValueError):  # it has gone, perhaps before it had read all that we told it
                raise WorkerGone from None
        return found


def _can_wait(report: Report) -> bool:
    """Returns True if the worker need not hear it at once: no slot depends on it."""
    return type(report) in _UNHURRIED or (isinstance(report, JobFinished) and report.ahead)
