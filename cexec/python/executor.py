"""`Executor`: a room of machines as a pool of concurrent.futures.

Contract: as `concurrent.futures.ProcessPoolExecutor`, with the differences that docs/python.md, "Executor", lists.
Arguments are checked when the executor is made: `KeyFileError`, `UsageError`, `CannotPickleError` for the initializer.
No worker is looked for before the first call.  `submit` raises RuntimeError after `shutdown`; everything that is wrong
with one call is its future's exception.  Inside a call of an executor, calls run in the process itself.
"""

from __future__ import annotations

import concurrent.futures
import weakref
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

try:
    from cexec.pool.pickles import dump
except ImportError:
    raise ImportError("Executor needs cloudpickle: pip install cloudpickle") from None
from cexec.errors import CannotPickleError, UsageError
from cexec.pool import inside
from cexec.pool.call_messages import CALL, CHUNK, size_of
from cexec.python.async_client import AsyncClient
from cexec.python.calls import mapping
from cexec.python.calls.array_courier import ArrayCourier
from cexec.python.calls.array_sharing import ArraySharing, ArrayTable
from cexec.python.calls.call import CallFuture, PoolCall
from cexec.python.calls.call_plan import CallPlan
from cexec.python.calls.call_pool import CallPool
from cexec.python.calls.call_slot import SlotSetup, write_to_stderr
from cexec.python.calls.functions import FunctionTable
from cexec.python.calls.pool_thread import PoolThread
from cexec.python.calls.pool_workers import PoolWorkers
from cexec.python.calls.sent_modules import pack

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from cexec.pool.call_messages import Part
    from cexec.python.calls.array_sharing import ArrayCollector
    from cexec.python.calls.functions import SentFunction
    from cexec.python.keywords import Names

T = TypeVar("T")

CENSUS_LASTS = 60.0  # seconds (ours) for which the number of slots is taken as known


