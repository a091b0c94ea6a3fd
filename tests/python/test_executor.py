"""`Executor` on a real service: it is a pool of concurrent.futures, and what makes it more than that."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import itertools
import operator
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cexec.errors import CannotPickleError, KeyFileError, NoWorkerError, UsageError
from cexec.python.calls import call_slot
from cexec.python.calls.pool_errors import InitializerError, LostCallError
from cexec.python.executor import Executor
from tests.needs import skip_for_want_of
from tests.python.pools import PROGRAM, PoolService
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

SLOTS = 2


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolService]:
    with PoolService(tmp_path_factory.mktemp("pool"), slots=SLOTS) as started:
        yield started


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of a busy machine may start slowly."""
    monkeypatch.setattr(call_slot, "GREETING_PATIENCE", PATIENCE)


@pytest.fixture
def executor(pool: PoolService) -> Iterator[Executor]:
    with Executor(pool.key) as made:
        yield made


def square(n: int) -> int:
    return n * n


def echo(word: str) -> str:
    return word


def wait_for(path: Path) -> str:
    """A call that runs until a file has a text."""
    path.with_suffix(".began").touch()
    while not (path.exists() and (text := path.read_text())):
        time.sleep(0.01)
    return text


def began(path: Path) -> Callable[[], bool]:
    return path.with_suffix(".began").exists


# as a pool of concurrent.futures


def test_it_is_an_executor(executor: Executor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    future = executor.submit(pow, 2, exp=5)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(PATIENCE) == 32 and future.done() and not future.running()
    assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]
    futures = [executor.submit(square, n) for n in range(20)]
    assert {future.result() for future in concurrent.futures.as_completed(futures, PATIENCE)} == set(
        map(square, range(20))
    )
    done, left = concurrent.futures.wait(futures)
    assert len(done) == 20 and not left


def test_calls_run_in_other_processes_in_all_slots(executor: Executor, tmp_path: Path) -> None:
    waiting = [executor.submit(wait_for, tmp_path / str(n)) for n in range(SLOTS)]
    for n in range(SLOTS):
        wait_until(began(tmp_path / str(n)))
    assert [future.running() for future in waiting] == [True] * SLOTS
    for n in range(SLOTS):
        (tmp_path / str(n)).write_text(str(n))
    assert [future.result(PATIENCE) for future in waiting] == ["0", "1"]
    assert executor.submit(os.getpid).result() != os.getpid()


def test_lambdas_and_closures_and_functions_of_main_work(executor: Executor) -> None:
    base = 40
    assert executor.submit(lambda x: x + base, 2).result(PATIENCE) == 42


def test_a_script_uses_its_own_functions_and_ends_by_itself(pool: PoolService, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom cexec import Executor\n"
        "class Thing:\n    def __init__(self, n): self.n = n\n"
        "def double(thing): return Thing(thing.n * 2)\n"
        "executor = Executor(sys.argv[1])\n"
        "print(executor.submit(double, Thing(21)).result().n)\n"
    )
    result = pool.python(script, pool.key)
    assert (result.stdout, result.stderr, result.returncode) == ("42\n", "", 0)


def test_exceptions_have_the_remote_traceback_as_their_cause(executor: Executor) -> None:
    future = executor.submit(operator.truediv, 1, 0)
    assert isinstance(future.exception(PATIENCE), ZeroDivisionError)
    assert "Traceback (most recent call last)" in str(future.exception().__cause__)  # type: ignore[union-attr]


def test_what_cannot_be_pickled_is_named_on_either_side(executor: Executor) -> None:
    lock = threading.Lock()
    with pytest.raises(CannotPickleError, match=r"cannot pickle args\[0\]\['x'\] of a call of square, of"):
        executor.submit(square, {"x": lock}).result(PATIENCE)
    with pytest.raises(CannotPickleError, match=r"the variable lock of .*<lambda>, of type _thread.lock"):
        executor.submit(lambda: lock).result(PATIENCE)
    with pytest.raises(CannotPickleError, match=r"^worker .*@.*: cannot pickle the result of .*of type _thread.lock"):
        executor.submit(lambda: __import__("threading").Lock()).result(PATIENCE)
    with pytest.raises(CannotPickleError, match="cannot be pickled: make one in the call"):
        executor.submit(print, executor).result(PATIENCE)


