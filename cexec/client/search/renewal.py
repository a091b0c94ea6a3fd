"""The earlier announcements of an attempt that was announced anew.

Contract: `Earlier.replaced` takes an announcement that is repeated no longer; workers that have heard it may still
answer it for a while: `handshake` returns a responder for a worker of any of them, `of` finds one by its mac1.  The
MAXIMUM_EARLIER latest are kept, the keys of the others are erased.  docs/protocol.md section 2.8.
"""

from __future__ import annotations

from cexec.errors import ProtocolError
from cexec.protocol.base.noise import Handshake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cexec.protocol.datagrams.announcement import SealedAnnouncement

MAXIMUM_EARLIER = 2  # (ours) a worker forgets an announcement that was not heard for 15 s


class Earlier:
    """The announcements that were replaced, the latest one last."""

    __slots__ = ("_sealed",)

    def __init__(self) -> None:
        self._sealed: list[SealedAnnouncement] = []

    def __iter__(self) -> Iterator[SealedAnnouncement]:
        return iter(self._sealed)

    def replaced(self, sealed: SealedAnnouncement) -> None:
        self._sealed.append(sealed)
        if len(self._sealed) > MAXIMUM_EARLIER:
            self._sealed.pop(0).erase()

    def of(self, mac1: bytes) -> SealedAnnouncement | None:
        return next((sealed for sealed in self._sealed if sealed.mac1 == mac1), None)

    def handshake(self, latest: SealedAnnouncement) -> Handshake:
        return EitherHandshake([latest.handshake(), *(sealed.handshake() for sealed in self._sealed)])

    def erase(self) -> None:
        for sealed in self._sealed:
            sealed.erase()


class EitherHandshake(Handshake):
    """Becomes the one handshake of several that the first message fits; the others are erased."""

    def __init__(self, handshakes: list[Handshake]) -> None:
        self._handshakes = handshakes

    @property
    def hash(self) -> bytes:
        return self._handshakes[0].hash

    @property
    def finished(self) -> bool:
        return self._handshakes[0].finished

    def read_message(self, message: bytes) -> tuple[bytes, bytes]:
        failure: ProtocolError | None = None
        for handshake in self._handshakes:
            try:
                read = handshake.read_message(message)
            except ProtocolError as error:
                failure = failure or error
                continue
            self._handshakes.remove(handshake)
            self.erase()
            self._handshakes = [handshake]
            return read
        assert failure is not None  # there is at least one
        raise failure

    def write_message(self, payload: Callable[[bytes], bytes]) -> bytes:
        return self._handshakes[0].write_message(payload)

    def split(self) -> tuple[bytes, bytes]:
        return self._handshakes[0].split()

    def erase(self) -> None:
        for handshake in self._handshakes:
            handshake.erase()
