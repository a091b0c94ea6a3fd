"""`cservice --load-command CMD`: a user's program that says how busy this host is, a GPU for example.

Contract: CMD is run once a second, without a shell and never two at a time; the first word that it prints is the load,
0 idle to 1 full, more is allowed.  `value` is None until it has answered, and while it fails.  Non-blocking: the driver
waits for `fileno` (-1: nothing to wait for) to be readable and then calls `receive`, and calls `handle_timeout` at
`next_timeout`.  Raises `UsageError` from the constructor only.
"""

from __future__ import annotations

import math
import os
import shlex
import signal

from cexec.errors import UsageError
from cexec.system.process import helpers, process
from cexec.system.reason import reason_of

INTERVAL = 1.0  # seconds (ours) from one start to the next, or more when the command takes longer
DEADLINE = 5.0  # seconds (ours) that it may take
REAP_INTERVAL = 0.02  # seconds (ours) between two looks at a command that has closed its output but not ended
MAXIMUM_OUTPUT = 4096  # bytes (ours) that are looked at


def parse_load(output: bytes) -> float:
    """Returns the number that a command has printed; raises `ValueError` that says what stands in its place."""
    words = output.split()
    try:
        value = float(words[0]) if words else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        said = repr(words[0][:40])[2:-1] if words else "nothing"  # it may hold anything
        raise ValueError(f"prints {said} instead of a number from 0 (idle) to 1 (full)")
    return value


class LoadCommand:
    """Runs the command, and keeps what it said last."""

    __slots__ = ("_complaint", "_executable", "_failing", "_fd", "_output", "_start", "_words", "due", "pid", "value")

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--load-command {command}: {error}") from None
        if not self._words:
            raise UsageError("--load-command needs the name of a program")
        self._executable = process.resolve(self._words[0], os.environ.get("PATH"))
        self.value: float | None = None
        self._complaint: str | None = None
        self._failing = False
        self.pid = 0
        self._fd = -1
        self._output = bytearray()
        self._start = 0.0
        self.due = -math.inf

    def fileno(self) -> int:
        return self._fd

    def next_timeout(self) -> float:
        return self.due

    def handle_timeout(self, now: float) -> None:
        """Start the command, look whether it has ended, or end it when it takes too long."""
        if now < self.due:
            return
        if not self.pid:
            self._run(now)
        elif now - self._start >= DEADLINE:
            process.signal_group(self.pid, signal.SIGKILL)
            self._fail(f"takes longer than {DEADLINE:.0f} s")
            self._stop_reading()
            self._reap(now)
        else:
            self._reap(now)

    def receive(self, now: float) -> None:
        """Take what it printed."""
        try:
            data = os.read(self._fd, MAXIMUM_OUTPUT)
        except BlockingIOError:
            return
        if data:
            self._output += data[: MAXIMUM_OUTPUT - len(self._output)]
            return
        self._stop_reading()
        self._reap(now)

    def complaint(self) -> str | None:
        """Returns a line for the log when the command begins to fail or works again; None if nothing has changed."""
        complaint, self._complaint = self._complaint, None
        return complaint

    def close(self) -> None:
        """End a command that is running; it is not waited for, because this process is about to end."""
        self._stop_reading()
        if self.pid:
            process.signal_group(self.pid, signal.SIGKILL)

    def _run(self, now: float) -> None:
        self._start = now
        self.due = now + INTERVAL
        self._output.clear()
        reader = -1
        try:
            with open(os.devnull, "r+b", buffering=0) as null:
                reader, writer = os.pipe()
                try:
                    descriptors = {0: null.fileno(), 1: writer, 2: null.fileno()}
                    words, environment = self._words, os.environb
                    self.pid = process.spawn(self._executable, words, environment, descriptors, process.become_ordinary)
                    helpers.started(self.pid)
                finally:
                    os.close(writer)
        except OSError as error:
            if reader != -1:
                os.close(reader)
            self._fail(f"cannot be started: {reason_of(error)}")
            return
        os.set_blocking(reader, False)
        self._fd = reader
        self.due = now + DEADLINE

    def _reap(self, now: float) -> None:
        """If it has ended take its answer, else look again soon; one that still prints has until its deadline."""
        if self._fd != -1:
            return
        status: int | None
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else took its exit status, which may have been a failure's
            pid, status = self.pid, None
        if not pid:
            self.due = now + REAP_INTERVAL
            return
        helpers.ended(self.pid)
        self.pid = 0
        self.due = max(now, self._start + INTERVAL)
        if now - self._start >= DEADLINE:
            return
        if status is None:
            self._fail("has ended, and its exit status is lost")
            return
        code = os.waitstatus_to_exitcode(status)
        if code:
            self._fail(f"was killed by signal {-code}" if code < 0 else f"exits {code}")
        else:
            self._parse()

    def _parse(self) -> None:
        try:
            self.value = parse_load(bytes(self._output))
        except ValueError as error:
            self._fail(str(error))
            return
        if self._failing:
            self._failing = False
            self._complaint = f"load command {self._words[0]} works again"

    def _fail(self, reason: str) -> None:
        self.value = None
        if not self._failing:
            self._failing = True
            self._complaint = f"load command {self._words[0]} {reason}; the measured load is used"

    def _stop_reading(self) -> None:
        if self._fd != -1:
            os.close(self._fd)
            self._fd = -1