class Executor(concurrent.futures.Executor):
    """The workers that serve `python3 -m cexec.pool` as a pool for Python calls."""

    def __init__(
        self,
        key: str | os.PathLike[str],
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        retries: int = 2,
        weight: int = 1,
        need: str | Mapping[str, str | int] | Iterable[str] | None = None,
        on: Names | None = None,
        exclude: Names | None = None,
        env: Mapping[str, str] | None = None,
        modules: Iterable[str] = (),
        wait: float = 10,
        idle_timeout: float = 60,
    ) -> None:
        """`key`: the client key, POOL.pub; `max_workers`: slots at a time, None for all that there are.

        `initializer(*initargs)` runs first in each process, `max_tasks_per_child` is the number of calls that a process
        runs.  `retries`: how often a call is repeated whose process has ended under it; 0: a call that began is never
        repeated.  `weight`, `need`, `on`, `exclude`: as for `cexec`.  `env`: variables for the processes.  `modules`:
        names of local packages that workers are sent.  `wait`: seconds in which a worker has to answer.
        `idle_timeout`: seconds for which a slot without calls is kept, if nobody else wants it.
        """
        _check(max_workers, max_tasks_per_child, retries, wait, idle_timeout)
        setup = _prepare(initializer, initargs, max_tasks_per_child, env, modules)
        self._inside = inside.is_inside()
        self._limit = max_workers
        self._shut_down = False
        if self._inside:
            return  # neither key nor worker is needed

        client = AsyncClient(key, need=need, on=on, exclude=exclude or None, weight=weight, accept_timeout=wait)
        workers = PoolWorkers(client, exclude)
        functions = FunctionTable()
        arrays = ArrayTable()

        async def run(made: Callable[[CallPool], None]) -> None:
            async with client:
                plan = CallPlan(most_slots=max_workers, retries=retries, idle_timeout=idle_timeout, weight=weight)
                pool = CallPool(workers, setup, plan, functions, ArrayCourier(arrays.name), write_to_stderr)
                made(pool)
                await pool.run()

        self._client = client
        self._known_slots = 0
        self._census_at = -inf
        self._functions = functions
        self._arrays = arrays
        self._thread = PoolThread(run)
        self._finalizer = weakref.finalize(self, self._thread.finish)
        self._finalizer.atexit = False  # `pool_thread` does it

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Lets a worker call `fn(*args, **kwargs)`.  `cancel()` of the future ends the call also while it runs."""
        return self._submit(fn, args, kwargs, None)

    def share_arrays(self, limit: int, mode: str = "r") -> ArraySharing:
        """Returns what `submit_sharing` takes: numpy arrays of more than `limit` bytes travel once to each machine."""
        return ArraySharing(self._arrays, limit, mode)

    def submit_sharing(
        self, sharing: ArraySharing, fn: Callable[..., T], /, *args: Any
    ) -> concurrent.futures.Future[T]:
        """As `submit`; large arrays among the arguments are mapped files at the worker."""
        return self._submit(fn, args, {}, sharing)

    def _submit(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], sharing: ArraySharing | None
    ) -> concurrent.futures.Future[T]:
        self._check_open()
        if self._inside:
            return _run_here(fn, args, kwargs)
        pool = self._usable()
        future: CallFuture[T] = CallFuture(pool.drop)
        try:
            function = self._functions.take(fn)
        except CannotPickleError as error:
            future.settle(False, error)
            return future
        self._send(pool, future, function, (args, kwargs), sharing=sharing)
        return future

    def _send(
        self,
        pool: CallPool,
        future: CallFuture[Any],
        function: SentFunction,
        value: object,
        *,
        chunk: bool = False,
        sharing: ArraySharing | None = None,
    ) -> None:
        """Submits a call, or a chunk, for which `function` has been taken."""
        collector = None if sharing is None else sharing.collect()
        try:
            parts = _dump_arguments(value, function.name, collector, chunk=chunk)
        except CannotPickleError as error:
            self._functions.release(function)
            future.settle(False, error)
            return
        size = sum(size_of(part) if isinstance(part, list) else len(part) for part in parts)
        arrays = () if collector is None else collector.sent
        future.call = PoolCall(CHUNK if chunk else CALL, function, parts, size, future, arrays)
        pool.submit(future.call)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Yields the results of `fn` for the inputs, in their order, as `map` of Python 3.14.

        `fn` is pickled once.  `chunksize`: inputs that travel together.  `buffersize`: calls that are submitted and not
        yet taken; with it inputs are read as results are taken, so that they may be without end.
        """
        mapping.check(chunksize, buffersize)
        inputs = zip(*iterables)  # noqa: B905 - as `map` does it
        self._check_open()
        if self._inside:
            return map(fn, *iterables)
        pool = self._usable()
        function = self._functions.take(fn)

        def submit(value: Any) -> concurrent.futures.Future[Any]:
            self._usable()
            future: CallFuture[Any] = CallFuture(pool.drop)
            self._functions.retain(function)
            if chunksize > 1:
                self._send(pool, future, function, value, chunk=True)
            else:
                self._send(pool, future, function, (value, {}))
            return future

        given = iter(mapping.chunks(inputs, chunksize)) if chunksize > 1 else inputs
        found = mapping.results(submit, given, timeout, buffersize, lambda: pool.release(function))
        return (result for chunk in found for result in chunk) if chunksize > 1 else found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; gives all slots back once the calls are over, and waits for that."""
        self._shut_down = True
        pool = None if self._inside else self._thread.started
        if pool is not None:
            if cancel_futures:
                pool.cancel_pending()
            pool.finish()
            if wait:
                self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the calls; after a Ctrl-C, or an exit of the program, it ends them instead."""
        if kind is not None and not issubclass(kind, Exception) and not self._inside:
            self._thread.abort()
        self.shutdown()

    def __reduce__(self) -> Any:
        raise TypeError("an Executor cannot be pickled: make one in the call, which runs its calls in that process")

    def count_slots(self) -> int:
        """Returns how many slots fit, also those that others have now.  Takes a second, once in CENSUS_LASTS."""
        if self._inside:
            return 1
        pool = self._usable()
        if monotonic() > self._census_at + CENSUS_LASTS:
            self._known_slots = self._thread.call(self._client.count_slots())
            self._census_at = monotonic()
        known = max(1, self._known_slots, pool.held)
        return known if self._limit is None else min(known, self._limit)

    @property
    def _max_workers(self) -> int:
        """What Dask asks."""
        return self.count_slots()

    def _check_open(self) -> None:
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _usable(self) -> CallPool:
        self._check_open()
        pool = self._thread.pool
        if pool.broken is not None:
            raise pool.broken
        return pool


def _run_here(fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> concurrent.futures.Future[T]:
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    try:
        future.set_result(fn(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)
    return future


def _dump_arguments(value: Any, name: str, collector: ArrayCollector | None, *, chunk: bool) -> list[Part]:
    """Pickles (args, kwargs), or a list of args; an error says which of them it is about."""
    of = f" of a call of {name}"
    try:
        return dump(value, "the arguments", of, reduce_array=None if collector is None else collector.reduce)
    except CannotPickleError:
        for one in value:
            dump(one, "args" if chunk or one is value[0] else "kwargs", of)
        raise


def _check(max_workers: int | None, most_calls: int | None, retries: int, wait: float, idle_timeout: float) -> None:
    if max_workers is not None and max_workers < 1:
        raise ValueError("max_workers must be greater than 0")
    if most_calls is not None and most_calls < 1:
        raise ValueError("max_tasks_per_child must be >= 1")
    if retries < 0:
        raise UsageError(f"retries is {retries!r}, but must be 0 or more")
    if not (wait > 0 and idle_timeout >= 0):  # a NaN is neither
        raise UsageError("wait must be more than 0 seconds, and idle_timeout not less")


def _prepare(
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    most_calls: int | None,
    env: Mapping[str, str] | None,
    modules: Iterable[str],
) -> SlotSetup:
    """Returns what slots are told first."""
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    pickled = [] if initializer is None else dump((initializer, initargs), "the initializer")
    environment = dict(env or {})
    for name, value in environment.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise UsageError(f"env: {name!r} and {value!r} must be texts")
        if not name or "=" in name or "\0" in name + value:
            raise UsageError(f"env: no program can be given {name!r} with the value {value!r}")
    names = [modules] if isinstance(modules, str) else list(modules)
    return SlotSetup(environment, pickled, most_calls or 0, pack(names))
