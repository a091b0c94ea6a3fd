"""All jobs of a `cgate`: those that run, and those that are kept.

Contract: a job is on the disk before it is given to the cluster, and its end, with its outputs, before anybody is told
of it.  Everything takes the `Caller` of who asks, and raises `Problem` for what he may not do.  A job goes on when
nobody waits for it.  `close` ends all jobs that run, which are then interrupted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cexec.errors import CexecError, JobCancelledError, LocalError
from cexec.gate.access.caller import Caller, TokenRole
from cexec.gate.access.key_rows import forget_old_keys
from cexec.gate.jobs.counters import Counters
from cexec.gate.jobs.endings import ending_of
from cexec.gate.jobs.feed import Feed
from cexec.gate.jobs.job_ids import JobIds
from cexec.gate.jobs.job_request import JobRequest, Workers
from cexec.gate.jobs.live_job import LiveJob
from cexec.gate.jobs.planning import make_plan
from cexec.gate.jobs.stored_errand import StoredErrand
from cexec.gate.jobs.submission import Submission, insert_all, new_record
from cexec.gate.problem import Problem
from cexec.gate.store import job_rows
from cexec.gate.store.job_records import JobRecord, JobState, PoolRecord
from cexec.gate.store.output_log import KeptOutput, OutputLog, sync
from cexec.gate.store.retention import RETENTION, expire, recover
from cexec.protocol.datagrams.requirements import instance_text
from cexec.system.call_threads import in_thread
from cexec.system.printable import printable
from cexec.system.reason import reason_of
from cexec.system.units import show_count

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from cexec.gate.jobs.application import GateApplication
    from cexec.gate.store.database import Database
    from cexec.gate.store.job_records import EventRecord
    from cexec.gate.store.output_files import OutputFiles
    from cexec.python.errand import Errand
    from cexec.python.job_plan import JobPlan

MAX_OUTPUT = 1 << 30  # bytes (ours) that are kept of one output; --max-output
SWEEP, LEAST_SWEEP = 5.0, 0.5  # seconds (ours) between two looks for what is to be removed
KEYS_LOOK = 3600.0  # seconds (ours) between two looks for tokens and sessions that ended long ago
PINNED_LOOK = 1.0  # seconds (ours) between two looks for workers that jobs wait for
FIRST_RETRY, LAST_RETRY = 0.1, 10.0  # seconds (ours) between two tries to bring the end of a job to a full disk
STREAMS = (1, 2)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`retention`: seconds that outputs are kept; `max_output`: bytes that are kept of one."""

    retention: float = RETENTION
    max_output: int = MAX_OUTPUT


