"""`python3 -m cexec.pool` over pipes: calls, outcomes, output, ends."""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cexec.errors import CannotPickleError
from cexec.pool import call_messages as m
from cexec.pool.interpreter import Interpreter
from tests.pool.worker import WORKER, PoolWorker
from tests.waiting import wait_until


@pytest.fixture
def worker() -> Iterator[PoolWorker]:
    with PoolWorker() as started:
        yield started


@pytest.fixture
def ready(worker: PoolWorker) -> PoolWorker:
    assert worker.set_up().kind == m.READY
    return worker


def identity(value: object) -> object:
    return value


def process_id() -> int:
    return os.getpid()


def test_the_worker_says_what_it_is(worker: PoolWorker) -> None:
    hello = Interpreter.decode(worker.greet().parts[0])
    assert hello == replace(Interpreter.here(), pid=worker.process.pid)
    assert hello.difference(Interpreter.here()) == ""


def test_differences_are_said_in_words() -> None:
    here = replace(Interpreter.here(), python="3.11.2", cloudpickle="3.1.0", byteorder="little")
    assert replace(here, python="3.12.0").difference(here) == "Python 3.12, this is 3.11"
    assert replace(here, python="3.11.9", cloudpickle="3.0.0").difference(here) == ""
    assert replace(here, cloudpickle="2.2").difference(here) == "cloudpickle 2, this is 3"
    assert replace(here, byteorder="big").difference(here) == "byte order big, this is little"
    assert "pip install" in replace(here, cloudpickle="").difference(here)


def test_it_tells_somebody_else_what_it_is() -> None:
    result = subprocess.run(WORKER, input=b"hello\n", capture_output=True, timeout=30)
    assert result.returncode == 100 and result.stdout == m.WORKER_GREETING
    assert b"cservice pool python3 -m cexec.pool" in result.stderr


