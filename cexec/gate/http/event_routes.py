"""Server-sent events: each change of a job's state, as it is committed.

Contract: the id of an event is its place among all; a client that comes back with `Last-Event-ID` gets what it has
missed.  If that is not known any more, an event `reset` says that the jobs have to be listed anew.  A comment comes
every HEARTBEAT seconds, so that a reader that has vanished is noticed, and a reader notices the same of us.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from starlette.routing import Route

from cexec.gate.http.gate import gate_of, identity_of
from cexec.gate.http.queries import Query
from cexec.gate.http.stream_answers import StreamAnswer
from cexec.gate.problem import Problem
from cexec.gate.store.job_rows import first_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from cexec.gate.jobs.feed import Feed
    from cexec.gate.store.job_records import EventRecord

HEARTBEAT = 15.0  # seconds (ours)
_MEDIA_TYPE = "text/event-stream"


async def events(request: Request) -> Response:
    """GET /v1/events"""
    gate, identity = gate_of(request), identity_of(request.scope)
    query = Query(request, ["app", "job", "pool", "last_event_id"])
    app, job, pool = query.text("app"), query.text("job"), query.text("pool")
    if app is not None:
        gate.engine.application(identity, app)

    def wanted(event: EventRecord) -> bool:
        return (
            identity.may_see(event.app)
            and (app is None or event.app == app)
            and (job is None or event.job == job)
            and (pool is None or event.pool == pool)
        )

    feed = gate.engine.feed
    last = query.number("last_event_id", None, 0, 1 << 62)
    header = request.headers.get("last-event-id")
    if header is not None:
        if not (header.isascii() and header.isdigit() and len(header) < 20):
            raise Problem(422, "Last-Event-ID is the id of an event")
        last = int(header)
    first = await gate.engine.database.read(partial(first_event))
    missed = last is not None and (last > feed.last or (first is not None and last < first - 1))
    start = feed.last if last is None or missed else last
    return StreamAnswer(_stream(feed, start, wanted, missed=missed), media_type=_MEDIA_TYPE)


async def _stream(
    feed: Feed, last: int, wanted: Callable[[EventRecord], bool], *, missed: bool
) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    if missed:
        yield b"id: %d\nevent: reset\ndata: {}\n\n" % last
    while True:
        found = await feed.after(last)
        text = "".join(format_event(one) for one in found if wanted(one))
        if found:
            last = found[-1].id
        if text:
            yield text.encode()
        elif not found:
            if feed.closed:
                return  # cgate stops: its clients come back, and go on where they were
            if not await feed.wait(HEARTBEAT):
                yield b": still here\n\n"


def format_event(event: EventRecord) -> str:
    """Returns the text of an event (HTML, section 9.2)."""
    data = json.dumps(event.document(), separators=(",", ":"))
    return f"id: {event.id}\nevent: job\ndata: {data}\n\n"


ROUTES = [Route("/v1/events", events, methods=["GET"])]