def test_an_executor_takes_no_calls_after_shutdown(pool: PoolService) -> None:
    executor = Executor(pool.key)
    executor.shutdown()
    for call in (lambda: executor.submit(square, 1), lambda: executor.map(square, [1])):
        with pytest.raises(RuntimeError, match="after shutdown"):
            call()


def test_shutdown_lets_calls_end_or_cancels_those_that_wait(pool: PoolService, tmp_path: Path) -> None:
    executor = Executor(pool.key, 1)
    running = executor.submit(wait_for, tmp_path / "go")
    wait_until(began(tmp_path / "go"))
    waiting = [executor.submit(square, n) for n in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: all(future.cancelled() for future in waiting))
    (tmp_path / "go").write_text("went")
    assert running.result(PATIENCE) == "went"
    executor.shutdown()
    pool.wait_until_free()


def test_the_slots_are_known_before_any_is_held(pool: PoolService) -> None:
    def known() -> bool:
        """A worker that has no time for a second is not in the census."""
        with Executor(pool.key) as executor:
            return executor._max_workers == SLOTS

    wait_until(known)
    with Executor(pool.key, 1) as executor:
        assert executor._max_workers == 1


# map


def test_map_takes_inputs_as_results_are_taken(executor: Executor) -> None:
    taken = itertools.count()
    results = executor.map(square, taken, buffersize=10)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert next(taken) <= 16
    results.close()  # type: ignore[attr-defined]
    assert list(executor.map(operator.add, range(10), itertools.repeat(1), chunksize=4)) == list(range(1, 11))
    assert list(executor.map(square, range(10), chunksize=3, buffersize=2)) == list(map(square, range(10)))
    assert list(executor.map(square, [])) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [({"chunksize": 0}, ValueError), ({"buffersize": 0}, ValueError), ({"buffersize": "1"}, TypeError)],
)
def test_map_refuses_what_that_of_python_3_14_refuses(executor: Executor, options: Any, error: type) -> None:
    with pytest.raises(error):
        executor.map(square, [1], **options)


def test_map_raises_and_cancels_the_calls_behind(executor: Executor) -> None:
    results = executor.map(lambda n: 1 // n, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(executor.map(time.sleep, [1000], timeout=0.5))


# cancel


def test_cancel_ends_a_running_call_with_its_processes(executor: Executor, tmp_path: Path) -> None:
    def start_and_sleep(path: Path) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        path.write_text(f"{os.getpid()} {child.pid}\n")
        time.sleep(1000)

    path = tmp_path / "pids"
    future = executor.submit(start_and_sleep, path)
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
    assert future.running()
    assert future.cancel() and future.cancelled() and future.cancel()
    wait_until(lambda: not any(psutil.pid_exists(int(pid)) for pid in path.read_text().split()))
    assert executor.submit(square, 3).result(PATIENCE) == 9
    done = executor.submit(square, 4)
    assert done.result(PATIENCE) == 16 and not done.cancel()


def test_cancel_does_not_wait_until_large_arguments_are_sent(pool: PoolService) -> None:
    with Executor(pool.key, 1) as executor:
        keeper = psutil.Process(executor.submit(os.getppid).result(PATIENCE))
        keeper.suspend()  # so that the worker takes no more than a few buffers
        sending = executor.submit(len, bytes(30_000_000))
        wait_until(sending.running)
        assert sending.cancel()
        assert executor.submit(square, 4).result(PATIENCE) == 16
        wait_until(lambda: not keeper.is_running())


def test_cancelling_the_task_of_run_in_executor_ends_the_call(executor: Executor, tmp_path: Path) -> None:
    async def scene() -> int:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, square, 5) == 25

        def sleep(path: Path) -> None:
            path.write_text(f"{os.getpid()}\n")
            path.with_suffix(".began").touch()
            time.sleep(1000)

        task = asyncio.ensure_future(loop.run_in_executor(executor, sleep, tmp_path / "pid"))
        while not began(tmp_path / "pid")():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return int((tmp_path / "pid").read_text())

    pid = asyncio.run(scene())
    wait_until(lambda: not psutil.pid_exists(pid))


# workers


def test_output_comes_with_the_name_of_the_worker(pool: PoolService, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom cexec import Executor\n"
        "with Executor(sys.argv[1]) as executor:\n"
        "    executor.submit(print, 'hello').result()\n"
    )
    result = pool.python(script, pool.key)
    name, _, text = result.stderr.partition(": ")
    assert result.stdout == "" and text == "hello\n" and name


