"""cps --watch, as the screen of a terminal shows it."""

from __future__ import annotations

import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cexec.commands.cps import format_table
from cexec.commands.cps_watch import KEYS, RowOrder, WatchedWorker, narrowed, picture
from cexec.protocol.datagrams.client_jobs import ClientJob
from cexec.system.terminal import Terminal, width
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.screen import Screen
from tests.service import Application
from tests.waiting import wait_until

CAPABLE = {"TERM": "xterm", "NO_COLOR": "1"}
HEADINGS = ["NAME", "LOAD"]


def worker(name: str, *, jobs: int = 0, told: int | None = None, slots: int = 4, load: float = 0.0) -> WatchedWorker:
    hello: Any = SimpleNamespace(running=jobs, slots=slots, waiting=1, load=load, speed=1.0, uptime=10)
    running = [ClientJob("alice", "10.0.0.7", 60 * (number + 1)) for number in range(jobs if told is None else told)]
    return WatchedWorker(name, [name, f"{load:.2f}"], hello, True, running)


def drawn(workers: list[WatchedWorker], columns: int = 80, rows: int = 24, order: RowOrder | None = None) -> list[str]:
    with Screen(columns, rows) as screen:
        terminal = Terminal(screen.theirs, CAPABLE)
        return picture(workers, HEADINGS, format_table, terminal, order or RowOrder(), "13:05:59", KEYS)


def test_totals_clock_workers_and_jobs() -> None:
    lines = drawn([worker("a", jobs=2), worker("b", jobs=3, told=1, load=0.5)])
    assert lines == [
        "13:05:59  2 workers, 8 slots: 5 running, 3 free; 2 waiting",
        "NAME  LOAD",
        "a     0.00",
        "b     0.50",
        "",
        "CLIENT          WORKER  AGE",
        "alice@10.0.0.7  a        2m",
        "alice@10.0.0.7  a        1m",
        "alice@10.0.0.7  b        1m",
        "and 2 jobs more",
        "q quits, s sorts, r reverses; sorted by name",
    ]


@pytest.mark.parametrize("size", [(80, 24), (80, 6), (20, 10), (40, 5), (5, 2), (2, 5), (1, 1)])
def test_it_is_clipped_to_the_window(size: tuple[int, int]) -> None:
    columns, rows = size
    lines = drawn([worker(f"w{number}", jobs=3) for number in range(30)], columns, rows)
    assert len(lines) <= rows and all(width(line) <= columns for line in lines)
    if rows > 5 and columns >= 20:
        assert any(line.startswith("and ") and line.endswith(" more") for line in lines)


def test_a_low_window_shows_workers_and_jobs() -> None:
    lines = drawn([worker(f"w{number}", jobs=3) for number in range(30)], 80, 12)
    assert [line.split()[0] for line in lines if line] == [
        "13:05:59", "NAME", "w0", "w1", "w2", "w3", "and", "CLIENT", "alice@10.0.0.7", "and", "q"
    ]  # fmt: skip


ALL = ["NAME", "INSTANCE", "ADDRESS", "SLOTS", "LABELS", "VERSION", "CLOCK", "UPTIME", "HEALTH"]
WIDTH_OF_ALL = sum(map(len, ALL)) + 2 * (len(ALL) - 1)


@pytest.mark.parametrize(
    ("columns", "left_out"),
    [
        (WIDTH_OF_ALL, set()),
        (WIDTH_OF_ALL - 1, {"VERSION"}),
        (WIDTH_OF_ALL - 10, {"VERSION", "INSTANCE"}),
        (35, {"VERSION", "INSTANCE", "CLOCK", "UPTIME", "LABELS"}),
        (1, {"VERSION", "INSTANCE", "CLOCK", "UPTIME", "LABELS"}),
    ],
)
def test_a_narrow_window_has_the_columns_that_matter_most(columns: int, left_out: set[str]) -> None:
    row = [name.lower() for name in ALL]
    headings, (cells,) = narrowed(ALL, [row], columns)
    assert headings == [name for name in ALL if name not in left_out]
    assert cells == [name.lower() for name in headings]


@pytest.mark.parametrize(
    ("column", "backwards", "names"),
    [
        ("name", False, "abc"),
        ("name", True, "cba"),
        ("load", False, "bca"),
        ("load", True, "acb"),
        ("running", False, "cab"),
        ("free", False, "bac"),
    ],
)
def test_sorting(column: str, backwards: bool, names: str) -> None:
    workers = [worker("a", jobs=1, load=0.1), worker("b", load=0.9), worker("c", jobs=3, load=0.5)]
    assert "".join(one.name for one in RowOrder(column, backwards).sorted(workers)) == names


# Whole commands


def watched(screen: Screen, application: Application, *options: str) -> subprocess.Popen[bytes]:
    return screen.run(command("cps", "--watch", *options, application.public), local_environment())


def modes(screen: Screen) -> Any:
    return termios.tcgetattr(screen.theirs)[3] & (termios.ICANON | termios.ECHO)


@pytest.fixture
def busy(service: StartService, application: Application, tmp_path: Path) -> Callable[[], None]:
    """Two workers, of which one runs a job until the returned function is called."""
    gate = tmp_path / "gate"
    program = ["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done"]
    zeta = service(*program, options=["-j", "2", "--name", "zeta"])
    argv, environment = application.client("-n")
    job = subprocess.Popen(argv, env=environment)
    wait_until(zeta.started)  # else alpha may take it
    service("cat", options=["-j", "3", "--name", "alpha"])

    def end() -> None:
        gate.touch()
        job.wait(60)

    return end


