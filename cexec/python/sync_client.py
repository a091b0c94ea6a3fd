"""The cluster for programs that block: `Client`, a front of `AsyncClient` on a thread of its own.

Contract: the methods are those of `AsyncClient`, and may be called from any thread, at the same time.  Keywords and
files are looked at in the calling thread, and so are the inputs of `map`, which may therefore block.  Ctrl-C in a call
ends its job.  Nothing is left running when the interpreter ends.  After fork the child has to make a client of its own:
`UsageError`.  docs/python.md.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload
from weakref import finalize

from cexec.errors import UsageError
from cexec.python.async_client import AsyncClient
from cexec.python.blocking_job import BlockingJob
from cexec.python.keywords import PlanMaker, plan_job
from cexec.python.loop_thread import LoopThread
from cexec.python.threaded_flight import ThreadedFlight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from cexec.python.completed import Completed
    from cexec.python.keywords import Input, JobKeywords, Names, RunKeywords
    from cexec.python.map_inputs import JobInputs
    from cexec.python.membership import ClusterChange, ClusterWorker


class Client:
    """An application's workers, for programs that block; see `AsyncClient` for the keywords."""

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
        self._client = AsyncClient(
            key,
            need=need,
            on=on,
            exclude=exclude,
            weight=weight,
            group=group,
            accept_timeout=accept_timeout,
            require_revoked=require_revoked,
        )
        self._thread = LoopThread(f"cexec {os.fspath(key)}")
        finalize(self, self._thread.abandon).atexit = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all jobs that still run, and the thread; may be called again."""
        self._thread.stop(self._client.close)

    @overload
    def run(
        self, input: Input = b"", *, text: Literal[True], encoding: str | None = None, **keywords: Unpack[RunKeywords]
    ) -> Completed[str]: ...

    @overload
    def run(
        self, input: Input = b"", *, text: bool | None = None, encoding: str, **keywords: Unpack[RunKeywords]
    ) -> Completed[str]: ...

    @overload
    def run(
        self,
        input: Input = b"",
        *,
        text: Literal[False] | None = None,
        encoding: None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Completed[bytes]: ...

    def run(
        self,
        input: Input = b"",
        *,
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Completed[Any]:
        """Runs one job to its end, as `subprocess.run` does.

        `subprocess.CalledProcessError` with `check` if the program has failed, `subprocess.TimeoutExpired` after
        `timeout` seconds, which ends the job, and `CexecError` if the cluster has failed.
        """
        self._thread.check()  # says what is wrong before anything is opened
        plan = plan_job(keywords, self._client.find_target, input=input, text=text, encoding=encoding)
        return self._thread.call(partial(self._client.run_plan, plan))

    def start(
        self,
        *,
        stdin: Input | None = None,
        inputs: Mapping[int, Input | None] | None = None,
        outputs: Iterable[int] = (),
        **keywords: Unpack[JobKeywords],
    ) -> BlockingJob:
        """Starts a job whose streams the caller has in hand; see `AsyncClient.start`."""
        starting = partial(self._client.start, stdin=stdin, inputs=inputs, outputs=outputs, **keywords)
        return BlockingJob(self._thread.call(starting), self._thread, self)

    @overload
    def map(
        self,
        inputs: JobInputs,
        *,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        text: Literal[False] | None = None,
        encoding: None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Iterator[Completed[bytes]]: ...

    @overload
    def map(
        self,
        inputs: JobInputs,
        *,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Iterator[Completed[Any]]: ...

    @overload
    def map(
        self,
        inputs: JobInputs,
        *,
        ordered: bool = True,
        return_exceptions: Literal[True],
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Iterator[Completed[Any] | Exception]: ...

    def map(
        self,
        inputs: JobInputs,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> Iterator[Completed[Any] | Exception]:
        """Runs a job for each input and yields the results; see `AsyncClient.map`."""
        self._thread.check()
        maker = PlanMaker(keywords, self._client.find_target, text, encoding)
        return self._map(inputs, maker, ordered=ordered, return_exceptions=return_exceptions)

    def workers(self) -> list[ClusterWorker]:
        """Returns the workers that answer now, as `cps` shows them; this takes about a second."""
        return self._thread.call(self._client.workers)

    def watch(self) -> Iterator[ClusterChange]:
        """Yields a `ClusterChange` for each worker that is there or joins, leaves, or is complained about, for ever."""

        async def begin() -> Any:
            return self._client.watch()

        changes = self._thread.call(begin)
        try:
            while True:
                yield self._thread.call(lambda: anext(changes))
        finally:
            try:
                self._thread.call(changes.aclose)
            except UsageError:
                pass  # the client has been closed, and this with it

    def _map(
        self, inputs: JobInputs, maker: PlanMaker, *, ordered: bool, return_exceptions: bool
    ) -> Iterator[Completed[Any] | Exception]:
        flight = ThreadedFlight(self._client, self._thread, ordered=ordered)
        source = iter(inputs)
        ended = False
        try:
            while True:
                while not ended and flight.has_room and not flight.has_results:
                    given = next(source, flight)  # which no input is
                    if given is flight:
                        ended = True
                    else:
                        flight.submit(maker.plan(given))  # type: ignore[arg-type]
                if ended and not flight.held:
                    return
                for one in flight.results():
                    try:
                        result: Completed[Any] | Exception = one.outcome()
                    except Exception as error:
                        if not return_exceptions:
                            raise
                        result = error
                    yield result
        finally:
            flight.close()
