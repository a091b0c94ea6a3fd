"""A worker's way to its supervisor, the process that forks the job processes: see `worker.jobs.supervisor`.

Contract: `SupervisorLink.fork` is called before the worker reads its key, and returns in the worker only.  `start`
returns a job process at once, to which a connection can be given although it may not exist yet.  `hear` is to be called
when `fileno` is readable, and returns the job processes that have ended; each of them has been told of its end.  When
somebody has killed the supervisor, `lost` is true and all of its job processes count as ended.  Nothing waits here but
`close`, for a bounded time.
"""

from __future__ import annotations

import os
import signal
import socket
from time import monotonic
from typing import TYPE_CHECKING, Self

from cexec.system.io.log_lines import offer_traceback
from cexec.system.io.wakeup import wait_readable
from cexec.system.process import helpers, job_group
from cexec.system.reason import reason_of
from cexec.worker.jobs import supervisor
from cexec.worker.jobs.job_process import JobProcess
from cexec.worker.jobs.report_memory import ReportMemory
from cexec.worker.jobs.supervisor import CRASHED, END, FAILED, FORK, KILL, MAXIMUM_WORD, PATIENCE

if TYPE_CHECKING:
    from cexec.system.process.job_group import JobGroup
    from cexec.worker.jobs.program import Program

CLOSE_PATIENCE = 3 * PATIENCE  # seconds (ours): more than a supervisor takes that has not been stopped


class SupervisorLink:
    """`control` is the worker's end of the socketpair; `pid` the supervisor."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.lost = False
        self.pid = pid
        self._control = control
        self._number = 0
        self._groups: list[JobGroup] = []  # that it has left
        self._processes: dict[int, JobProcess] = {}  # by number

    @classmethod
    def fork(cls, program: Program) -> Self:
        """Raises `OSError` when the system has no room for a process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
            if pid == 0:
                _become_supervisor(program, theirs)
            helpers.started(pid)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(pid, ours)

    def fileno(self) -> int:
        return self._control.fileno()

    def start(self) -> JobProcess:
        """Raises `OSError` if the supervisor has gone, or takes no more at the moment."""
        memory = ReportMemory.create()
        try:  # all that may fail for want of descriptors, of which the memory must not keep one then
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._number += 1
                number = self._number
                socket.send_fds(self._control, [b"%s %d" % (FORK, number)], [theirs.fileno(), memory.fd])
        finally:
            memory.close_fd()
        ours.setblocking(False)
        self._processes[number] = JobProcess(ours, memory, lambda: self._kill(number))
        return self._processes[number]

    def _kill(self, number: int) -> None:
        self._say(b"%s %d" % (KILL, number))

    def end(self) -> None:
        """Lets job processes be killed that do not end their jobs in time."""
        self._say(END)

    def hear(self) -> list[JobProcess]:
        """Returns the job processes that have ended since the last call."""
        ended: list[JobProcess] = []
        while not self.lost:
            try:
                word, *numbers = self._control.recv(MAXIMUM_WORD).split() or [b""]
            except BlockingIOError:
                break
            except OSError:
                word = b""
            if not word:
                self.lost = True
                ended += self._processes.values()
                for process in ended:
                    process.ended(None)
                self._processes.clear()
                break
            number, value = map(int, numbers)
            process = self._processes.pop(number)
            if word == FAILED:
                process.not_started(reason_of(value))
            else:
                process.ended(value)
            ended.append(process)
        return ended

    def close(self) -> None:
        """Ends the supervisor with all that it has started, and waits for that; may be called again."""
        if not self.pid:
            return
        deadline = monotonic() + CLOSE_PATIENCE
        try:
            self._control.shutdown(socket.SHUT_WR)
            while (left := deadline - monotonic()) > 0:
                if wait_readable([self._control.fileno()], left) and not self._control.recv(MAXIMUM_WORD):
                    break
        except OSError:
            pass  # it has gone
        self._control.close()
        try:
            os.kill(self.pid, signal.SIGKILL)  # it is our child, and not reaped yet
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        helpers.ended(self.pid)
        self._groups = job_group.groups_of(self.pid)  # empty unless it was killed
        for group in self._groups:
            group.kill()
        self.pid = 0

    def remove_groups(self) -> None:
        """After `close`, when the processes that were in them have ended: removes the control groups."""
        for group in self._groups:
            group.remove()

    def _say(self, word: bytes) -> None:
        try:
            self._control.send(word)
        except OSError:
            pass  # it has gone, as `hear` will find


def _become_supervisor(program: Program, control: socket.socket) -> None:
    """The forked child; never returns."""
    status = CRASHED
    try:
        supervisor.run(program, control)
        status = 0
    except BaseException:
        offer_traceback()
    finally:
        os._exit(status)
