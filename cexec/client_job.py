"""The client's side of one job on one worker, from GO to the last byte written here.

Contract: `ClientJob.run()` returns the worker's `Exit` when the job is over and every byte that it counts has been
written here (N1), or raises: `RefusedError` when the program was not started, `DisconnectedError` or `ProtocolError`
when the worker failed, `LocalError` when a descriptor of ours did.  docs/protocol.md sections 4 and 7.
"""

from __future__ import annotations

import os

from cexec.errors import CexecError, DisconnectedError, LocalError
from cexec.protocol import frames
from cexec.protocol.frames import READS, WRITES
from cexec.system.fds import EmptySource, FileSource, open_sink, open_source
from cexec.system.pump import BROKEN_PIPE, Pump, Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client_descriptors import Descriptor
    from cexec.client_race import Winner
    from cexec.protocol.frames import Exit, Refusal
    from cexec.protocol.session import Event
    from cexec.system.fds import Source

STANDARD_NAMES = {0: "standard input", 1: "standard output", 2: "standard error"}


class RefusedError(CexecError):
    """The worker did not start the program; `permanent`: no other would."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.permanent = refusal.kind == frames.PERMANENT


class ClientJob:
    """One job on the worker that won."""

    def __init__(self, winner: Winner, descriptors: list[Descriptor], *, no_stdin: bool) -> None:
        self._pump = Pump(winner.connection, winner.records, winner.session)
        self._session = winner.session
        self._sources: dict[int, Source] = {}
        self._exit: Exit | None = None
        for descriptor in descriptors:
            if descriptor.same_as != descriptor.fd:
                continue
            if descriptor.directions & READS:
                empty = no_stdin and descriptor.fd == 0
                self._sources[descriptor.fd] = EmptySource() if empty else open_source(descriptor.fd)
            if descriptor.directions & WRITES:
                self._pump.sinks[descriptor.fd] = open_sink(descriptor.fd)

    def watch(self, fd: int) -> None:
        self._pump.watch(fd)

    def signal(self, number: int) -> None:
        """Passes a signal on to the program, if it runs."""
        if self._session.state == "running":
            self._session.signal(number)

    def run(self, readable: Callable[[set[int]], None] | None = None) -> Exit:
        """Pumps until the job is over.  `readable` is told which watched descriptors are."""
        while self._exit is None:
            for event in self._pump.step():
                self._handle(event)
            if readable is not None and self._pump.ready:
                readable(self._pump.ready)
        while not self._pump.drained:
            for event in self._pump.write_out():
                self._handle(event)
        self._session.release()
        self._pump.say_goodbye()
        self._move_offsets()
        return self._exit

    def _handle(self, event: Event | Trouble) -> None:
        if isinstance(event, Trouble):
            if event.writing and event.error in BROKEN_PIPE:
                return  # as in a local pipeline: the program is told, and its status tells the rest
            name = STANDARD_NAMES.get(event.stream, f"descriptor {event.stream}")
            verb = "write to" if event.writing else "read from"
            raise LocalError(f"cannot {verb} {name}: {os.strerror(event.error).lower()}")
        if event.kind == frames.STARTED:
            # Not before: input that a worker has taken and lost by a refusal could not be given again.
            self._pump.sources.update(self._sources)
        elif event.kind == frames.REFUSED and event.refusal is not None:
            raise RefusedError(event.refusal)
        elif event.kind == frames.WITHDRAW:
            raise DisconnectedError(f"withdrew: {event.text}")
        elif event.kind == frames.BROKEN:
            name = STANDARD_NAMES.get(event.stream, f"descriptor {event.stream}")
            raise DisconnectedError(f"lost {name} of the program: {event.text}")
        elif event.kind == frames.EXIT:
            self._exit = event.exit

    def _move_offsets(self) -> None:
        """What shares our input file goes on where the program stopped reading, as after a local command."""
        for number, source in self._sources.items():
            if isinstance(source, FileSource):
                source.move_offset(self._session.outgoing[number].read)
