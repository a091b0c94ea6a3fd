"""Requests and replies on the control socket of cmap: whole, byte by byte, with a trailer, and damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cexec.cmap.control.control_messages import (
    LONGEST_REASON,
    MOST_TASKS,
    REPLY_LIMIT,
    REQUEST_LIMIT,
    ControlAction,
    ControlLine,
    ControlRefusal,
    ControlRequest,
    ControlStatus,
    encode_reply,
    encode_request,
    parse_reply,
    parse_request,
)
from cexec.errors import ProtocolError

STATUS = ControlStatus(
    pid=4711, paused=True, paused_seconds=1.5, ending=False, weight=3, running=2, given=1, waiting=None, leases=3,
    workers=2, tasks=(4, 17),
)  # fmt: skip
REQUESTS = [
    *(ControlRequest(action) for action in ControlAction if action is not ControlAction.WEIGHT),
    ControlRequest(ControlAction.WEIGHT, 1),
    ControlRequest(ControlAction.WEIGHT, 65_535),
]
REPLIES = [STATUS, ControlRefusal("the run is about to end"), ControlRefusal("\N{BELL}\"'\\", denied=True)]
HUGEST = replace(
    STATUS, tasks=tuple(range(10**9, 10**9 + MOST_TASKS)), running=MOST_TASKS, waiting=10**9, paused_seconds=1e9 / 3
)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_is_parsed_again(request_: ControlRequest) -> None:
    assert parse_request(encode_request(request_)[:-1]) == request_
    assert len(encode_request(request_)) < REQUEST_LIMIT


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_is_parsed_again(reply: ControlStatus | ControlRefusal) -> None:
    assert parse_reply(encode_reply(reply)[:-1]) == reply


def test_the_largest_status_and_the_longest_reason_fit_into_a_reply() -> None:
    assert parse_reply(encode_reply(HUGEST)[:-1]) == HUGEST
    assert len(encode_reply(HUGEST)) < REPLY_LIMIT
    long = parse_reply(encode_reply(ControlRefusal("\N{GRINNING FACE}" * 10_000))[:-1])
    assert isinstance(long, ControlRefusal) and len(long.reason) == LONGEST_REASON


def test_a_line_comes_whole_or_byte_by_byte() -> None:
    line = encode_reply(STATUS)
    assert ControlLine(REPLY_LIMIT).receive_data(line) == line[:-1]
    one = ControlLine(REPLY_LIMIT)
    found = [one.receive_data(line[at : at + 1]) for at in range(len(line))]
    assert found == [None] * (len(line) - 1) + [line[:-1]]


@pytest.mark.parametrize("rest", [b"\n", b" ", b"{}\n", encode_request(REQUESTS[0])])
def test_nothing_may_follow_the_line(rest: bytes) -> None:
    with pytest.raises(ProtocolError, match="more than one line"):
        ControlLine(REQUEST_LIMIT).receive_data(encode_request(REQUESTS[0]) + rest)


@pytest.mark.parametrize("size", [10, 11])
def test_a_line_has_at_most_its_limit(size: int) -> None:
    assert ControlLine(10).receive_data(b"x" * 9 + b"\n") == b"x" * 9
    assert ControlLine(10).receive_data(b"x" * 9) is None
    with pytest.raises(ProtocolError, match="longer than 10 bytes"):
        ControlLine(10).receive_data(b"x" * size)


BAD_REQUESTS = [
    b"", b"{", b"null", b"[]", b'"status"', b"[" * 100_000, b"\xff", b"{}", b'{"action":5}', b'{"action":"stop"}',
    b'{"action":["status"]}', b'{"action": "status"}', b'{"action":"status"} ', b'{"action":"status","more":1}',
    b'{"action":"status","action":"status"}', b'{"action":"status","weight":1}', b'{"action":"pause","weight":null}',
    b'{"action":"weight"}', b'{"action":"weight","weight":0}', b'{"action":"weight","weight":65536}',
    b'{"action":"weight","weight":1.0}', b'{"action":"weight","weight":true}', b'{"action":"weight","weight":"1"}',
    b'{"weight":1,"action":"weight"}', b'{"action":"weight","weight":1e0}', b'{"\\u0061ction":"status"}',
    b'{"action":"weight","weight":NaN}', b'{"action":"weight","weight":' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("line", BAD_REQUESTS, ids=lambda line: str(line[:30]))
def test_any_other_request_is_an_error_of_the_peer(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(line)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": "1"}, {"pid": None}, {"paused": 1}, {"ending": None}, {"paused_seconds": 1}, {"paused_seconds": -1.0},
        {"paused_seconds": float("inf")}, {"weight": 0}, {"weight": True}, {"running": -1}, {"given": 1.5},
        {"waiting": "?"}, {"leases": None}, {"workers": []}, {"tasks": None}, {"tasks": {}}, {"tasks": ["1"]},
        {"tasks": [0]}, {"tasks": [True]}, {"tasks": [1] * (MOST_TASKS + 1)}, {"more": 1}, {"kind": "going"},
        {"kind": "refused"}, {"kind": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_status_that_cannot_be_is_an_error_of_the_peer(changes: dict[str, object]) -> None:
    found = {**json.loads(encode_reply(STATUS)), **changes}
    with pytest.raises(ProtocolError):
        parse_reply(json.dumps(found, separators=(",", ":")).encode())


@pytest.mark.parametrize("name", list(json.loads(encode_reply(STATUS))))
def test_a_status_has_all_of_its_parts(name: str) -> None:
    found = json.loads(encode_reply(STATUS))
    del found[name]
    with pytest.raises(ProtocolError):
        parse_reply(json.dumps(found, separators=(",", ":")).encode())


@pytest.mark.parametrize("line", [b'{"kind":"refused"}', b'{"kind":"denied","reason":5}', b"[]", b"{}"])
def test_a_refusal_has_a_reason(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_reply(line)


@pytest.mark.parametrize(
    ("action", "weight"),
    [
        (ControlAction.WEIGHT, None), (ControlAction.WEIGHT, 0), (ControlAction.WEIGHT, 65_536),
        (ControlAction.WEIGHT, True), (ControlAction.PAUSE, 1),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_is_not_made(action: ControlAction, weight: int | None) -> None:
    with pytest.raises(ValueError, match="weight"):
        ControlRequest(action, weight)
