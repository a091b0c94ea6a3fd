"""Searches, leases and jobs of one target, with workers made of the real machines; nothing is announced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cexec.client.aio.lease import Lease
from cexec.client.aio.worker_search import Terms
from cexec.client.request import NetworkSettings, Target, Times
from cexec.errors import CexecError, JobCancelledError, LocalError, NoWorkerError, RefusedError
from cexec.net.announcer import Announcer
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.connection.frames import Go
from cexec.python.dispatcher import Dispatcher
from cexec.python.errand import Errand
from cexec.python.job_plan import JobTarget
from cexec.python.keywords import find_target, plan_job
from cexec.python.whole_errand import WholeErrand
from tests.leases import LeasingWorker
from tests.python.clients import run
from tests.waiting import until

if TYPE_CHECKING:
    from cexec.client.aio.worker_search import Choose


def anywhere(keywords: Any) -> JobTarget:
    return find_target({}, {})


def echo(go: Go, stdin: bytes) -> tuple[int, bytes, bytes]:
    return 0, stdin, b""


class Cluster:
    """Workers that come when a search asks for one, in this order; then no more come."""

    def __init__(self, *workers: LeasingWorker, slots: int = 4) -> None:
        self.coming = list(workers)
        self.given: list[LeasingWorker] = []
        self.searches = 0
        self.most_searches = 0
        self.error: CexecError | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self._slots = slots
        terms = Terms(
            OwnerKey(b"s" * 32).client_key(),
            network=NetworkSettings(groups=[], udp_port=0),
            times=Times(accept=0.0, idle=600.0),
            target=Target(),
        )
        self.idle = 0
        self.dispatcher = Dispatcher(terms, "app.pub", self._idle, self._find)

    def _idle(self, _: Dispatcher) -> None:
        self.idle += 1

    async def _find(self, terms: Terms, choose: Choose) -> Lease:
        self.searches += 1
        self.most_searches = max(self.searches, self.most_searches)
        try:
            await self.hold.wait()
            while not self.coming:
                if self.error is not None:
                    raise self.error
                await asyncio.sleep(0.01)
            worker = self.coming.pop(0)
            worker.winner.hello.instance = bytes([len(self.given)] * 16)
            worker.winner.hello.slots = self._slots
            worker.winner.local_address = "there"
            while True:
                try:
                    go = choose(worker.winner.hello, "here")
                    break
                except CexecError:
                    await asyncio.sleep(0.01)
            self.given.append(worker)
            worker.winner.session.go(go)
            return Lease(worker.winner, Announcer([], 0))
        finally:
            self.searches -= 1

    def submit(self, data: bytes = b"", **keywords: Any) -> Submitted:
        return Submitted(self, data, keywords)

    async def close(self) -> None:
        await self.dispatcher.close(JobCancelledError("the end"))
        for worker in [*self.given, *self.coming]:
            worker.winner.connection.close()
            worker.join()


class Submitted(WholeErrand):
    """A job that says when it is over."""

    def __init__(self, cluster: Cluster, data: bytes, keywords: dict[str, Any]) -> None:
        self.done = asyncio.Event()
        super().__init__(plan_job(keywords, anywhere, input=data), self._is_over)
        self.cluster = cluster
        cluster.dispatcher.submit(self)

    def _is_over(self, errand: Errand) -> None:
        self.done.set()

    async def output(self) -> bytes:
        await self.done.wait()
        result: bytes = self.outcome().stdout
        return result

    async def failure(self) -> BaseException:
        await self.done.wait()
        assert self.error is not None
        return self.error


def scene(play: Callable[[], Any]) -> None:
    run(play())


def test_one_lease_carries_one_job_after_the_other_and_is_released_when_none_waits() -> None:
    async def play() -> None:
        worker = LeasingWorker(echo, packed=True)
        cluster = Cluster(worker)
        jobs = [cluster.submit(b"%d" % number) for number in range(20)]
        assert [await job.output() for job in jobs] == [b"%d" % number for number in range(20)]
        await until(lambda: worker.ended)
        assert (worker.ended, worker.jobs, len(cluster.given)) == ("released", 20, 1)
        await until(lambda: cluster.idle)
        assert (cluster.searches, cluster.dispatcher.leases, cluster.dispatcher.waiting) == (0, 0, 0)
        await cluster.close()

    scene(play)


def test_there_are_as_many_searches_as_jobs_that_wait_up_to_a_bound() -> None:
    async def play() -> None:
        cluster = Cluster()
        job = cluster.submit()
        await until(lambda: cluster.searches == 1)
        more = [cluster.submit() for _ in range(50)]
        await until(lambda: cluster.searches > 1)
        assert cluster.most_searches <= 8
        for one in (job, *more):
            cluster.dispatcher.cancel(one, JobCancelledError("not wanted"))
        await until(lambda: cluster.searches == 0)
        assert str(await job.failure()) == "not wanted"
        await cluster.close()

    scene(play)


def test_a_worker_gets_no_more_leases_than_it_has_slots() -> None:
    async def play() -> None:
        workers = [LeasingWorker(echo, again=0) for _ in range(2)]
        for worker in workers:
            worker.winner.hello.instance = bytes(16)
        cluster = Cluster(*workers, slots=1)
        jobs = [cluster.submit(b"a"), cluster.submit(b"b")]
        assert sorted([await job.output() for job in jobs]) == [b"a", b"b"]
        await cluster.close()

    scene(play)


def test_nobody_answers_those_that_have_waited_so_long_and_no_others() -> None:
    async def play() -> None:
        cluster = Cluster()
        cluster.hold.clear()
        first = cluster.submit()
        await until(lambda: cluster.searches == 1)
        await asyncio.sleep(0.01)
        later = cluster.submit()
        await until(lambda: cluster.searches == 2)
        cluster.error = NoWorkerError("nobody")
        cluster.hold.set()
        assert str(await first.failure()) == "nobody"
        assert str(await later.failure()) == "nobody"  # after a search of its own
        await cluster.close()

    scene(play)


def test_no_descriptors_are_left_for_a_search_fails_only_if_nothing_else_goes_on() -> None:
    async def play() -> None:
        cluster = Cluster()
        cluster.error = LocalError("no descriptor is left")
        assert str(await cluster.submit().failure()) == "no descriptor is left"
        await cluster.close()

    scene(play)


def test_a_refused_job_goes_to_another_worker_and_the_end_is_told() -> None:
    async def play() -> None:
        refusing = [LeasingWorker(echo, refuse="no room") for _ in range(2)]
        cluster = Cluster(*refusing, LeasingWorker(echo))
        job = cluster.submit(b"data")
        assert (await job.output(), job.attempts) == (b"data", 3)
        cluster.coming += [LeasingWorker(echo, refuse="no room") for _ in range(5)]
        error = await cluster.submit().failure()
        assert isinstance(error, RefusedError) and "worker w at here refuses the job: no room" in str(error)
        await cluster.close()

    scene(play)


def test_a_lost_worker_costs_an_attempt_and_outputs_are_those_of_one_attempt() -> None:
    async def play() -> None:
        lost = LeasingWorker(lambda go, stdin: (0, b"half", b""), packed=True)
        cluster = Cluster(lost)
        lost.vanish()
        job = cluster.submit(b"data")
        await until(lambda: cluster.given)
        cluster.coming.append(LeasingWorker(echo))
        assert (await job.output(), job.attempts) == (b"data", 2)
        await cluster.close()

    scene(play)


def test_a_job_that_is_cancelled_while_it_waits_behind_another_one_never_counts() -> None:
    async def play() -> None:
        def slow(go: Go, stdin: bytes) -> tuple[int, bytes, bytes]:
            time.sleep(0.1)  # the time that the program takes
            return 0, stdin, b""

        cluster = Cluster(LeasingWorker(slow, packed=True))
        jobs = [cluster.submit(b"%d" % number) for number in range(9)]
        await jobs[0].output()
        await until(lambda: any(job.lease is not None and job.owner is None for job in jobs))
        behind = next(job for job in jobs if job.lease is not None and job.owner is None)
        cluster.dispatcher.cancel(behind, JobCancelledError("not wanted"))
        assert str(await behind.failure()) == "not wanted"
        for job in jobs:
            if job is not behind:
                assert len(await job.output()) == 1
        await cluster.close()

    scene(play)


def test_closing_ends_everything_and_leaves_no_task() -> None:
    async def play() -> None:
        worker = LeasingWorker(echo, pause=3.0)
        cluster = Cluster(worker)
        jobs = [cluster.submit() for _ in range(3)]
        await jobs[0].output()
        await cluster.close()
        assert [type(job.error) for job in jobs[1:]] == [JobCancelledError] * 2
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())


def test_a_file_that_vanishes_between_attempts_fails_its_job_only(tmp_path: Any) -> None:
    async def play() -> None:
        path = tmp_path / "input"
        path.write_bytes(b"there")
        cluster = Cluster()
        gone, kept = cluster.submit(files={"f": path}), cluster.submit(b"kept")
        path.unlink()
        cluster.coming.append(LeasingWorker(echo))
        assert "no such file" in str(await gone.failure())
        assert await kept.output() == b"kept"
        await cluster.close()

    scene(play)


def test_a_search_that_asyncio_ends_is_followed_by_no_other_one() -> None:
    """Regression: after Ctrl-C without a close asyncio told of a task that was destroyed while it was pending."""

    async def play() -> None:
        cluster = Cluster()  # no worker comes
        cluster.submit()
        await until(lambda: cluster.searches)
        ours = {asyncio.current_task()}
        ended = asyncio.all_tasks() - ours
        for task in ended:
            task.cancel()
        await asyncio.wait(ended)
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == ours
        await cluster.close()

    asyncio.run(play())  # without another task around it
