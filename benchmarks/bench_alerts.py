"""Measures the cost of alerts for a client: start to exit of jobs that succeed or fail, with and without alerts.

    make bench BENCH=benchmarks/bench_alerts.py

A client that succeeds sends no alert, because its worker tells the loggers.  A client that fails sends one alert for
each attempt and one for the job.  The same client also runs without the function that sends them.  The figure that
counts is the time that this function takes in the client, because the time of a whole failing call varies by several
times as much.  cexec is installed from a wheel, compiled.  Environment: BENCH_ROUNDS (40).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Case, Run, Workplace, goal, interleaved, rounds, table, timed
from tests.fake_worker import Connection, FakeWorker

ROUNDS = 40
LONGEST_DELAY = 2.0  # milliseconds that a client's exit may be delayed
DROPPED, NOBODY = "worker drops the job", "no worker"
LOGGED, DROPPING, EMPTY = 3011, 3012, 3013  # UDP ports beside the usual one, where nobody logs
SILENCE = "from cexec.client.blocking.client import BlockingClient; BlockingClient._alert = lambda *_, **__: None"
CLOCKED = """
from time import perf_counter
def clocked(*arguments, alert=BlockingClient._alert, **options):
    began = perf_counter()
    alert(*arguments, **options)
    with open({path!r}, "a") as file:
        print(perf_counter() - began, file=file)
BlockingClient._alert = clocked"""
FAILS = ["sh", "-c", '"$@" 2>/dev/null; test $? = 111', "sh"]


def main() -> None:
    with Workplace(installed=True) as place:
        place.service("true")
        place.service("true", port=LOGGED)
        for port in (LOGGED, DROPPING, EMPTY):
            logger = place.start(place.command("crat", place.public), {"CEXEC_UDP_PORT": str(port)})
            place.wait_for(logger, "listening")
        impatient = {"CEXEC_TIMEOUT_ACCEPT": "0.4"}  # long enough for a second announcement
        calls = {name: os.fspath(place.directory / str(number)) for number, name in enumerate((DROPPED, NOBODY))}
        runs = {
            "success": _success(place, 3010),
            "success, logged": _success(place, LOGGED),
            "worker drops the job, no alerts": _failure(place, DROPPING, SILENCE),
            DROPPED: _failure(place, DROPPING, CLOCKED.format(path=calls[DROPPED])),
            "no worker, no alert": _failure(place, EMPTY, SILENCE, impatient),
            NOBODY: _failure(place, EMPTY, CLOCKED.format(path=calls[NOBODY]), impatient),
        }
        cpu: dict[str, list[float]] = {name: [] for name in runs}
        cases = {name: _noting(run, cpu[name]) for name, run in runs.items()}
        with FakeWorker(place, _drop, port=DROPPING):  # type: ignore[arg-type]  # it wants the key's file alone
            print(f"{rounds(ROUNDS)} rounds, medians; {os.cpu_count()} CPUs")
            measured = interleaved(cases, rounds(ROUNDS))
        delays = {name: [float(line) for line in Path(path).read_text().split()] for name, path in calls.items()}
    rows = {name: f"{value * 1000:7.1f} ms, CPU {median(cpu[name]) * 1000:6.1f} ms" for name, value in measured.items()}
    table("start to exit", rows)
    logged = (measured["success, logged"] - measured["success"]) * 1000
    goal("alerts", "success, logged, delay of the exit", logged, LONGEST_DELAY, unit=" ms")
    for name, seconds in delays.items():
        alerts = f"{len(seconds) / rounds(ROUNDS):g} of them"
        delay = sum(seconds) / rounds(ROUNDS) * 1000
        goal("alerts", f"{name}, delay of the exit by {alerts}", delay, LONGEST_DELAY, unit=" ms")


def _drop(connection: Connection) -> None:
    connection.take().close()


def _noting(run: Callable[[], Run], cpu: list[float]) -> Case:
    """Returns the case's seconds, and adds its CPU seconds to the list."""

    def case() -> float:
        done = run()
        cpu.append(done.cpu)
        return done.seconds

    return case


def _success(place: Workplace, port: int) -> Callable[[], Run]:
    argv, variables = place.client(port)
    return lambda: timed(argv, variables)


def _failure(place: Workplace, port: int, patch: str = "", more: Mapping[str, str] | None = None) -> Callable[[], Run]:
    """Runs a client that ends with status 111; it executes `patch` before the installed launcher."""
    argv, variables = place.client(port)
    launcher = Path(argv[0]).read_text().partition("\n")[2]
    code = f"import sys; from cexec.client.blocking.client import BlockingClient\n{patch}\n{launcher}"
    program = [os.fspath(place.python), "-c", code, "--retries", "0", os.fspath(place.public)]
    return lambda: timed([*FAILS, *program], {**variables, **(more or {})})


if __name__ == "__main__":
    main()
