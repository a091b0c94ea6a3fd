"""The handshake of a connection: the client's machine, which turns into `Records`; `worker_handshake` is the other one.

Contract: pure machines with the verbs `receive_data`, `next_event`, `data_to_send`, `next_timeout`, `handle_timeout`.
Failure is sticky: after a `ProtocolError` every later call raises it again.  A peer cannot make us allocate memory:
flights have a fixed size.  docs/protocol.md section 3.

What goes over the wire:

    1  worker  opening (8, clear)  first flight: Noise NKpsk0 message 1 around a hello padded to 640 bytes
    2  client  second flight: Noise NKpsk0 message 2 around the chosen cipher's number and revision
    3  worker  records, the first of which is the confirmation
    4  client  records, the first of which is GO or CANCEL
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base import noise, sodium
from cexec.protocol.base.limits import (
    CONNECT_DEADLINE,
    FIRST_FLIGHT_PAYLOAD,
    FIRST_REVISION,
    SECOND_FLIGHT_PAYLOAD,
    SECOND_REVISION,
)
from cexec.protocol.base.wire import Bytes, Writer
from cexec.protocol.connection.records import Records
from cexec.protocol.datagrams.datagram import MAGIC, VERSION
from cexec.protocol.datagrams.hello import CIPHERS, CONNECT, Hello, open_hello

OPENING = MAGIC + bytes([VERSION, 0, 0, 0])  # by its first bytes a stranger, or another version, is recognised
FIRST_FLIGHT = len(OPENING) + noise.OVERHEAD + FIRST_FLIGHT_PAYLOAD  # bytes
SECOND_FLIGHT = noise.OVERHEAD + SECOND_FLIGHT_PAYLOAD  # bytes
RECORD_LABEL = b"cexec 1 record "


class FlightExchange:
    """The common part of both sides: fixed-size flights, one deadline, sticky failure."""

    def __init__(self, handshake: noise.Handshake, expected: int, now: float) -> None:
        self._handshake = handshake
        self._expected = expected
        self._received = bytearray()
        self._outgoing = b""
        self._deadline: float | None = now + CONNECT_DEADLINE
        self._failure: ProtocolError | None = None
        self._records: Records | None = None

    def receive_data(self, data: Bytes, now: float) -> None:
        """Takes bytes from the peer, at most `wanted`; raises `ProtocolError`."""
        self._check()
        if len(data) > self.wanted:
            raise ValueError("more bytes than were wanted")
        if not len(data):
            return
        self._received += data
        try:
            self._look(bytes(self._received), now)
        except ProtocolError as error:
            self._fail(error)

    @property
    def wanted(self) -> int:
        """The number of bytes that the flight still lacks; a driver must not read more."""
        return self._expected - len(self._received)

    def data_to_send(self) -> bytes:
        data, self._outgoing = self._outgoing, b""
        return data

    def next_timeout(self) -> float | None:
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Raises `ProtocolError` when the deadline has passed."""
        self._check()
        if self._deadline is not None and now >= self._deadline:
            self._fail(ProtocolError("handshake was not finished in time"))

    @property
    def records(self) -> Records | None:
        """The transport phase, once both flights have passed."""
        return self._records

    def _look(self, received: bytes, now: float) -> None:
        raise NotImplementedError

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: ProtocolError) -> None:
        self._failure = error
        self._deadline = None
        self._handshake.erase()
        raise error

    def _finish(self, cipher: str, revision: int, *, worker: bool) -> None:
        self._deadline = None
        from_worker, from_client = (
            sodium.keyed_hash(key, RECORD_LABEL + cipher.encode()) for key in self._handshake.split()
        )
        keys = (from_worker, from_client) if worker else (from_client, from_worker)
        # Only the announcer can write a second flight, but anybody can send a recorded first flight again.
        packed = revision >= SECOND_REVISION
        self._records = Records(sodium.aead(cipher), *keys, proved=worker, packed=packed)


class ClientHandshake(FlightExchange):
    """The client's side, the responder.  It proves the worker and answers; `next_event` then returns its `Hello`."""

    def __init__(self, handshake: noise.Handshake, authority_public: bytes, ciphers: list[str], now: float) -> None:
        """`ciphers`: those that this side is willing to use, best first."""
        super().__init__(handshake, FIRST_FLIGHT, now)
        self._authority_public = authority_public
        self._ciphers = ciphers
        self._hello: Hello | None = None

    def next_event(self) -> Hello | None:
        hello, self._hello = self._hello, None
        return hello

    def _look(self, received: bytes, now: float) -> None:
        if received[: len(OPENING)] != OPENING[: len(received)]:
            if received[:4] == OPENING[:4] and len(received) > 4 and received[4] != VERSION:
                raise ProtocolError(f"worker speaks version {received[4]} of the protocol and this client {VERSION}")
            raise ProtocolError("connection is not from a worker")
        if len(received) < FIRST_FLIGHT:
            return
        hello = open_hello(self._handshake, received[len(OPENING) :], self._authority_public)
        if hello.purpose != CONNECT:
            raise ProtocolError("hello is not meant for a connection")
        shared = [name for name in self._ciphers if name in hello.ciphers]
        if not shared:
            raise ProtocolError("worker and client have no cipher in common")
        revision = min(hello.revision, SECOND_REVISION)
        choice = Writer().u8(CIPHERS.index(shared[0])).u8(0 if revision == FIRST_REVISION else revision)
        payload = choice.padded(SECOND_FLIGHT_PAYLOAD)
        self._outgoing = self._handshake.write_message(lambda h: payload)
        self._hello = hello
        self._finish(shared[0], revision, worker=False)
