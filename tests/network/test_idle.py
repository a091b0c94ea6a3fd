"""Idle means no CPU: clients, workers, relays and observers that wait for something, whatever it is.

Contract: a process is asleep first; then all of its threads together use less than LIMIT of CPU time in a second.  A
process that spins uses most of a second, even where others compete for the processor, and of each second: what a
machine has had no time for until then is done in the first one.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest

from cexec.protocol.base.limits import INITIAL_WINDOW
from tests.campaigns import cmap
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command, local_environment
from tests.loggers import Crat
from tests.relaying import Proxy
from tests.service import Application, Service
from tests.waiting import all_asleep, wait_until

SECOND = 1.0  # that is measured
LIMIT = 0.02  # seconds of CPU time within it
TRIES = 5
CLIENTS = ("cexec", "cexec --all", "cmap")
MUCH = 4 * INITIAL_WINDOW  # bytes


def cpu_time(pid: int) -> float:
    """Seconds that all threads of a process have run."""
    nanoseconds = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def check_idle(*pids: int) -> None:
    for _ in range(TRIES):
        wait_until(lambda: all_asleep(*pids), explain=lambda: [psutil.Process(p).as_dict(["cmdline"]) for p in pids])
        before = {pid: cpu_time(pid) for pid in pids}
        time.sleep(SECOND)
        used = {pid: cpu_time(pid) - before[pid] for pid in pids}
        busy = {" ".join(psutil.Process(pid).cmdline()[1:]): took for pid, took in used.items() if took >= LIMIT}
        if not busy:
            return
    raise AssertionError(f"in each of {TRIES} seconds, in the last one: {busy}")


def of_the_worker(service: Service) -> list[int]:
    """Its processes, without the programs of its jobs."""
    found = []
    for pid in service.pids():
        try:
            if "cservice" in " ".join(psutil.Process(pid).cmdline()):
                found.append(pid)
        except psutil.NoSuchProcess:
            pass  # a process of the program that has ended meanwhile
    return found


# what clients wait for


def _zero(stack: ExitStack) -> BinaryIO:
    return stack.enter_context(open("/dev/zero", "rb"))


def _ended_pipe(stack: ExitStack) -> BinaryIO:
    """Its writer has gone and left more than a client may read: poll would report the end for ever."""
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as file:
            file.write(bytes(INITIAL_WINDOW + 50_000))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return stack.enter_context(open(reading, "rb"))


def _silent_pipe(stack: ExitStack) -> BinaryIO:
    reading, writing = os.pipe()
    stack.callback(os.close, writing)
    return stack.enter_context(open(reading, "rb"))


def _nothing(stack: ExitStack) -> BinaryIO:
    return stack.enter_context(open(os.devnull, "rb"))


def _closed(stack: ExitStack) -> None:
    return None


@dataclass(frozen=True)
class Idleness:
    """A program, and the standard input of `cexec`.  `much`: `cmap` gives it a large file; `ends`: the program does."""

    program: str
    stdin: Callable[[ExitStack], BinaryIO | None] = _nothing
    much: bool = False
    ends: bool = False


IDLENESS = {
    "the program reads nothing": Idleness("sleep 600", _zero, much=True),
    "the program reads nothing, and the writer of the input has gone": Idleness("sleep 600", _ended_pipe, much=True),
    "the program reads a part": Idleness("head -c 100000 >/dev/null; sleep 600", _zero, much=True),
    "the program has closed its input": Idleness("exec <&-; sleep 600", _zero, much=True),
    "the program reads an input that does not come": Idleness("cat; sleep 600", _silent_pipe),
    "the program says nothing": Idleness("sleep 600"),
    "our standard input is closed": Idleness("sleep 600", _closed),
    "the program has closed its output": Idleness("exec >&-; sleep 600"),
    "nobody takes the output": Idleness(f"head -c {2 * MUCH} /dev/zero", ends=True),
    "nobody takes the output of a program that goes on": Idleness(f"head -c {MUCH} /dev/zero; sleep 600"),
    "nobody takes the output, and the input waits": Idleness(f"head -c {2 * MUCH}", _zero, much=True, ends=True),
}


def client(name: str, application: Application, *words: str, input: str = "") -> list[str]:
    if name == "cmap":
        return cmap(application, *(("--stdin", input) if input else ()), *words, ":::", "1")
    return command(*name.split(), *words, application.public)


@contextmanager
def started(argv: Sequence[str], stdin: BinaryIO | None, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client whose output nobody reads; it is killed at the end."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": stdin}
    if stdin is None:
        options["preexec_fn"] = partial(os.close, 0)
    with subprocess.Popen(argv, env=local_environment(environment), **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("what", IDLENESS)
def test_clients_and_their_worker_use_no_cpu_while(
    application: Application, service: StartService, tmp_path: Path, what: str
) -> None:
    """Regression: `cexec --all` kept a CPU busy while more than 1 MiB of its input was left unread."""
    idleness = IDLENESS[what]
    (tmp_path / "input").write_bytes(bytes(MUCH))
    worker = service("sh", "-c", idleness.program, options=["-j", str(len(CLIENTS)), "--speed", "1"])
    with ExitStack() as stack:
        pids = []
        for name in CLIENTS:
            argv = client(name, application, input=str(tmp_path / "input") if idleness.much else "")
            stdin = _nothing if name == "cmap" and idleness.much else idleness.stdin
            pids.append(stack.enter_context(started(argv, stdin(stack))).pid)
        worker.wait_for(lambda line: sum(" started " in line for line in worker.lines) == len(CLIENTS))
        if not idleness.ends:
            pids += of_the_worker(worker)
        check_idle(*pids)


def test_clients_use_no_cpu_while_they_wait_for_a_busy_worker(application: Application, service: StartService) -> None:
    worker = service("sleep", "600", options=["-j", "1", "--speed", "1"])
    with ExitStack() as stack:
        stack.enter_context(started(client("cexec", application), _nothing(stack)))
        worker.wait_for(" started ")
        waiting = [stack.enter_context(started(client(name, application), _nothing(stack))).pid for name in CLIENTS]
        check_idle(*waiting, *of_the_worker(worker))


@pytest.mark.parametrize("words", [("--pipe",), ("--delay", "600", ":::", "1", "2")])
def test_cmap_uses_no_cpu_while_it_waits_for_its_next_task(
    application: Application, service: StartService, words: tuple[str, ...]
) -> None:
    service("cat", options=["-j", "2", "--speed", "1"])
    with ExitStack() as stack:
        check_idle(stack.enter_context(started(cmap(application, *words), _silent_pipe(stack))).pid)


def test_what_runs_for_ever_uses_no_cpu_while_nothing_happens(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    crat = Crat(tmp_path, application.public)
    with ExitStack() as stack:
        stack.callback(crat.close)
        worker = service("cat", options=["--speed", "1"])
        watching = started(command("cps", "--watch", application.public), _nothing(stack))
        relay = started(command("cproxy", "127.0.0.1", "127.0.0.255"), _nothing(stack))
        pids = [stack.enter_context(process).pid for process in (watching, relay)]
        check_idle(*pids, crat.process.pid, *of_the_worker(worker))


def test_a_relay_uses_no_cpu_while_nobody_takes_what_it_passes_on(
    application: Application, service: StartService, lab: MakeLab
) -> None:
    row = lab([(1, 2), (2, 3)])
    worker = service("cat", options=["--speed", "1"], host=row.host(3))
    with ExitStack() as stack:
        relay = Proxy(row.host(2), "10.77.0.2", "10.77.1.255")
        stack.callback(relay.close)
        argv = client("cexec", application)
        pipes = {"stdin": _zero(stack), "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = stack.enter_context(row.host(1).popen(argv, env=clean_environment(), **pipes))
        stack.callback(process.kill)
        worker.wait_for(" started ")
        check_idle(process.pid, relay.process.pid, *of_the_worker(worker))


@pytest.mark.parametrize("name", ["cexec", "cmap"])
def test_a_client_uses_no_cpu_while_there_is_no_worker(application: Application, name: str) -> None:
    with ExitStack() as stack:
        process = stack.enter_context(started(client(name, application), _nothing(stack), CEXEC_TIMEOUT_ACCEPT="0"))
        check_idle(process.pid)