def test_calls_return_and_raise(ready: PoolWorker) -> None:
    assert ready.run(lambda a, b: a + b, 1, b=2) == 3
    with pytest.raises(ZeroDivisionError) as caught:
        ready.run(lambda: 1 // 0)
    assert "in <lambda>" in str(caught.value.__cause__)
    with pytest.raises(SystemExit):
        ready.run(sys.exit, 3)
    assert ready.run(identity, "still there") == "still there"


def test_many_calls_come_back_in_order(ready: PoolWorker) -> None:
    function = ready.function(lambda n: n * n)
    for n in range(500):
        ready.call(function, n)
    assert [ready.outcome() for _ in range(500)] == [n * n for n in range(500)]


def test_a_chunk_is_many_calls_of_one_function(ready: PoolWorker) -> None:
    from cexec.pool.pickles import dump

    function = ready.function(pow)
    ready.send(m.CHUNK, 1, function, dump([(2, 3), (3, 2)], "arguments"))
    assert ready.outcome() == [8, 9]


def test_large_arrays_go_there_and_back_and_can_be_written_to(ready: PoolWorker) -> None:
    array = np.arange(5_000_000, dtype=np.float64)

    def add(one: Any) -> Any:
        one += 1
        return one

    result = ready.run(add, array)
    assert result.flags.writeable and np.array_equal(result, array + 1)
    assert array[0] == 0


def test_what_calls_print_and_read_is_no_message(ready: PoolWorker) -> None:
    def noisy() -> Any:
        print("printed")
        os.write(1, b"written\n")
        subprocess.run(["echo", "echoed"], check=True)
        return sys.stdin.read(), os.read(0, 10), subprocess.run(["cat"], capture_output=True, check=True).stdout

    assert ready.run(noisy) == ("", b"", b"")
    assert ready.errors().splitlines() == ["printed", "written", "echoed"]


def test_no_call_has_the_descriptors_of_the_messages(ready: PoolWorker) -> None:
    def descriptors() -> list[str]:
        return [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]

    null, one, two = ready.run(descriptors)
    assert null == "/dev/null" and one == two and not one.startswith("pipe")


def test_results_that_cannot_be_pickled_are_named(ready: PoolWorker) -> None:
    with pytest.raises(CannotPickleError, match=r"^worker w@host: cannot pickle the result\[1\] of .*, of type _th"):
        ready.run(lambda: [1, __import__("threading").Lock()])


def test_an_initializer_runs_before_the_calls(worker: PoolWorker) -> None:
    def initialize(name: str) -> None:
        os.environ["STARTED"] = name

    assert worker.set_up(initialize, "x").kind == m.READY
    assert worker.run(lambda: os.environ["STARTED"]) == "x"


def test_an_initializer_that_raises_is_said(worker: PoolWorker) -> None:
    message = worker.set_up(lambda: 1 // 0)
    assert message.kind == m.UNREADY
    with pytest.raises(ZeroDivisionError):
        worker.outcome(m.CallMessage(m.RAISED, 0, 0, message.parts))


def test_the_environment_is_there_before_code_is_loaded(worker: PoolWorker) -> None:
    worker.set_up(environment={"FOO": "bar", "MKL_NUM_THREADS": "7"})
    names = ("FOO", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    foo, omp, blas, mkl = worker.run(lambda: [os.environ[name] for name in names])
    assert (foo, mkl) == ("bar", "7") and omp == blas == "1"


def test_threads_are_the_cpus_over_the_slots() -> None:
    from cexec.pool.threads import limits

    assert limits({"CEXEC_SLOTS": "3"}, 8)["OMP_NUM_THREADS"] == "2"
    assert limits({"CEXEC_SLOTS": "16"}, 8)["OMP_NUM_THREADS"] == "1"
    assert limits({}, 8)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in limits({"OMP_NUM_THREADS": "5"}, 8)


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment whose directory for temporary files is the test's own."""
    return {"TMPDIR": str(tmp_path)}


def test_modules_come_to_a_machine_once(place: dict[str, str], tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sent_package.py", "value = 42\n")
    had = []
    for damage in ("", "", "x"):
        for kept in tmp_path.glob("cexec-modules-*/*"):
            kept.write_bytes(kept.read_bytes() + damage.encode())
        with PoolWorker(environment=place) as worker:
            assert worker.set_up(modules=file.getvalue()).kind == m.READY
            had.append(worker.had_modules)
            for kept in tmp_path.glob("cexec-modules-*/*"):
                kept.unlink()  # as another one does that needs the room: those who have it keep it
                kept.write_bytes(file.getvalue())
            assert worker.run(lambda: importlib.import_module("sent_package").value) == 42
    assert had == [False, True, False]


def test_modules_come_with_each_slot_if_they_cannot_be_kept(place: dict[str, str], tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sent_package.py", "value = 42\n")
    (tmp_path / f"cexec-modules-{os.geteuid()}").mkdir(mode=0o755)  # others may enter it
    for _ in range(2):
        with PoolWorker(environment=place) as worker:
            assert worker.set_up(modules=file.getvalue()).kind == m.READY
            assert not worker.had_modules
            assert worker.run(lambda: importlib.import_module("sent_package").value) == 42


def test_modules_that_were_sent_can_be_imported_also_by_programs_of_a_call(worker: PoolWorker) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sent_package/__init__.py", "from .inner import value\n")
        archive.writestr("sent_package/inner.py", "value = 42\n")
        archive.writestr("sent_package/words.txt", "beside it")
    worker.set_up(modules=file.getvalue())

    def use() -> Any:
        sent_package = importlib.import_module("sent_package")
        program = [sys.executable, "-c", "import sent_package; print(sent_package.value)"]
        words = importlib.resources.files(sent_package).joinpath("words.txt").read_text()
        return sent_package.value, subprocess.check_output(program), words

    assert worker.run(use) == (42, b"42\n", "beside it")


def test_a_module_that_is_missing_is_named_with_the_worker(ready: PoolWorker, tmp_path: Path) -> None:
    (tmp_path / "only_here_xyz.py").write_text("def f(): return 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        only_here_xyz = importlib.import_module("only_here_xyz")
        with pytest.raises(ModuleNotFoundError, match=r"worker w@host has no module only_here_xyz: .*modules="):
            ready.run(only_here_xyz.f)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["only_here_xyz"]


def test_a_call_that_ends_its_process_is_named_and_the_others_run(ready: PoolWorker) -> None:
    fine, fatal = ready.function(identity), ready.function(os.kill)
    before = ready.call(fine, 1)
    pid = ready.function(process_id)
    ready.call(pid)
    assert ready.outcome() == 1
    first = ready.outcome()
    killer = ready.call(ready.function(lambda: os.kill(os.getpid(), signal.SIGSEGV)))
    behind = [ready.call(fine, n) for n in range(100)]
    died = ready.receive()
    assert (died.kind, died.id, m.decode_status(died.about)) == (m.DIED, killer, -signal.SIGSEGV)
    assert ready.receive().kind == m.READY
    assert [ready.outcome() for _ in behind] == list(range(100))
    ready.call(pid)
    assert ready.outcome() != first
    assert before < killer and fatal


def test_a_copy_that_a_call_forks_ends_where_the_call_returns(ready: PoolWorker) -> None:
    def fork(end: Callable[[], object]) -> int:
        pid = os.fork()
        return pid and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else bool(end())

    function = ready.function(fork)
    for end, status in ((os.getpid, 0), (functools.partial(sys.exit, 3), 3), (functools.partial(int, "x"), 1)):
        ready.call(function, end)
        assert ready.outcome() == status
    assert ready.errors().splitlines()[-1] == "ValueError: invalid literal for int() with base 10: 'x'"
    assert ready.run(identity, 5) == 5


def test_a_result_that_breaks_off_does_not_count(ready: PoolWorker) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            import threading

            threading.Timer(0.2, os._exit, (5,)).start()
            return bytes, (bytes(300_000_000),)

    call = ready.call(ready.function(Bomb))
    kinds = []
    while (message := ready.receive()).kind != m.DIED:
        kinds.append(message.kind)
    assert message.id == call and m.DONE not in kinds
    assert ready.receive().kind == m.READY


def test_a_running_call_is_cancelled_and_the_others_run(ready: PoolWorker) -> None:
    fine = ready.function(identity)
    running = ready.call(ready.function(lambda: time.sleep(1000)))
    first, second = ready.call(fine, 1), ready.call(fine, 2)
    ready.send(m.CANCEL, second)
    ready.send(m.CANCEL, running)
    kinds: set[tuple[int, int]] = set()
    while len(kinds) < 3:
        message = ready.receive()
        if message.kind != m.READY:  # of the next runner, if the call had begun
            kinds.add((message.kind, message.id))
    assert kinds == {(m.RESULT, first), (m.CANCELLED, running), (m.CANCELLED, second)}


def test_a_call_that_has_begun_ends_with_all_its_processes(ready: PoolWorker) -> None:
    ready.call(ready.function(process_id))
    runner = psutil.Process(ready.outcome())
    running = ready.call(ready.function(lambda: subprocess.run(["sleep", "1000"], check=False)))
    wait_until(lambda: [child.name() for child in runner.children()] == ["sleep"])
    (child,) = runner.children()
    ready.send(m.CANCEL, running)
    assert (message := ready.receive()).kind == m.CANCELLED and message.id == running
    assert ready.receive().kind == m.READY
    wait_until(lambda: not runner.is_running() and not child.is_running())


def test_a_call_that_waits_is_taken_back(ready: PoolWorker, tmp_path: Path) -> None:
    def wait(go: str) -> None:
        while not os.path.exists(go):
            time.sleep(0.01)

    started, go = ready.function(wait), tmp_path / "go"
    running, waiting = ready.call(started, str(go)), ready.call(started, str(go))
    ready.send(m.TAKE_BACK, running)  # it may have begun
    ready.send(m.TAKE_BACK, waiting)
    returned = [ready.receive()]
    if returned[0].id == running:
        returned.append(ready.receive())
    assert [message.kind for message in returned] == [m.RETURNED] * len(returned) and returned[-1].id == waiting
    go.touch()
    if len(returned) == 1:
        message = ready.receive()
        assert (message.kind, message.id) == (m.RESULT, running)


def test_a_call_that_is_cancelled_too_late_has_its_result(ready: PoolWorker) -> None:
    call = ready.call(ready.function(identity), 5)
    assert ready.outcome() == 5
    ready.send(m.CANCEL, call)
    assert ready.run(identity, 6) == 6


def test_a_process_runs_only_so_many_calls(worker: PoolWorker) -> None:
    worker.set_up(most_calls=3)
    function = worker.function(process_id)
    for _ in range(9):
        worker.call(function)
    received = [worker.receive() for _ in range(11)]
    pids = [worker.outcome(message) for message in received if message.kind == m.RESULT]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_nothing_runs_when_the_client_has_gone(ready: PoolWorker) -> None:
    ready.call(ready.function(process_id))
    pid = ready.outcome()
    ready.call(ready.function(lambda: subprocess.run(["sleep", "1000"], check=False)))
    runner = psutil.Process(pid)
    wait_until(lambda: [child.name() for child in runner.children()] == ["sleep"])
    (child,) = runner.children()
    ready.hang_up()
    assert ready.process.wait(30) == 0
    wait_until(lambda: not runner.is_running() and not child.is_running())


def test_a_lone_result_comes_while_the_next_call_runs(ready: PoolWorker) -> None:
    short, long = ready.function(identity), ready.function(time.sleep)
    ready.call(short, 1)
    running = ready.call(long, 1000)
    assert ready.outcome() == 1
    ready.send(m.CANCEL, running)
    assert ready.receive().kind == m.CANCELLED


def test_nested_joblib_stays_in_the_process(ready: PoolWorker) -> None:
    pytest.importorskip("joblib")

    def nested() -> Any:
        import joblib

        return set(joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(4))) == {os.getpid()}

    assert ready.run(nested)
