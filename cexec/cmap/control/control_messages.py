"""The messages on the control socket of a running cmap: one request and one reply, each a line of JSON.

Contract: pure.  `encode_request` and `encode_reply` make one line, `parse_request` and `parse_reply` read one without
its newline, or raise `ProtocolError`.  `ControlLine` collects the bytes of one line as they come and raises
`ProtocolError` once there are more than its `limit`, or any after its newline.  Only what an encoder writes is parsed:
a value is encoded again and must give the same bytes, so a key that stands twice, a space and NaN are refused.

    asker -> cmap   {"action":"weight","weight":3}
    cmap -> asker   {"kind":"status","pid":4711,"paused":false,"paused_seconds":0.0,"ending":false,"weight":3, ...}
                 or {"kind":"refused","reason":"the run is about to end"}      the request is not followed
                 or {"kind":"denied","reason":"only its owner may do that"}    the asker is another user
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import MAXIMUM_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
REQUEST_LIMIT = 256  # bytes (ours) of a request with its newline
REPLY_LIMIT = 1 << 16  # bytes (ours) of a reply with its newline
MOST_TASKS = 4096  # (ours) running tasks that a status names
LONGEST_REASON = 300  # characters (ours)
NEWLINE = b"\n"


class ControlAction(Enum):
    """The actions that a running cmap can be asked for."""

    STATUS = "status"  # nothing changes
    PAUSE = "pause"  # no further task begins
    CONTINUE = "continue"  # tasks begin again
    WEIGHT = "weight"  # the run has another share of the turns at the workers


class ReplyKind(Enum):
    """The kinds of reply."""

    STATUS = "status"
    REFUSED = "refused"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """`weight` is from 1 to MAXIMUM_WEIGHT with the action WEIGHT, and None with any other; else `ValueError`."""

    action: ControlAction
    weight: int | None = None

    def __post_init__(self) -> None:
        if self.action is not ControlAction.WEIGHT:
            if self.weight is not None:
                raise ValueError(f"{self.action.value} takes no weight")
        elif type(self.weight) is not int or not 1 <= self.weight <= MAXIMUM_WEIGHT:
            raise ValueError(f"a weight is a whole number from 1 to {MAXIMUM_WEIGHT}")


@dataclass(frozen=True, slots=True)
class ControlStatus:
    """Says how a run stands once the request has been followed; else `ValueError` if a number cannot be.

    `pid` is cmap's process.  `paused_seconds` is how long this pause has lasted, 0 without one.  `ending`: no further
    task begins, because of --halt or because the user has ended the run.  `running` counts the attempts whose programs
    run, `given` those that a worker has been given and that have not begun.  `waiting` counts the tasks that have not
    begun or are to begin again, None while nobody knows.  `leases` are the slots that the run holds now, also idle
    ones, on `workers` workers.  `tasks` are the numbers of the tasks that run, in ascending order, at most MOST_TASKS.
    """

    pid: int
    paused: bool
    paused_seconds: float
    ending: bool
    weight: int
    running: int
    given: int
    waiting: int | None
    leases: int
    workers: int
    tasks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = (self.running, self.given, self.leases, self.workers, 0 if self.waiting is None else self.waiting)
        if type(self.paused) is not bool or type(self.ending) is not bool:
            raise ValueError("a status says yes or no with something else")
        if any(type(count) is not int or count < 0 for count in (self.pid, *counts)):
            raise ValueError("a status counts with something else than whole numbers")
        if type(self.paused_seconds) is not float or not 0.0 <= self.paused_seconds < float("inf"):
            raise ValueError("a pause has no such length")
        if type(self.weight) is not int or not 1 <= self.weight <= MAXIMUM_WEIGHT:
            raise ValueError("a weight cannot be so")
        if len(self.tasks) > MOST_TASKS or any(type(task) is not int or task < 1 for task in self.tasks):
            raise ValueError("tasks have no such numbers")


@dataclass(frozen=True, slots=True)
class ControlRefusal:
    """`denied`: the asker may not ask at all; else only this request is not followed."""

    reason: str
    denied: bool = False


class ControlLine:
    """The bytes of one line, of which `limit` may come, the newline among them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = b""

    def receive_data(self, data: bytes) -> bytes | None:
        """Returns the line without its newline once it is whole; else None."""
        self._data += data
        line, newline, rest = self._data.partition(NEWLINE)
        if rest:
            raise ProtocolError("more than one line has come")
        if len(self._data) > self._limit or (not newline and len(self._data) == self._limit):
            raise ProtocolError(f"a line is longer than {self._limit} bytes")
        return line if newline else None


def encode_request(request: ControlRequest) -> bytes:
    weight = {} if request.weight is None else {"weight": request.weight}
    return _encode({"action": request.action.value, **weight})


def parse_request(line: bytes) -> ControlRequest:
    found = _parse(line)
    try:
        request = ControlRequest(ControlAction(found.pop("action")), found.pop("weight", None))
    except (KeyError, ValueError, TypeError) as error:
        raise ProtocolError(f"cannot understand this request: {_words(error)}") from None
    return _checked(request, encode_request(request), line)


def encode_reply(reply: ControlStatus | ControlRefusal) -> bytes:
    """The reason of a refusal is cut to LONGEST_REASON."""
    if isinstance(reply, ControlStatus):
        return _encode({"kind": ReplyKind.STATUS.value, **asdict(reply)})
    kind = ReplyKind.DENIED if reply.denied else ReplyKind.REFUSED
    return _encode({"kind": kind.value, "reason": reply.reason[:LONGEST_REASON]})


def parse_reply(line: bytes) -> ControlStatus | ControlRefusal:
    found = _parse(line)
    try:
        kind = ReplyKind(found.pop("kind"))
        reply = _status(found) if kind is ReplyKind.STATUS else _refusal(kind, found)
    except (KeyError, ValueError, TypeError) as error:
        raise ProtocolError(f"cannot understand this reply: {_words(error)}") from None
    return _checked(reply, encode_reply(reply), line)


def _status(found: Mapping[str, Any]) -> ControlStatus:
    values = {field.name: found[field.name] for field in fields(ControlStatus)}
    if not isinstance(values["tasks"], list):
        raise TypeError("tasks are no list")
    return ControlStatus(**{**values, "tasks": tuple(values["tasks"])})


def _refusal(kind: ReplyKind, found: Mapping[str, Any]) -> ControlRefusal:
    if not isinstance(found["reason"], str):
        raise TypeError("a reason is no text")
    return ControlRefusal(found["reason"], denied=kind is ReplyKind.DENIED)


def _encode(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + NEWLINE


def _parse(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        raise ProtocolError("a line is no JSON") from None
    if not isinstance(found, dict):
        raise ProtocolError("a line is no JSON object")
    return found


def _checked(value: T, again: bytes, line: bytes) -> T:
    if again != line + NEWLINE:
        raise ProtocolError("a line says more than can be understood, or is not written as it should be")
    return value


def _words(error: Exception) -> str:
    return f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
