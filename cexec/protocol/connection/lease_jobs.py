"""The jobs of one connection: their numbers, and the one that was given in advance.

Contract: values and rules without I/O, for `Session`.  From the second revision on each frame that belongs to a job has
the job's number, which counts the GOs of the connection modulo 256.  `JobNumbers.takes` says if a frame is to be
looked at; it raises `ProtocolError` for a frame that belongs to no job.  An `AheadJob` is one whose GO came while the
job before it was not over.  docs/protocol.md sections 4.2 and 4.4.
"""

from __future__ import annotations

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import FRAME_LENGTH, MAXIMUM_DATA, MAXIMUM_FRAME
from cexec.protocol.connection import frames
from cexec.protocol.connection.options import READS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.frames import Go
    from cexec.protocol.connection.streams import Outgoing

NUMBERS = 256  # (protocol) a byte
NONE = -1  # the number of no job
LATEST = NUMBERS // 2  # (ours) jobs before the next one whose numbers mean that they have ended
_OF_THE_NEXT = (frames.CONFIRM, frames.WITHDRAW, frames.GO)  # which begin a job, or take its offer back
_LATE = (*frames.OF_A_STREAM, frames.SIGNAL, frames.WINDOW, frames.TAKE_BACK)  # may come when their job has ended


class JobNumbers:
    """`current` is the number of the latest job that has begun, `following` that of the next GO."""

    __slots__ = ("current", "following", "numbered")

    def __init__(self, numbered: bool) -> None:
        """In the first revision nothing is `numbered`: all numbers are 0."""
        self.numbered = numbered
        self.current = NONE if numbered else 0
        self.following = 0

    def give(self) -> int:
        """Returns the number of a job whose GO is sent or has come."""
        number = self.following
        if self.numbered:
            self.following = (number + 1) % NUMBERS
        return number

    def of(self, kind: int) -> int:
        """Returns the number for a frame that is sent now."""
        if kind in frames.OF_THE_CONNECTION:
            return 0
        return self.following if kind in _OF_THE_NEXT else max(self.current, 0)

    def takes(self, kind: int, number: int) -> bool:
        """Returns False for a frame that is to be discarded, because its job has ended, or was returned."""
        if number == self.following and kind in _OF_THE_NEXT:
            return True
        age = (self.following - number) % NUMBERS
        if not 0 < age <= LATEST:
            raise ProtocolError("frame belongs to no job")
        if number == self.current and kind != frames.TAKE_BACK:
            return True
        if kind not in _LATE:
            raise ProtocolError("frame belongs to a job that has ended")
        return False


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
        for stream in self.go.streams:
            if not stream.directions & READS or stream.same_as != stream.number:
                continue
            data = inputs.get(stream.number, b"")
            if len(data) > MAXIMUM_DATA:
                raise ValueError("input is too long for a job in advance")
            if data:
                result.append(frames.frame(frames.DATA, data, stream.number, job=self.number))
            result.append(frames.frame(frames.END, len(data).to_bytes(8, "big"), stream.number, job=self.number))
            self._sent[stream.number] = len(data)
        if sum(FRAME_LENGTH + len(frame) for frame in result) > FRAME_LENGTH + MAXIMUM_FRAME:
            raise ValueError("job is too long for one record")
        return result

    def account(self, outgoing: Mapping[int, Outgoing]) -> None:
        """Notes in the streams of the job, which has begun, what was sent with its GO."""
        for number, size in self._sent.items():
            outgoing[number].send(size)
            outgoing[number].state = frames.ENDED
