"""cmap with one real worker: where outputs go that are no new files, and what --overwrite replaces."""

from __future__ import annotations

import os
import select
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster import DEADLINE, Cluster
from tests.environment import local_environment

PAGE = b"<!doctype html>"


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read_to_the_end(reader: int) -> bytes:
    """Reads a FIFO from the first byte until its writer closes it, and closes it; gives up after DEADLINE."""
    data = b""
    with open(reader, "rb", buffering=0) as file:
        while select.select([file], [], [], DEADLINE)[0] and (part := file.read(65536)):
            data += part
    return data


def test_special_files_are_written_to_and_stay(cluster: Cluster) -> None:
    """Regression: --report replaced /dev/null, a FIFO and a symbolic link, each time with status 0."""
    os.mkfifo("fifo")
    os.symlink("page", "link")
    for option, name in (("--report", "fifo"), ("--joblog", "fifo"), ("--results", "fifo.csv")):
        if not os.path.exists(name):
            os.mkfifo(name)
        # Opened before cmap starts, which does not wait for a reader; it is readable when a writer has come.
        reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        with ThreadPoolExecutor(1) as thread:
            reading = thread.submit(read_to_the_end, reader)
            assert cluster.run(option, name, ":::", "a").status == 0
            read = reading.result()
        assert read.startswith(PAGE if option == "--report" else b"Seq")
        assert b"all done" in read or read.count(b"\n") >= 2
        assert stat.S_ISFIFO(os.stat(name).st_mode)
    for option in ("--report", "--joblog"):
        result = cluster.run(option, "/dev/null", ":::", "a")
        assert (result.status, result.out, result.err) == (0, "a\n", "")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert cluster.run("--report", "link", ":::", "a").status == 0
    assert (os.readlink("link"), Path("page").read_bytes()[: len(PAGE)]) == ("page", PAGE)


def test_a_fifo_that_nobody_reads_is_told(cluster: Cluster) -> None:
    os.mkfifo("fifo")
    for option in ("--report", "--joblog"):
        result = cluster.run(option, "fifo", ":::", "a")
        said = "cmap: cannot write fifo: nobody reads this FIFO; start its reader first\n"
        assert (result.status, result.out, result.err) == (100, "", said)


@pytest.mark.parametrize("regular", [False, True])
def test_standard_output_can_be_named(cluster: Cluster, regular: bool) -> None:
    """As a pipe and as a file, in which nothing is written over."""
    script = '"$@" > out' if regular else '"$@" | cat > out'
    words = cluster.argv("--report", "/dev/stdout", "--joblog", "/dev/stdout", ":::", "a", "b")
    subprocess.run(["sh", "-c", script, "sh", *words], env=local_environment(), timeout=DEADLINE, check=True)
    lines = Path("out").read_bytes().splitlines()
    assert lines[0].startswith(b"Seq\t")
    assert {b"a", b"b"} <= set(lines)
    assert [line.split(b"\t")[0] for line in lines if b"\tcexec" in line or b"printf" in line]
    assert PAGE in lines