class Engine:
    """`live` has the jobs that are not over, by id."""

    def __init__(
        self,
        database: Database,
        files: OutputFiles,
        applications: Sequence[GateApplication],
        settings: EngineSettings,
    ) -> None:
        self.database = database
        self.files = files
        self.applications = {one.name: one for one in applications}
        self.settings = settings
        self.interrupted = recover(database, files, time.time())
        self.live: dict[str, LiveJob] = {}
        self.feed = Feed(database)
        self.counters = Counters()
        self.ids = JobIds()
        self._last_number = database.read_now(job_rows.highest_number)
        self._of_token: Counter[int] = Counter()
        self._pinned: dict[str, set[LiveJob]] = {}  # jobs of pools, by application, until their workers have begun
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to remove what is due."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        """Ends everything; returns when that is on the disk."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for live in list(self.live.values()):
            self.cancel(live, JobState.INTERRUPTED, "cgate was stopped")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.feed.close()
        await asyncio.gather(*(one.close() for one in self.applications.values()))

    # what is there

    async def job(self, identity: Caller, id: str) -> JobRecord:
        """Returns what is known of a job; `Problem` 404."""
        live = self.live.get(id)
        job = live.record if live is not None else await self.database.read(partial(job_rows.find_job, job=id))
        if job is None or not identity.may_see(job.app):
            raise Problem(404, f"there is no job {printable(id)}")
        return job

    async def pool(self, identity: Caller, id: str | int) -> tuple[PoolRecord, list[JobRecord]]:
        """Returns a pool, by its id or its number, and its jobs; `Problem` 404."""
        if isinstance(id, int):
            found = await self.database.read(partial(job_rows.find_numbered_pool, number=id))
        else:
            found = await self.database.read(partial(job_rows.find_pool, pool=id))
        if found is None or not identity.may_see(found[0].app):
            raise Problem(404, f"there is no pool {printable(str(id))}")
        return found

    def cancel(
        self, live: LiveJob, state: JobState = JobState.CANCELLED, reason: str = "the job was cancelled"
    ) -> None:
        """Ends a job; nothing if its end has come meanwhile."""
        assert live.dispatcher is not None
        if live.ending is None:
            live.ending = state, reason
        live.dispatcher.cancel(live.errand, JobCancelledError(reason))

    # submitting

    def application(self, identity: Caller, name: str) -> GateApplication:
        """Returns the application; `Problem` 404 for one that is not served, 403 for one that is not for the token."""
        found = self.applications.get(name)
        if found is None:
            raise Problem(404, f"no application is called {name}; see /v1/apps")
        identity.require_application(name)
        return found

    async def submit(self, identity: Caller, request: JobRequest, key: str | None = None) -> Submission:
        """Starts a job or a pool; with a `key` that was used before it returns what that has led to."""
        started = False
        try:
            identity.require(TokenRole.SUBMITTER)
            application = self.application(identity, request.app)
            if request.workers is Workers.ANY:
                targets: dict[bytes, str] = {b"": ""}
            elif request.workers is Workers.ALL:
                await application.workers()
                targets = application.names()
            else:
                targets = await application.resolve(request.workers)
            if not targets:
                raise Problem(503, f"no worker of {request.app} is there; nothing was started")
            submission = await self._submit_to(identity, request, key, application, targets)
            started = submission.fresh
            return submission
        finally:
            if not started:
                self.files.remove(path.rpartition("/")[2] for path in request.paths())

    async def _submit_to(
        self, identity: Caller, request: JobRequest, key: str | None, application: GateApplication,
        targets: dict[bytes, str],
    ) -> Submission:  # fmt: skip
        self._check_room(identity, len(targets))
        now = time.time()
        pool = None
        if request.workers is not Workers.ANY:
            self._last_number = max(self._last_number + 1, int(now * 1000))
            pool = PoolRecord(self.ids.next(), self._last_number, application.name, identity.name, now, None)
        plans: dict[str, tuple[JobPlan, JobRecord]] = {}
        # Counted from now on, so that requests that come together do not exceed the limit together.
        self._of_token[identity.token] += len(targets)
        begun = False
        try:
            for instance in targets:
                id = self.ids.next()
                plan = make_plan(request, id, instance, self.files)
                job = new_record(id, identity, request, pool, instance, application.label(instance), now)
                plans[id] = plan, job
            jobs = [job for _, job in plans.values()]
            led = job_rows.Reference(request.digest(), None if pool else jobs[0].id, pool.id if pool else None)
            found, events = await self.database.write(partial(insert_all, identity.name, key, led, jobs, pool, now))
            if found is not None:
                return await self._known(identity, led, found)
            for plan, job in plans.values():
                self._begin(LiveJob(job, identity.token, self._give_up), plan, application, request)
            begun = True
        finally:
            if not begun:
                self._of_token[identity.token] -= len(targets)
                for plan, _ in plans.values():
                    plan.close()
        for event in events:
            self.feed.publish(event)
        return Submission(True, jobs, pool)

    def _check_room(self, identity: Caller, count: int) -> None:
        if self._closed:
            raise Problem(503, "cgate is being stopped")
        if self._of_token[identity.token] + count > identity.most_jobs:
            had = show_count(self._of_token[identity.token], "job")
            raise Problem(429, f"this token has {had} queued or running, and may have {identity.most_jobs}",
                          headers={"Retry-After": "1"})  # fmt: skip

    async def _known(self, identity: Caller, led: job_rows.Reference, found: job_rows.Reference) -> Submission:
        """Returns what this key has led to before."""
        if found.request != led.request:
            raise Problem(422, "this Idempotency-Key came with another request before")
        if found.pool is not None:
            pool, jobs = await self.pool(identity, found.pool)
            return Submission(False, jobs, pool)
        assert found.job is not None
        return Submission(False, [await self.job(identity, found.job)])

    def _begin(self, live: LiveJob, plan: JobPlan, application: GateApplication, request: JobRequest) -> None:
        job = live.record
        plan.closers.append(partial(self.files.remove, [path.rpartition("/")[2] for path in request.paths()]))
        client = application.client
        client.check_usable()
        errand = StoredErrand(
            plan,
            partial(self._ended, live, application, request),
            logs={stream: OutputLog(self.files, job.id, stream) for stream in STREAMS},
            streamed=request.stdin is None,
            limit=self.settings.max_output,
            moved=partial(self._moved, live),
        )
        self.live[job.id] = live
        live.begin(errand, client.dispatcher(plan))
        if job.pool is not None:
            self._pinned.setdefault(application.name, set()).add(live)
            if len(self._pinned[application.name]) == 1:
                self._spawn(self._watch_pinned(application, self._pinned[application.name]))

    # the course of a job

    def _moved(self, live: LiveJob, runs: bool) -> None:
        """The program runs, or its worker was lost and another attempt follows."""
        errand, now = live.errand, time.time()
        job = replace(
            live.latest,
            state=JobState.RUNNING if runs else JobState.QUEUED,
            worker=errand.worker if runs else live.latest.worker if live.latest.pool else None,
            instance=instance_text(errand.lease.hello.instance) if errand.lease else live.latest.instance,
            attempts=errand.attempts,
            started=now if runs else None,
        )
        if live.move(job):
            self._spawn(self._note(live, job, now))

    async def _watch_pinned(self, application: GateApplication, pinned: set[LiveJob]) -> None:
        """Ends jobs that wait for a worker which has gone: nobody else may have them."""
        while pinned and not self._closed:
            await asyncio.sleep(PINNED_LOOK)
            pinned -= {live for live in pinned if live.latest.state is not JobState.QUEUED}
            try:
                there = {instance_text(instance) for instance in await application.workers()} if pinned else set()
            except (CexecError, OSError):
                continue
            for live in [live for live in pinned if live.latest.instance not in there]:
                self.cancel(live, JobState.FAILED, "its worker has gone")

    async def _note(self, live: LiveJob, job: JobRecord, now: float) -> None:
        try:
            event = await self.database.write(partial(job_rows.update_job, job=job, at=now))
        except LocalError:
            return  # its end will be tried until it is on the disk
        live.tell(job)
        self.feed.publish(event)

    def _ended(self, live: LiveJob, application: GateApplication, request: JobRequest, errand: Errand) -> None:
        """The errand is over: brings that to the disk."""
        ending = ending_of(live.errand, live.ending)
        job = replace(
            live.latest,
            state=ending.state,
            exit_status=ending.exit_status,
            signal=ending.signal,
            reason=None if ending.reason is None else self._harmless(ending.reason, application),
            attempts=errand.attempts,
            ended=time.time(),
            files={name: number for number, name in enumerate(request.fetch) if name in errand.files},
        )
        if not live.move(job):
            return
        for log in live.errand.logs.values():
            log.close()
        paths = [self.files.fetched(job.id, number) for number in job.files.values()]
        self._spawn(self._finish(live, job, paths, len(request.stdin or b"")))

    async def _finish(self, live: LiveJob, job: JobRecord, paths: list[str], received: int) -> None:
        logs = live.errand.logs
        kept: dict[int, KeptOutput] = {}
        for stream, log in logs.items():
            try:
                kept[stream] = log.finish() if log.in_memory else await in_thread(log.finish)
            except OSError as error:
                kept[stream] = log.give_up()
                reason = f"an output cannot be kept: {reason_of(error)}"
                job = replace(job, state=JobState.FAILED, exit_status=None, reason=job.reason or reason)
        if live.errand.no_room:
            kept = {stream: log.give_up() for stream, log in logs.items()}  # its end could not be kept either
        if paths:
            await in_thread(_sync_all, [*paths, self.files.directory])
        event = await self._write_end(job, kept)
        live.outputs.update(kept)
        for log in logs.values():
            log.release()
        del self.live[job.id]
        self._of_token[live.token] -= 1
        self.counters.ended(job, received + live.received, {stream: one.size for stream, one in kept.items()})
        if event is not None:
            live.tell(job)
            self.feed.publish(event)

    async def _write_end(self, job: JobRecord, kept: dict[int, KeptOutput]) -> EventRecord | None:
        """Tries until it is on the disk: nobody is told otherwise.  None if `cgate` stops before."""
        pause = FIRST_RETRY
        while True:
            try:
                return await self.database.write(
                    partial(job_rows.update_job, job=job, at=job.ended or 0.0, outputs=list(kept.values()))
                )
            except LocalError:
                if self._closed:
                    return None
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_RETRY)

    def _harmless(self, reason: str, application: GateApplication) -> str:
        return application.harmless(reason).replace(self.files.directory, "the state")

    def _give_up(self, live: LiveJob) -> None:
        self.cancel(live, reason="nobody has sent the rest of its input")

    def _spawn(self, what: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        keys_at = time.monotonic() + KEYS_LOOK
        while True:
            try:
                if time.monotonic() >= keys_at:
                    keys_at += KEYS_LOOK
                    await self.database.write(partial(forget_old_keys, now=time.time()))
                more = await expire(self.database, self.files, time.time(), self.settings.retention)
            except LocalError:
                more = False  # a full disk, for example: later
            if not more:
                await asyncio.sleep(min(SWEEP, max(LEAST_SWEEP, self.settings.retention)))


def _sync_all(paths: list[str]) -> None:
    for path in paths:
        sync(path)
