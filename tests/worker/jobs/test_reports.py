"""The messages between a worker and its jobs' processes: what is sent can be read, and nothing else is."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.base.limits import MAXIMUM_TEXT
from cexec.worker.jobs.reports import (
    LARGEST_PID,
    MAXIMUM_REPORT,
    REPORTS,
    Broken,
    Free,
    Idle,
    JobFinished,
    JobRefused,
    Over,
    ProgramStarted,
    Report,
    ReportError,
    Starting,
    Stored,
    Taken,
    decode,
    encode,
)

FINISHED = JobFinished(255, sent=1 << 63, received=0, cpu=0.25, reason="", duration=0.5, idle=True, ahead=False)
EXAMPLES: list[Report] = [
    Taken(bytes(range(16)), 65535, hears=True), Starting(), ProgramStarted(1),
    JobRefused("no such program", unfit=False), Broken("client gave up"), FINISHED,
    Idle(), Over("it sent nonsense", released=True), Free(), Stored(1 << 40),
]  # fmt: skip
WORDS = [b"", b"\x00", b"\xff\xfe", b"offer", b"!", b"[]", b'["free"]', bytes([len(REPORTS) + 1])]


def test_every_report_can_be_read() -> None:
    assert {type(report) for report in EXAMPLES} == set(REPORTS)
    for report in EXAMPLES:
        assert decode(encode(report)) == report
        assert encode(decode(encode(report))) == encode(report)


@pytest.mark.parametrize("text", ["\x01" * MAXIMUM_TEXT, "\U0010ffff" * MAXIMUM_TEXT, "x" * 10_000, "\udcff" * 5000])
@pytest.mark.parametrize("report", [report for report in EXAMPLES if hasattr(report, "reason")], ids=lambda r: r.name)
def test_a_report_is_never_longer_than_the_worker_reads(report: Any, text: str) -> None:
    """Regression: a report of 6 KB could not be read, and cservice ended."""
    long = replace(report, reason=text)
    data = encode(long)
    assert MAXIMUM_REPORT // 4 < len(data) <= MAXIMUM_REPORT
    read: Any = decode(data)
    assert read.reason and text.replace("\udcff", "?").startswith(read.reason)
    assert replace(read, reason="") == replace(long, reason="")


@pytest.mark.parametrize("data", WORDS)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_refused_and_nothing_else_happens(data: bytes) -> None:
    try:
        report = decode(data)
    except ReportError:
        return
    assert encode(report) == data


@pytest.mark.parametrize("report", EXAMPLES, ids=lambda report: report.name)
def test_a_report_has_exactly_its_fields(report: Report) -> None:
    """A report with a text has any length behind its other fields; all the others have one length."""
    short: Any = report
    data = encode(replace(short, reason="") if hasattr(report, "reason") else report)
    wrong = [data[:size] for size in range(len(data))]
    if hasattr(report, "reason"):
        wrong += [data + b"\xff", data + bytes(MAXIMUM_REPORT)]
    else:
        wrong += [data + b"x"]
    for one in wrong:
        with pytest.raises(ReportError):
            decode(one)


@pytest.mark.parametrize("pid", [LARGEST_PID + 1, 0xFFFFFFFF])
def test_a_process_has_a_number_that_the_kernel_gives(pid: int) -> None:
    assert decode(encode(ProgramStarted(LARGEST_PID))) == ProgramStarted(LARGEST_PID)
    with pytest.raises(ReportError, match="impossible number"):
        decode(encode(ProgramStarted(pid)))


@pytest.mark.parametrize("name", ["cpu", "duration"])
@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), 1e300])
def test_a_time_that_no_alert_can_carry_is_refused(name: str, value: float) -> None:
    """Regression: a duration that is no number ended cservice when it wrote the alert."""
    finished: Any = FINISHED
    with pytest.raises(ReportError, match="impossible number"):
        decode(encode(replace(finished, **{name: value})))


@pytest.mark.parametrize(
    ("report", "place"),
    [(FINISHED, -2), (FINISHED, -1), (Free(), 1), (Over(""), 1), (JobRefused("", True), 1), (Taken(bytes(16), 1), -1)],
)
def test_a_flag_is_set_or_not(report: Report, place: int) -> None:
    data = bytearray(encode(report))
    data[place] = 2
    with pytest.raises(ReportError):
        decode(bytes(data))


def test_what_no_report_can_say_is_not_written() -> None:
    for bad in (replace(FINISHED, status=256), replace(FINISHED, sent=1 << 64), Taken(bytes(16), 1 << 16)):
        with pytest.raises(struct.error):
            encode(bad)


def test_an_offer_without_an_idle_process_is_refused() -> None:
    """Regression: it was half carried out, and the slot of its job was lost for ever."""
    ended = JobFinished(0, sent=0, received=0, cpu=0.0, reason="", duration=0.0, idle=False, ahead=True)
    with pytest.raises(ReportError, match="contradicts itself"):
        decode(encode(ended))