@pytest.mark.parametrize(
    "words",
    [
        ("--report", "KEY"), ("--joblog", "KEY"), ("--state", "KEY"), ("--stdout", "KEY", "--overwrite"),
        ("--fetch", "x=KEY", "--overwrite"), ("--report", "table.csv", "--params", "table.csv"),
        ("--joblog", "empty", "--stdin", "{}", "--stdout", "{#}", ":::", "empty"),
        ("--state", "s", "--report", "./s"), ("--joblog", "s-wal", "--state", "s"),
        ("--results", "r.csv", "--joblog", "r.csv"), ("--report", "table.csv"), ("--stdin", "{}", "--stdout", "{}",
         "--overwrite", ":::", "table.csv"), ("--stdout", "empty", "--joblog", "empty", "--overwrite"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_output_replaces_a_file_of_the_run(cluster: Cluster, words: tuple[str, ...]) -> None:
    key = cluster.application.public
    before = key.read_bytes()
    Path("table.csv").write_text("a,b\n1,2\n")
    Path("empty").touch()
    given = [word.replace("KEY", os.fspath(key)) for word in words]
    source = () if ":::" in words or "--params" in words else (":::", "1")
    result = cluster.run(*given, *source)
    assert (result.status, result.out) == (100, ""), result.err
    assert result.err.count("\n") == 1
    assert key.read_bytes() == before
    assert Path("table.csv").read_text() == "a,b\n1,2\n" and Path("empty").read_bytes() == b""
    assert not {*os.listdir()} - {"table.csv", "empty", "s"}


def test_results_are_replaced_on_purpose_and_after_a_success_only(cluster: Cluster) -> None:
    os.symlink("target", "link.out")
    for name in ("good.out", "bad.out", "target", "log", "t.csv"):
        Path(name).write_text("old\n")
    words = ("--stdout", "{}.out", "--joblog", "log", "--peer", "RUN=echo new; test $1 != bad", "--", "{}")
    inputs = (":::", "good", "bad", "link")
    assert cluster.run(*words, *inputs).status == 100
    assert cluster.run("--overwrite", *words, *inputs).status == 1
    found = {name: Path(name).read_text() for name in ("good.out", "bad.out", "target")}
    assert found == {"good.out": "new\n", "bad.out": "old\n", "target": "new\n"}
    assert os.readlink("link.out") == "target"
    assert Path("log").read_text().startswith("Seq\t") and "old" not in Path("log").read_text()
    for results in ("d", "t.csv", "d", "t.csv"):
        result = cluster.run("--overwrite", "--results", results, *words[-4:], ":::", "good")
        assert result.status == 0, result.err
    assert Path("d/1/stdout").read_text() == "new\n" and os.listdir("d") == ["1"]
    assert Path("t.csv").read_text().count('"new\n"') == 1
    assert cluster.run("--results", "d", *words[-4:], ":::", "good").status == 100


def test_a_file_that_is_made_while_a_task_runs_is_not_replaced(cluster: Cluster, tmp_path: Path) -> None:
    """Regression: it was, because all was looked at before the run only."""
    for name, options in (("out", ("--stdout", "out")), ("d/1", ("--results", "d"))):
        script = f"echo other > '{tmp_path}/{name}'; echo new"
        result = cluster.run(*options, "--peer", f"RUN={script}", ":::", "a")
        said = f"cmap: cannot write {name}: another program has made it since the run began; task 1 is not saved\n"
        assert (result.status, result.err) == (255, said)
        assert Path(name).read_text() == "other\n"
    assert cluster.run("--overwrite", "--stdout", "out", "--peer", "RUN=echo new", ":::", "a").status == 0
    assert Path("out").read_text() == "new\n"
    assert not [name for name in os.listdir() if name.startswith(".cmap-")]


def test_rows_whose_results_meet_through_a_link_replace_nothing(cluster: Cluster) -> None:
    os.mkdir("d")
    os.symlink("d", "link")
    result = cluster.run("--stdout", "{}/out", "--stdin-text", "{}", ":::", "d", "link")
    said = "cmap: rows 1 and 2 have the same result link/out (also called d/out); names must differ\n"
    assert (result.status, result.err) == (100, said)
    assert not os.listdir("d")


def test_a_report_that_is_lost_at_the_end_is_no_success(cluster: Cluster) -> None:
    """Regression: a line told of it, and the status was 0."""
    result = cluster.run("--report", "/dev/full", ":::", "a")
    assert (result.status, result.out) == (255, "a\n")
    assert result.err == "cmap: cannot write /dev/full: no space left on device\n"


@pytest.mark.parametrize("options", [[], ["--pipe"], ["--tee", "--slices", "2"]])
def test_an_input_that_cannot_be_read_is_wrong_use(cluster: Cluster, options: list[str]) -> None:
    """Regression: --tee called it an output that cannot be written, with 111, and --pipe ended with 255."""
    told = "cannot read standard input: it was not opened for reading, as under nohup at a terminal"
    with Path("file").open("wb") as unreadable:
        argv = cluster.argv(*options)
        done = subprocess.run(
            argv, stdin=unreadable, capture_output=True, env=local_environment(), timeout=DEADLINE, text=True
        )
    assert (done.returncode, done.stdout, done.stderr) == (100, "", f"cmap: {told}\n")


@pytest.mark.parametrize("options", [[], ["--tee", "--slices", "2"]])
def test_an_input_that_fails_is_told(cluster: Cluster, options: list[str]) -> None:
    """Regression: with --tee it was an output that cannot be written; otherwise its name was `-`."""
    with Path("/proc/self/mem").open("rb") as failing:
        argv = cluster.argv(*options)
        done = subprocess.run(
            argv, stdin=failing, capture_output=True, env=local_environment(), timeout=DEADLINE, text=True
        )
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr == "cmap: cannot read standard input: input/output error\n"
