"""What a person sees of `cmap` on a terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.environment import local_environment
from tests.screen import Screen
from tests.waiting import comes_true


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("screen"))
    yield cluster
    cluster.service.close()


def outputs(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("out")]


@pytest.mark.parametrize("columns", [80, 20])
def test_with_all_three_every_line_of_output_stays_on_the_screen(cluster: Cluster, columns: int) -> None:
    words = [f"out{number:02}" for number in range(12)]
    with Screen(columns, 24) as screen:
        argv = cluster.argv("--bar", "--eta", "--progress", "--peer", "RUN=echo {}", ":::", *words)
        assert screen.end(screen.run(argv, local_environment())) == 0
        story = screen.story()
    assert sorted(outputs(story)) == words
    assert any("100%" in line for line in story) and any(line.startswith("worker") for line in story)


def test_output_without_a_line_end_is_not_glued_to_the_bar(cluster: Cluster) -> None:
    with Screen() as screen:
        argv = cluster.argv("--bar", "--peer", "RUN=printf {}", ":::", "out1", "out2")
        assert screen.end(screen.run(argv, local_environment())) == 0
        output, bar, *statistics = screen.story()
    assert output in ("out1out2", "out2out1") and bar.endswith("] 2/2 100%")
    assert statistics[0].startswith("2 tasks succeeded")


def test_a_bar_comes_by_itself_while_outputs_go_to_a_file(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = f"[ {{}} != 2 ] || while [ ! -e {gate} ]; do sleep 0.1; done; echo out{{}}"
    with Screen() as screen, open(tmp_path / "log", "wb") as log:
        argv = cluster.argv("--peer", f"RUN={run}", ":::", "1", "2")
        process = screen.run(argv, local_environment({"FORCE_COLOR": "1"}), {1: log})
        screen.wait_for("] 1/2 50%")
        gate.touch()
        assert screen.end(process) == 0
        assert screen.lines()[-1].endswith("] 2/2 100%")
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["out1", "out2"]


@pytest.mark.parametrize("words", [("--stdout", "{#}.txt"), ("--results", "all.csv")])
def test_a_bar_comes_by_itself_while_results_go_to_files(
    cluster: Cluster, tmp_path: Path, words: tuple[str, str]
) -> None:
    option, name = words
    with Screen() as screen:
        argv = cluster.argv(option, f"{tmp_path}/{name}", ":::", "out")
        assert screen.end(screen.run(argv, local_environment())) == 0
        (bar,) = screen.story()
    assert bar.startswith("[###") and bar.endswith("] 1/1 100%")


def test_the_bar_needs_no_further_package(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError")
    environment = local_environment()
    environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    with Screen() as screen:
        argv = cluster.argv("--bar", "--eta", ":::", "out")
        assert screen.end(screen.run(argv, environment)) == 0
        assert outputs(screen.story()) == ["out"] and any("] 1/1 100%" in line for line in screen.story())


@pytest.mark.parametrize("how", ["--no-bar", "dumb", "terminal"])
def test_and_not_where_nobody_wants_it(cluster: Cluster, tmp_path: Path, how: str) -> None:
    with Screen() as screen, open(tmp_path / "log", "wb") as log:
        argv = cluster.argv(*(["--no-bar"] if how == "--no-bar" else []), ":::", "out")
        environment = local_environment({"TERM": "dumb"} if how == "dumb" else {})
        process = screen.run(argv, environment, {} if how == "terminal" else {1: log})
        assert screen.end(process) == 0
        assert b"\x1b" not in screen.raw and "%" not in "".join(screen.story())


def test_a_log_file_gets_no_escape_sequence(cluster: Cluster, tmp_path: Path) -> None:
    with Screen() as screen, open(tmp_path / "log", "wb") as log:
        argv = cluster.argv("--bar", "--eta", "--progress", "--tag", ":::", "out")
        process = screen.run(argv, local_environment({"FORCE_COLOR": "3", "CLICOLOR_FORCE": "1"}), {1: log, 2: log})
        assert screen.end(process) == 0
        assert screen.story() == []
    written = (tmp_path / "log").read_bytes()
    assert b"\x1b" not in written and b"out\tout\n" in written


def test_no_color_means_no_colour_but_a_picture(cluster: Cluster) -> None:
    with Screen() as screen:
        argv = cluster.argv("--bar", "--progress", "--tag", "--peer", "RUN=echo {}; exit 1", ":::", "out")
        assert screen.end(screen.run(argv, local_environment({"NO_COLOR": "1"}))) == 1
        assert b"\x1b[K" in screen.raw or b"\x1b[J" in screen.raw
        assert not [code for code in screen.raw.split(b"\x1b[")[1:] if code.split(b"m")[0].replace(b";", b"").isdigit()]


def test_a_window_that_is_resized_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = f"[ {{}} != out3 ] || while [ ! -e {gate} ]; do sleep 0.1; done; echo {{}}"
    with Screen(80, 10) as screen:
        process = screen.run(cluster.argv("--bar", "--peer", f"RUN={run}", ":::", "out1", "out2", "out3"),
                             local_environment())  # fmt: skip
        screen.wait_for("] 2/3 66%")
        screen.resize(20, 10)
        screen.wait_for(lambda lines: lines and lines[-1].endswith("66%") and len(lines[-1]) == 19)
        screen.resize(2, 5)
        screen.wait_for(lambda lines: not any("#" in line for line in lines))
        screen.resize(80, 10)
        screen.wait_for("] 2/3 66%")
        gate.touch()
        assert screen.end(process) == 0
        assert [line for line in screen.story() if line.startswith("[")][-1].endswith("] 3/3 100%")


def test_while_another_command_has_the_terminal_nothing_is_drawn(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = f"while [ ! -e {gate} ]; do sleep 0.1; done; echo {{}}"
    with Screen() as screen:
        # The shell keeps the terminal for itself; without job control a background command shares its group.
        script = 'set -m; "$@" & wait $!'
        argv = ["sh", "-c", script, "sh", *cluster.argv("--bar", "--peer", f"RUN={run}", ":::", "out")]
        process = screen.run(argv, local_environment())
        assert comes_true(lambda: "running jobs" in "".join(cluster.service.lines) or cluster.service.started())
        gate.touch()
        assert screen.end(process) == 0
        assert outputs(screen.story()) == ["out"] and not any("#" in line for line in screen.story())


def test_after_ctrl_z_the_shell_finds_no_picture_in_its_way(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = f"[ {{}} != 2 ] || while [ ! -e {gate} ]; do sleep 0.1; done"
    with Screen() as screen:
        script = 'set -m; "$@"; echo stopped with $?; fg >/dev/null; echo ended with $?'
        argv = ["sh", "-c", script, "sh", *cluster.argv("--bar", "--peer", f"RUN={run}", ":::", "1", "2")]
        process = screen.run(argv, local_environment())
        screen.wait_for("] 1/2 50%")
        screen.type(b"\x1a")
        screen.wait_for(f"stopped with {128 + signal.SIGTSTP}")
        screen.wait_for("] 1/2 50%")  # again, after fg
        gate.touch()
        assert screen.end(process) == 0
        assert "ended with 0" in "\n".join(screen.story())
        assert os.path.exists(gate)
