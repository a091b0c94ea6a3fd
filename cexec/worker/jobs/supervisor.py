"""The supervisor: the process of a worker that forks the job processes, and ends what a dead one leaves.

Contract: `run(program, control)` is called in a child that was forked before the worker had read its key, so neither it
nor a job process ever has the worker's secrets or the authority's.  It starts a job process for each FORK, whose
message carries that process's end of a socketpair and the memory for its reports, and reports ENDED once the process
and all processes that it left have ended, but LAG seconds after its death at the latest.  It kills a job process that
somebody has stopped.  It returns when the worker is gone or wants no more, and everything has ended.  It never waits
for one thing alone: directories are removed by a child of its own.

Every job process is known from the moment of its fork, because nothing else happens in between, and the supervisor has
no other child but the one that sweeps.  So whatever else becomes its child is a stray, see `system.process.strays`.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from cexec.system import signal_state
from cexec.system.io.log_lines import offer_traceback
from cexec.system.io.wakeup import Wakeup, detach, wait_readable
from cexec.system.process import orphans, process, process_tree
from cexec.system.process.job_group import JobGroup
from cexec.system.process.strays import Strays
from cexec.worker.jobs.lease import serve
from cexec.worker.jobs.report_memory import ReportMemory
from cexec.worker.jobs.worker_link import WorkerLink

if TYPE_CHECKING:
    from cexec.worker.jobs.program import Program

FORK, KILL, END = b"fork", b"kill", b"end"  # the worker's words: FORK NUMBER with two descriptors, KILL NUMBER, END
ENDED, FAILED = b"ended", b"failed"  # the supervisor's: ENDED NUMBER STATUS, FAILED NUMBER ERRNO
MAXIMUM_WORD = 64  # bytes of one of them
FIRST_OWN_DESCRIPTOR = 3  # behind the standard ones
HIGHEST_DESCRIPTOR = 1 << 20  # more than a limit of descriptors usually is; closing up to there costs nothing
CRASHED = 111  # the exit status of a process that failed, as in cexec(1)
LAG = 2.0  # seconds (ours) that the report of a death may wait for processes that cannot be ended
STOPPED_PATIENCE = 5.0  # seconds (ours) that a job process may be stopped: who stops and continues all takes less
PATIENCE = 10.0  # seconds (ours) that job processes have to end what they run when everything ends
NEVER = float("inf")


@dataclass(slots=True)
class Child:
    """A job process.  `number` is what the worker calls it."""

    number: int
    group: JobGroup | None
    kill_at: float = NEVER  # it has been stopped


@dataclass(slots=True)
class DeadChild:
    """A job process that has ended, of which the worker has not been told."""

    number: int
    status: int
    group: JobGroup | None  # until it has been removed
    told_by: float  # the latest moment


def run(program: Program, control: socket.socket) -> None:
    """Serves the worker at the other end of `control`, a SOCK_SEQPACKET socketpair; to be called in a forked child."""
    detach()
    signal_state.set_at_start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker decides when a job ends
    os.closerange(FIRST_OWN_DESCRIPTOR, control.fileno())
    os.closerange(control.fileno() + 1, HIGHEST_DESCRIPTOR)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)  # perhaps it is the key: cservice /dev/stdin
    os.close(null)
    process.adopt_orphans()
    Supervisor(program, control).run()


class Supervisor:
    """`control` is the supervisor's end."""

    def __init__(self, program: Program, control: socket.socket) -> None:
        self._program = program
        self._control = control
        self._wakeup = Wakeup()
        self._wakeup.start((signal.SIGCHLD,))
        self._running: dict[int, Child] = {}  # by process id
        self._dead: list[DeadChild] = []
        self._emptied: list[JobGroup] = []  # those of the dead, to be removed as soon as the kernel lets us
        self._sweeper = Sweeper(program.records)
        self._strays = Strays(lambda: {*self._running, self._sweeper.pid})
        self._serving = True
        self._kill_at = NEVER  # when job processes are killed that have not ended what they run
        self._leave_at = NEVER  # when what cannot be ended is left alone

    def run(self) -> None:
        while self._serving or self._busy():
            ready = self._wait()
            now = monotonic()
            if self._control.fileno() in ready:
                self._hear(now)
            if self._wakeup.take():
                self._reap(now)
            self._strays.handle_timeout(now)
            self._report(now)
            self._kill_stopped(now)
            if now >= self._kill_at:
                self._kill_running()
            if now >= self._leave_at:
                return

    def _busy(self) -> bool:
        return bool(self._running or self._strays.left or self._sweeper.pid)

    def _wait(self) -> set[int]:
        strays = self._strays.next_timeout()
        due = min(self._kill_at, self._leave_at, NEVER if strays is None else strays,
                  *(dead.told_by for dead in self._dead), *(one.kill_at for one in self._running.values()))  # fmt: skip
        fds = [self._wakeup.fileno(), *([self._control.fileno()] if self._serving else [])]
        return wait_readable(fds, None if due == NEVER else max(0.0, due - monotonic()))

    def _hear(self, now: float) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, MAXIMUM_WORD, 2)
        except OSError:
            data, fds = b"", []
        word, *number = data.split() or [b""]
        if not word:
            self._serving, self._kill_at, self._leave_at = False, now + PATIENCE, now + 2 * PATIENCE
        elif word == FORK and len(fds) == 2:
            self._fork(int(number[0]), *fds)
        elif word == FORK:  # there was room for one descriptor or none
            self._say(FAILED, int(number[0]), errno.EMFILE)  # first, so that whoever finds it closed can hear why
            for fd in fds:
                os.close(fd)
        elif word == KILL:
            self._kill_running(int(number[0]))
        elif word == END:
            self._kill_at = min(self._kill_at, now + PATIENCE)

    def _fork(self, number: int, fd: int, memory: int) -> None:
        channel = socket.socket(fileno=fd)
        channel.set_inheritable(False)
        os.set_inheritable(memory, False)
        group = JobGroup.create(f"{os.getpid()}-{number}")
        try:
            pid = os.fork()
        except OSError as error:
            if group is not None:
                group.remove()
            self._say(FAILED, number, error.errno or 0)
        else:
            if pid == 0:
                _become_job_process(self._program, channel, memory, group)
            self._running[pid] = Child(number, group)
        channel.close()
        os.close(memory)

    def _kill_running(self, number: int | None = None) -> None:
        """All of them, if there is no number.  They are not reaped yet, so the process ids are still theirs."""
        for pid, running in self._running.items():
            if number in (None, running.number):
                os.kill(pid, signal.SIGKILL)

    def _kill_stopped(self, now: float) -> None:
        """A program that stops its job process would keep the slot for ever, without a time limit or a client."""
        for pid, child in self._running.items():
            if now >= child.kill_at:
                child.kill_at = NEVER
                if process_tree.is_stopped(pid):
                    os.kill(pid, signal.SIGKILL)

    def _reap(self, now: float) -> None:
        for pid in list(self._running):
            changed, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if not changed:
                continue
            if os.WIFSTOPPED(status):
                self._running[pid].kill_at = now + STOPPED_PATIENCE
                continue
            running = self._running.pop(pid)
            if running.group is not None:
                running.group.kill()
            self._dead.append(DeadChild(running.number, status, running.group, now + LAG))
            if status != 0:
                self._sweeper.start()
        self._sweeper.reap()
        self._strays.look(now)

    def _report(self, now: float) -> None:
        """Tells of the dead, once nothing is left of them that could be ended."""
        told = [dead for dead in self._dead if not self._strays.left or now >= dead.told_by]
        for dead in told:
            if dead.group is not None:
                self._emptied.append(dead.group)
            self._dead.remove(dead)
            self._say(ENDED, dead.number, dead.status)

        self._emptied = [group for group in self._emptied if not group.remove()]

    def _say(self, word: bytes, *numbers: int) -> None:
        try:
            self._control.send(b" ".join([word, *(b"%d" % number for number in numbers)]))
        except OSError:
            pass  # the worker has gone