def test_running_jobs_with_client_and_age_come_and_go_by_themselves(
    busy: Callable[[], None], application: Application
) -> None:
    with Screen(100, 20) as screen:
        found = modes(screen)
        process = watched(screen, application)
        lines = screen.wait_for(  # of a whole picture, and not of one before the second worker has answered
            lambda lines: lines[-1:] and lines[-1].startswith("q quits") and "2 workers, 5 slots: 1 run" in lines[0]
        )
        assert "2 workers, 5 slots: 1 running, 4 free; 0 waiting" in lines[0]
        assert lines[0][:8].replace(":", "").isdigit()
        place = next(number for number, line in enumerate(lines) if line.startswith("CLIENT"))
        client, name, age = lines[place + 1].split()
        assert client.endswith("@127.0.0.1") and name == "zeta" and age.endswith("s")
        assert lines[1].startswith("NAME") and [line.split()[0] for line in lines[2:4]] == ["alpha", "zeta"]
        assert all(len(line) <= 100 for line in lines) and lines[-1].startswith("q quits")
        screen.wait_for(
            lambda lines: lines[place + 1 :] and lines[place + 1].split()[2:] not in ([], [age])
        )  # nobody has pressed anything
        busy()
        screen.wait_for("5 slots: 0 running")
        screen.type(b"s")
        screen.wait_for("sorted by running")
        screen.type(b"sr")
        lines = screen.wait_for("sorted by free backwards")
        assert [line.split()[0] for line in lines[2:4]] == ["zeta", "alpha"]
        screen.resize(30, 5)
        lines = screen.wait_for(lambda lines: lines[-1:] == ["q quits, s sorts, r reverses"])
        assert len(lines) <= 5 and all(len(line) <= 30 for line in lines)
        screen.type(b"q")
        assert screen.end(process) == 0
        assert modes(screen) == found
        assert b" 0/5" in screen.raw.rpartition(b"\x1b[?1049l")[2]  # the last picture stays


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_given_back_however_it_ends(
    service: StartService, application: Application, number: signal.Signals
) -> None:
    service("cat", options=["--name", "alpha"])
    with Screen() as screen:
        found = modes(screen)
        process = watched(screen, application)
        screen.wait_for("alpha")
        screen.wait_for("q quits")
        assert modes(screen) != found
        process.send_signal(number)
        assert screen.end(process) == (0 if number == signal.SIGINT else -number)
        assert modes(screen) == found and screen.raw.count(b"\x1b[?1049l") == 1


def test_after_ctrl_z_the_shell_has_its_terminal_as_it_was(service: StartService, application: Application) -> None:
    service("cat", options=["--name", "alpha"])
    with Screen() as screen:
        found = modes(screen)
        script = 'set -m; "$@"; echo stopped with $?; read line; fg >/dev/null; echo ended with $?'
        argv = ["sh", "-c", script, "sh", *command("cps", "--watch", application.public)]
        process = screen.run(argv, local_environment())
        screen.wait_for("q quits")
        screen.type(b"\x1a")
        screen.wait_for(f"stopped with {128 + signal.SIGTSTP}")
        assert modes(screen) == found
        screen.type(b"\n")
        screen.wait_for(lambda lines: lines and lines[-1].startswith("q quits"))
        screen.type(b"q")
        assert screen.end(process) == 0 and "ended with 0" in "\n".join(screen.lines())
        assert modes(screen) == found


def test_it_asks_every_two_seconds_and_sorts_as_it_is_told(service: StartService, application: Application) -> None:
    for name, slots in (("small", "1"), ("large", "9")):
        service("cat", options=["--name", name, "-j", slots])
    usage = subprocess.run(command("cps", "--help"), env=local_environment(), capture_output=True, text=True)
    assert "default: 2.0" in " ".join(usage.stdout.split())
    argv = command("cps", "--sort", "free", application.public)
    tables: list[str] = [""]

    def both_answer() -> bool:
        done = subprocess.run(argv, env=local_environment({"FORCE_COLOR": "1"}), capture_output=True, text=True)
        tables.append(done.stdout)
        return len(done.stdout.splitlines()) == 3

    wait_until(both_answer)  # in one census, which does not wait for one that has no CPU for a moment
    assert [line.split()[0] for line in tables[-1].splitlines()] == ["NAME", "large", "small"]
    assert "\x1b" not in tables[-1]
    with Screen(200) as screen:
        process = screen.run(argv, local_environment())
        assert screen.end(process) == 0 and b"\x1b[1mNAME" in screen.raw


@pytest.mark.parametrize("how", [(), ("--watch",)], ids=["once", "watch"])
def test_at_80_columns_a_worker_has_one_line_with_its_health(
    service: StartService, application: Application, how: tuple[str, ...]
) -> None:
    """Regression: the table was wrapped, or its last column, the health, was clipped."""
    service("cat", options=["--name", "alpha", "--label", "gpu"])
    with Screen(80) as screen:
        process = screen.run(command("cps", *how, application.public), local_environment())
        screen.wait_for("alpha")
        if how:
            screen.type(b"q")
        assert screen.end(process) == 0
        head, line = (line.split() for line in screen.lines()[-2:])
        shown = dict(zip(head, line, strict=True))
        assert (shown["NAME"], shown["ADDRESS"], shown["HEALTH"]) == ("alpha", "127.0.0.1", "ok")
        assert "VERSION" not in shown


def test_a_dumb_terminal_gets_tables_one_after_the_other(service: StartService, application: Application) -> None:
    service("cat", options=["--name", "alpha"])
    with Screen(200) as screen:
        argv = command("cps", "--watch", application.public)
        process = screen.run(argv, local_environment({"TERM": "dumb"}))
        screen.wait_for("alpha")
        process.send_signal(signal.SIGINT)
        assert screen.end(process) == 0 and b"\x1b" not in screen.raw
