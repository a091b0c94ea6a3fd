"""The worker's side of the handshake of a connection.

Contract: as in `channel`, which says what goes over the wire.  docs/protocol.md section 3.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base.limits import FIRST_FLIGHT_PAYLOAD, FIRST_REVISION
from cexec.protocol.base.wire import Reader
from cexec.protocol.connection.channel import OPENING, SECOND_FLIGHT, FlightExchange
from cexec.protocol.datagrams.hello import CIPHERS, Hello, seal_hello

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base import noise
    from cexec.protocol.base.certificate import Identity


class WorkerHandshake(FlightExchange):
    """The worker's side, the initiator: `data_to_send` returns its first flight at once."""

    def __init__(self, handshake: noise.Handshake, identity: Identity, hello: Hello, now: float) -> None:
        super().__init__(handshake, SECOND_FLIGHT, now)
        self._offered = hello.ciphers
        self._revision = hello.revision
        self._outgoing = OPENING + seal_hello(handshake, identity, hello, FIRST_FLIGHT_PAYLOAD)

    def _look(self, received: bytes, now: float) -> None:
        if len(received) < SECOND_FLIGHT:
            return
        payload, _ = self._handshake.read_message(received)
        reader = Reader(payload)
        number, told = reader.u8(), reader.u8()
        reader.zeros()
        if number >= len(CIPHERS) or CIPHERS[number] not in self._offered:
            raise ProtocolError("client chose a cipher that was not offered")
        if told and (told == FIRST_REVISION or told != self._revision):  # the first one is told by 0, as 0.1.0 does
            raise ProtocolError("client chose a revision that was not offered")
        self._finish(CIPHERS[number], told or FIRST_REVISION, worker=True)
