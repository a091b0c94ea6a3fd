"""The cluster for asyncio programs: `AsyncClient`.

Contract: one object for one application, used from one event loop at a time.  `run` returns the `Completed` of one job,
`start` a `Job` whose streams the caller has in hand, `map` runs a job for each input, `workers` asks who is there, and
`watch` follows who comes and goes.  What is wrong with a call is a `UsageError` or a `LocalError` before anything is
announced; what the cluster does wrong is another `CexecError`, with the words of `cexec`.  `close`, or the end of a
`with` block, ends all that still runs.  docs/python.md.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload
from weakref import WeakSet

from cexec.errors import JobCancelledError, UsageError
from cexec.python.dispatcher import Dispatcher
from cexec.python.in_flight import InFlight
from cexec.python.keywords import STARTED, PlanMaker, find_target, open_inputs, plan_job, read_whole
from cexec.python.map_inputs import InputSource
from cexec.python.settings import Settings
from cexec.python.started_job import FIRST_EXTRA, LAST_EXTRA, Job
from cexec.python.whole_errand import WholeErrand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from types import TracebackType

    from cexec.python.completed import Completed
    from cexec.python.job_plan import JobPlan, JobTarget
    from cexec.python.keywords import Input, JobKeywords, Names, RunKeywords
    from cexec.python.map_inputs import Inputs
    from cexec.python.membership import ClusterChange, ClusterWorker, LiveWorkers

_clients: WeakSet[AsyncClient] = WeakSet()  # of this process, for what is to be closed in a child of it


class AsyncClient:
    """An application's workers.  Arguments are those of `cexec`, as keywords; see docs/python.md."""

    def __init__(
        self,
        key: str | os.PathLike[str],
        *,
        need: str | Mapping[str, str | int] | Iterable[str] | None = None,
        on: Names | None = None,
        exclude: Names | None = None,
        weight: int = 1,
        group: str | None = None,
        accept_timeout: float | None = None,
        require_revoked: bool = False,
    ) -> None:
        """`key`: the client key, APP.pub.  `need`, `on`, `exclude`, `weight`: for jobs that say nothing else.

        `group`: where workers are, as CEXEC_GROUP.  `accept_timeout`: seconds until a job that nobody answers fails, as
        CEXEC_TIMEOUT_ACCEPT; 0 for never.  `require_revoked`: trust no worker without a list of revoked certificates.
        """
        self._settings = Settings.read(
            key, os.environ, group=group, accept_timeout=accept_timeout, require_revoked=require_revoked
        )
        self._defaults = {"need": need, "on": on, "exclude": exclude, "weight": weight}
        self._targets: dict[tuple[object, ...], JobTarget] = {}
        self._dispatchers: dict[tuple[bytes, int, bool], Dispatcher] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._closed = False
        self.find_target({})  # what is wrong with the defaults is said now
        _clients.add(self)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all jobs that still run; may be called again."""
        self._closed = True
        if os.getpid() == self._process:
            dispatchers = list(self._dispatchers.values())
            await asyncio.gather(*(one.close(JobCancelledError("the client has been closed")) for one in dispatchers))

    async def start(
        self,
        *,
        stdin: Input | None = None,
        inputs: Mapping[int, Input | None] | None = None,
        outputs: Iterable[int] = (),
        **keywords: Unpack[JobKeywords],
    ) -> Job:
        """Starts a job whose streams the caller has in hand; returns before a worker is found.

        `stdin`: all of the program's standard input, or None to write it.  `inputs`: the same for descriptors from 3
        to 255; `outputs`: further descriptors that the program writes.  `retries` is 0 here unless it is given.
        """
        self.check_usable()
        plan = plan_job({"retries": 0, **keywords}, self.find_target, input=None, known=STARTED)
        try:
            opened, written = await open_inputs(plan, {0: stdin, **(inputs or {})})
            extra = [number for number in (*opened, *written) if number] + list(outputs)
            if len(set(extra)) < len(extra) or not all(FIRST_EXTRA <= number <= LAST_EXTRA for number in extra):
                raise UsageError(f"inputs and outputs are descriptors from {FIRST_EXTRA} to {LAST_EXTRA}, each once")
        except BaseException:
            plan.close()
            raise
        return Job(plan, self.dispatcher(plan), opened=opened, inputs=written, outputs=outputs)

    @overload
    async def run(
        self, input: Input = b"", *, text: Literal[True], encoding: str | None = None, **keywords: Unpack[RunKeywords]
    ) -> Completed[str]: ...

    @overload
    async def run(
        self, input: Input = b"", *, text: bool | None = None, encoding: str, **keywords: Unpack[RunKeywords]
    ) -> Completed[str]: ...

    @overload
    async def run(
        self,
        input: Input = b"",
        *,
        text: Literal[False] | None = None,
        encoding: None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Completed[bytes]: ...

    async def run(
        self,
        input: Input = b"",
        *,
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Completed[Any]:
        """Runs one job to its end.

        `subprocess.CalledProcessError` with `check` if the program has failed, `subprocess.TimeoutExpired` after
        `timeout` seconds, which ends the job, and `CexecError` if the cluster has failed.
        """
        self.check_usable()
        return await self.run_plan(plan_job(keywords, self.find_target, input=await read_whole(input), text=text,
                                            encoding=encoding))  # fmt: skip

    @overload
    def map(
        self,
        inputs: Inputs,
        *,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        text: Literal[False] | None = None,
        encoding: None = None,
        **keywords: Unpack[RunKeywords],
    ) -> AsyncIterator[Completed[bytes]]: ...

    @overload
    def map(
        self,
        inputs: Inputs,
        *,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> AsyncIterator[Completed[Any]]: ...

    @overload
    def map(
        self,
        inputs: Inputs,
        *,
        ordered: bool = True,
        return_exceptions: Literal[True],
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> AsyncIterator[Completed[Any] | Exception]: ...

    def map(
        self,
        inputs: Inputs,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> AsyncIterator[Completed[Any] | Exception]:
        """Runs a job for each input and yields the results, in the order of the inputs or as they come.

        An input is what `run` takes as its input, or a dict of the keywords of `run`.  Inputs are taken as workers need
        them, from an iterable or an async iterable.  An error ends the map, or is yielded with `return_exceptions`.
        `timeout` counts from the begin of each program.
        """
        self.check_usable()
        maker = PlanMaker(keywords, self.find_target, text, encoding)
        return self._map(inputs, maker, ordered=ordered, return_exceptions=return_exceptions)

    async def workers(self) -> list[ClusterWorker]:
        """Returns the workers that answer now, as `cps` shows them; this takes about a second."""
        self.check_usable()
        from cexec.python.membership import take_census

        return await take_census(self._settings)

    def watch(self) -> AsyncIterator[ClusterChange]:
        """Yields a `ClusterChange` for each worker that is there or joins, leaves, or is complained about, for ever."""
        self.check_usable()
        from cexec.python.membership import follow

        return follow(self._settings)

    async def _map(
        self, inputs: Inputs, maker: PlanMaker, *, ordered: bool, return_exceptions: bool
    ) -> AsyncIterator[Completed[Any] | Exception]:
        woken = asyncio.Event()
        flight = self.in_flight(woken.set, ordered=ordered)
        source = InputSource(inputs, woken.set)
        try:
            while True:
                woken.clear()
                while flight.held < flight.window and (item := source.take()) is not None:
                    flight.submit(maker.plan(item.value))
                while flight.ready:
                    try:
                        result: Completed[Any] | Exception = flight.ready.popleft().outcome()
                    except Exception as error:
                        if not return_exceptions:
                            raise
                        result = error
                    yield result
                if source.ended and not flight.held:
                    return
                if not woken.is_set():
                    await woken.wait()
        finally:
            flight.cancel()
            source.close()

    # for those that stand on the client

    def in_flight(self, changed: Callable[[], None], *, ordered: bool) -> InFlight:
        """Returns the jobs of a new map."""
        return InFlight(self.dispatcher, self._leases, changed, ordered=ordered)

    def live_workers(self, changed: Callable[[], None] = lambda: None) -> LiveWorkers:
        """Returns the workers that are there; the caller lets it `run`, and `changed` is called for each change."""
        from cexec.python.membership import LiveWorkers

        return LiveWorkers(self._settings, changed)

    @property
    def path(self) -> str:
        """The path of the client key."""
        return self._settings.path

    async def count_slots(self) -> int:
        """Returns how many slots the workers have together that fit to the client's own keywords; takes a second."""
        from cexec.python.membership import take_census

        return sum(one.slots for one in await take_census(self._settings, self.find_target({}).requirements))

    async def run_plan(self, plan: JobPlan) -> Completed[Any]:
        """Runs a job that was planned in another thread, perhaps."""
        try:
            self.check_usable()
        except UsageError:
            plan.close()
            raise
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        dispatcher = self.dispatcher(plan)
        errand = WholeErrand(plan, lambda _: None if over.done() else over.set_result(None))
        dispatcher.submit(errand)
        timer = None
        if plan.timeout is not None:
            timer = loop.call_later(plan.timeout, lambda: dispatcher.cancel(errand, errand.expire()))
        try:
            await over
        except asyncio.CancelledError:
            dispatcher.cancel(errand, JobCancelledError("the job has been cancelled"))
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return errand.outcome()

    def check_usable(self) -> None:
        """Raises `UsageError` in a child after fork, in another event loop, and after `close`."""
        if os.getpid() != self._process:
            raise UsageError("this client was made before fork: make another one in the child process")
        if self._closed:
            raise UsageError("the client has been closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._dispatchers and self._loop is not None and not self._loop.is_closed():
                raise UsageError("the client is used by another event loop: make a client for each")
            self._loop = loop
            self._dispatchers.clear()

    def find_target(self, keywords: Mapping[str, Any]) -> JobTarget:
        """Returns the target of a job with these keywords."""
        given = {name: keywords.get(name, default) for name, default in self._defaults.items()}
        try:
            key: tuple[object, ...] = tuple(given.values())
            known = self._targets.get(key)
        except TypeError:  # a list or a mapping
            return find_target(given, os.environ)
        if known is None:
            known = self._targets[key] = find_target(given, os.environ)
        return known

    def dispatcher(self, plan: JobPlan) -> Dispatcher:
        """Returns the dispatcher of the plan's target."""
        target = plan.target
        found = self._dispatchers.get(target.key)
        if found is None:
            found = Dispatcher(self._settings.terms(target), self._settings.name, self._forget)
            self._dispatchers[target.key] = found
        return found

    def abandon(self) -> None:
        """Closes what a child process has of the connections after fork."""
        for one in self._dispatchers.values():
            one.abandon()

    def _leases(self) -> int:
        return sum(one.leases for one in self._dispatchers.values())

    def _forget(self, idle: Dispatcher) -> None:
        for key, one in list(self._dispatchers.items()):
            if one is idle:
                del self._dispatchers[key]


def _abandon_all() -> None:
    """A worker ends its job when its client has gone, which it would not notice while a child has the connection."""
    for client in list(_clients):
        client.abandon()


os.register_at_fork(after_in_child=_abandon_all)