def test_a_call_that_kills_its_workers_fails_and_the_pool_goes_on(pool: PoolService, tmp_path: Path) -> None:
    def crash(path: Path, word: str) -> None:
        with path.open("a") as file:
            file.write(word)
        os.kill(os.getpid(), signal.SIGSEGV)

    with Executor(pool.key, retries=1) as executor:
        others = [executor.submit(square, n) for n in range(50)]
        killer = executor.submit(crash, tmp_path / "count", "x")
        others += [executor.submit(square, n) for n in range(50)]
        error = killer.exception(PATIENCE)
        assert isinstance(error, LostCallError) and isinstance(error, concurrent.futures.BrokenExecutor)
        assert "crash(" in str(error) and "'x'" in str(error) and "SIGSEGV" in str(error) and "2 times" in str(error)
        assert (tmp_path / "count").read_text() == "xx"
        assert [future.result(PATIENCE) for future in others] == [square(n) for n in range(50)] * 2
        assert executor.submit(square, 9).result(PATIENCE) == 81


def test_without_retries_a_call_that_began_is_not_repeated(pool: PoolService, tmp_path: Path) -> None:
    def crash(path: Path) -> None:
        with path.open("a") as file:
            file.write("x")
        os._exit(3)

    with Executor(pool.key, retries=0) as executor:
        others = [executor.submit(square, n) for n in range(10)]
        error = executor.submit(crash, tmp_path / "count").exception(PATIENCE)
        assert "lost once" in str(error) and "exited with status 3" in str(error)
        assert (tmp_path / "count").read_text() == "x"
        assert [future.result(PATIENCE) for future in others] == [square(n) for n in range(10)]


def test_calls_survive_the_loss_of_their_slot(pool: PoolService, tmp_path: Path) -> None:
    with Executor(pool.key, 1) as executor:

        def kill_the_slot(path: Path) -> str:
            if path.exists():
                return "the second time"
            path.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1000)
            return ""

        future = executor.submit(kill_the_slot, tmp_path / "killed")
        others = [executor.submit(square, n) for n in range(20)]
        assert future.result(PATIENCE) == "the second time"
        assert [one.result(PATIENCE) for one in others] == [square(n) for n in range(20)]


def test_an_initializer_runs_in_each_process(pool: PoolService) -> None:
    def initialize(value: str) -> None:
        os.environ["FROM_INITIALIZER"] = value

    with Executor(pool.key, 1, initializer=initialize, initargs=("x",), max_tasks_per_child=2) as executor:
        pairs = [executor.submit(lambda: (os.environ["FROM_INITIALIZER"], os.getpid())).result() for _ in range(4)]
    assert [value for value, _ in pairs] == ["x"] * 4
    pids = [pid for _, pid in pairs]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_an_initializer_that_raises_breaks_the_executor(pool: PoolService) -> None:
    with Executor(pool.key, initializer=operator.truediv, initargs=(1, 0)) as executor:
        with pytest.raises(InitializerError, match=r"the initializer has raised at .*ZeroDivisionError"):
            executor.submit(square, 1).result(PATIENCE)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            executor.submit(square, 1)


