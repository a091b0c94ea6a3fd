"""The processes of one job: the program, and all that it has started.

Contract: `started(pid)` tells of the program; `reap` collects what has ended, after which `alone` says if anything is
left and `status` is the program's wait status, None while it runs.  `end` begins to end the rest, and is driven by
`next_timeout` and `handle_timeout`.  Nothing here waits, except `finish`.  The process that uses this has no other
children: it has called `process.adopt_orphans`.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from cexec.errors import LocalError
from cexec.protocol.connection import options
from cexec.system.process import process_tree
from cexec.system.process.process import signal_group
from cexec.system.process.process_tree import TreeEnd

if TYPE_CHECKING:
    from cexec.system.process.job_group import JobGroup
    from cexec.system.process.process_tree import Killable
    from cexec.worker.jobs.job_terminal import JobTerminal

GRACE = 2.0  # seconds (ours) between TERM and KILL for what is left of a job
KEYS = (signal.SIGINT, signal.SIGQUIT)
SIGNALS = {number: getattr(signal, name) for number, name in options.SIGNALS.items()}  # this machine's numbers


class JobTree:
    """`usage`: microseconds of user and of system time, and KiB of memory, once the program has ended."""

    __slots__ = ("_ending", "_pending", "_wrapper", "alone", "groups", "pid", "status", "terminal", "usage")

    def __init__(self, group: JobGroup | None = None) -> None:
        """`group`: in which this process lives, and all that it starts unless that joins another of `groups`."""
        self.groups: list[Killable] = [] if group is None else [group]
        self.pid = 0
        self.terminal: JobTerminal | None = None  # whose keys are for its foreground group, and so are signals
        self.status: int | None = None
        self.usage = (0, 0, 0)
        self.alone = True  # no child is left
        self._wrapper = 0  # a process in the program's place that must get no signal but SIGKILL
        self._pending: list[int] = []  # signals that have come, the first one first
        self._ending: TreeEnd | None = None

    def started(self, pid: int, *, wrapped: bool = False) -> None:
        """The program is this child, or what this child starts; it gets the signals that have come too early."""
        self.pid, self.alone = pid, False
        self._wrapper = pid if wrapped else 0
        self.pass_signals_on()

    def signal(self, number: int) -> None:
        """Notes a signal of the protocol, to be passed on.

        As in the kernel a pending signal is there once, and CONT ends a stop: a client that sends thousands of them
        costs no more than one that sends eight.
        """
        opposite = {signal.SIGTSTP: signal.SIGCONT, signal.SIGCONT: signal.SIGTSTP}.get(SIGNALS[number])
        self._pending = [one for one in self._pending if one != number and SIGNALS[one] != opposite]
        self._pending.append(number)

    def pass_signals_on(self) -> None:
        """Sends the program what is pending, once it is there."""
        if self.pid and self._pending:
            pending, self._pending = self._pending, []
            for number in pending:
                self._send(number)

    def _send(self, number: int) -> None:
        """The whole tree is stopped and continued; other signals go to the program's group, as from a terminal.

        With a terminal, INT and QUIT go to its foreground group, as those of its keys do.
        """
        if SIGNALS[number] == signal.SIGTSTP:
            process_tree.stop_tree()
        elif SIGNALS[number] == signal.SIGCONT:
            process_tree.signal_tree(self.pid, signal.SIGCONT)
        elif SIGNALS[number] in KEYS and self.terminal is not None and (group := self.terminal.foreground()):
            signal_group(group, SIGNALS[number])
        elif self._wrapper:
            process_tree.signal_tree(self.pid, SIGNALS[number], wrapper=self._wrapper)
        else:
            process_tree.signal_program(self.pid, SIGNALS[number], reaped=self.status is not None)

    def reap(self) -> None:
        """Collects what has ended; raises `LocalError` if the program's status is lost."""
        while not (self.alone and self.pid):  # once there is no child, there is no descendant that could become one
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.alone = True
                if self.pid and self.status is None:  # it must not count as a success, or be waited for
                    raise LocalError("the program has ended, and its exit status is lost") from None
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status
                self.usage = (round(usage.ru_utime * 1e6), round(usage.ru_stime * 1e6), usage.ru_maxrss)

    def end(self, now: float) -> None:
        """Sends TERM to what is left, and later KILL."""
        if self._ending is None:
            self._ending = TreeEnd(self.pid, GRACE, now, wrapper=self._wrapper, groups=self.groups)

    @property
    def given_up(self) -> bool:
        """True if the processes that are left cannot be ended."""
        return self._ending is not None and self._ending.given_up

    def next_timeout(self) -> float | None:
        return None if self._ending is None or self.alone else self._ending.next_timeout()

    def handle_timeout(self, now: float) -> None:
        if self._ending is not None and not self.alone:
            self._ending.handle_timeout(now)

    def finish(self, patience: float = 0.0) -> None:
        """Ends and reaps what is left, and waits for that; it has `patience` seconds to end by itself."""
        if self.alone and self.pid:
            return
        process_tree.wait_for_end(patience)
        process_tree.end_tree(self.pid, GRACE, wrapper=self._wrapper, groups=self.groups)
