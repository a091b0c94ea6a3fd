"""The messages between a worker and its jobs' processes: what is sent can be read, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.base.limits import MAXIMUM_TEXT
from cexec.worker.jobs.reports import (
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
    Stored,
    Taken,
    decode,
    encode,
)

EXAMPLES: list[Report] = [
    Taken(bytes(range(16)), 65535), ProgramStarted(1), Stored(1 << 40), JobRefused("no such program", unfit=False),
    Broken("client gave up"),
    JobFinished(255, sent=1 << 63, received=0, cpu=0.25, reason="", duration=0.5, idle=True, ahead=False),
    Idle(), Over("it sent nonsense"), Free(),
]  # fmt: skip
WORDS = [
    b"\xff\xfe", b"[", b"10", b"null", b'"broken"', b"[" * 4000, b"{}", b"", b"offer", b"[]", b"[[]]",
    b'["free"] ["free"]',
    b'{"event": "free"}', b'["hello"]', b'["free", 1]', b'["broken"]', b'["broken", 1]',
]  # fmt: skip


def values(report: Report) -> list[Any]:
    """The JSON array of a report."""
    return list(json.loads(encode(report)))


def changed(report: Report, index: int, value: Any) -> list[Any]:
    """The same with another value in one place; the name is in place 0."""
    result = values(report)
    result[index] = value
    return result


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
    assert read.reason and text.startswith(read.reason)
    assert replace(read, reason="") == replace(long, reason="")


@pytest.mark.parametrize("data", WORDS)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(ReportError):
        decode(data)


@pytest.mark.parametrize("report", EXAMPLES, ids=lambda report: report.name)
def test_a_report_has_exactly_its_fields_and_their_types(report: Report) -> None:
    samples: list[Any] = [None, [], {}, True, "\x00", 1, 1.5]
    wrong: list[Any] = [[*values(report), 1], changed(report, 0, "hello"), changed(report, 0, [report.name])]
    for index, now in enumerate(values(report)[1:], 1):
        wrong.append([value for place, value in enumerate(values(report)) if place != index])
        wrong += [changed(report, index, value) for value in samples if type(value) is not type(now)]
    for one in wrong:
        with pytest.raises(ReportError):
            decode(json.dumps(one).encode())


@pytest.mark.parametrize("name", ["status", "sent", "received", "cpu", "duration", "attempt", "pid"])
def test_a_number_that_no_alert_can_carry_is_refused(name: str) -> None:
    """Regression: a duration that is no number, or a status above 255, ended cservice when it wrote the alert."""
    for report in EXAMPLES:
        if not hasattr(report, name):
            continue
        index = 1 + [field.name for field in fields(report)].index(name)
        bad: list[Any] = [-1, 1 << 64, 10**400]
        if isinstance(getattr(report, name), float):
            bad = [-0.5, float("nan"), float("inf"), 1e300]
        for number in bad:
            with pytest.raises(ReportError, match="impossible number"):
                decode(json.dumps(changed(report, index, number)).encode())


@pytest.mark.parametrize("digits", ["", "zz", "0" * 31, "0" * 33, "A" * 32, " " * 32, "0x" + "0" * 30])
def test_a_job_id_has_sixteen_bytes(digits: str) -> None:
    with pytest.raises(ReportError):
        decode(json.dumps(["taken", digits, 1]).encode())


def test_an_offer_without_an_idle_process_is_refused() -> None:
    """Regression: it was half carried out, and the slot of its job was lost for ever."""
    ended = JobFinished(0, sent=0, received=0, cpu=0.0, reason="", duration=0.0, idle=False, ahead=True)
    with pytest.raises(ReportError, match="contradicts itself"):
        decode(encode(ended))