def test_env_and_modules_are_there(pool: PoolService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "local_package_abc"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import answer\n")
    (package / "inner.py").write_text("import os\ndef answer(): return os.environ['ANSWER']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("local_package_abc")
    with Executor(pool.key, env={"ANSWER": "42"}, modules=["local_package_abc"]) as executor:
        assert executor.submit(module.answer).result(PATIENCE) == "42"
    with (
        Executor(pool.key) as executor,
        pytest.raises(ModuleNotFoundError, match=r"worker \S+@\S+ has no module l"),
    ):
        executor.submit(module.answer).result(PATIENCE)


def test_modules_come_to_each_worker_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use_in_all_slots(path: Path) -> int:
        wait_for(path)
        return len(__import__("large_module_abc").data)

    size = 1_000_000
    (tmp_path / "large_module_abc.py").write_text(f"data = '{os.urandom(size // 2).hex()}'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with PoolService(tmp_path, slots=2, environment={"TMPDIR": str(tmp_path)}) as pool:
        for _ in range(2):
            with Executor(pool.key, modules=["large_module_abc"]) as executor:
                lengths = [executor.submit(use_in_all_slots, tmp_path / str(n)) for n in range(SLOTS)]
                for n in range(SLOTS):
                    wait_until(began(tmp_path / str(n)))
                for n in range(SLOTS):
                    (tmp_path / str(n)).write_text("go")
                assert [one.result(PATIENCE) for one in lengths] == [size] * SLOTS
            for path in tmp_path.glob("[0-9]*"):
                path.unlink()
        ends = "\n".join(pool.service.lines_with("finished", 2 * SLOTS))
    received = sum(map(int, re.findall(r"received=(\d+)", ends)))
    assert 0.45 * size < received < 0.7 * size  # two hexadecimal digits are packed to a byte


def test_nested_executors_run_in_the_process_of_the_call(executor: Executor) -> None:
    def nested() -> Any:
        from cexec import Executor as Inner

        with Inner("a/key/that/this/worker/has/not.pub") as inner:
            return os.getpid(), inner.submit(os.getpid).result(), list(inner.map(abs, [-1, 2]))

    futures = [executor.submit(nested) for _ in range(2 * SLOTS)]
    for future in futures:
        outer, inner, results = future.result(PATIENCE)
        assert outer == inner and results == [1, 2]


# failures


def test_a_key_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        Executor(tmp_path / "nothing.pub")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"retries": -1}, UsageError),
        ({"wait": 0}, UsageError),
        ({"modules": ["no_such_module_xyz"]}, UsageError),
        ({"modules": ["os.path"]}, UsageError),
        ({"modules": ["_socket", "math"]}, UsageError),
        ({"env": {"A": 1}}, UsageError),
        ({"env": {"A=B": ""}}, UsageError),
        ({"env": {"": ""}}, UsageError),
        ({"env": {"A": "\0"}}, UsageError),
        ({"wait": float("nan")}, UsageError),
        ({"idle_timeout": -1}, UsageError),
        ({"initializer": 5}, TypeError),
        ({"weight": 0}, UsageError),
    ],
)
def test_arguments_that_mean_nothing_are_refused(pool: PoolService, options: Any, error: type) -> None:
    with pytest.raises(error):
        Executor(pool.key, **options)


def test_nobody_answers(tmp_path: Path) -> None:
    application = Application(tmp_path)
    with Executor(application.public, wait=1) as executor:
        began_at = time.monotonic()
        with pytest.raises(NoWorkerError):
            executor.submit(square, 1).result(PATIENCE)
        assert time.monotonic() - began_at < PATIENCE / 2
        with pytest.raises(NoWorkerError):
            list(executor.map(square, [1, 2]))


def test_a_worker_that_is_named_is_waited_for_no_longer_than_others(pool: PoolService) -> None:
    with Executor(pool.key, on="nobody-is-called-so", wait=1) as executor, pytest.raises(NoWorkerError):
        executor.submit(square, 1).result(PATIENCE)


def test_a_callback_that_would_wait_for_itself_is_told(executor: Executor, tmp_path: Path) -> None:
    found: list[BaseException | int] = []

    def ask(_: object) -> None:
        try:
            found.append(executor.count_slots())
        except UsageError as error:
            found.append(error)

    running = executor.submit(wait_for, tmp_path / "go")
    running.add_done_callback(ask)
    (tmp_path / "go").write_text("go")
    running.result(PATIENCE)
    wait_until(lambda: bool(found))
    assert "would wait for itself" in str(found[0])


@pytest.mark.parametrize("program", [["cat"], ["true"], ["sleep", "1000"], ["sh", "-c", "echo hello; cat >/dev/null"]])
def test_a_service_that_is_something_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: list[str]
) -> None:
    monkeypatch.setattr(call_slot, "GREETING_PATIENCE", 1.5)
    with (
        PoolService(tmp_path, program=program) as other,
        Executor(other.key) as executor,
        pytest.raises(
            NoWorkerError, match=r"does not serve cexec\.pool.*serve it by: cservice pool python3 -m cexec\.pool"
        ),
    ):
        executor.submit(square, 1).result(PATIENCE)


