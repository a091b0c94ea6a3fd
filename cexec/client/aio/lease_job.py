"""The job that a lease runs: what a worker is told of it, and the sources and sinks that carry its bytes.

Contract: a `LeaseJob` is for one attempt.  `whole_inputs` returns what can be given to a worker in advance; nothing is
read by that.  `take_rest` is called when the job is over and bytes still wait for its sinks: they have to take all of
them at once, which is no more than one credit window for each stream.  `close` closes all sources and sinks.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.frames import CommonStream, Go
from cexec.protocol.connection.options import LEASE, READS, TELL_WANTED, WRITES, YES

if TYPE_CHECKING:
    from cexec.client.attempt.program_plan import ProgramPlan
    from cexec.protocol.connection.frames import Stream
    from cexec.system.io.fds import Sink, Source

STANDARD_STREAMS = (CommonStream(0, READS), CommonStream(1, WRITES), CommonStream(2, WRITES))
LARGEST_AHEAD = 64 * 1024  # bytes (ours) of the input of a job that is given in advance: it is kept at the worker
JOB_IDS = 64  # (ours) that are made at once, because one call for each takes as long as the rest of a short job's GO
_job_ids: list[bytes] = []  # those that are left
os.register_at_fork(after_in_child=_job_ids.clear)  # else parent and child would give the same ones


def new_job_id() -> bytes:
    """Returns random bytes that nobody has had; any thread may call it."""
    while True:
        try:
            return _job_ids.pop()
        except IndexError:
            data = sodium.random_bytes(JOB_IDS * IDENTITY_SIZE)
            _job_ids.extend(data[at : at + IDENTITY_SIZE] for at in range(0, len(data), IDENTITY_SIZE))


class LeaseGo(Go):
    """A GO that is quickly encoded if only its number and attempt differ from the one before, as in most runs."""

    __slots__ = ()

    def encode(self) -> bytes:
        rest = _encode_rest(
            tuple(self.streams), tuple(self.arguments), tuple(self.environment.items()), tuple(self.options.items())
        )
        return self.job_id + self.attempt.to_bytes(2, "big") + rest


@lru_cache(maxsize=1)
def _encode_rest(
    streams: tuple[Stream, ...],
    arguments: tuple[bytes, ...],
    environment: tuple[tuple[str, bytes], ...],
    options: tuple[tuple[str, str], ...],
) -> bytes:
    """Returns what follows the attempt's number in such a GO."""
    go = Go(
        job_id=bytes(IDENTITY_SIZE),
        attempt=0,
        streams=list(streams),
        arguments=list(arguments),
        environment=dict(environment),
        options=dict(options),
    )
    return go.encode()[IDENTITY_SIZE + 2 :]


class LeaseJob:
    """A job for one attempt.  `sources` and `sinks` carry its bytes, by stream number."""

    def __init__(
        self,
        *,
        streams: list[Stream],
        sources: dict[int, Source],
        sinks: dict[int, Sink],
        arguments: list[bytes] | None = None,
        environment: dict[str, bytes] | None = None,
        options: dict[str, str] | None = None,
        program: ProgramPlan | None = None,
    ) -> None:
        """`program`: the program itself, if the worker is sent that, too; its stream and options are added here."""
        self.job_id = new_job_id()
        self.streams = streams
        self.sources = sources
        self.sinks = sinks
        self.arguments = arguments or []
        self.environment = environment or {}
        self.options = options or {}
        self.program = program
        if program is not None:
            self.streams = [*streams, program.stream()]
            self.options = {**self.options, **program.options()}
        self.missing: dict[int, str] = {}  # files that did not come, by stream, with the reasons

    def go(self, attempt: int = 1, *, lease: bool = True, tell_wanted: bool = False) -> Go:
        """Returns the frame that gives the job to a worker.  Without `lease` no other job can follow it.

        `tell_wanted` asks the worker to tell when another client waits for the job's slot.  Only a worker whose hello
        `tells_wanted` knows that; any other one refuses the job.
        """
        options = self.options
        if lease:
            options = {**options, LEASE: YES}
        if tell_wanted:
            options = {**options, TELL_WANTED: YES}
        return LeaseGo(
            job_id=self.job_id,
            attempt=attempt,
            streams=self.streams,
            arguments=self.arguments,
            environment=self.environment,
            options=options,
        )

    def whole_inputs(self) -> dict[int, bytes] | None:
        """Returns all that the program reads, by stream, if that is in memory already and not too much."""
        if self.program is not None:
            return None
        inputs: dict[int, bytes] = {}
        left = LARGEST_AHEAD
        for number, source in self.sources.items():
            data = source.whole(left)
            if data is None:
                return None
            inputs[number] = data
            left -= len(data)
        return inputs

    def take_rest(self) -> None:
        """Sinks that take everything at once need not be told."""

    def close(self) -> None:
        for source in self.sources.values():
            source.close()
        for sink in self.sinks.values():
            sink.close()
