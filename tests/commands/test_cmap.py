"""cmap(1) with one real worker: each option does what the man page says."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.watch.explain import explain
from cexec.commands.cexec import main as cexec_main
from cexec.commands.cmap import main, split_command
from cexec.errors import CexecError, UsageError
from tests.cluster import DEADLINE, Cluster
from tests.environment import ROOT, command, local_environment
from tests.needs import require_namespaces, require_tool
from tests.service import Application
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def joblog(path: str = "log") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def explained(task: int | None = None) -> str:
    """What `cmap explain --state s` says now; nothing as long as there is nothing."""
    try:
        return "\n".join(explain("s", task, time.time()))
    except CexecError:
        return ""


# where tasks come from


def test_lines_are_standard_inputs(cluster: Cluster) -> None:
    result = cluster.run(input=b"one\ntwo\nthree\n")
    assert (result.status, result.lines, result.err) == (0, ["one", "three", "two"], "")


def test_arguments_are_filled_in_and_stay_one(cluster: Cluster) -> None:
    script = 'for a; do printf "<%s>" "$a"; done; echo'
    result = cluster.run("-k", "--peer", f"RUN={script}", "--", "{2}-{1}", "{}", ":::", "a b", "$(c)", ":::", "1")
    assert (result.status, result.out) == (0, "<1-a b><a b><1>\n<1-$(c)><$(c)><1>\n")


def test_every_source_of_tasks(cluster: Cluster) -> None:
    Path("p.csv").write_text("name,size\nx,1\ny,2\nz,3\n")
    Path("lines").write_bytes(b"one\0two\0three\0")
    for options, expected in {
        ("--params", "p.csv", "--rows", "2-3", "--stdin-text", "{name}={size} "): "y=2 z=3 ",
        ("--array", "1-9:4", "--stdin-text", "{} "): "1 5 9 ",
        ("--slices", "2", "--stdin-text", "{slice}/{slices} "): "1/2 2/2 ",
        ("-0", "-a", "lines", "-n", "2", "--stdin-text", "{#}:{}; "): "1:one two; 2:three; ",
    }.items():
        result = cluster.run("-k", *options)
        assert (result.status, result.out) == (0, expected), result.err


def test_blocks_of_standard_input(cluster: Cluster) -> None:
    data = b"".join(b"line %d\n" % number for number in range(20_000))
    result = cluster.run("-k", "--pipe", "--block", "32K", "--stderr", "{#}.err", input=data)
    assert (result.status, result.out) == (0, data.decode())
    assert len(list(Path().glob("*.err"))) == -(-len(data) // (32 << 10))


def test_a_block_is_worked_on_while_the_next_one_is_awaited(cluster: Cluster) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        cluster.argv("--pipe", "--block", "4", "--recend", ""), env=local_environment(), **pipes
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for block in (b"one\n", b"two\n"):
            os.write(process.stdin.fileno(), block)
            assert process.stdout.readline() == block
        process.stdin.close()
        assert process.wait(DEADLINE) == 0


def test_every_task_gets_the_same_standard_input(cluster: Cluster) -> None:
    script = 'cat; echo "$PEER_N"'
    result = cluster.run("-k", "--tee", "--peer", f"RUN={script}", "--peer", "N={}", ":::", "1", "2", input=b"data\n")
    assert (result.status, result.out) == (0, "data\n1\ndata\n2\n")


def test_a_dry_run_runs_nothing(cluster: Cluster) -> None:
    result = cluster.run("--dry-run", "--stdout", "{}.out", "--", "-q", "{}", ":::", "a b")
    assert result.out == f"cexec -n {cluster.application.public} -- -q 'a b' > 'a b.out'\n"
    assert not os.listdir()
    with open("/dev/full", "wb") as full:
        argv = cluster.argv("--dry-run", ":::", "a")
        ended = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, env=local_environment(), timeout=DEADLINE)
    assert ended.returncode == 255
    assert ended.stderr == b"cmap: cannot write to standard output: no space left on device\n"


# what comes back


def test_files_go_and_come_back(cluster: Cluster) -> None:
    Path("results").mkdir()
    Path("note.txt").write_text("note")
    Path("conf").write_text("size = {size}\n")
    Path("p.tsv").write_text("id\tsize\nx\t1\ny\t2\n")
    result = cluster.run(
        "--params", "p.tsv", "--send", "note.txt", "--input", "run.ini=conf", "--fetch", "picture=results/{id}.png",
        "--stdout", "results/{id}.out", "--peer", "RUN=cat note.txt run.ini; cat run.ini > picture",
    )  # fmt: skip
    assert (result.status, result.out, result.err) == (0, "", "")
    content = {path.name: path.read_text() for path in Path("results").iterdir()}
    assert content == {
        "x.png": "size = 1\n", "y.png": "size = 2\n", "x.out": "notesize = 1\n", "y.out": "notesize = 2\n"
    }  # fmt: skip


def test_a_file_that_does_not_come_is_a_failure_and_leaves_nothing(cluster: Cluster) -> None:
    result = cluster.run("--fetch", "x=x.{}", "--stdout", "out.{}", "--joblog", "log", ":::", "a")
    assert result.status == 1
    assert joblog()[0]["Exitval"] == "1"
    assert os.listdir() == ["log"]


def test_validation_decides_what_is_a_result(cluster: Cluster) -> None:
    check = 'grep -q "$PARAM_1" stdout && test "$PARAM_1" != bad'
    result = cluster.run("--validate", check, "--stdout", "{}.out", ":::", "good", "bad")
    assert result.status == 1
    assert os.listdir() == ["good.out"]


def test_what_was_rejected_is_not_among_the_output(cluster: Cluster) -> None:
    result = cluster.run("-k", "--validate", "grep -q good stdout", ":::", "good 1", "bad", "good 2")
    assert (result.status, result.out) == (1, "good 1\ngood 2\n")
    assert re.fullmatch(r"cmap: task 2 \(bad\) failed on \S+: --validate exited with 1\n", result.err)


def test_what_was_rejected_is_tried_once_more(cluster: Cluster, tmp_path: Path) -> None:
    script = f"echo >> {tmp_path}/tries; wc -l < {tmp_path}/tries"
    words = ("--stdout", "{}.out", "--peer", f"RUN={script}", "--validate", "grep -qx '[ ]*2' stdout")
    assert cluster.run(*words, ":::", "a").status == 0
    assert cluster.run(*words, "--retries", "1", ":::", "b").status == 1
    assert {path.name for path in tmp_path.glob("*.out")} == {"a.out"}


def test_outputs_that_nobody_wants(cluster: Cluster) -> None:
    words = ("--stderr", "/dev/null", "--peer", "RUN=echo out; echo err >&2; echo f > f", "--fetch", "f=/dev/null")
    result = cluster.run(*words, ":::", "a", "b")
    assert (result.status, result.out, result.err) == (0, "out\nout\n", "")
    result = cluster.run("--pipe", "--stdout", "/dev/null", input=b"x\n")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert os.path.exists("/dev/null") and not os.listdir()


def test_output_is_grouped_tagged_and_kept_in_order(cluster: Cluster) -> None:
    script = 'echo "$1"; sleep "0.$((4 - $1))"; echo "$1" >&2; echo "$1"'
    result = cluster.run("-k", "--tag", "--peer", f"RUN={script}", "--", "{}", ":::", "1", "2", "3")
    assert result.out == "".join(f"{n}\t{n}\n" * 2 for n in (1, 2, 3))
    assert result.err == "".join(f"{n}\t{n}\n" for n in (1, 2, 3))


def test_lines_are_printed_as_they_come(cluster: Cluster) -> None:
    process = cluster.start("--line-buffer", "--tag", "--peer", "RUN=echo begin; sleep 60", ":::", "a")
    assert process.stdout.readline() == b"a\tbegin\n"
    process.terminate()
    assert b"no further task begins" in process.stderr.readline()
    process.terminate()
    assert process.wait(DEADLINE) == 255
    assert b"ended by the user" in process.communicate()[1]


def test_results_in_a_directory_and_in_tables(cluster: Cluster) -> None:
    script = "echo out $1; echo err >&2; test $1 != 2"
    words = ("--peer", f"RUN={script}", "--", "{}", ":::", "1", "2")
    for name in ("kept", "t.csv", "t.jsonl"):
        assert cluster.run("--results", name, *words).status == 1
    assert {path.name for path in Path("kept").iterdir()} == {"1"}
    assert (Path("kept/1/stdout").read_text(), Path("kept/1/stderr").read_text()) == ("out 1\n", "err\n")
    rows = sorted(csv.DictReader(Path("t.csv").read_text().splitlines(True)), key=lambda row: row["Seq"])
    assert [(row["V1"], row["Exitval"], row["Stdout"]) for row in rows] == [
        ("1", "0", "out 1\n"),
        ("2", "1", "out 2\n"),
    ]
    objects = sorted(map(json.loads, Path("t.jsonl").read_text().splitlines()), key=lambda found: found["seq"])
    assert [found["reason"] for found in objects] == ["", "exited with 1: err"]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("concat", "1\n2\n3\n"),
        ("blocks", "# row 1: 1=1\n1\n# row 2: 1=2\n2\n# row 3: 1=3\n3\n"),
        ("echo $PARAM_1 $(cat stdout)", "1 1\n2 2\n3 3\n"),
    ],
)
def test_collection_is_in_the_order_of_the_rows(cluster: Cluster, what: str, expected: str) -> None:
    result = cluster.run("--collect", what, "--order", "random", input=b"1\n2\n3\n")
    assert (result.status, result.out) == (0, expected)


def test_a_collector_that_fails_ends_the_run_and_says_what_is_not_saved(cluster: Cluster) -> None:
    result = cluster.run("--collect", "test $PARAM_1 = 1", ":::", "1", "2")
    assert result.status == 255
    assert "row 2: --collect exited with 1; task 2 is not saved" in result.err


# failures


def test_the_exit_status_counts_failures(cluster: Cluster) -> None:
    result = cluster.run("--joblog", "log", "--peer", "RUN=exit $1", "--", "{}", ":::", "0", "3", "4")
    assert result.status == 2
    assert sorted((row["Seq"], row["Exitval"]) for row in joblog()) == [("1", "0"), ("2", "3"), ("3", "4")]


def test_failures_are_named(cluster: Cluster) -> None:
    result = cluster.run("-k", "--peer", "RUN=echo $1; echo why >&2; exit $1", "--", "{}", ":::", *map(str, range(24)))
    assert (result.status, result.out) == (23, "".join(f"{n}\n" for n in range(24)))
    *said, more = [line for line in result.err.splitlines() if line != "why"]
    named = [re.fullmatch(r"cmap: task (\d+) \((\d+)\) failed on \S+: exited with (\d+): why", line) for line in said]
    found = {match.groups() for match in named if match}  # in the order of their ends, which -k does not change
    assert len(found) == len(said) == 20
    assert found < {(str(n + 1), str(n), str(n)) for n in range(1, 24)}
    assert more == "cmap: and 3 more failed; --joblog and --report have them"


def test_a_task_that_fails_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    script = f"echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3"
    result = cluster.run("--retries", "3", "--joblog", "log", "--peer", f"RUN={script}", ":::", "a")
    assert (result.status, len(joblog())) == (0, 1)


def test_a_task_that_takes_too_long_is_ended(cluster: Cluster) -> None:
    words = (
        "--timeout",
        "4",
        "--joblog",
        "log",
        "--peer",
        "RUN=trap '' TERM; sleep $1",
        "--",
        "{}",
        ":::",
        "0",
        "600",
    )
    result = cluster.run(*words)
    assert result.status == 1
    assert {row["Seq"]: row["Exitval"] for row in joblog()} == {"1": "0", "2": "-1"}


def test_a_task_that_takes_its_workers_with_it_is_given_up_and_named(cluster: Cluster) -> None:
    words = ("--crash-limit", "4", "--results", "t.jsonl", "--peer", 'RUN=eval "$1"', "--", "{}")
    began = time.monotonic()
    result = cluster.run(*words, ":::", "true", "sleep 0.1; kill -9 $PPID; sleep 60")
    assert result.status == 1
    assert time.monotonic() - began < 19.0  # regression: 5 s for each of four crashes
    reasons = {row["seq"]: row["reason"] for row in map(json.loads, Path("t.jsonl").read_text().splitlines())}
    assert reasons[1] == ""
    assert reasons[2].endswith("; 4 workers were lost while it ran alone (--crash-limit)")


def test_a_full_disk_stops_the_run_and_says_what_is_not_saved(cluster: Cluster) -> None:
    words = ("--state", "s", "--stdout", "{}.out", "--joblog", "log", "--peer", "RUN=head -c $1 /dev/zero", "--", "{}")
    inputs = (":::", "10", "9000000", "20")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))  # as good as a full disk
    result = cluster.run(*words, *inputs, preexec_fn=limit)
    assert result.status == 255
    assert re.search(
        r"cannot write 9000000.out: file too large; tasks? .*2.* not saved; .*go on with --state s --resume", result.err
    )
    assert cluster.run("--resume", *words, *inputs).status == 0
    assert {path.name: path.stat().st_size for path in Path().glob("*.out")} == {
        f"{size}.out": int(size) for size in inputs[1:]
    }
    assert sorted(row["Seq"] for row in joblog()) == ["1", "2", "3"]
    others = ("-j1", "--peer", words[-3], "--stdout", "{}", "--", "{}", ":::", "9000000", "7", "6")
    result = cluster.run(*others, preexec_fn=limit)
    assert result.err == "cmap: cannot write 9000000: file too large; task 1 is not saved; 2 tasks not begun\n"


def test_a_full_temporary_directory_stops_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """Regression: a traceback, because the error held the memory that was to be given back."""
    require_namespaces()
    script = 'mount -t tmpfs -o size=64k none "$1" && export TMPDIR="$1" && shift && exec "$@"'
    words = ("--peer", "RUN=head -c 300000 /dev/zero", ":::", "1", "2", "3")
    mounted = ["unshare", "-m", "sh", "-c", script, "sh", os.fspath(tmp_path), *cluster.argv(*words)]
    result = subprocess.run(mounted, capture_output=True, env=local_environment(), timeout=DEADLINE)
    assert result.returncode == 255
    assert re.fullmatch(rb"cmap: cannot keep data in .*: no space left on device; .*\n", result.stderr)


def test_halt_ends_what_runs(cluster: Cluster) -> None:
    words = ("--halt", "now,fail=1", "--joblog", "log", "--peer", 'RUN=eval "$1"', "--", "{}")
    result = cluster.run(*words, ":::", "sleep 600", "exit 5", "sleep 600")
    assert result.status == 5
    assert "cmap: --halt now,fail=1; 2 tasks not done\n" in result.err
    assert [row["Seq"] for row in joblog()] == ["2"]


def test_a_signal_is_told_as_parallel_does(cluster: Cluster) -> None:
    assert cluster.run("--joblog", "log", "--peer", "RUN=kill -9 $$", ":::", "a").status == 1
    assert (joblog()[0]["Exitval"], joblog()[0]["Signal"]) == ("0", "9")


def test_delay_and_rate_hold_tasks_back(cluster: Cluster) -> None:
    cluster.run("--delay", "2", "--joblog", "log", input=b"1\n2\n")
    first, second = sorted(float(row["Starttime"]) for row in joblog())
    assert second - first > 0.5  # the first one may have begun late, when its program started on a busy machine


def test_a_limit_of_tasks_on_each_worker(cluster: Cluster) -> None:
    cluster.run("-j1", "--joblog", "log", "--peer", "RUN=sleep 0.1", input=b"1\n2\n3\n")
    times = sorted((float(row["Starttime"]), float(row["JobRuntime"])) for row in joblog())
    assert all(start + runtime <= following + 0.02 for (start, runtime), (following, _) in pairwise(times))


def test_workers_are_chosen_as_in_cexec(cluster: Cluster) -> None:
    environment = local_environment({"CEXEC_TIMEOUT_ACCEPT": "3"})
    for words, status, said in (
        (("--need", "os=linux"), 0, b""),
        (("--on", "127.0.0.1"), 0, b""),
        (("--not", "127.0.0.1"), 111, b"is not wanted"),
        (("--need", "os=plan9"), 111, b"has os=linux, not plan9"),
    ):
        argv = cluster.argv(*words, ":::", "a")
        result = subprocess.run(argv, env=environment, capture_output=True, timeout=DEADLINE)
        assert (result.returncode, result.stdout) == (status, b"" if status else b"a\n")
        assert said in result.stderr


def test_gnu_parallel_goes_on_with_a_joblog(cluster: Cluster) -> None:
    require_tool("parallel")
    cluster.run("--joblog", "log", "--peer", 'RUN=eval "$1"', "--", "{}", ":::", "true", "exit 3", "kill -9 $$", "true")
    # One job at a time: GNU parallel 20221122 with -k and several at once now and then ends before the last one.
    argv = ["parallel", "--will-cite", "-j1", "--joblog", "log", "--resume-failed", "echo", "{}", ":::", *"12345"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)
    assert (result.returncode, sorted(result.stdout.split())) == (0, ["2", "3", "5"]), result.stderr


# state


def test_a_run_goes_on_after_it_was_killed(cluster: Cluster, tmp_path: Path) -> None:
    script = f"test $1 -le 2 || test -e {tmp_path}/go || sleep 60; echo $1; echo $1 >> {tmp_path}/ran"
    words = ("--state", "s", "--joblog", "log", "--stdout", "{}.out", "--peer", f"RUN={script}", "--", "{}")
    inputs = (":::", *map(str, range(1, 9)))
    process = cluster.start(*words, *inputs)
    for number in (1, 2):
        wait_until((tmp_path / f"{number}.out").exists)
    process.kill()
    process.communicate()
    Path("go").touch()
    refused = cluster.run(*words, *inputs)
    assert refused.status == 100
    assert "--resume" in refused.err
    result = cluster.run("--resume", *words, *inputs)
    assert (result.status, result.err) == (0, "")
    assert sorted(row["Seq"] for row in joblog()) == [str(number) for number in range(1, 9)]
    assert {path.read_text() for path in tmp_path.glob("*.out")} == {f"{number}\n" for number in range(1, 9)}
    assert not [name for name in os.listdir() if name.startswith(".cmap-")]
    result = cluster.run("--resume", *words, *inputs)
    assert (result.status, result.err) == (0, "cmap: nothing to do: of 8 tasks none is left for --resume\n")
    assert len(joblog()) == 8


def test_blocks_go_on_after_a_kill_and_nothing_is_left(cluster: Cluster, tmp_path: Path) -> None:
    """Regression: the drafts of a killed run with --pipe stayed for ever."""
    script = f"grep -q 1 || test -e {tmp_path}/go || sleep 60"
    words = ("--pipe", "--block", "2", "--state", "s", "--stdout", "{#}.out", "--peer", f"RUN={script}")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(cluster.argv(*words), env=local_environment(), **pipes) as process:
        assert process.stdin is not None
        os.write(process.stdin.fileno(), b"1\n2\n3\n")
        wait_until((tmp_path / "1.out").exists)
        process.kill()
    Path("go").touch()
    assert cluster.run("--resume", *words, input=b"1\n2\n3\n").status == 0
    assert {name for name in os.listdir() if name not in ("s", "go")} == {"1.out", "2.out", "3.out"}


def test_what_failed_is_tried_again_when_that_is_wanted(cluster: Cluster, tmp_path: Path) -> None:
    words = ("--state", "s", "--peer", f"RUN=test -e {tmp_path}/go", "--stdout", "{}.out", ":::", "a")
    assert [cluster.run(*words).status, cluster.run("--resume", *words).status] == [1, 0]
    Path("go").touch()
    assert cluster.run("--resume-failed", *words).status == 0
    assert Path("a.out").exists()


def test_a_second_coordinator_is_refused(cluster: Cluster) -> None:
    first = cluster.start("--state", "s", "--line-buffer", "--peer", "RUN=echo; sleep 60", ":::", "a")
    first.stdout.readline()
    result = cluster.run("--resume", "--state", "s", ":::", "a")
    assert result.status == 100
    assert re.search(rf"s is in use by process {first.pid}\b", result.err)
    first.kill()
    first.communicate()


def test_a_pause_lasts_until_it_is_ended(cluster: Cluster, tmp_path: Path) -> None:
    words = ("-j1", "--state", "s", "--stdout", "{}.out", "--peer", "RUN=sleep 0.3", ":::", *map(str, range(12)))
    process = cluster.start(*words)
    wait_until((tmp_path / "0.out").exists)
    process.send_signal(signal.SIGUSR2)
    assert b"paused" in process.stderr.readline()
    wait_until(lambda: ", 0 running, " in explained() and "what waits: cmap is paused" in explained())
    assert process.poll() is None
    assert len(list(tmp_path.glob("*.out"))) < 12
    process.send_signal(signal.SIGUSR2)
    assert process.stderr.readline() == b"cmap: goes on\n"
    assert process.wait(DEADLINE) == 0
    assert len(list(tmp_path.glob("*.out"))) == 12
    process.communicate()


def test_the_first_interrupt_lets_tasks_end(cluster: Cluster, tmp_path: Path) -> None:
    script = f"echo; until test -e {tmp_path}/go; do sleep 0.05; done; echo end"
    process = cluster.start("-j1", "--line-buffer", "--peer", f"RUN={script}", "--joblog", "log", ":::", "a", "b")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert b"no further task begins" in process.stderr.readline()
    Path("go").touch()
    assert process.wait(DEADLINE) == 255
    out, err = process.communicate()
    assert (out, err) == (b"end\n", b"cmap: ended by the user; 1 task not done\n")
    assert [row["Exitval"] for row in joblog()] == ["0"]


@pytest.mark.parametrize("option", ["--validate", "--collect"])
def test_an_interrupt_from_the_keyboard_spares_what_looks_at_results(
    cluster: Cluster, tmp_path: Path, option: str
) -> None:
    """Regression: Ctrl-C, which goes to the whole process group, killed it, so a good result was rejected."""
    check = f"touch {tmp_path}/begun; until test -e {tmp_path}/go; do sleep 0.05; done; cat stdout"
    process = cluster.start(option, check, "--joblog", "log", ":::", "a", process_group=0)
    wait_until((tmp_path / "begun").exists)
    os.killpg(process.pid, signal.SIGINT)
    process.stderr.readline()
    Path("go").touch()
    assert process.wait(DEADLINE) == 0
    assert process.communicate()[0] == b"a\n"
    assert joblog()[0]["Exitval"] == "0"


@pytest.mark.parametrize("option", ["--validate", "--collect"])
def test_the_second_interrupt_ends_what_looks_at_results(cluster: Cluster, tmp_path: Path, option: str) -> None:
    process = cluster.start("-j1", option, f"touch {tmp_path}/begun; sleep 60", ":::", "a", "b", process_group=0)
    wait_until((tmp_path / "begun").exists)
    os.killpg(process.pid, signal.SIGINT)
    process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(DEADLINE) == 255
    process.communicate()


def test_an_interrupt_before_the_inputs_have_come_ends_at_once(cluster: Cluster) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    argv = cluster.argv("--order", "random")  # which waits for the end, however late the interrupt is
    with subprocess.Popen(argv, env=local_environment(), **pipes) as process:
        assert process.stdin is not None and process.stderr is not None
        pipe = process.stdin.fileno()
        os.write(pipe, b"a\n")
        wait_until(lambda: fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)) == bytes(4))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 255
        assert process.stderr.read() == b"cmap: interrupted before any task began\n"


# what is wrong is said before anything runs


def refusal(capfd: pytest.CaptureFixture[str], application: Application, *words: str) -> str:
    assert main([os.fspath(application.public), *words]) == 100
    return capfd.readouterr().err.strip()


WRONG: Sequence[tuple[tuple[str, ...], str]] = (
    (("--", "{nope}", ":::", "a"), "{nope}: there is no such column"),
    (("--params", "bad.csv"), "bad.csv, line 3 has 1 cell, but the header has 2"),
    (("--stdin", "{}", ":::", "present", "absent"), "row 2: cannot read absent"),
    (("--stdin", "{}", ":::", "present", "/dev/null"), "row 2: cannot read /dev/null: it is no regular file"),
    (("--send", "{}", ":::", "present", "."), "row 2: cannot read .: is a directory"),
    (("--stdout", "no/{}", ":::", "a"), "row 1: result no/a: there is no directory no"),
    (("--stdout", "x", ":::", "a", "b"), "rows 1 and 2 have the same result x"),
    (("--stdout", "{}", ":::", "new", "present"), "row 2: result present exists already"),
    (("--results", "present/x", ":::", "a"), "--results present/x: not a directory"),
    (("--joblog", "present", ":::", "a"), "--joblog present exists already"),
    (("--joblog", ".", ":::", "a"), "--joblog . is a directory, but must be a file"),
    (("--joblog", "no/log", ":::", "a"), "cannot write no/log: no such file or directory"),
    (("--results", "no/t.csv", ":::", "a"), "cannot write no/t.csv: no such file or directory"),
    (("--state", "no/state", ":::", "a"), "cannot write no/state: no such file or directory"),
    (("--state", "present", ":::", "a"), "present is no journal of cmap"),
    (("KEY=1", ":::", "a"), "inputs come after :::, and a variable is --peer KEY=VALUE"),
    ((":::", "present"), "add --stdin '{}'"),
    (("--resume", ":::", "a"), "--resume needs the journal"),
    (("--halt", "sometimes", ":::", "a"), "--halt is 'sometimes'"),
    (("-j", "x", ":::", "a"), "-j is 'x'"),
    (("--tee",), "--tee gives standard input to every task"),
    (("--pipe", ":::", "a"), "--pipe and ::: cannot be used together"),
    (("--pipe", "-n", "2"), "--pipe and -n cannot be used together"),
    (("--pipe", "--order", "random"), "--pipe and --order random cannot be used together"),
    (("--block", "1M", ":::", "a"), "need --pipe"),
    (("--weight", "0", ":::", "a"), "--weight is '0'"),
    (("--nonsense", ":::", "a"), "the program's own arguments come after --: cmap"),
    ((":::", "a", "--", "b"), "-- ARG... has to stand before"),
)


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda value: " ".join(value) if type(value) is tuple else "")
def test_what_is_wrong_is_said_before_anything_runs(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    Path("present").write_text("x")
    Path("bad.csv").write_text("a,b\n1,2\n3\n")
    error = refusal(capfd, cluster.application, *words)
    assert error.startswith("cmap: ") and message.lower() in error.lower()
    assert error.count("\n") == 0
    assert sorted(os.listdir()) == ["bad.csv", "present"]


def test_nobody_is_there(tmp_path: Path) -> None:
    application = Application(tmp_path)
    environment = local_environment({"CEXEC_TIMEOUT_ACCEPT": "0.3"})
    argv = command("cmap", application.public, ":::", "a")
    result = subprocess.run(argv, env=environment, capture_output=True, timeout=DEADLINE)
    assert result.returncode == 111
    assert b"answered in 0.3 s" in result.stderr


def test_what_is_over_is_saved_when_no_worker_is_left(tmp_path: Path) -> None:
    """Regression: with -k it waited for its turn, and was lost with the one before it."""
    cluster = Cluster(tmp_path)
    words = ("-k", "--joblog", "log", "--state", "s", "--peer", "RUN=test $1 -gt 1 || sleep 60; echo $1")
    process = cluster.start(*words, "--", "{}", ":::", *"123", environment={"CEXEC_TIMEOUT_ACCEPT": "5"})
    wait_until((tmp_path / "s").exists)
    for number in (2, 3):
        wait_until(lambda: "succeeded" in explained(number))  # noqa: B023  it is called at once
    cluster.service.kill()
    assert process.wait(DEADLINE) == 111
    out, err = process.communicate()
    assert out == b"2\n3\n" and b"1 task not done" in err and b"not saved" not in err
    assert [row["Seq"] for row in joblog()] == ["2", "3"]


def test_who_waits_hears_why_but_not_while_tasks_run(cluster: Cluster, tmp_path: Path) -> None:
    process = cluster.start("-j1", "--line-buffer", "--peer", "RUN=echo begun; sleep 2", ":::", "1", "2")
    assert process.stdout.readline() == b"begun\n"
    os.set_blocking(process.stderr.fileno(), False)
    before = process.stderr.read() or b""  # a machine that is slow to begin may bring out a note
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (0, b"begun\n")
    assert err in (b"", before)  # regression: on a terminal all slots were said to be busy
    process = cluster.start("--on", "nowhere", ":::", "a")
    assert b"no worker of" in process.stderr.readline()
    process.terminate()
    assert process.wait(DEADLINE) == 255
    process.communicate()


def test_a_key_that_cannot_be_used_is_told_as_cexec_tells_it(capfd: pytest.CaptureFixture[str]) -> None:
    Path("none.pub").write_text("nothing")
    os.chmod("none.pub", 0o600)
    Path("open.pub").write_text("nothing")
    os.chmod("open.pub", 0o644)
    for name in ("absent.pub", "none.pub", "open.pub"):
        assert cexec_main([name]) == main([name, ":::", "a"]) == 111
        one, other = capfd.readouterr().err.splitlines()
        assert one.startswith(f"cexec: {name}") and other == one.replace("cexec: ", "cmap: ", 1)


@pytest.mark.parametrize("words", [(), (":::",), (":::", "a", ":::"), ("--params", "header"), ("--pipe",)])
def test_that_there_is_nothing_to_do_is_told(cluster: Cluster, words: tuple[str, ...]) -> None:
    Path("header").write_text("a,b\n")
    result = cluster.run("--stderr", "{#}.err", *words)
    assert (result.status, result.out, result.err) == (0, "", "cmap: nothing to do: there is no input\n")


# words


def test_words_after_two_dashes_and_three_colons_are_no_options() -> None:
    assert split_command(["-k", "a.pub", "--", "-x", "{}", ":::", "-k"]) == (
        ["-k", "a.pub"], ["-x", "{}"], [(":::", ["-k"])]
    )  # fmt: skip
    assert split_command(["a.pub", "--", "--", "x"]) == (["a.pub"], ["--", "x"], [])
    with pytest.raises(UsageError, match="before the first"):
        split_command(["a.pub", ":::", "a", "--", "b"])


def test_every_option_is_in_the_man_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    named = set(re.findall(r"--([a-z-]+)", capsys.readouterr().out))
    page = (ROOT / "man" / "cmap.1").read_text().replace("\\-", "-")
    missing = [name for name in named if not re.search(rf"Fl Fl {name}\b|--{name}\b", page)]
    assert {"params", "retries", "resume-failed"} <= named
    assert not missing