def test_a_service_whose_python_has_no_cexec_is_told_where_to_install_it(tmp_path: Path) -> None:
    """Regression: it was told to serve what it served; `pipx` and `make install` bring cexec to no other Python."""
    program = [sys.executable, "-S", "-I", "-m", "cexec.pool"]
    with (
        PoolService(tmp_path, program=program) as other,
        Executor(other.key) as executor,
        pytest.raises(NoWorkerError, match=r"its Python has no cexec; .* python3 -m pip install '\.\[pool\]'$"),
    ):
        executor.submit(square, 1).result(PATIENCE)


@pytest.mark.campaign
@pytest.mark.parametrize("program", [["cat"], ["true"], ["sleep", "1000"]])
def test_a_service_that_is_something_else_is_said_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: list[str]
) -> None:
    monkeypatch.undo()
    with PoolService(tmp_path, program=program) as other, Executor(other.key) as executor:
        began_at = time.monotonic()
        assert executor.submit(square, 1).exception(PATIENCE) is not None
        assert time.monotonic() - began_at < 2.0  # seconds (ours)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("python", f"Python 3.99, this is 3.{sys.version_info.minor}"),
        ("cloudpickle", "no cloudpickle, which `pip install cloudpickle` brings"),
        ("messages", "a cexec whose pools have version 99, this is version 1: install the same cexec on both sides"),
    ],
)
def test_a_worker_that_does_not_match_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, words: str
) -> None:
    program = [sys.executable, "-m", "tests.python.other_pool", what]
    with (
        PoolService(tmp_path, program=program) as other,
        Executor(other.key) as executor,
        pytest.raises(NoWorkerError) as caught,
    ):
        executor.submit(square, 1).result(PATIENCE)
    assert re.fullmatch(rf"no worker can run calls of this Python: \S+@\S+ has {re.escape(words)}", str(caught.value))
    assert capsys.readouterr().err == ""


def test_all_workers_that_are_passed_over_are_named(tmp_path: Path) -> None:
    application = Application(tmp_path)
    program = [sys.executable, "-m", "tests.python.other_pool"]
    services = [
        Service(application, [*program, "python"], ("--name", "old")),
        Service(application, [*program, "cloudpickle"], ("--name", "bare")),
    ]
    try:
        with Executor(application.public) as executor, pytest.raises(NoWorkerError) as caught:
            executor.submit(square, 1).result(PATIENCE)
        assert re.search(r"old@\S+ has Python 3\.99, this is 3\.", str(caught.value))
        assert re.search(r"bare@\S+ has no cloudpickle", str(caught.value))
    finally:
        for service in services:
            service.close()


def test_a_worker_with_another_cexec_works(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.python.other_pool", "cexec"]
    with PoolService(tmp_path, program=program) as other, Executor(other.key) as executor:
        assert executor.submit(square, 5).result(PATIENCE) == 25


# ends


def test_the_slots_are_given_back(pool: PoolService) -> None:
    with Executor(pool.key, idle_timeout=0.2) as executor:
        assert executor.submit(square, 2).result(PATIENCE) == 4
        pool.wait_until_free()
        assert executor.submit(square, 3).result(PATIENCE) == 9
    pool.wait_until_free()


SLEEPING = """
import os, sys, threading, time
from cexec import Executor
def sleep(path):
    open(path, "w").write(f"{os.getpid()}\\n")
    time.sleep(1000)
executor = Executor(sys.argv[1])
future = executor.submit(sleep, sys.argv[2])
"""


@pytest.mark.parametrize(
    "code",
    ["future.result()\n", "with executor:\n    future.result()\n", "with executor:\n    pass\n", ""],
    ids=["plain", "with", "leaving", "exit"],
)
def test_ctrl_c_leaves_nothing_running(pool: PoolService, tmp_path: Path, code: str) -> None:
    pool.interrupt(SLEEPING + code, tmp_path)


def test_an_exit_of_the_interpreter_finishes_the_calls(pool: PoolService, tmp_path: Path) -> None:
    script, path = tmp_path / "script.py", tmp_path / "file"
    script.write_text(
        "import sys, time\nfrom cexec import Executor\nfrom pathlib import Path\n"
        "Executor(sys.argv[1]).submit(Path(sys.argv[2]).write_text, 'written')\n"
    )
    result = pool.python(script, pool.key, path)
    assert (result.returncode, result.stderr) == (0, "")
    assert path.read_text() == "written"
    pool.wait_until_free()


def test_an_executor_that_is_forgotten_gives_its_slots_back(pool: PoolService) -> None:
    executor = Executor(pool.key)
    assert executor.submit(square, 2).result(PATIENCE) == 4
    del executor
    pool.wait_until_free()


def test_a_child_after_fork_is_told(executor: Executor) -> None:
    assert executor.submit(square, 2).result(PATIENCE) == 4
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            executor.submit(square, 2)
        except UsageError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, "rb") as file:
        assert b"made before fork" in file.read()
    assert executor.submit(square, 3).result(PATIENCE) == 9


