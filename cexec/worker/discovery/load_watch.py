"""The load of this worker, sampled once a second so that a bid costs no measurement.

Contract: the worker's loop waits for `filenos()` until `next_timeout()`, and calls `look(now, ready)` after every wait,
which returns a new `Load` when there is one.  docs/placement.md.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from cexec.protocol.base.host_load import Load
from cexec.system.host.load import Sampler

if TYPE_CHECKING:
    from cexec.system.host.load_command import LoadCommand
    from cexec.system.storage.eventlog import EventLog

SAMPLE_INTERVAL = 1.0  # seconds (ours): a sample reads /proc, which takes too long for every bid


class LoadWatch:
    """The machine's load, and the answers of the owner's --load-command."""

    def __init__(self, log: EventLog, command: LoadCommand | None = None) -> None:
        self.load = Load()
        self._log = log
        self._command = command
        self._sampler = Sampler()
        self._next_sample = monotonic()

    def filenos(self) -> list[int]:
        return [self._command.fileno()] if self._command is not None and self._command.fileno() >= 0 else []

    def next_timeout(self) -> float:
        return self._next_sample if self._command is None else min(self._next_sample, self._command.next_timeout())

    def look(self, now: float, ready: set[int]) -> Load | None:
        """Follows the command, and takes a sample once a second; returns that, else None."""
        command = self._command
        if command is not None:
            if command.fileno() in ready:
                command.receive(now)
            command.handle_timeout(now)
            complaint = command.complaint()
            if complaint is not None:
                self._log.event("load", reason=complaint)
        if now < self._next_sample:
            return None
        self._next_sample = now + SAMPLE_INTERVAL
        self.load = self._sampler.sample(now)
        if command is not None:
            self.load.external = command.value
        return self.load

    def close(self) -> None:
        if self._command is not None:
            self._command.close()
