"""The runner as its keeper sees it: a forked process, two pipes, and the page that both share.

Contract: `start` forks; in the new process it never returns.  `send` queues bytes, `flush` writes what fits, `receive`
returns what has come; none of them waits.  `stop` and `resume` hold the process, so that what it has done is certain.
`kill` ends it with the processes of its group; `exited` returns the status once it has ended.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING

from cexec.pool.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PIPE_SIZE = 1024 * 1024  # bytes (ours) that a pipe takes, where the system lets us choose
CHUNK = 1024 * 1024  # bytes (ours) of one read


class RunnerProcess:
    """One runner."""

    def __init__(self, pid: int, calls: int, results: int, page: Page) -> None:
        self.pid = pid
        self.calls = calls
        self.results = results
        self.page = page
        self.taken = 0  # calls that it was given
        self.ready = False
        self.queued = 0  # bytes
        self._queue: deque[memoryview] = deque()

    @classmethod
    def start(cls, close: Iterable[int], run: Callable[[int, int, Page], None]) -> RunnerProcess:
        """`close`: descriptors that the runner must not have.  `run` is given its ends of the pipes."""
        page = Page()
        calls_out, calls_in = _pipe()
        results_out, results_in = _pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become_runner((*close, calls_in, results_out), lambda: run(calls_out, results_in, page))
        os.close(calls_out)
        os.close(results_in)
        os.set_blocking(calls_in, False)
        os.set_blocking(results_out, False)
        return cls(pid, calls_in, results_out, page)

    def send(self, data: bytes | memoryview) -> None:
        if self.calls >= 0:
            self._queue.append(memoryview(data))
            self.queued += len(data)

    def flush(self) -> None:
        try:
            while self._queue:
                written = os.write(self.calls, self._queue[0])
                self.queued -= written
                if written == len(self._queue[0]):
                    self._queue.popleft()
                else:
                    self._queue[0] = self._queue[0][written:]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._queue.clear()  # it has ended, which its keeper will see
            self.queued = 0

    def receive(self) -> bytes:
        """Returns nothing if nothing has come, or if all has ended."""
        try:
            return os.read(self.results, CHUNK)
        except BlockingIOError:
            return b""

    def finish(self) -> None:
        """Lets it end once it has done all calls."""
        if self.calls >= 0 and not self._queue:
            os.close(self.calls)
            self.calls = -1

    def stop(self) -> None:
        """Returns once it stands still, or has ended."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def exited(self) -> int | None:
        """Returns the exit status, or a signal's number below zero; None while it lives.  To be called until then."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        """Closes the pipes of one that has ended; what is left of its group ends, too."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        for fd in (self.calls, self.results):
            if fd >= 0:
                os.close(fd)
        self.page.close()


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # the user has too many large pipes: a smaller one does as well
    return ends


def _become_runner(close: Iterable[int], run: Callable[[], None]) -> None:
    """Ends the process after `run`, without what its keeper would do at its end."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setpgid(0, 0)
        for fd in close:
            os.close(fd)
        run()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
