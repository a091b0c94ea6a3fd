"""Workers without a network and a clock that jumps, for tests of the real coordinator.

Contract: `Workers(program)` stands for the workers of a cluster; its `find_worker` and `FakeLease` have the public
names of `client.aio`.  `program(lease, job, go)` is what runs: a coroutine that returns an `Exit` or raises what a
lease raises.  `in_virtual_time(coroutine)` runs a coroutine in a loop whose clock moves only when everybody waits, so
that an hour takes no time; `clock()` is then its time, and `stop_clock_for` lets much of it pass at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from cexec.client.aio.lease_job import LeaseJob
from cexec.client.request import Target, Times
from cexec.errors import CexecError, NoWorkerError, WithdrawnError
from cexec.protocol.connection.frames import EXITED, Exit, Go

T = TypeVar("T")
BEGIN = 1000.0  # seconds on the clock when a loop begins
GLANCE = 0.002  # real seconds that a thread has to say something before the clock moves
RETRY = 0.05  # seconds between two looks at the workers of one search


class JumpingSelector(selectors.DefaultSelector):
    """Moves the clock instead of waiting, unless there is something to read: a thread has finished."""

    now = BEGIN

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        found = super().select(min(timeout, GLANCE))
        if not found:
            self.now += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a `JumpingSelector`."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def jump(self, seconds: float) -> None:
        self._jumping.now += seconds


def clock() -> float:
    """The time of the loop that runs."""
    return asyncio.get_running_loop().time()


def stop_clock_for(seconds: float) -> None:
    """Makes it so much later at once, as for a process that was stopped."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.jump(seconds)


def in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def exited(status: int = 0) -> Exit:
    return Exit(kind=EXITED, status=status, endings=[])


def read_input(job: LeaseJob) -> bytes:
    """All of a program's standard input."""
    view = memoryview(bytearray(1 << 16))
    data = b""
    while size := job.sources[0].read_into(view):
        data += view[:size]
    return data


class FakeWorker:
    """`hello` is what it says of itself, `taken` counts its slots that are in use."""

    def __init__(self, name: str, slots: int, *, once: bool = False) -> None:
        attributes = {"once": ""} if once else {}
        self.hello: Any = SimpleNamespace(
            name=name, slots=slots, instance=name.encode().ljust(16), attributes=attributes, once=once
        )  # fmt: skip
        self.address = "10.0.0.1"
        self.taken = 0
        self.answers = True
        self.rests_until = 0.0


Program = Callable[["FakeLease", LeaseJob, Go], Awaitable[Exit]]


class FakeLease:
    """What the coordinator has of a worker; `complaints` and `signals` are what it said, with the time.

    `blamed`: so many of the complaints are about the worker.  `taken_back`: the jobs that it was asked for.
    """

    def __init__(self, workers: Workers, worker: FakeWorker, go: Go) -> None:
        self.hello = worker.hello
        self.address = worker.address
        self.worker = worker
        self.over = False
        self.ended = ""
        self.complaints: list[str] = []
        self.blamed = 0
        self.signals: list[tuple[float, int]] = []
        self.signalled = asyncio.Event()
        self.jobs = 0
        self.given_ahead = 0  # jobs that waited behind another one
        self._ahead: dict[LeaseJob, Go] = {}
        self.taken_back: set[LeaseJob] = set()
        self._workers = workers
        self._go = go
        worker.taken += 1

    @property
    def once(self) -> bool:
        return "once" in self.hello.attributes

    async def offered(self, patience: float) -> bool:
        await asyncio.sleep(min(patience, self._workers.confirms_after))
        return self._workers.confirms_after <= patience and not self.over

    def give(self, go: Go) -> None:
        self._go = go

    async def run(
        self,
        job: LeaseJob,
        began: Callable[[bool], None],
        *,
        beside: Callable[[], None] = lambda: None,
        patience: float = float("inf"),
    ) -> Exit:
        go = self._ahead.pop(job, None)
        if go is not None and (self._workers.turn_after > patience or job in self.taken_back):
            await asyncio.sleep(min(patience, self._workers.turn_after))
            job.close()
            raise WithdrawnError("")
        self.jobs += 1
        try:
            if self._workers.begins:
                began(self.once)
            if self._workers.gives_ahead and not self._ahead:
                beside()
            return await self._workers.program(self, job, go or self._go)
        finally:
            job.close()

    def give_ahead(self, job: LeaseJob, attempt: int) -> bool:
        if job.whole_inputs() is None:
            return False
        self._ahead[job] = job.go(attempt)
        self.given_ahead += 1
        return True

    @property
    def waiting(self) -> int:
        """How many jobs wait behind another one."""
        return len(self._ahead)

    def has(self, job: LeaseJob) -> bool:
        return job in self._ahead

    def was_returned(self, job: LeaseJob) -> bool:
        return False

    def take_back(self, job: LeaseJob) -> bool:
        if job in self._ahead:
            self.taken_back.add(job)
        return job in self._ahead

    def signal(self, number: int, job: LeaseJob) -> None:
        self.signals.append((clock(), number))
        self.signalled.set()

    def conclude(self, job: LeaseJob) -> bool:
        return self._workers.concludes

    def complain(
        self, key: object, job: LeaseJob, attempt: int, error: CexecError, duration: float, *, blame: bool = True
    ) -> None:
        self.complaints.append(str(error))
        self.blamed += blame
        if blame:
            self.worker.rests_until = clock() + self._workers.rest

    def release(self) -> None:
        self._end("released")

    def close(self) -> None:
        self._end("closed")

    def _end(self, how: str) -> None:
        assert not self.ended
        self.ended = how
        self.worker.taken -= 1


class Workers:
    """A cluster.  `confirms_after`: seconds until a worker takes another job on its lease."""

    def __init__(self, program: Program, names: str = "ab", slots: int = 2, *, once: bool = False) -> None:
        self.program = program
        self.workers = [FakeWorker(name, slots, once=once) for name in names]
        self.leases: list[FakeLease] = []
        self.searches = 0
        self.confirms_after = 0.001
        self.gives_ahead = False  # leases take jobs in advance
        self.turn_after = 0.0  # seconds until such a job has its turn
        self.begins = True
        self.rest = 0.0  # seconds for which a worker takes no job after it was blamed
        self.concludes = False  # an exit frame has come that nobody has read yet

    async def find_worker(self, terms: Any, choose: Callable[[Any, str], Go]) -> Any:
        self.searches += 1
        until = clock() + (terms.times.accept or float("inf"))
        while clock() < until:
            for worker in self.workers:
                if worker.answers and clock() >= worker.rests_until and worker.taken < worker.hello.slots:
                    try:
                        go = choose(worker.hello, worker.address)
                    except CexecError:
                        continue  # it is not wanted
                    self.leases.append(FakeLease(self, worker, go))
                    return self.leases[-1]
            await asyncio.sleep(RETRY)
        raise NoWorkerError("no worker answered")


def terms(accept_timeout: float = 60.0) -> Any:
    return SimpleNamespace(
        key=SimpleNamespace(fingerprint="abcd"), times=Times(accept=accept_timeout, idle=600.0), tell=lambda text: None,
        target=Target(),
    )  # fmt: skip


async def instantly(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
    """A program that copies its input to its output in a tenth of a second."""
    await asyncio.sleep(0.1)
    job.sinks[1].write(memoryview(read_input(job)))
    return exited()


def names(leases: Sequence[FakeLease]) -> set[str]:
    return {lease.hello.name for lease in leases}
