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
from typing import TYPE_CHECKING, Any, Unpack
from weakref import WeakSet

from cexec.errors import JobCancelledError, UsageError
from cexec.python.dispatcher import Dispatcher
from cexec.python.keywords import find_target, plan_job, read_whole, set_input
from cexec.python.settings import Settings
from cexec.python.started_job import FIRST_EXTRA, LAST_EXTRA, Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from cexec.python.keywords import Input, JobKeywords, JobPlan, JobTarget, Names

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
        plan = plan_job({"retries": 0, **keywords}, self.find_target, input=None)
        opened, written = {}, []
        for number, given in {0: stdin, **(inputs or {})}.items():
            if given is None:
                written.append(number)
            else:
                set_input(plan, await read_whole(given))
                opened[number] = plan.input
        extra = [number for number in (*opened, *written) if number] + list(outputs)
        if len(set(extra)) < len(extra) or not all(FIRST_EXTRA <= number <= LAST_EXTRA for number in extra):
            raise UsageError(f"inputs and outputs are descriptors from {FIRST_EXTRA} to {LAST_EXTRA}, each once")
        return Job(plan, self.dispatcher(plan), opened=opened, inputs=written, outputs=outputs)

    # for those that stand on the client

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

    def _forget(self, idle: Dispatcher) -> None:
        for key, one in list(self._dispatchers.items()):
            if one is idle:
                del self._dispatchers[key]
