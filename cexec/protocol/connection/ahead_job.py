"""The job of a connection that was given in advance: its GO came while the job before it was not over.

Contract: a value and its rules, without I/O, for `Session`.  docs/protocol.md sections 4.2 and 4.4.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base.limits import FRAME_LENGTH, MAXIMUM_DATA, MAXIMUM_FRAME
from cexec.protocol.connection import frames
from cexec.protocol.connection.options import READS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.frames import Go
    from cexec.protocol.connection.streams import Outgoing


class AheadJob:
    """`number` and `go` of the job, and its input: as frames that have come, or as sizes that were sent."""

    __slots__ = ("_sent", "_size", "frames", "go", "number")

    def __init__(self, number: int, go: Go) -> None:
        self.number = number
        self.go = go
        self.frames: list[tuple[int, int, bytes]] = []  # type, stream and body
        self._size = 0
        self._sent: dict[int, int] = {}

    def keep(self, kind: int, stream: int, body: memoryview) -> None:
        """Keeps a part of the input; raises `ProtocolError` if it is none, or too much."""
        if kind not in (frames.DATA, frames.END):
            raise ProtocolError("frame has no place before its job has begun")
        self._size += len(body) + 1
        if self._size > MAXIMUM_FRAME:
            raise ProtocolError("job that was given in advance has too much input")
        self.frames.append((kind, stream, bytes(body)))

    def send(self, inputs: Mapping[int, bytes]) -> list[bytes]:
        """Returns the frames of GO and of the whole input; `ValueError` if it is too long for one record."""
        result = [frames.frame(frames.GO, self.go.encode(), job=self.number)]
        size = FRAME_LENGTH + len(result[0])
        for stream in self.go.streams:
            if not stream.directions & READS or stream.same_as != stream.number:
                continue
            data = inputs.get(stream.number, b"")
            if len(data) > MAXIMUM_DATA:
                raise ValueError("input is too long for a job in advance")
            if data:
                result.append(frames.frame(frames.DATA, data, stream.number, job=self.number))
                size += FRAME_LENGTH + len(result[-1])
            result.append(frames.frame(frames.END, len(data).to_bytes(8, "big"), stream.number, job=self.number))
            size += FRAME_LENGTH + len(result[-1])
            self._sent[stream.number] = len(data)
        if size > FRAME_LENGTH + MAXIMUM_FRAME:
            raise ValueError("job is too long for one record")
        return result

    def account(self, outgoing: Mapping[int, Outgoing]) -> None:
        """Notes in the streams of the job, which has begun, what was sent with its GO."""
        for number, size in self._sent.items():
            outgoing[number].send(size)
            outgoing[number].state = frames.ENDED
