"""The joblog's lines are GNU parallel's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cexec.cmap.results import joblog
from cexec.cmap.results.outcome import TaskOutcome
from tests.needs import require_tool


def test_a_line() -> None:
    outcome = TaskOutcome(
        3,
        succeeded=False,
        command=lambda: "cexec app.pub -- 'a\tb\nc'",
        worker="w1@host",
        started=1700000000.1239,
        runtime=2.5,
        sent=10,
        received=20,
        exitval=4,
        signal=0,
    )
    assert joblog.line(outcome) == (
        b"3\tw1@host\t1700000000.124\t     2.500\t10\t20\t4\t0\tcexec app.pub -- 'a\tb\0c'\n"
    )


def test_a_task_that_no_worker_had_and_bytes_that_are_no_utf8() -> None:
    assert joblog.line(TaskOutcome(1, succeeded=False, command=lambda: "\udcff", exitval=-1)) == (
        b"1\t-\t0.000\t     0.000\t0\t0\t-1\t0\t\xff\n"
    )


def test_the_columns_are_those_of_gnu_parallel(tmp_path: Path) -> None:
    require_tool("parallel")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = ["parallel", "--will-cite", "--joblog", "log", "true\nexit {}", ":::", "3"]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    header, line = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    assert header == joblog.HEADER
    ours = joblog.line(
        TaskOutcome(1, succeeded=False, command=lambda: "true\nexit 3", worker=":", started=1.0, exitval=3)
    )
    theirs, own = line[:-1].split(b"\t"), ours[:-1].split(b"\t")
    assert own[:2] == theirs[:2] == [b"1", b":"]
    assert re.fullmatch(rb"\d+\.\d{3}", theirs[2]) and own[2] == b"1.000"
    assert len(own[3]) == len(theirs[3]) == 10
    assert own[6:] == theirs[6:] == [b"3", b"0", b"true\0exit 3"]
