"""`backend="cexec"` of joblib on a real service: `Parallel` as it is with joblib's own processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cexec.errors import KeyFileError, NoWorkerError, UsageError
from tests.needs import require_module
from tests.python.pools import PoolService
from tests.waiting import PATIENCE, wait_until

SLOTS = 2


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolService]:
    require_module("joblib")
    with PoolService(tmp_path_factory.mktemp("pool"), slots=SLOTS) as started:
        yield started


@pytest.fixture
def joblib(pool: PoolService) -> Any:
    import joblib

    import cexec.joblib  # noqa: F401 - registers the backend

    return joblib


@pytest.fixture
def inside(joblib: Any, pool: PoolService) -> Iterator[None]:
    """A `with` block around the test."""
    with joblib.parallel_config(backend="cexec", key=pool.key):
        yield
    gc.collect()  # an exception that a test has looked at may keep the backend, and with it the slots


def square(n: int) -> int:
    return n * n


def meet(directory: Path, count: int, name: str) -> int:
    """A call that returns once so many calls run at the same time."""
    (directory / name).touch()
    deadline = time.monotonic() + PATIENCE
    while len(list(directory.iterdir())) < count:
        assert time.monotonic() < deadline, "the others do not come"
        time.sleep(0.01)
    return os.getpid()


def attend(directory: Path, name: str) -> int:
    """A call that lasts a moment; returns how many there were at a time."""
    path = directory / name
    path.touch()
    time.sleep(0.05)
    count = len(list(directory.iterdir()))
    path.unlink()
    return count


def begin_and_stay(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(10 * PATIENCE)


def is_running(path: Path) -> bool:
    return psutil.pid_exists(int(path.read_text()))


# who runs the calls


def test_without_n_jobs_all_slots_take_part(joblib: Any, inside: None, tmp_path: Path) -> None:
    processes = joblib.Parallel()(joblib.delayed(meet)(tmp_path, SLOTS, str(n)) for n in range(SLOTS))
    assert len(set(processes)) == SLOTS and os.getpid() not in processes
    assert joblib.effective_n_jobs() == joblib.effective_n_jobs(-1) == SLOTS


def test_results_are_in_order_and_short_calls_travel_together(joblib: Any, inside: None) -> None:
    parallel = joblib.Parallel()
    assert parallel(joblib.delayed(square)(n) for n in range(2000)) == [n * n for n in range(2000)]
    assert parallel.n_dispatched_batches < 1000
    factor = 3
    assert joblib.Parallel()(joblib.delayed(lambda n: n * factor)(n) for n in range(3)) == [0, 3, 6]


def test_n_jobs_is_the_number_of_slots_that_are_used(joblib: Any, inside: None, tmp_path: Path) -> None:
    jobs = (joblib.delayed(attend)(tmp_path, str(n)) for n in range(6))
    # joblib's own meaning of 1 is a loop here; all slots but one, which may be one, are elsewhere.
    assert joblib.Parallel(n_jobs=-SLOTS, batch_size=1)(jobs) == [1] * 6
    assert joblib.Parallel(n_jobs=1)([joblib.delayed(os.getpid)()]) == [os.getpid()]
    assert os.getpid() not in joblib.Parallel(n_jobs=-SLOTS)([joblib.delayed(os.getpid)()])
    with pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.Parallel(n_jobs=0)([joblib.delayed(abs)(1)])


def test_keywords_go_to_the_executor(joblib: Any, pool: PoolService) -> None:
    def look() -> tuple[str | None, str | None]:
        return os.environ.get("COLOUR"), os.environ.get("OMP_NUM_THREADS")

    with joblib.parallel_config(backend="cexec", key=pool.key, env={"COLOUR": "red"}, max_workers=1):
        assert joblib.Parallel()(joblib.delayed(look)() for _ in range(2)) == [("red", "1")] * 2
    options = {"backend": "cexec", "key": pool.key, "env": {"COLOUR": "red"}, "inner_max_num_threads": 3}
    with joblib.parallel_config(**options):
        assert joblib.Parallel()(joblib.delayed(look)() for _ in range(2)) == [("red", "3")] * 2


def test_wrong_keywords_are_refused_at_once(joblib: Any, pool: PoolService, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a key"):
        joblib.parallel_config(backend="cexec")
    with pytest.raises(KeyFileError):
        joblib.parallel_config(backend="cexec", key=tmp_path / "absent.pub")
    with pytest.raises(TypeError, match="wieght"):
        joblib.parallel_config(backend="cexec", key=pool.key, wieght=3)


def test_the_processes_are_kept_until_the_end_of_the_block(joblib: Any, pool: PoolService, tmp_path: Path) -> None:
    pool.wait_until_free()
    with joblib.parallel_config(backend="cexec", key=pool.key):
        joblib.Parallel(batch_size=1)(joblib.delayed(meet)(tmp_path, SLOTS, str(n)) for n in range(SLOTS))
        before = {one.pid for one in pool.keepers()}
        assert len(before) >= SLOTS
        joblib.Parallel(n_jobs=2)(joblib.delayed(square)(n) for n in range(2))
        list(joblib.Parallel(return_as="generator")(joblib.delayed(square)(n) for n in range(10)))
        assert {one.pid for one in pool.keepers()} == before
    pool.wait_until_free()  # long before the slots are idle for as long as an executor keeps them


def test_a_script_leaves_nothing_running(pool: PoolService, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, joblib, cexec.joblib\n"
        "def own(n): return n + 1, os.getpid() != parent\n"
        "parent = os.getpid()\n"
        "config = joblib.parallel_config(backend='cexec', key=sys.argv[1])\n"
        "print(joblib.Parallel()(joblib.delayed(own)(n) for n in range(3)))\n"
    )
    ended = pool.python(script, pool.key)
    assert (ended.stdout, ended.stderr) == ("[(1, True), (2, True), (3, True)]\n", "")
    pool.wait_until_free()


# errors


def test_an_exception_has_its_remote_traceback_and_the_backend_goes_on(joblib: Any, inside: None) -> None:
    def divide(n: int) -> float:
        return 1 / n

    with pytest.raises(ZeroDivisionError) as caught:
        joblib.Parallel()(joblib.delayed(divide)(n) for n in (1, 0, 2))
    assert "in divide" in str(caught.value.__cause__)
    assert joblib.Parallel()(joblib.delayed(divide)(n) for n in (1, 2)) == [1.0, 0.5]


def test_what_cannot_be_pickled_or_run_does_not_hang(joblib: Any, inside: None, pool: PoolService) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        joblib.Parallel()(joblib.delayed(id)(threading.Lock()) for _ in range(3))
    with (
        joblib.parallel_config(backend="cexec", key=pool.key, need="unicorn", wait=0.5),
        pytest.raises(NoWorkerError, match="unicorn"),
    ):
        joblib.Parallel()(joblib.delayed(abs)(n) for n in range(3))


def test_a_failure_ends_the_calls_that_run(joblib: Any, inside: None, tmp_path: Path) -> None:
    def fail_once(path: Path) -> None:
        while not path.exists():
            time.sleep(0.01)
        raise LookupError("enough")

    path = tmp_path / "running"
    with pytest.raises(LookupError, match="enough"):
        joblib.Parallel()([joblib.delayed(begin_and_stay)(path), joblib.delayed(fail_once)(path)])
    wait_until(lambda: not is_running(path))


def test_a_timeout_ends_the_calls_that_run(joblib: Any, inside: None, tmp_path: Path) -> None:
    path = tmp_path / "running"
    joblib.Parallel()(joblib.delayed(square)(n) for n in range(2))  # there is a slot
    with pytest.raises(multiprocessing.TimeoutError):
        joblib.Parallel(timeout=2)([joblib.delayed(begin_and_stay)(path)])
    wait_until(lambda: not is_running(path))


def test_ctrl_c_leaves_nothing_running(pool: PoolService, tmp_path: Path) -> None:
    code = (
        "import os, sys, time, joblib, cexec.joblib\n"
        "def sleep():\n"
        "    open(path, 'w').write(str(os.getpid()) + '\\n')\n"
        "    time.sleep(1000)\n"
        "path = sys.argv[2]\n"
        "with joblib.parallel_config(backend='cexec', key=sys.argv[1]):\n"
        "    joblib.Parallel()([joblib.delayed(sleep)()])\n"
    )
    pool.interrupt(code, tmp_path)


# generators, and Parallel inside Parallel


def test_results_come_as_they_are_made(joblib: Any, inside: None, tmp_path: Path) -> None:
    def wait_for(path: Path) -> str:
        while not path.exists():
            time.sleep(0.01)
        return path.name

    (tmp_path / "second").touch()
    calls = [joblib.delayed(wait_for)(tmp_path / name) for name in ("first", "second")]
    results = joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)
    assert next(results) == "second"
    (tmp_path / "first").touch()
    assert list(results) == ["first"]


def test_an_abort_ends_no_calls_of_another_parallel(joblib: Any, inside: None, tmp_path: Path) -> None:
    other = joblib.Parallel(return_as="generator")(
        [joblib.delayed(meet)(tmp_path, 2, "one"), joblib.delayed(square)(3)]
    )
    with pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(divmod)(1, n) for n in (0, 0))
    (tmp_path / "two").touch()
    assert len(list(other)) == 2


def test_parallel_inside_a_call_stays_in_its_process(joblib: Any, inside: None, pool: PoolService) -> None:
    def inner(key: str | None) -> bool:
        import joblib

        if key is None:
            processes = joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(3))
        else:
            import cexec.joblib  # noqa: F401

            with joblib.parallel_config(backend="cexec", key=key):
                processes = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(3))
        return set(processes) == {os.getpid()}

    keys = [None, str(pool.key), "a-key-that-the-worker-lacks.pub"] * SLOTS
    assert all(joblib.Parallel(batch_size=1)(joblib.delayed(inner)(key) for key in keys))
