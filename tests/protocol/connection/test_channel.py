"""The two flights before the first record, docs/protocol.md sections 3.1 and 3.2.  Records are in test_records.py."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import (
    CONNECT_DEADLINE,
    MAXIMUM_FRAME,
    MAXIMUM_UNAUTHENTICATED,
    RECORD_HEADER,
    SECOND_FLIGHT_PAYLOAD,
)
from cexec.protocol.base.noise import Handshake, SymmetricState
from cexec.protocol.connection.channel import FIRST_FLIGHT, OPENING, SECOND_FLIGHT, ClientHandshake
from cexec.protocol.connection.worker_handshake import WorkerHandshake
from cexec.protocol.datagrams import hello
from tests.needs import require_aegis
from tests.protocol.wires import (
    APPLICATION,
    client_handshake,
    each_cipher,
    hostile_bytes,
    mutations,
    transport_keys,
    worker_handshake,
)

BOTH = [sodium.CHACHA, sodium.AEGIS]


class Flights:
    """One handshake at each side of one announcement."""

    def __init__(self, worker_ciphers: list[str] | None = None, client_ciphers: list[str] | None = None) -> None:
        self.sealed = APPLICATION.announce()
        self.opened = APPLICATION.hear(self.sealed)
        offer = {} if worker_ciphers is None else {"ciphers": worker_ciphers}
        self.worker: WorkerHandshake = worker_handshake(self.opened.handshake(), APPLICATION.worker, **offer)
        self.client: ClientHandshake = self.another_client(client_ciphers)
        self.first = self.worker.data_to_send()

    def another_client(self, ciphers: list[str] | None = None) -> ClientHandshake:
        return client_handshake(self.sealed.handshake(), APPLICATION.client, ciphers)


def fed(machine: WorkerHandshake | ClientHandshake, data: bytes, chunk: int = 1) -> None:
    """Gives a machine what it wants, in small pieces."""
    for start in range(0, len(data), chunk):
        machine.receive_data(data[start : start + chunk], 0.0)


def second_flight(respond: Callable[[Flights], bytes]) -> Flights:
    """A worker that has sent its first flight gets what `respond` makes."""
    flights = Flights()
    flights.worker.receive_data(respond(flights), 0.0)
    return flights


def answered_with(payload: bytes) -> Callable[[Flights], bytes]:
    """A second flight by the right client, but with this payload."""

    def respond(flights: Flights) -> bytes:
        handshake = flights.sealed.handshake()
        handshake.read_message(flights.first[len(OPENING) :])
        return handshake.write_message(lambda h: payload)

    return respond


# As it should be


@pytest.mark.parametrize("chunk", [1, 5, 64, 10_000])
def test_the_two_flights_give_both_sides_the_same_keys(chunk: int) -> None:
    flights = Flights()
    assert len(flights.first) == FIRST_FLIGHT == 696
    fed(flights.client, flights.first, chunk)
    value = flights.client.next_event()
    assert value is not None and (value.name, value.host) == ("honest", "host-1")
    assert flights.client.next_event() is None
    second = flights.client.data_to_send()
    assert len(second) == SECOND_FLIGHT == 64
    fed(flights.worker, second, chunk)
    assert flights.worker.records is not None and flights.client.records is not None
    assert transport_keys(flights.worker.records) == transport_keys(flights.client.records)[::-1]
    assert flights.worker.data_to_send() == flights.client.data_to_send() == b""
    assert flights.worker.next_timeout() is None and flights.client.next_timeout() is None


def test_before_the_last_byte_nothing_is_known() -> None:
    flights = Flights()
    fed(flights.client, flights.first[:-1])
    assert flights.client.wanted == 1
    assert (flights.client.next_event(), flights.client.records, flights.client.data_to_send()) == (None, None, b"")


def test_all_first_flights_look_alike() -> None:
    first = Flights().first
    other = worker_handshake(
        Flights().opened.handshake(), APPLICATION.other_worker, host="another-host", ciphers=[sodium.CHACHA]
    ).data_to_send()
    assert len(first) == len(other) and first[:8] == other[:8] == OPENING
    assert b"honest" not in first and b"another-host" not in other


@pytest.mark.parametrize(
    ("worker", "client", "chosen"),
    [
        ([sodium.CHACHA], BOTH[::-1], sodium.CHACHA),
        (BOTH, [sodium.CHACHA], sodium.CHACHA),
        (BOTH, BOTH[::-1], sodium.AEGIS),
        (BOTH[::-1], BOTH, sodium.CHACHA),  # the client's taste decides
    ],
)
def test_the_cipher_is_the_clients_best_that_both_have(worker: list[str], client: list[str], chosen: str) -> None:
    if sodium.AEGIS in client:
        require_aegis()
    flights = Flights(worker, client)
    fed(flights.client, flights.first, 1000)
    fed(flights.worker, flights.client.data_to_send(), 1000)
    assert flights.worker.records is not None and flights.client.records is not None
    assert flights.worker.records.cipher.name == flights.client.records.cipher.name == chosen


@each_cipher
def test_the_keys_of_records_are_bound_to_direction_and_cipher(cipher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handshake, "split", lambda self: (b"w" * 32, b"c" * 32))
    flights = Flights([cipher], [cipher])
    fed(flights.client, flights.first, 1000)
    fed(flights.worker, flights.client.data_to_send(), 1000)
    label = b"cexec 1 record " + cipher.encode()
    from_worker, from_client = (sodium.keyed_hash(key * 32, label) for key in (b"w", b"c"))
    assert flights.worker.records is not None and flights.client.records is not None
    assert transport_keys(flights.worker.records) == (from_worker, from_client)
    assert transport_keys(flights.client.records) == (from_client, from_worker)


# Strangers and other versions


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-x\r\n",
        b"\0",
        b"\r\n",
    ],
)
def test_a_stranger_is_known_by_its_first_byte(greeting: bytes) -> None:
    client = Flights().client
    with pytest.raises(ProtocolError, match="not from a worker"):
        client.receive_data(greeting[:1], 0.0)


@pytest.mark.parametrize("chunk", [1, 8])
def test_another_version_is_told_as_such(chunk: int) -> None:
    client = Flights().client
    with pytest.raises(ProtocolError, match="worker speaks version 2 of the protocol and this client 1"):
        fed(client, OPENING[:4] + b"\2\0\0\0", chunk)


@pytest.mark.parametrize("offset", range(len(OPENING)))
def test_every_byte_of_the_opening_counts(offset: int) -> None:
    flights = Flights()
    changed = bytes([flights.first[offset] ^ 0x10])
    with pytest.raises(ProtocolError, match="not from a worker" if offset != 4 else "version 17"):
        fed(flights.client, flights.first[:offset] + changed + flights.first[offset + 1 :], 1000)


def test_a_hello_that_is_not_for_a_connection_is_refused() -> None:
    flights = Flights()
    worker = worker_handshake(flights.opened.handshake(), APPLICATION.worker, purpose=hello.QUEUED)
    with pytest.raises(ProtocolError, match="not meant for a connection"):
        fed(flights.client, worker.data_to_send(), 1000)


def test_no_cipher_in_common_is_told_as_such() -> None:
    flights = Flights(worker_ciphers=[])
    with pytest.raises(ProtocolError, match="no cipher in common"):
        fed(flights.client, flights.first, 1000)


@pytest.mark.parametrize("number", [2, 255])
def test_a_cipher_that_does_not_exist_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match="not offered"):
        second_flight(answered_with(bytes([number]) + bytes(SECOND_FLIGHT_PAYLOAD - 1)))


def test_a_cipher_that_was_not_offered_is_refused() -> None:
    flights = Flights(worker_ciphers=[sodium.CHACHA])
    with pytest.raises(ProtocolError, match="not offered"):
        flights.worker.receive_data(answered_with(b"\1" + bytes(15))(flights), 0.0)


def test_padding_of_the_second_flight_that_is_not_zero_is_refused() -> None:
    with pytest.raises(ProtocolError, match="padding"):
        second_flight(answered_with(bytes(15) + b"\1"))


def test_only_the_announcer_can_answer_a_first_flight() -> None:
    def respond(flights: Flights) -> bytes:
        stranger = Handshake("NKpsk0", initiator=False, prologue=b"", psk=b"\1" * 32, static=b"\2" * 32)
        with pytest.raises(VerifyError):
            stranger.read_message(flights.first[len(OPENING) :])
        return bytes(SECOND_FLIGHT)

    with pytest.raises(ProtocolError):
        second_flight(respond)


# Damage


def test_a_flipped_bit_anywhere_in_the_first_flight_is_a_protocol_error() -> None:
    flights = Flights()
    for offset in range(FIRST_FLIGHT):
        changed = bytearray(flights.first)
        changed[offset] ^= 0x80
        with pytest.raises(ProtocolError):
            fed(flights.another_client(), bytes(changed), FIRST_FLIGHT)


@pytest.mark.parametrize("offset", range(SECOND_FLIGHT))
def test_a_flipped_bit_anywhere_in_the_second_flight_is_a_protocol_error(offset: int) -> None:
    def respond(flights: Flights) -> bytes:
        fed(flights.client, flights.first, 1000)
        second = bytearray(flights.client.data_to_send())
        second[offset] ^= 0x80
        return bytes(second)

    with pytest.raises(ProtocolError):
        second_flight(respond)


@given(hostile_bytes | mutations(Flights().first), st.integers(1, 300))
def test_hostile_first_flights_are_protocol_errors_or_not_finished(data: bytes, chunk: int) -> None:
    client = Flights().client
    data = data[:FIRST_FLIGHT]
    try:
        fed(client, data, chunk)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            client.receive_data(b"", 0.0)
    else:
        assert client.wanted == FIRST_FLIGHT - len(data) > 0
        assert OPENING.startswith(data[: len(OPENING)])
    assert client.next_event() is None
    assert client.records is None and client.data_to_send() == b""


@given(st.binary(max_size=SECOND_FLIGHT))
def test_hostile_second_flights_are_protocol_errors_or_not_finished(data: bytes) -> None:
    worker = Flights().worker
    if len(data) == SECOND_FLIGHT:
        with pytest.raises(ProtocolError):
            fed(worker, data, 1000)
    else:
        fed(worker, data, 7)
    assert worker.records is None


# Deadlines and failures


def test_a_flight_has_one_deadline_however_slowly_it_comes() -> None:
    flights = Flights()
    for second, byte in enumerate(flights.first[:3]):
        flights.client.receive_data(bytes([byte]), float(second) * 0.9)
        flights.client.handle_timeout(second * 0.9)
    assert flights.client.next_timeout() == CONNECT_DEADLINE
    with pytest.raises(ProtocolError, match="not finished in time"):
        flights.client.handle_timeout(CONNECT_DEADLINE)


def test_a_worker_does_not_wait_for_its_client_for_ever() -> None:
    worker = Flights().worker
    with pytest.raises(ProtocolError, match="not finished in time"):
        worker.handle_timeout(CONNECT_DEADLINE)


def test_failure_is_sticky() -> None:
    flights = Flights()
    with pytest.raises(ProtocolError, match="not from a worker") as first:
        flights.client.receive_data(b"x", 0.0)
    calls: list[Callable[[], object]] = [
        lambda: flights.client.receive_data(flights.first, 0.0),
        lambda: flights.client.handle_timeout(0.0),
        lambda: flights.client.receive_data(b"", 0.0),
    ]
    for call in calls:
        with pytest.raises(ProtocolError) as later:
            call()
        assert later.value is first.value
    assert flights.client.records is None and flights.client.next_timeout() is None


def test_more_than_a_flight_is_never_taken() -> None:
    flights = Flights()
    with pytest.raises(ValueError, match="more bytes than were wanted"):
        flights.client.receive_data(flights.first + b"\0", 0.0)


def test_nothing_is_no_flight_after_the_last_one() -> None:
    """An empty read after the handshake reached the spent Noise machine, which answered with a ValueError."""
    flights = Flights()
    fed(flights.client, flights.first, 1000)
    fed(flights.worker, flights.client.data_to_send(), 1000)
    flights.client.receive_data(b"", 0.0)
    flights.worker.receive_data(b"", 0.0)


def test_only_the_worker_knows_by_the_handshake_that_its_peer_has_the_keys() -> None:
    """Anybody can send a recorded first flight again; the first record that verifies proves more, and not before."""
    flights = Flights()
    fed(flights.client, flights.first, 1000)
    fed(flights.worker, flights.client.data_to_send(), 1000)
    client, worker = flights.client.records, flights.worker.records
    assert client is not None and worker is not None
    longest = (RECORD_HEADER + MAXIMUM_FRAME).to_bytes(RECORD_HEADER, "big")
    assert worker.receive_data(longest, 0.0) == []
    with pytest.raises(ProtocolError, match="impossible length"):
        client.receive_data(longest, 0.0)


@pytest.mark.parametrize("way", ["first flight", "second flight", "deadline"])
def test_a_handshake_that_has_failed_keeps_no_secret(way: str) -> None:
    """What a memory image or a core dump shows later must not open what was recorded of the attempt."""
    sealed = APPLICATION.announce()
    inner = APPLICATION.hear(sealed).handshake() if way == "second flight" else sealed.handshake()
    machine = (
        worker_handshake(inner, APPLICATION.worker)
        if way == "second flight"
        else client_handshake(inner, APPLICATION.client)
    )
    reply_key = sealed.announcement.reply_key
    assert secrets_of(inner, reply_key)
    with pytest.raises(ProtocolError):
        if way == "deadline":
            machine.handle_timeout(CONNECT_DEADLINE)
        else:
            fed(machine, (OPENING + bytes(FIRST_FLIGHT))[: machine.wanted], 1000)
    assert not secrets_of(inner, reply_key)
    with pytest.raises(ValueError, match="no further message"):
        inner.write_message(lambda h: b"")


def secrets_of(handshake: Handshake, *public: bytes) -> list[bytes]:
    """Returns every key that a handshake has, but for its hash and those that are `public`."""
    public += (handshake.hash,)
    values = [*vars(handshake).values()]
    state = next(value for value in values if isinstance(value, SymmetricState))
    values += [state.chaining_key, state.key]
    return [value for value in values if isinstance(value, bytes) and len(value) >= 32 and value not in public]


def test_connections_that_are_not_proved_cost_little() -> None:
    """A recorded first flight, sent again on every connection, made the client allocate 512 KiB for each of them."""
    flights = Flights()
    connections = [flights.another_client() for _ in range(MAXIMUM_UNAUTHENTICATED)]
    tracemalloc.start()
    for connection in connections:
        fed(connection, flights.first, 1000)
        assert connection.records is not None
        connection.records.receive_buffer()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MAXIMUM_UNAUTHENTICATED * 12_000
