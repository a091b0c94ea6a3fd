"""Nothing that a client or a job's process says ends cservice, and with it the jobs of all others.

Regression: a BROKEN of 1 KB of control characters, and a GO with 80 long names of platforms, became a report that the
parent could not read; cservice ended with a traceback.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from cexec.protocol.base.limits import FRAME_HEADER, MAXIMUM_DATA, MAXIMUM_GO, MAXIMUM_TEXT
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import LARGEST_SIGNAL
from cexec.worker.jobs.carrier import MAXIMUM_REPORT, encode_report
from cexec.worker.jobs.job_process import REPORTS, JobProcess, ReportError, decode_report
from tests.fake_client import FakeClient
from tests.service import Shell
from tests.worker.jobs.test_jobs import FINISHED, Scene

LONG_TEXT = b"\x01" * MAXIMUM_TEXT  # JSON makes six bytes of each
LARGEST = b"\xff" * 8
WORST = {
    "BROKEN of control characters": frames.frame(frames.BROKEN, LONG_TEXT),
    "BROKEN of wide characters": frames.frame(frames.BROKEN, "\U0010ffff".encode() * (MAXIMUM_TEXT // 4)),
    "BROKEN that is too long": frames.frame(frames.BROKEN, b"x" * (MAXIMUM_TEXT + 1)),
    "BROKEN that is no text": frames.frame(frames.BROKEN, b"\xff\xfe"),
    "BROKEN of a file": frames.frame(frames.BROKEN, LONG_TEXT, frames.FIRST_FILE),
    "SIGNAL 0": frames.frame(frames.SIGNAL, b"\0"),
    "SIGNAL of the highest number": frames.frame(frames.SIGNAL, bytes([LARGEST_SIGNAL])),
    "SIGNAL 255": frames.frame(frames.SIGNAL, b"\xff"),
    "SIGNAL without a number": frames.frame(frames.SIGNAL),
    "WINDOW of the largest size": frames.frame(frames.WINDOW, LARGEST[:4]),
    "WINDOW that is too long": frames.frame(frames.WINDOW, LARGEST),
    "END at an impossible count": frames.frame(frames.END, LARGEST),
    "END of an unknown stream": frames.frame(frames.END, bytes(8), 999),
    "CLOSED at an impossible count": frames.frame(frames.CLOSED, LARGEST, 1),
    "CREDIT of everything": frames.frame(frames.CREDIT, LARGEST[:4], 1),
    "CREDIT for an unknown stream": frames.frame(frames.CREDIT, LARGEST[:4], 999),
    "DATA beyond the window": frames.frame(frames.DATA, bytes(MAXIMUM_DATA)),
    "DATA of an unknown stream": frames.frame(frames.DATA, b"x", 999),
    "GO that cannot be read": frames.frame(frames.GO, LARGEST * 100),
    "GO of the largest size": frames.frame(frames.GO, b"\xff" * MAXIMUM_GO),
    "the worker's CONFIRM": frames.frame(frames.CONFIRM),
    "the worker's WITHDRAW": frames.frame(frames.WITHDRAW, LONG_TEXT),
    "the worker's STARTED": frames.frame(frames.STARTED, b"\xff"),
    "the worker's REFUSED": frames.frame(frames.REFUSED, b"\x01" + LONG_TEXT),
    "the worker's PROGRAM": frames.frame(frames.PROGRAM, LONG_TEXT),
    "the worker's EXIT": frames.frame(frames.EXIT, LARGEST * 100),
    "CANCEL": frames.frame(frames.CANCEL),
    "CANCEL with a body": frames.frame(frames.CANCEL, LONG_TEXT),
    "RELEASE": frames.frame(frames.RELEASE),
    "PING": frames.frame(frames.PING),
    "PONG": frames.frame(frames.PONG),
    "a type that is unknown": b"\xff" + bytes(FRAME_HEADER - 1) + LONG_TEXT,
}
PLATFORMS = {f"program-linux-{'x' * 200}{number}": "0" * 64 + " 1" for number in range(80)}
GOES: dict[str, dict[str, object]] = {
    "80 long names of platforms": {"options": {"program-stream": "256", **PLATFORMS}},
    "an option of control characters": {"options": {"\x01" * 200: "\x01" * 200}},
    "a limit of control characters": {"options": {"time-limit": "\x01" * 200}},
    "a variable of control characters": {"environment": {"\x01" * 200: b"\x01" * 1000}},
    "many variables": {"environment": {f"V{number}": b"\x01" * 100 for number in range(1000)}},
    "arguments": {"arguments": [b"\x01" * 1000] * 100},
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    worker = Shell(tmp_path_factory.mktemp("shell"), ["-j", "4"])
    yield worker
    worker.close()


def serves(shell: Shell) -> None:
    """It is the process that it was, and others' jobs are done."""
    assert shell.service.process.poll() is None, shell.service.lines[-20:]
    assert shell.run("cat", input=b"an honest job").stdout == b"an honest job"


