"""A job whose client is there while it runs: he writes its input and reads its outputs as they come.

Contract: `start_pipe` starts a job.  While an `OutputReader` is open, the program waits if the
reader is WINDOW bytes behind.  When it is closed, the output goes on to be kept, and anybody can read it from there.
The input is written by `LiveJob.take_input`, the end is `LiveJob.wait`, and `Engine.cancel` ends the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.gate.access.caller import Caller
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.jobs.job_request import JobRequest
    from cexec.gate.jobs.live_job import LiveJob

CHUNK = 256 * 1024  # bytes (ours) that a reader is given at once
NOT_WAITED_FOR = 1 << 62  # an offset beyond all: nobody is waited for, and the oldest bytes may be dropped


class OutputReader:
    """Somebody who reads along from `offset` on.  Leaving its `with` block lets the output go on without him."""

    def __init__(self, live: LiveJob, stream: int, offset: int = 0) -> None:
        self.offset = offset
        self._live = live
        self._stream = stream
        live.errand.read_along(stream, offset)

    def __enter__(self) -> OutputReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.errand.read_along(self._stream, None)

    async def next(self, size: int = CHUNK) -> bytes:
        """Returns the next bytes, some at least; b"" at the end.  What was returned before counts as read."""
        live, stream = self._live, self._stream
        while True:
            output = live.outputs[stream]
            live.errand.read_along(stream, self.offset)
            chunk = output.read(self.offset, size)
            if chunk:
                self.offset += len(chunk)
                return chunk
            if not output.ended:
                await output.wait(self.offset)
            elif output is live.outputs[stream]:  # else the job has ended meanwhile, and its output is kept elsewhere
                return b""


async def start_pipe(engine: Engine, identity: Caller, request: JobRequest, *, unread: tuple[int, ...] = ()) -> LiveJob:
    """Starts a job whose client is there; its input is a stream if `request.stdin` is None.

    `unread`: outputs that nobody will read along; their oldest bytes are dropped if need be.
    """
    (job,) = (await engine.submit(identity, request)).jobs
    live = engine.live[job.id]
    for stream in live.outputs:
        live.errand.read_along(stream, NOT_WAITED_FOR if stream in unread else 0)
    return live
