"""The Python API as a driver of the client, for the cases that all drivers share: a job of `run`, and one of `start`.

Contract: as in `tests/client/drivers.py`.  The connection is the one that the test plays, in place of a search; the job
ends with its first attempt, and the outcome has the error of that, without the words that say why there is no other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cexec.client.aio.lease import Lease
from cexec.client.aio.lease_job import STANDARD_STREAMS, LeaseJob
from cexec.client.aio.worker_search import Terms
from cexec.client.request import NetworkSettings, Target, Times
from cexec.errors import CexecError, RefusedError, WithdrawnError
from cexec.net.announcer import Announcer
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.connection.frames import Stream
from cexec.python.dispatcher import Dispatcher
from cexec.python.errand import Errand
from cexec.python.job_plan import JobPlan, JobTarget
from cexec.python.keywords import find_target, plan_job, set_input
from cexec.python.started_job import StreamedErrand
from cexec.python.whole_errand import WholeErrand
from cexec.system.io.fds import Sink, Source
from tests.client.drivers import PATIENCE, Failing, Outcome, Peer, Setting

if TYPE_CHECKING:
    from cexec.client.aio.worker_search import Choose

Play = Callable[[Peer], None]


def anywhere(keywords: Any) -> JobTarget:
    return find_target({}, {})


class FirstAttempt:
    """Ends a job with its first attempt, whose error is `reason`.  Mixed into an errand."""

    reason: CexecError | None = None
    known_once = False

    def keep(self, lease: Lease, error: CexecError) -> bool:
        assert isinstance(self, Errand)
        self.reason, self.known_once = error, self.once or lease.once
        self.fail(error)
        return False

    def withdrawn(self, lease: Lease, error: WithdrawnError) -> bool:
        return self.keep(lease, error)

    def refused(self, lease: Lease, error: RefusedError) -> bool:
        return self.keep(lease, error)

    def lost(self, lease: Lease, error: CexecError) -> bool:
        return self.keep(lease, error)

    def streams(self) -> list[Stream]:
        """Only those that the other drivers have, too."""
        return list(STANDARD_STREAMS[:2])


class WholeAttempt(FirstAttempt, WholeErrand):
    """A job of `run`."""

    def __init__(self, setting: Setting, plan: JobPlan, ended: Callable[[Errand], None], fails: int) -> None:
        super().__init__(plan, ended)
        self.fails, self.program = fails, setting.program

    def make_sinks(self) -> dict[int, Sink]:
        sinks = super().make_sinks()
        return {1: Failing(self.fails) if self.fails else sinks[1]}

    def make_job(self, streams: list[Stream], sources: dict[int, Source], sinks: dict[int, Sink]) -> LeaseJob:
        return LeaseJob(streams=streams, sources=sources, sinks=sinks, program=self.program)


class StreamedAttempt(FirstAttempt, StreamedErrand):
    """A job of `start`."""

    def __init__(self, setting: Setting, plan: JobPlan, owner: Any, fails: int) -> None:
        super().__init__(plan, owner, {}, ())
        self.add_input(0)
        self.fails, self.program = fails, setting.program

    def make_sinks(self) -> dict[int, Sink]:
        return {1: Failing(self.fails) if self.fails else super().make_sinks()[1]}

    def make_job(self, streams: list[Stream], sources: dict[int, Source], sinks: dict[int, Sink]) -> LeaseJob:
        job = super().make_job(streams, sources, sinks)
        if self.program is not None:
            job = type(job)(streams=streams, sources=sources, sinks=sinks, program=self.program)
        return job


async def perform(
    setting: Setting, play: Play, start: Callable[[JobPlan, asyncio.Future[None]], WholeAttempt | StreamedAttempt]
) -> tuple[WholeAttempt | StreamedAttempt, threading.Thread]:
    """Lets a dispatcher carry the job out on the connection of the test."""
    fetch = {"result": setting.fetched} if setting.files is not None and setting.program is None else {}
    plan = plan_job({"fetch": fetch, "retries": 0}, anywhere, input=None)
    set_input(plan, setting.stdin)
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    errand = start(plan, over)
    threads: list[threading.Thread] = []

    async def find(terms: Terms, choose: Choose) -> Lease:
        if threads:
            await asyncio.Event().wait()  # there is one connection only
        offer: Any = SimpleNamespace(instance=bytes(16), name="w", slots=1, once=False, tells_wanted=False)
        go = choose(offer, "here")
        winner, thread = setting.connect(go.streams, play)
        winner.hello.instance = bytes(16)
        threads.append(thread)
        return Lease(winner, Announcer([], 0), setting.progress)

    terms = Terms(
        OwnerKey(b"s" * 32).client_key(),
        network=NetworkSettings(groups=[], udp_port=0),
        times=Times(accept=0.0, idle=600.0),
        target=Target(),
    )
    dispatcher = Dispatcher(terms, "app.pub", lambda _: None, find)
    dispatcher.submit(errand)
    try:
        await asyncio.wait_for(over, PATIENCE)
    finally:
        await dispatcher.close(CexecError("the test is over"))
    return errand, threads[0]


def conclude(outcome: Outcome, errand: WholeAttempt | StreamedAttempt, thread: threading.Thread) -> Outcome:
    """Fills in what both kinds have in common."""
    outcome.exit = errand.result
    outcome.once = errand.known_once or errand.once
    if errand.reason is not None:
        outcome.error = errand.reason
    elif isinstance(errand.error, CexecError):
        outcome.error = errand.error
        outcome.missing = [str(errand.error)] if errand.result is not None else []
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return outcome


def run_whole(setting: Setting, play: Play, fails: int) -> Outcome:
    """The driver of `run` and `map`."""
    outcome = Outcome()

    def start(plan: JobPlan, over: asyncio.Future[None]) -> WholeAttempt:
        return WholeAttempt(setting, plan, lambda _: over.set_result(None), fails)

    errand, thread = asyncio.run(perform(setting, play, start))
    assert isinstance(errand, WholeAttempt)
    if errand.error is None:
        outcome.output = errand.outcome().stdout
    return conclude(outcome, errand, thread)


def run_streamed(setting: Setting, play: Play, fails: int) -> Outcome:
    """The driver of `start`."""
    outcome = Outcome()

    async def converse() -> tuple[WholeAttempt | StreamedAttempt, threading.Thread]:
        tasks: list[asyncio.Task[None]] = []

        def start(plan: JobPlan, over: asyncio.Future[None]) -> StreamedAttempt:
            def ended(errand: Errand) -> None:
                one.inputs[0].refuse("the job has ended")
                one.outputs[1].end(errand.error)
                over.set_result(None)

            owner = SimpleNamespace(
                ended=ended,
                program_began=lambda lease: None,
                program_lost=lambda: None,
                slot_wanted=asyncio.Event(),
            )
            one = StreamedAttempt(setting, plan, owner, fails)
            tasks.extend((asyncio.create_task(write(one)), asyncio.create_task(read(one))))
            return one

        performed = await perform(setting, play, start)
        await asyncio.gather(*tasks)
        return performed

    async def write(errand: StreamedAttempt) -> None:
        try:
            await errand.inputs[0].write(setting.stdin)
            errand.inputs[0].close()
        except BrokenPipeError:
            pass  # the job has ended, or reads no more

    async def read(errand: StreamedAttempt) -> None:
        try:
            async for chunk in errand.outputs[1]:
                outcome.output += chunk
        except CexecError:
            pass  # which the outcome has

    errand, thread = asyncio.run(converse())
    return conclude(outcome, errand, thread)
