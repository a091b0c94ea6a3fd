"""The rules that a user sets, and GNU parallel's exit statuses."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.cmap.run.policy import (
    DEFAULT_TERM_SEQ,
    Halt,
    Median,
    Pace,
    exit_status,
    parse_halt,
    parse_placement,
    parse_rate,
    parse_term_seq,
    parse_timeout,
)
from cexec.errors import UsageError
from tests.needs import require_tool


def halt(text: str) -> Halt:
    parsed = parse_halt(text)
    assert parsed is not None
    return parsed


def test_when_to_stop() -> None:
    assert parse_halt("never") is None
    assert not halt("now,fail=2").reached(9, 1, 100)
    assert halt("now,fail=2").reached(0, 2, 100)
    assert halt("soon,success=1").reached(1, 0, None)
    assert not halt("soon,success=1").reached(0, 5, None)
    assert halt("soon,done=3").reached(1, 2, 100)
    assert not halt("soon,done=50%").reached(1, 3, 10)
    assert halt("soon,done=50%").reached(2, 3, 10)
    assert not halt("now,fail=10%").reached(5, 0, 10)
    assert halt("now,fail=30%").reached(0, 2, 6)
    assert not halt("now,fail=0%").reached(5, 0, 10)


@pytest.mark.parametrize("text", ["", "now", "fail=1", "later,fail=1", "now,fail=0", "now,fail=-1", "now,fail=x", "2"])
def test_a_halt_that_cannot_be_understood_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"--halt is .*must be never, or such as now,fail=1"):
        parse_halt(text)


@pytest.mark.parametrize(
    ("succeeded", "failed", "text", "reached_with", "expected"),
    [
        (5, 0, "never", None, 0),
        (5, 1, "never", None, 1),
        (5, 100, "never", None, 100),
        (5, 101, "never", None, 101),
        (5, 5000, "never", None, 101),
        (1, 1, "now,fail=1", 5, 5),
        (1, 1, "soon,fail=1", 137, 137),
        (1, 2, "soon,fail=2", 7, 2),
        (4, 2, "soon,fail=30%", 7, 34),
        (4, 2, "soon,fail=90%", None, 34),
        (1, 2, "now,success=1", 0, 0),
        (1, 3, "now,success=2", None, 3),
        (1, 3, "now,success=10%", 0, 0),
        (1, 3, "now,success=50%", None, 75),
        (0, 2, "now,done=2", 5, 2),
        (0, 1, "now,done=1", 3, 3),
        (1, 0, "now,done=1", 0, 0),
        (1, 1, "now,done=50%", 0, 25),
        (1, 3, "now,fail=5", None, 3),
        (0, 0, "now,fail=10%", None, 0),
    ],
)
def test_exit_statuses(succeeded: int, failed: int, text: str, reached_with: int | None, expected: int) -> None:
    total = {"soon,fail=30%": 6, "soon,fail=90%": 6, "now,fail=10%": 0}.get(text, 4)
    given: dict[str, Any] = {"succeeded": succeeded, "failed": failed, "total": total, "last": reached_with}
    assert exit_status(**given, halt=parse_halt(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "now,fail=1", "soon,fail=2", "soon,fail=50%", "now,success=1", "now,success=2", "now,success=50%", "now,done=2",
        "now,done=1", "now,done=50%", "never", "soon,fail=5",
    ],
)  # fmt: skip
@pytest.mark.parametrize("statuses", [[0, 5, 0, 7], pytest.param([3, 5, 0, 7], marks=pytest.mark.campaign)])
def test_exit_statuses_are_those_of_gnu_parallel(tmp_path: Path, text: str, statuses: list[int]) -> None:
    require_tool("parallel")
    words = [str(status) for status in statuses]
    command = ["parallel", "--will-cite", "-j1", "--halt", text, "exit {}", ":::", *words]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    theirs = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode
    rule = parse_halt(text)
    succeeded = failed = 0
    last = None
    for status in statuses:
        succeeded += status == 0
        failed += status != 0
        if rule is not None and rule.reached(succeeded, failed, len(statuses)):
            last = status
            break
    assert exit_status(succeeded=succeeded, failed=failed, total=len(statuses), halt=rule, last=last) == theirs


def test_time_limits() -> None:
    assert parse_timeout("1m30s").of(None) == 90.0
    assert parse_timeout("10").of(1000.0) == 10.0
    assert parse_timeout("200%").of(None) is None
    assert parse_timeout("200%").of(3.0) == 6.0
    for text in ("0", "0%", "x", "", "-1"):
        with pytest.raises(UsageError, match="--timeout is"):
            parse_timeout(text)


@given(st.lists(st.floats(0, 1e6)))
def test_the_median(values: list[float]) -> None:
    median = Median()
    for value in values:
        median.add(value)
    assert median.value == (pytest.approx(statistics.median(values)) if len(values) >= Median.ENOUGH else None)


def starts(pace: Pace, now: Callable[[float], float], count: int) -> list[float]:
    """When `count` tasks are started, one after another, as soon as each is allowed."""
    found: list[float] = []
    time = 0.0
    for _ in range(count):
        time = max(time, pace.next_start())
        pace.started(now(time))
        found.append(time)
    return found


def test_a_delay_is_between_any_two_starts() -> None:
    assert starts(Pace(0.5), lambda t: t, 4) == [0.0, 0.5, 1.0, 1.5]
    assert starts(Pace(), lambda t: t, 4) == [0.0] * 4


def test_a_rate_allows_so_many_starts_in_any_period() -> None:
    found = starts(Pace(rate=parse_rate("3")), lambda t: t, 8)
    assert found == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    assert starts(Pace(rate=parse_rate("2/m")), lambda t: t, 4) == [0.0, 0.0, 60.0, 60.0]
    assert starts(Pace(0.4, parse_rate("2")), lambda t: t, 4) == [0.0, 0.4, 1.0, 1.4]


@pytest.mark.parametrize("rate", ["", "0", "x", "1/w", "-1", "1.5", "/m"])
def test_a_rate_that_cannot_be_understood_is_told(rate: str) -> None:
    with pytest.raises(UsageError, match="--rate is"):
        parse_rate(rate)


@pytest.mark.parametrize(
    ("text", "slots", "limit"),
    [
        ("0", 8, 8), ("4", 8, 4), ("4", 2, 2), ("50%", 8, 4), ("50%", 1, 1), ("10%", 4, 1), ("200%", 4, 4),
        ("+0", 4, 4), ("+2", 4, 4), ("-1", 4, 3), ("-9", 4, 1), ("1", 0, 1),
    ],
)  # fmt: skip
def test_how_many_tasks_a_worker_gets(text: str, slots: int, limit: int) -> None:
    assert parse_placement(text).limit(slots) == limit


@pytest.mark.parametrize("text", ["", "x", "-", "1.5", "1 ", "%"])
def test_a_number_of_slots_that_cannot_be_understood_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="-j is"):
        parse_placement(text)


def test_how_a_task_is_ended() -> None:
    assert parse_term_seq("TERM,200,SIGKILL,25") == [(15, 0.2), (9, 0.025)]
    assert parse_term_seq(DEFAULT_TERM_SEQ) == [(15, 0.2), (15, 0.1), (15, 0.05), (9, 0.025)]
    for text in ("", "TERM", "TERM,x", "FOO,1", "TERM,1,KILL", "15,1"):
        with pytest.raises(UsageError, match=re.escape("--term-seq")):
            parse_term_seq(text)
