"""`import cexec.joblib` makes `joblib.parallel_config(backend="cexec", key="pool.pub")` known.

Contract: importing registers the backend.  The methods are those that joblib asks of a `ParallelBackendBase`.
`CexecBackend` is one configuration: it makes its executor at once, so that wrong keywords are refused at once.  The
executor starts with the first batch, is used by every `Parallel` of the configuration, and gives its slots back when
the backend is forgotten, which is the end of the `with` block.  Each `Parallel` has a `ParallelBackend` of its own,
which keeps apart what it has in flight, its batch sizes and the arrays that it has hashed.  Inside a call of an
executor, everything runs in the process of that call.  docs/python.md, "joblib".
"""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import TYPE_CHECKING, Any

try:
    from joblib import register_parallel_backend
    from joblib.disk import memstr_to_bytes
    from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
except ImportError:
    raise ImportError("cexec.joblib needs joblib: pip install joblib cloudpickle") from None

from cexec.errors import UsageError
from cexec.pool import inside
from cexec.python.executor import Executor
from cexec.python.parallel_calls import ParallelCalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

MODES = ("r", "c")  # of a mapped array
FEWEST = 2  # slots (ours) that joblib is told of at least: if there were one, it would call everything here


class _Backend(ParallelBackendBase):  # type: ignore[misc]
    """Has the attributes that joblib reads of both classes."""

    default_n_jobs = -1  # all slots; joblib's own default is a loop in this process
    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Returns the backend for a `Parallel` inside a call, which must not wait for slots, because it holds one."""
        return self.sequential(1), None

    def sequential(self, deeper: int = 0) -> Any:
        """Returns the backend that calls everything in the process that it is in."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + deeper)


class CexecBackend(_Backend):
    """One configuration: that of a `joblib.parallel_config`."""

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        key: Any = None,
        **keywords: Any,
    ) -> None:
        """`key` and the other keywords are those of `Executor`."""
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **keywords)
        if key is None:
            raise UsageError('the backend cexec needs a key: joblib.parallel_config(backend="cexec", key="pool.pub")')
        self._key = key
        self._threads = inner_max_num_threads
        self._executor = self._make_executor()
        self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="cexec.joblib")

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Returns how many calls run at a time; asks the cluster if that depends on the number of its slots."""
        if inside.is_inside():
            return 1
        limit = self._limit(n_jobs)
        return 1 if n_jobs == 1 else max(FEWEST, self._executor.count_slots() if limit == inf else int(limit))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Gives the `Parallel` a backend of its own."""
        raise FallbackToBackend(self.sequential() if self.effective_n_jobs(n_jobs) == 1 else ParallelBackend(self))

    def submit(self, func: Callable[[], Any], callback: Any = None) -> Any:
        raise RuntimeError("a Parallel submits to the backend that `configure` gives it")

    def new_calls(self, n_jobs: int, max_nbytes: int | str | None, mmap_mode: str | None) -> ParallelCalls:
        """Returns what a `Parallel` has in flight: nothing yet."""
        if self._threads != self.inner_max_num_threads:
            self._threads = self.inner_max_num_threads  # joblib sets it after it has made the backend
            self._executor = self._make_executor()
        sharing = None
        if max_nbytes is not None and mmap_mode is not None:
            if mmap_mode not in MODES:
                raise UsageError(
                    f"mmap_mode is {mmap_mode!r}, but nobody can write to arrays elsewhere: use 'r' or 'c'"
                )
            limit = memstr_to_bytes(max_nbytes) if isinstance(max_nbytes, str) else max_nbytes
            sharing = self._executor.share_arrays(limit, mmap_mode)
        return ParallelCalls(self._executor, self._limit(n_jobs), self._callbacks, sharing)

    def _make_executor(self) -> Executor:
        keywords = dict(self.backend_kwargs)
        if self._threads is not None:
            limits = dict.fromkeys(self.MAX_NUM_THREADS_VARS, str(self._threads))
            keywords["env"] = {**limits, **(keywords.get("env") or {})}
        return Executor(self._key, **keywords)

    def _limit(self, n_jobs: int | None) -> float:
        """Returns how many slots are used at most; infinity for all that there are."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs == -1:
            return inf
        return n_jobs if n_jobs > 0 else max(1, self._executor.count_slots() + 1 + n_jobs)


class ParallelBackend(AutoBatchingMixin, _Backend):  # type: ignore[misc]
    """One `Parallel`'s."""

    def __init__(self, configuration: CexecBackend) -> None:
        super().__init__(nesting_level=configuration.nesting_level)
        self._configuration = configuration
        self._calls: ParallelCalls | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return self._configuration.effective_n_jobs(n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        *,
        max_nbytes: int | str | None = None,
        mmap_mode: str | None = "r",
        **_: Any,
    ) -> int:
        """`max_nbytes`, `mmap_mode`: of arrays that are mapped, as of joblib's own processes.  Others mean nothing."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(self.sequential())
        self.parallel = weakref.proxy(parallel)  # which has this backend
        self._calls = self._configuration.new_calls(n_jobs, max_nbytes, mmap_mode)
        return count

    def start_call(self) -> None:
        self._in_flight().begin()

    def submit(self, func: Callable[[], Any], callback: Any = None) -> Future[Any] | None:
        return self._in_flight().submit(func, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends the calls of this `Parallel`, also those that run."""
        self._in_flight().abort()

    def terminate(self) -> None:
        self.reset_batch_stats()

    def _in_flight(self) -> ParallelCalls:
        assert self._calls is not None, "joblib configures a backend first"
        return self._calls


register_parallel_backend("cexec", CexecBackend)
