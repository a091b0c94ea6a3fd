"""StreamOutput: an output of a job, from an offset on, and live.

Contract: `stream_output` writes messages with up to CHUNK bytes.  It returns at the end of what there is, or, with
`follow`, when the job is over; the last message then has the job, whose state says if the output is whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.gate.problem import Problem
from cexec.gate.rpc.job_messages import STREAMS, job_message
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.store.output_log import behind_the_end, check_kept

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cexec.gate.access.caller import Caller
    from cexec.gate.jobs.desk import Desk
    from cexec.gate.jobs.engine import Engine

    Tell = Callable[[wire.StreamOutputResponse], Awaitable[None]]

CHUNK = 256 * 1024  # bytes (ours): with less than 64 KiB a message, throughput falls to a third


async def stream_output(
    engine: Engine, desk: Desk, caller: Caller, request: wire.StreamOutputRequest, tell: Tell
) -> None:
    """Writes what a request asks for."""
    id, stream, offset = request.id, STREAMS[request.stream], request.offset
    output = await desk.output(caller, id, stream)
    check_kept(offset, output.began)
    if offset > output.end and (output.ended or not request.follow):
        raise Problem(416, behind_the_end(output.end))
    if not request.follow:
        stop = output.end
        while offset < stop:
            chunk = output.read(offset, min(CHUNK, stop - offset))
            if not chunk:
                raise Problem(410, "the output was removed meanwhile")
            await tell(wire.StreamOutputResponse(offset=offset, data=chunk))
            offset += len(chunk)
        return
    while True:
        live = engine.live.get(id)
        output = live.outputs[stream] if live is not None else await desk.output(caller, id, stream)
        chunk = output.read(offset, CHUNK)
        if chunk:
            await tell(wire.StreamOutputResponse(offset=offset, data=chunk))
            offset += len(chunk)
        elif not output.ended:
            await output.wait(offset)
        elif live is not None and not live.record.over:
            await live.wait()
        else:
            break
    job = await engine.job(caller, id)
    await tell(wire.StreamOutputResponse(offset=offset, job=job_message(job)))
