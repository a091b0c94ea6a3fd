"""Programs that clients bring: `cservice --allow-programs APP EXE ARG...`, where EXE or an ARG contains `{program}`.

Contract: `check_program` returns the refusal of a job whose program cannot be run; `obtain` takes the program from the
cache, or asks the client for it and puts it there; `fill` makes the command that runs it.  `CacheProblem` and `OSError`
as in `system.storage.program_cache`.  docs/protocol.md section 4.2 (programs).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cexec.protocol.connection import program_offer
from cexec.protocol.connection.frames import FIRST_FILE, HERE, PERMANENT, Refusal
from cexec.protocol.connection.options import PROGRAM_STREAM, READS
from cexec.system.io.fds import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.net.pump import Pump
    from cexec.protocol.connection.frames import Go, Stream
    from cexec.protocol.connection.program_offer import ProgramOffer
    from cexec.system.storage.program_cache import HeldProgram, ProgramCache

PLACE = "{program}"  # stands for the program's path in EXE and ARGs


class DraftSink(Sink):
    """Takes as many bytes as were announced, and no more: a client must not fill the disk."""

    def __init__(self, fd: int, size: int) -> None:
        super().__init__(fd, shared=True)
        self._size = size

    def write(self, view: memoryview) -> int:
        if self.count + len(view) > self._size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return super().write(view)


class SentPrograms:
    """The cache of a worker that allows programs, and the platform that they must be for."""

    def __init__(self, cache: ProgramCache, platform: str) -> None:
        self.cache = cache
        self.platform = platform


def own_platform(attributes: dict[str, str]) -> str:
    """Returns the platform of the machine with these attributes."""
    return f"{attributes['os']}-{attributes['arch']}"


def check_program(go: Go, programs: SentPrograms | None) -> Refusal | None:
    """Returns the refusal if the job's program does not fit this worker, or if one is missing."""
    try:
        found = program_offer.parse(go.options)
    except ValueError as error:
        return Refusal(PERMANENT, str(error))
    if found is None:
        if programs is None:
            return None
        return Refusal(PERMANENT, "this worker runs programs that its clients bring: cexec --program PLATFORM=FILE")
    if programs is None:
        return Refusal(HERE, "programs are not allowed here; the owner can allow them with: cservice --allow-programs")
    number, offers = found
    if program_stream(go) is None:
        return Refusal(PERMANENT, f"the program is said to be stream {number}, which does not carry one")
    if program_offer.choose(offers, programs.platform) is None:
        has = ", ".join(sorted(one.platform for one in offers))
        return Refusal(HERE, f"{program_offer.NONE_FITS} {programs.platform}, only for {has}")
    return None


def program_stream(go: Go) -> Stream | None:
    """Returns the stream that carries the program, if the job has one."""
    text = go.options.get(PROGRAM_STREAM, "")
    found = [stream for stream in go.streams if stream.number >= FIRST_FILE and str(stream.number) == text]
    return found[0] if found and found[0].directions == READS else None


def files_of(go: Go) -> list[Stream]:
    """Returns the streams that are files in the job's directory."""
    program = program_stream(go)
    return [stream for stream in go.streams if stream.number >= FIRST_FILE and stream is not program]


def obtain(pump: Pump, go: Go, programs: SentPrograms, step: Callable[[], None]) -> HeldProgram:
    """Returns the program for this worker's platform, if `check_program` has not refused it.  `step` pumps."""
    found = program_offer.parse(go.options)
    assert found is not None
    number, offers = found
    offer = program_offer.choose(offers, programs.platform)
    assert offer is not None
    held = programs.cache.use(offer.hash)
    if held is not None:
        pump.session.close_reader(number)
        return held
    return _receive(pump, number, offer, programs.cache, step)


def fill(command: Sequence[str], path: str) -> list[str]:
    """Returns the command with the program's path in its place."""
    return [word.replace(PLACE, path) for word in command]


def _receive(
    pump: Pump, number: int, offer: ProgramOffer, cache: ProgramCache, step: Callable[[], None]
) -> HeldProgram:
    draft = cache.draft(offer.size)
    try:
        pump.sinks[number] = sink = DraftSink(draft.fd, offer.size)
        pump.session.ask_for_program(offer.platform)
        while number in pump.sinks:
            step()
        return cache.keep(draft, offer.hash, sink.count)
    finally:
        draft.discard()