def test_a_busy_worker_is_waited_for_although_others_do_not_fit(tmp_path: Path) -> None:
    application = Application(tmp_path)
    good = Service(application, PROGRAM, ("-j", "1", "--name", "good"))
    other = Service(application, ["cat"], ("-j", "4", "--name", "other"))
    path = tmp_path / "go"
    try:
        with Executor(application.public, retries=20) as first:
            running = first.submit(wait_for, path)
            wait_until(began(path))
            with Executor(application.public, wait=PATIENCE) as second:
                waiting = second.submit(square, 3)
                wait_until(lambda: len(other.lines) > 2)  # the second one has met it
                path.write_text("done")
                assert running.result(PATIENCE) == "done"
                first.shutdown()
                assert waiting.result(PATIENCE) == 9
    finally:
        for service in (good, other):
            service.close()


def test_a_worker_whose_slots_never_get_ready_is_named(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.python.unready_pool"]
    with (
        PoolService(tmp_path, program=program) as other,
        Executor(other.key) as executor,
        pytest.raises(NoWorkerError, match=r"\S+@\S+ fails: cexec\.pool at \S+ has ended with status 7: not today"),
    ):
        executor.submit(square, 1).result(PATIENCE)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The key of a worker that answers as no honest one does."""
    program = [sys.executable, "-m", "tests.python.hostile_pool"]
    with PoolService(tmp_path_factory.mktemp("hostile"), program=program) as service:
        yield service.key


@pytest.mark.parametrize("way", ["raised without parts", "store without parts", "no memory", "no message", "ends"])
def test_a_worker_that_breaks_the_rules_loses_its_call_and_no_other(hostile: Path, way: str) -> None:
    with Executor(hostile, max_workers=1, retries=0) as executor:
        broken, waiting = executor.submit(echo, way), executor.submit(echo, "leaves in its pickle")
        with pytest.raises(LostCallError) as caught:
            broken.result(PATIENCE)
        with pytest.raises(RuntimeError, match="cannot be read here"):
            waiting.result(PATIENCE)
    assert str(caught.value).isprintable()


def test_dask_computes_on_all_slots(executor: Executor) -> None:
    try:
        dask: Any = importlib.import_module("dask")
    except ImportError:
        skip_for_want_of("dask")
    total = dask.delayed(sum)([dask.delayed(square)(n) for n in range(20)])
    with dask.config.set(scheduler=executor):
        assert total.compute() == sum(map(square, range(20)))


# Prints by how many bytes the memory of this process has grown after the first calls.
GROWTH = """
import os, sys
from cexec import Executor
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
calls, total = int(sys.argv[2]), 0
with Executor(sys.argv[1]) as executor:
    for done, result in enumerate(executor.map(abs, range(calls), buffersize=1000)):
        total += result
        if done == 2000:
            before = resident()
    grown = resident() - before
assert total == calls * (calls - 1) // 2
print(grown)
"""


@pytest.mark.parametrize(
    ("calls", "most"), [(10_000, 8_000_000), pytest.param(1_000_000, 20_000_000, marks=pytest.mark.campaign)]
)
def test_memory_does_not_grow_with_the_number_of_calls(
    pool: PoolService, tmp_path: Path, calls: int, most: int
) -> None:
    """By so many bytes at most, which for the fewer calls are 1000 each."""
    script = tmp_path / "script.py"
    script.write_text(GROWTH)
    result = pool.python(script, pool.key, str(calls), timeout=230)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < most


@pytest.mark.parametrize("size", [3_000_000, pytest.param(1_000_000_000, marks=pytest.mark.campaign)])
def test_results_may_be_large(executor: Executor, size: int) -> None:
    assert executor.submit(bytes, size).result(3 * PATIENCE) == bytes(size)
    array = executor.submit(lambda: __import__("numpy").ones(size // 8)).result(3 * PATIENCE)
    assert array.nbytes == size and array.flags.writeable and array[-1] == 1.0