@pytest.mark.parametrize("name", WORST)
def test_no_frame_of_a_client_ends_cservice(shell: Shell, name: str) -> None:
    with FakeClient(shell.application) as before:
        before.hear(frames.CONFIRM)
        before.say(WORST[name]).ended()
    with FakeClient(shell.application) as running:
        running.give(environment={"RUN": b"cat"}).hear(frames.STARTED)
        running.say(WORST[name]).ended()
    with FakeClient(shell.application) as between:  # a lease whose first job has ended
        between.give(environment={"RUN": b"true"}, options={"lease": "yes"}).hear(frames.EXIT)
        between.say(WORST[name]).ended()
    serves(shell)


@pytest.mark.parametrize("name", GOES)
def test_no_job_of_a_client_ends_cservice(shell: Shell, name: str) -> None:
    for lease in ({}, {"lease": "yes"}):
        fields = {"environment": {"RUN": b"true"}, **GOES[name]}
        fields["options"] = {**lease, **fields.get("options", {})}  # type: ignore[dict-item]
        with FakeClient(shell.application) as client:
            client.give(**fields)  # type: ignore[arg-type]
            client.hear(frames.REFUSED, frames.STARTED)
            client.ended()
    serves(shell)


def test_a_report_is_never_longer_than_the_parent_reads() -> None:
    for text in ("\x01" * MAXIMUM_TEXT, "\U0010ffff" * MAXIMUM_TEXT, "x" * 10_000):
        data = encode_report({"event": "broken", "reason": text})
        assert MAXIMUM_REPORT // 4 < len(data) <= MAXIMUM_REPORT
        assert text.startswith(str(decode_report(data)["reason"]))


NO_REPORTS = [
    b"\xff\xfe", b"[", b"10", b"null", b'"broken"', b"[" * 4000, b"{}", b'{"event": "hello"}', b'{"event": ["broken"]}',
    b'{"event": "broken"}', b'{"event": "broken", "reason": 1}', b'{"event": "broken", "reason": "x", "more": 1}',
    b'{"event": "started", "pid": true}', b'{"event": "started", "pid": 1e999}', b'{"event": "started", "pid": "1"}',
    b'{"event": "taken", "job": "zz", "attempt": 1}', b'{"event": "taken", "job": "' + b"0" * 33 + b'", "attempt": 1}',
]  # fmt: skip


@pytest.mark.parametrize("data", NO_REPORTS)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError):
        decode_report(data)


@pytest.mark.parametrize("data", NO_REPORTS)
def test_a_process_that_sends_what_is_no_report_is_ended_alone(data: bytes) -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()  # until it is killed
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    process = JobProcess(pid, ours, None)
    theirs.send(data)
    theirs.send(b'{"event": "free"}')
    assert process.reports() == []  # what comes afterwards does not count either
    theirs.close()
    (report,) = process.reports()
    assert (report["event"], process.ended) == ("broken", True)
    assert "it sent a" in report["reason"]
    process.close()


def test_every_kind_of_report_can_be_read() -> None:
    """The table of reports has what the processes of jobs say; those of the other tests say all of them."""
    values: dict[type, object] = {str: "0" * 32, int: 1, bool: True, float: 0.5}
    for event, fields in REPORTS.items():
        report = {"event": event, **{name: values[kind] for name, kind in fields.items()}}
        assert decode_report(encode_report(report)) == report


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "taken", "job": "0" * 32, "attempt": 1},
        {"event": "started", "pid": 1},
        {"event": "idle"},
        {"event": "refused", "reason": "", "everywhere": False},
    ],
)
def test_a_report_at_the_wrong_time_costs_its_own_process_only(wrong: dict[str, object]) -> None:
    scene = Scene(slots=2)
    other, process = scene.running(1), scene.running(2)
    reasons: list[str] = []
    process.distrust = reasons.append
    scene.say(process, wrong)
    assert [str(wrong["event"]) in reason for reason in reasons] == [True]
    scene.say(other, {**FINISHED, "idle": False})
    assert scene.events()[-1] == "finished"