class Sweeper:
    """Removes what dead job processes have left on disk, in a child, because a directory may be big.

    `pid` is that child, 0 if there is none.
    """

    __slots__ = ("_again", "_records", "pid")

    def __init__(self, records: str | None) -> None:
        self.pid = 0
        self._records = records
        self._again = False  # another job process has died since the child looked

    def start(self) -> None:
        if self._records is None:
            return
        if self.pid:
            self._again = True
            return
        try:
            self.pid = os.fork()
        except OSError:
            return  # the next death, or the next start of cservice, tries again
        if self.pid == 0:
            try:
                detach()
                orphans.sweep(self._records)
            finally:
                os._exit(0)

    def reap(self) -> None:
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
            if self._again:
                self._again = False
                self.start()


def _become_job_process(program: Program, channel: socket.socket, memory: int, group: JobGroup | None) -> None:
    """The forked child: it keeps its end of the socketpair and the memory, and nothing else.  Never returns."""
    status = CRASHED
    try:
        process.become_ordinary()
        detach()
        signal_state.set_at_start()
        low, high = sorted((channel.fileno(), memory))
        os.closerange(FIRST_OWN_DESCRIPTOR, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, HIGHEST_DESCRIPTOR)
        serve(
            program,
            WorkerLink(channel, ReportMemory.attach(memory)),
            group if group is not None and group.join() else None,
        )
        status = 0
    except BaseException:
        offer_traceback()
    finally:
        os._exit(status)
