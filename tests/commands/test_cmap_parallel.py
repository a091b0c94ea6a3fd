"""cmap(1) where users of GNU parallel expect what parallel does: one real worker on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.environment import local_environment
from tests.screen import Screen
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def started(cluster: Cluster, *words: str) -> subprocess.Popen[bytes]:
    """A call whose standard input is a pipe that stays open."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(cluster.argv(*words), env=local_environment(), **pipes)


def give(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    os.write(process.stdin.fileno(), data)


def take(process: subprocess.Popen[bytes]) -> bytes:
    """The next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline()


def tasks_in(joblog: str) -> int:
    """How many tasks have ended."""
    return max(0, Path(joblog).read_text().count("\n") - 1) if Path(joblog).exists() else 0


# tasks that begin as lines arrive


def test_a_task_begins_when_its_line_comes(cluster: Cluster) -> None:
    with started(cluster, "--stdin-text", "<{}>\n") as process:
        for number in range(20):
            give(process, b"%d\n" % number)
            assert take(process) == b"<%d>\n" % number  # the input is still open
        give(process, b"four")  # a line without an end counts at the end
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (0, b"<four>\n", b"")


def test_lines_that_come_late_keep_their_order_and_numbers(cluster: Cluster) -> None:
    with started(cluster, "-k", "--joblog", "log", "-n", "2", "--", "{#}") as process:
        script = b"a\nb\nc\n"
        give(process, script)
        wait_until(lambda: tasks_in("log"))  # it has begun without waiting for the end
        give(process, b"d\ne\n")
        assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 0
    rows = [line.split("\t")[0] for line in Path("log").read_text().splitlines()[1:]]
    assert sorted(rows) == ["1", "2", "3"]


def test_a_list_whose_end_comes_soon_is_checked_before_anything_runs(cluster: Cluster) -> None:
    Path("good").write_text("x")
    result = cluster.run("--stdin", "{}", "--stdout", "{}.out", input=b"good\nabsent\n")
    assert (result.status, result.out) == (100, "")
    assert "row 2: cannot read absent: no such file or directory" in result.err
    assert not Path("good.out").exists()


def test_a_line_that_comes_late_is_checked_when_it_comes(cluster: Cluster) -> None:
    Path("good").write_text("x")
    with started(cluster, "--stdin", "{}", "--stdout", "{}.out") as process:
        give(process, b"good\n")
        wait_until(Path("good.out").exists)
        give(process, b"absent\n")
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 100
    assert b"row 2: cannot read absent: no such file or directory" in errors
    assert Path("good.out").read_text() == "x"


def test_a_result_that_every_late_line_would_have_is_refused(cluster: Cluster) -> None:
    with started(cluster, "--stdin-text", "{}", "--stdout", "out") as process:
        give(process, b"a\n")
        _, errors = process.communicate(timeout=30) if process.wait(30) else (b"", b"")
    assert process.returncode == 100
    assert b"'out' would be the result of every row; put {} or {#}, its number, into it" in errors


def test_the_state_of_lines_that_came_late_is_kept(cluster: Cluster) -> None:
    with started(cluster, "--state", "s", "--joblog", "first", "--", "{}") as process:
        give(process, b"a\n")
        wait_until(lambda: tasks_in("first"))
        give(process, b"b\n")
        process.communicate(timeout=30)
    again = cluster.run("--state", "s", "--resume", "--joblog", "log", "--", "{}", input=b"a\nb\nc\n")
    assert again.status == 0
    assert [line.split("\t")[0] for line in Path("log").read_text().splitlines()[1:]] == ["3"]


def test_what_needs_all_lines_waits_for_the_end(cluster: Cluster) -> None:
    with started(cluster, "--order", "random", "--stdin-text", "{} ") as process:
        give(process, b"a\n")
        time.sleep(0.7)  # a task that began would begin within this time
        give(process, b"b\n")
        out, _ = process.communicate(timeout=30)
    assert sorted(out.split()) == [b"a", b"b"]


# columns, headers, placeholders


@pytest.mark.parametrize(
    ("words", "given", "expected"),
    [
        (("--colsep", ",", "--stdin-text", "{2}-{1} "), b"a,b\nc, d\n", "b-a d-c "),
        (("--colsep", " ", "--stdin-text", "{2}{1};"), b"a b\nd e\n", "ba;ed;"),
        (("--colsep", r"\s+", "--stdin-text", "{3}{1};"), b"a  b c\nd e\n", "ca;d;"),
        (("--colsep", ",", "--header", ":", "--stdin-text", "{size} "), b"name,size\na,1\nb,2\n", "1 2 "),
        (("--header", ":", "--stdin-text", "{n}{#} "), b"n\na\nb\n", "a1 b2 "),
        (("-n0", "--stdin-text", "[{}]"), b"a\nb\nc\n", "[][][]"),
        (("--rpl", "{o} s/[.]wav$/.ogg/", "--stdin-text", "{o} "), b"a.wav\nb.wav\n", "a.ogg b.ogg "),
        (("--stdin-text", "{..} {/..} "), b"a/b.tar.gz\n", "a/b b "),
        (("--tag", "--stdin-text", "x\n"), b"a\n", "a\tx\n"),
        (("--tagstring", "{#}:{.}", "--stdin-text", "x\n"), b"a.b\n", "1:a\tx\n"),
        (("--tagstring", "T", "--line-buffer", "--stdin-text", "x\ny"), b"a\n", "T\tx\nT\ty\n"),
    ],
)
def test_what_parallel_has(cluster: Cluster, words: tuple[str, ...], given: bytes, expected: str) -> None:
    order = [] if "--line-buffer" in words else ["-k"]
    result = cluster.run(*order, *words, input=given)
    assert (result.status, result.out, result.err) == (0, expected, "")


def test_a_table_with_semicolons(cluster: Cluster) -> None:
    Path("p.csv").write_text("id;name\n1;one\n")
    refused = cluster.run("--params", "p.csv", "--", "{id}")
    assert refused.status == 100 and "--colsep ';'" in refused.err
    assert cluster.run("--params", "p.csv", "--colsep", ";", "--stdin-text", "{name}{id}").out == "one1"


def test_each_block_begins_with_the_header(cluster: Cluster) -> None:
    data = b"".join(b"%d\n" % number for number in range(10, 20))
    result = cluster.run("-k", "--pipe", "--header", ":", "--block", "15", input=b"name\n" + data)
    blocks = [f"name\n{data[start : start + 15].decode()}" for start in (0, 15)]
    assert (result.status, result.out) == (0, "".join(blocks))


def test_tasks_at_once_have_different_slots(cluster: Cluster, tmp_path: Path) -> None:
    at_once = f"mktemp {tmp_path}/at.XXXXXX >&2; until set -- {tmp_path}/at.*; test $# = 3; do sleep 0.05; done"
    script = f"echo $1; {at_once}"
    result = cluster.run("-j", "3", "--peer", f"RUN={script}", "--", "{%}", ":::", "a", "b", "c")
    assert (result.status, result.lines) == (0, ["1", "2", "3"])
    assert "{%}" in cluster.run("--dry-run", "--", "{%}", ":::", "a").out


def test_tasks_one_after_the_other_have_one_slot_or_two(cluster: Cluster) -> None:
    words = ("--peer", "RUN=echo $1 $PEER_SLOT", "--peer", "SLOT=s{%}")
    result = cluster.run("-j", "1", *words, "--", "{%}", ":::", *"abcdef")
    assert result.status == 0
    assert set(result.lines) <= {"1 s1", "2 s2"}  # a task may wait for its turn behind another one


def test_the_tag_of_standard_error(cluster: Cluster) -> None:
    result = cluster.run("--tagstring", "{1}", "--peer", "RUN=echo bad >&2", ":::", "a")
    assert (result.status, result.err) == (0, "a\tbad\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pipe", "--colsep", ","), "--pipe and --colsep cannot be used together"),
        (("--header", "2"), "--header with a number needs --pipe"),
        (("--header", "x", "--pipe"), "--header is 'x', but must be a whole number"),
        (("--header", ":", "--params", "p"), "--header : needs lines or words"),
        (("--colsep", ",", "--array", "1-2"), "--colsep is about lines and words"),
        (("--colsep", "("), "--colsep is '(', which is no regular expression"),
        (("--rpl", "{o} uc"), "--rpl '{o} uc': only substitutions"),
        (("--stdout", "{%}", ":::", "a"), "it can stand in arguments, --peer and --stdin-text only"),
    ],
)
def test_mistakes_are_told(cluster: Cluster, words: tuple[str, ...], message: str) -> None:
    result = cluster.run(*words, input=b"a\n")
    assert result.status == 100 and message in result.err


# the screen


def test_the_latest_line_of_each_running_task_is_on_the_screen(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = f"echo begun-{{}}; echo halfway-{{}}; while [ ! -e {gate} ]; do sleep 0.1; done; echo done-{{}}"
    with Screen() as screen:
        process = screen.run(cluster.argv("--ll", "--peer", f"RUN={run}", ":::", "a", "b"), local_environment())
        screen.wait_for("a: halfway-a")
        screen.wait_for("b: halfway-b")
        gate.touch()
        assert screen.end(process) == 0
        shown = screen.lines()
    assert sorted(shown) == sorted(f"{word}-{task}" for word in ("begun", "halfway", "done") for task in "ab")


def test_what_failed_is_red_on_a_screen(cluster: Cluster) -> None:
    argv = cluster.argv(
        "--color-failed", "--no-bar", "-k", "--peer", "RUN=echo out-$1; exit $1", "--", "{}", ":::", "0", "1"
    )
    with Screen() as screen:
        assert screen.end(screen.run(argv, local_environment())) == 1
        assert [screen.colours("out-0"), screen.colours("out-1")] == [{"default"}, {"red"}]
    assert cluster.run("--color-failed", "--peer", "RUN=echo out; exit 1", ":::", "a").out == "out\n"
