"""What a relay does with each datagram and each connection: real sockets for TCP, fake networks for UDP."""

from __future__ import annotations

import io
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cexec.errors import LocalError
from cexec.net.sockets import TcpListener
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import CONNECT_DEADLINE, MAXIMUM_HOPS
from cexec.protocol.datagrams import datagram, forwarded
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.datagrams.datagram import ANNOUNCEMENT, CLAIM
from cexec.protocol.datagrams.hello import QUEUED, encode_answer, seal_hello
from cexec.protocol.datagrams.proof import encode_proofs
from cexec.protocol.datagrams.relay_datagram import Header, read, rewrite
from cexec.relay import forwarder, new_addresses
from cexec.relay.announcement_table import LIFETIME, MAXIMUM_ANNOUNCED, MAXIMUM_OF_HOST, MAXIMUM_SOURCES
from cexec.relay.new_addresses import MOST_NEW
from cexec.relay.relay import Relay, RelayRules
from cexec.system.storage.eventlog import EventLog
from tests.protocol.datagrams.test_relay_datagram import EACH
from tests.protocol.wires import APPLICATION, STRANGERS, hello_of
from tests.waiting import PATIENCE

CLIENT, NEIGHBOUR = ("127.0.0.1", 40_000), ("127.0.0.2", 40_000)
OPENING = b"\xcexec\x01\0\0\0"
NEAR, FAR = 0, 1


class FakeSide:
    """One network: what it hears is put there by the test."""

    labels = ("a network",)
    loopback, ipv6 = True, False

    def __init__(self, number: int) -> None:
        self.number = number
        self.heard: list[tuple[bytes, tuple[str, int], socket.socket]] = []
        self.sent: list[bytes] = []
        self.answered: list[tuple[bytes, tuple[str, int]]] = []
        self.replied: list[tuple[bytes, tuple[str, int]]] = []
        self.behind_routers: set[str] = set()
        self.believed: set[str] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def hear(self, now: float) -> list[tuple[bytes, tuple[str, int], socket.socket]]:
        heard, self.heard = self.heard, []
        return heard

    def replies(self) -> list[tuple[bytes, tuple[str, int]]]:
        replied, self.replied = self.replied, []
        return replied

    def send(self, data: bytes) -> list[str]:
        self.sent.append(data)
        return list(self.labels)

    def send_to(self, data: bytes, address: tuple[str, int], via: socket.socket) -> None:
        assert via is self._socket
        self.answered.append((data, address))

    def believe(self, host: str) -> None:
        self.believed.add(host)

    def take(self, data: bytes, source: tuple[str, int] = CLIENT) -> None:
        self.heard.append((data, source, self._socket))

    def on_link(self, source: tuple[str, int]) -> bool:
        return source[0] not in self.behind_routers

    def filenos(self) -> list[int]:
        return []

    def refresh(self) -> bool:
        return False

    def news(self) -> None:
        return None

    def close(self) -> None:
        self._socket.close()


class Rig:
    """A relay between two fake networks; `now` is the relay's clock for datagrams."""

    def __init__(self, **options: object) -> None:
        self.sides = FakeSide(NEAR), FakeSide(FAR)
        self.log = io.StringIO()
        wakeup = signal.set_wakeup_fd(-1)
        handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
        rules = RelayRules(**{"rate": 1e6, **options})  # type: ignore[arg-type]
        self.relay = Relay(self.sides, rules, log=EventLog(self.log))  # type: ignore[arg-type]
        for number, handler in handlers:
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        self.now = time.monotonic()

    def hear(self, data: bytes, source: tuple[str, int] = CLIENT, side: int = NEAR, *, reply: bool = False) -> None:
        if reply:
            self.sides[side].replied.append((data, source))
        else:
            self.sides[side].take(data, source)
        self.relay.receive(self.now)

    def sent(self, side: int = FAR) -> list[Header]:
        """What has been sent to a side since the last call."""
        sent, self.sides[side].sent = self.sides[side].sent, []
        headers = [read(data) for data in sent]
        assert None not in headers
        return [header for header in headers if header is not None]

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.relay.handle_timeouts(self.now)

    def spin(self, until: Callable[[], bool]) -> None:
        """Drives the TCP half."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline, "nothing happens"
            self.relay.step(time.monotonic() + 0.02)

    @property
    def connections(self) -> int:
        return self.relay.connections

    def close(self) -> None:
        self.relay.stop(self.now)
        self.relay.stop(self.now)
        self.relay.close()


MakeRig = Callable[..., Rig]


@pytest.fixture
def rig() -> Iterator[MakeRig]:
    with ExitStack() as stack:

        def make(**options: object) -> Rig:
            made = Rig(**options)
            stack.callback(made.close)
            return made

        yield make


def announcement(counter: int = 0, port: int = 41_234, hops: int = MAXIMUM_HOPS) -> tuple[bytes, bytes]:
    """A fresh announcement's datagram and mac1."""
    sealed = APPLICATION.announce()
    return sealed.datagram(counter, port, hops), sealed.mac1


# datagrams


def test_an_announcement_goes_to_the_other_side_with_our_port_and_a_hop_less(rig: MakeRig) -> None:
    made = rig()
    data, mac1 = announcement(counter=3)
    made.hear(data)
    (header,) = made.sent()
    assert (header.kind, header.mac1, header.hops, header.counter) == (ANNOUNCEMENT, mac1, MAXIMUM_HOPS - 1, 3)
    assert header.reply_port not in (0, 41_234) and header.reply_port >= 1024
    assert made.sent(NEAR) == []
    made.hear(rewrite(data, hops=8)[:8] + b"\0\4" + data[10:])
    assert [again.reply_port for again in made.sent()] == [header.reply_port]


@pytest.mark.parametrize(
    ("got", "maximum", "sent"), [(8, 8, 7), (255, 8, 7), (1, 8, 0), (0, 8, None), (8, 2, 2), (2, 2, 1), (8, 0, 0)]
)
def test_hops_become_fewer_and_at_most_the_relays_own_maximum(
    rig: MakeRig, got: int, maximum: int, sent: int | None
) -> None:
    made = rig(maximum_hops=maximum)
    made.hear(announcement(hops=got)[0])
    assert [header.hops for header in made.sent()] == ([] if sent is None else [sent])


def test_nobody_is_sent_to_a_port_of_the_system(rig: MakeRig) -> None:
    made = rig()
    for port in (1, 22, 1023):
        made.hear(announcement(port=port)[0])
    assert made.sent() == []
    made.hear(announcement(port=1024)[0])
    assert len(made.sent()) == 1


def test_a_census_needs_no_listener(rig: MakeRig) -> None:
    made = rig()
    made.hear(announcement(port=0)[0])
    assert [header.reply_port for header in made.sent()] == [0]
    assert made.relay.listeners == 0


def test_what_comes_back_over_another_relay_is_not_passed_on(rig: MakeRig) -> None:
    made = rig()
    data, _ = announcement()
    made.hear(data)
    for hops in (6, 7):
        made.hear(rewrite(data, hops=hops), ("10.0.0.9", 5000), FAR)
    assert made.sent(NEAR) == []


def test_of_two_copies_that_come_together_the_nearer_counts(rig: MakeRig) -> None:
    made = rig()
    data, _ = announcement()
    made.sides[NEAR].take(rewrite(data, hops=6), NEIGHBOUR)
    made.hear(data)
    assert [header.hops for header in made.sent()] == [7]


def test_all_that_is_for_everybody_passes_unchanged_but_for_the_hops(rig: MakeRig) -> None:
    for kind in (datagram.ALERT, datagram.ACKNOWLEDGEMENT, datagram.PRESENCE):
        for side in (NEAR, FAR):
            made = rig()
            made.hear(EACH[kind], side=side)
            assert made.sides[1 - side].sent == [rewrite(EACH[kind], hops=7)]
            assert made.sides[side].sent == []


def test_an_acknowledgement_that_is_sent_to_us_alone_goes_to_everybody(rig: MakeRig) -> None:
    made = rig()
    made.hear(EACH[datagram.ACKNOWLEDGEMENT], reply=True)
    assert [header.kind for header in made.sent()] == [datagram.ACKNOWLEDGEMENT]


def test_what_was_forwarded_or_is_none_of_ours_is_dropped(rig: MakeRig) -> None:
    made = rig()
    data, _ = announcement()
    for bad in (forwarded.wrap(data, CLIENT), data[:40], b"", bytes(100), b"x" * 1232):
        made.hear(bad)
        made.hear(bad, reply=True)
    assert made.sent() == [] and made.sent(NEAR) == []


def test_only_the_application_of_the_key_passes(rig: MakeRig) -> None:
    made = rig(mac1_keys=[APPLICATION.client.mac1_key])
    made.hear(STRANGERS.announce().datagram(0, 41_234, 8))
    assert made.sent() == []
    made.hear(announcement()[0])
    assert len(made.sent()) == 1


def queued_answer(sealed: SealedAnnouncement) -> bytes:
    """A datagram of a worker that is far away: it has no hops left."""
    worker = APPLICATION.worker
    message = seal_hello(APPLICATION.hear(sealed).handshake(), worker.identity, hello_of(worker, purpose=QUEUED))
    return encode_answer(APPLICATION.client.mac1_key, sealed.mac1, message, 0)


def test_an_answer_goes_back_to_where_its_announcement_came_from(rig: MakeRig) -> None:
    made = rig()
    sealed = APPLICATION.announce()
    made.hear(queued_answer(sealed), ("127.0.0.3", 3010), FAR, reply=True)
    assert made.sides[NEAR].answered == []  # not asked for
    assert made.sides[FAR].believed == set()
    made.hear(sealed.datagram(0, 41_234, 8))
    made.hear(sealed.datagram(1, 41_234, 8), NEIGHBOUR)
    other = queued_answer(sealed)
    made.hear(other, ("127.0.0.3", 3010), FAR, reply=True)
    assert made.sides[NEAR].answered == [(other, CLIENT), (other, NEIGHBOUR)]
    assert len(made.sides[FAR].believed) == 1
    made.hear(other, ("127.0.0.3", 3010), FAR, reply=True)
    made.later(30)
    made.hear(other, ("127.0.0.3", 3010), FAR, reply=True)
    made.hear(other, ("127.0.0.3", 3010), NEAR, reply=True)
    assert len(made.sides[NEAR].answered) == 2 and made.sides[FAR].answered == []


def test_a_relay_sends_an_answer_to_few_invented_sources_of_a_recorded_question(rig: MakeRig) -> None:
    """Regression: it sent each worker's answer to 512 ports of a host that a stranger chose: 512 times W for 512."""
    made = rig()
    sealed = APPLICATION.announce()
    made.hear(sealed.datagram(0, 0, 8))
    for counter in range(1, 600):  # without a reply port, as in a census, from ports of one host, and of many
        made.hear(sealed.datagram(counter, 0, 8), ("127.0.0.9", 2000 + counter))
        made.hear(sealed.datagram(1000 + counter, 0, 8), (f"127.0.{counter % 200}.7", 2000))
    made.hear(queued_answer(sealed), ("127.0.0.3", 3010), FAR, reply=True)
    answered = [address for _, address in made.sides[NEAR].answered]
    assert CLIENT in answered and len(answered) == MAXIMUM_SOURCES


def test_a_claim_passes_after_its_announcement_and_closes_the_listener(rig: MakeRig) -> None:
    made = rig()
    sealed = APPLICATION.announce()
    made.hear(sealed.claim(1, 8))
    assert made.sent() == []  # of what nobody there has heard
    made.hear(sealed.datagram(0, 41_234, 8))
    (header,) = made.sent()
    assert is_open(header.reply_port)
    made.hear(sealed.claim(2, 8))
    assert [claim.kind for claim in made.sent()] == [CLAIM]
    assert not is_open(header.reply_port)
    made.hear(sealed.datagram(1, 41_234, 8))  # late
    assert made.sent() == []


def test_a_claim_from_elsewhere_is_not_believed(rig: MakeRig) -> None:
    made = rig()
    sealed = APPLICATION.announce()
    made.hear(sealed.datagram(0, 41_234, 8))
    (header,) = made.sent()
    for source in (NEIGHBOUR, (CLIENT[0], CLIENT[1] + 1)):
        made.hear(sealed.claim(1, 8), source)
    assert made.sent() == [] and is_open(header.reply_port)


def is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_with_a_hop_delay_an_announcement_waits_and_its_last_copy_goes(rig: MakeRig) -> None:
    made = rig(hop_delay=1.0)
    sealed = APPLICATION.announce()
    made.hear(sealed.datagram(0, 41_234, 8))
    made.later(0.5)
    made.hear(sealed.datagram(1, 41_234, 8))
    assert made.sent() == [] and made.relay.listeners == 0
    assert made.relay.next_timeout() <= made.now + 0.5
    made.later(0.5)
    assert [header.counter for header in made.sent()] == [1]
    made.hear(sealed.datagram(2, 41_234, 8))
    assert [header.counter for header in made.sent()] == [2]


def test_what_is_claimed_within_the_hop_delay_is_never_announced(rig: MakeRig) -> None:
    made = rig(hop_delay=1.0)
    sealed = APPLICATION.announce()
    made.hear(sealed.datagram(0, 41_234, 8))
    made.hear(sealed.claim(1, 8))
    made.later(2.0)
    made.hear(sealed.datagram(1, 41_234, 8))
    assert made.sent() == []


def test_an_announcement_that_is_not_heard_any_more_is_forgotten(rig: MakeRig) -> None:
    made = rig()
    sealed = APPLICATION.announce()
    made.hear(sealed.datagram(0, 41_234, 8))
    (header,) = made.sent()
    made.later(LIFETIME - 1)
    made.hear(sealed.datagram(1, 41_234, 8))
    made.later(LIFETIME - 1)
    assert is_open(header.reply_port)
    made.later(1)
    assert not is_open(header.reply_port) and made.relay.announcements == 0


def test_a_host_that_announces_too_much_makes_room_among_its_own(rig: MakeRig) -> None:
    made = rig()
    first = announcement(port=0)[0]
    made.hear(first, NEIGHBOUR)
    template = bytearray(announcement(port=0)[0])
    for _ in range(MAXIMUM_ANNOUNCED + 10):
        template[12:28] = sodium.random_bytes(16)
        made.hear(bytes(template))
    assert made.relay.announcements == MAXIMUM_OF_HOST + 1
    made.later(1.0)
    made.hear(first, NEIGHBOUR)  # it is known still, so nothing is added
    assert made.relay.announcements == MAXIMUM_OF_HOST + 1
    for number in range(MAXIMUM_ANNOUNCED):
        template[12:28] = sodium.random_bytes(16)
        made.hear(bytes(template), (f"127.0.1.{number % 200}", 40_000))
    assert made.relay.announcements == MAXIMUM_ANNOUNCED


def test_more_than_the_rate_is_dropped_and_said_so(rig: MakeRig) -> None:
    made = rig(rate=20.0)
    for _ in range(30):
        made.hear(announcement(port=0)[0])
    assert 9 <= len(made.sent()) <= 11  # one host's share
    made.later(11)
    assert "dropped datagrams=" in made.log.getvalue()


def test_a_relay_that_is_stopping_announces_nothing_and_passes_the_rest(rig: MakeRig) -> None:
    made = rig()
    made.hear(announcement()[0])
    (header,) = made.sent()
    made.relay.stop(made.now)
    assert not is_open(header.reply_port)
    made.hear(announcement()[0])
    made.hear(EACH[datagram.ALERT])
    assert [one.kind for one in made.sent()] == [datagram.ALERT]


# connections


class Listening:
    """A client's listener on the loopback."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]

    @property
    def waiting(self) -> bool:
        return bool(select.select([self.socket], [], [], 0)[0])

    def accept(self) -> socket.socket:
        accepted, _ = self.socket.accept()
        accepted.settimeout(PATIENCE)
        return accepted


@pytest.fixture
def client() -> Iterator[Listening]:
    listening = Listening()
    with listening.socket:
        yield listening


def worker_to(made: Rig, client: Listening) -> tuple[socket.socket, int]:
    """A worker's connection to the port that an announcement of the client has got; that port."""
    made.hear(announcement(port=client.port)[0])
    (header,) = made.sent()
    return connect(header.reply_port), header.reply_port


def connect(port: int) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return one


def test_a_worker_is_joined_to_the_client(rig: MakeRig, client: Listening) -> None:
    made = rig()
    worker, _ = worker_to(made, client)
    with worker:
        worker.sendall(OPENING + b"first flight")
        made.spin(lambda: client.waiting)
        with client.accept() as accepted:
            made.spin(lambda: readable(accepted, 20))
            assert accepted.recv(100) == OPENING + b"first flight"
            accepted.sendall(b"second flight")
            made.spin(lambda: readable(worker, 13))
            assert worker.recv(100) == b"second flight"
    made.spin(lambda: made.connections == 0)
    assert "forwarded" not in made.log.getvalue()  # it was an offer, and no job


def readable(one: socket.socket, size: int) -> bool:
    if not select.select([one], [], [], 0)[0]:
        return False
    return len(one.recv(size, socket.MSG_PEEK)) >= size


def test_one_line_tells_of_a_job(rig: MakeRig, client: Listening) -> None:
    made = rig()
    worker, _ = worker_to(made, client)
    with worker:
        worker.sendall(OPENING)
        made.spin(lambda: client.waiting)
        with client.accept() as accepted:
            made.spin(lambda: readable(accepted, 8))
            accepted.recv(8)
            accepted.sendall(bytes(105))
            made.spin(lambda: readable(worker, 105))
        host, worker_port = worker.getsockname()
        worker.shutdown(socket.SHUT_WR)
        made.spin(lambda: made.connections == 0)
    (line,) = made.log.getvalue().splitlines()
    assert f"client=127.0.0.1:{client.port} worker={host}:{worker_port} " in line
    assert "to_worker=105 to_client=8" in line and "ended" not in line


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\xcexex", b"\xce"])
def test_a_stranger_does_not_reach_the_client(rig: MakeRig, client: Listening, said: bytes) -> None:
    made = rig()
    stranger, _ = worker_to(made, client)
    with stranger:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        made.spin(lambda: made.connections == 0 and readable_end(stranger))
    assert not client.waiting


def readable_end(one: socket.socket) -> bool:
    if not select.select([one], [], [], 0)[0]:
        return False
    try:
        return one.recv(1) == b""
    except ConnectionResetError:
        return True


def test_who_says_nothing_is_dropped_after_a_while(
    rig: MakeRig, client: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cexec.relay.relayed_connection.CONNECT_DEADLINE", 1.5)
    made = rig()
    silent, _ = worker_to(made, client)
    with silent:
        made.spin(lambda: made.connections == 1)
        made.spin(lambda: made.connections == 0)
    assert not client.waiting


def assert_worker_ends_and_port_closes(made: Rig, worker: socket.socket, port: int) -> None:
    """What a worker finds, and all that come after it, when the relay could not reach the client for it."""
    with worker:
        worker.sendall(OPENING)
        made.spin(lambda: readable_end(worker))
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_a_client_that_has_chosen_refuses_and_so_does_the_relay_from_then_on(rig: MakeRig, client: Listening) -> None:
    made = rig()
    worker, port = worker_to(made, client)
    client.socket.close()
    assert_worker_ends_and_port_closes(made, worker, port)
    assert made.log.getvalue() == ""


def test_a_client_that_cannot_be_reached_is_logged_and_workers_are_refused(
    rig: MakeRig, client: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cexec.relay.relayed_connection.connect_result", lambda connecting: "no route to host")
    made = rig()
    assert_worker_ends_and_port_closes(made, *worker_to(made, client))
    assert f"unreachable client=127.0.0.1:{client.port}" in made.log.getvalue()
    assert 'reason="no route to host"' in made.log.getvalue()


@pytest.mark.parametrize("address", ["255.255.255.255", "224.0.0.1", "0.0.0.0"])
def test_what_is_no_hosts_address_is_never_connected_to(rig: MakeRig, address: str) -> None:
    made = rig()
    made.hear(announcement()[0], (address, 40_000))
    (header,) = made.sent()
    with connect(header.reply_port) as worker:
        worker.sendall(OPENING)
        made.spin(lambda: readable_end(worker))
    assert "no host's address" in made.log.getvalue()


def test_connections_are_bounded_and_the_rest_waits_in_the_backlog(rig: MakeRig, client: Listening) -> None:
    made = rig(descriptors=0)
    worker, port = worker_to(made, client)
    with ExitStack() as stack:
        stack.enter_context(worker)
        workers = [worker, *(stack.enter_context(connect(port)) for _ in range(11))]
        made.spin(lambda: made.connections == 8)
        most = []
        made.spin(lambda: most.append(made.connections) or len(most) > 5)  # type: ignore[func-returns-value]
        assert set(most) == {8}
        for one in workers[:5]:
            one.close()
        made.spin(lambda: made.connections == 7)


def test_without_descriptors_workers_wait(rig: MakeRig, client: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig()
    worker, _ = worker_to(made, client)
    accept = TcpListener.accept
    failures: list[float] = []

    def fails_at_first(listener: TcpListener) -> object:
        if len(failures) < 2:
            failures.append(time.monotonic())
            raise LocalError("too many open files")
        return accept(listener)

    monkeypatch.setattr(TcpListener, "accept", fails_at_first)
    with worker:
        made.spin(lambda: made.connections == 1)
    assert failures[1] - failures[0] >= 0.19


def test_no_port_for_a_listener_is_said_once(rig: MakeRig, client: Listening) -> None:
    made = rig(ports=[client.port])
    made.hear(announcement()[0])
    made.hear(announcement()[0])
    assert made.sent() == []
    assert made.log.getvalue().count("failed ") == 1 and str(client.port) in made.log.getvalue()
    client.socket.close()
    made.hear(announcement()[0])
    assert [header.reply_port for header in made.sent()] == [client.port]


# scanners


def test_an_announcement_from_behind_a_router_is_not_passed_on_and_a_census_is(rig: MakeRig) -> None:
    made = rig()
    made.sides[NEAR].behind_routers.add("192.0.2.7")
    made.hear(announcement()[0], ("192.0.2.7", 40_000))
    assert made.sent() == [] and made.relay.listeners == 0
    made.hear(announcement(port=0)[0], ("192.0.2.7", 40_000))  # nobody is connected to for it
    assert [one.kind for one in made.sent()] == [ANNOUNCEMENT]
    made.later(11)
    assert "dropped datagrams=1" in made.log.getvalue() and "192.0.2.7 is on no link" in made.log.getvalue()


def test_an_application_that_only_names_is_relayed_from_behind_routers_too(rig: MakeRig) -> None:
    made = rig(mac1_keys=[APPLICATION.client.mac1_key])
    made.sides[NEAR].behind_routers.add("192.0.2.7")
    made.hear(announcement()[0], ("192.0.2.7", 40_000))
    assert [one.kind for one in made.sent()] == [ANNOUNCEMENT]


def test_a_proof_is_passed_on_if_its_announcement_was(rig: MakeRig) -> None:
    made = rig()
    data, mac1 = announcement()
    proof = encode_proofs(APPLICATION.client.mac1_key, mac1, [b"p" * 16], 8)
    made.hear(proof)
    assert made.sent() == []
    made.hear(data)
    made.sent()
    made.later(1.0)
    made.hear(proof, NEIGHBOUR)
    assert made.sent() == []
    made.later(1.0)
    made.hear(proof)
    assert [(one.kind, one.about, one.hops) for one in made.sent()] == [(datagram.PROOF, mac1, 7)]
    made.later(1.0)
    made.hear(data)  # it is no claim: the announcement goes on
    assert [one.kind for one in made.sent()] == [ANNOUNCEMENT]


def reached(made: Rig, client: Listening, times: int, answer: bytes) -> int:
    """Connects for so many recorded announcements that name this address; returns how often the relay connects to it.

    The client's side sends `answer`.
    """
    count = 0
    with ExitStack() as stack:
        for _ in range(times):
            made.now += 0.001
            worker = stack.enter_context(worker_to(made, client)[0])
            worker.sendall(OPENING)
            made.spin(lambda: client.waiting or bool(select.select([worker], [], [], 0)[0]))  # noqa: B023
            if client.waiting:
                count += 1
                accepted = stack.enter_context(client.accept())
                accepted.sendall(answer)
                if answer:
                    made.spin(lambda: readable(worker, len(answer)))  # noqa: B023
    return count


def test_a_relay_is_no_scanner(rig: MakeRig, client: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: with recorded announcements a stranger let a relay connect wherever it could reach."""
    monkeypatch.setattr(new_addresses, "NEW_RATE", 0.0)
    made = rig()
    assert reached(made, client, int(MOST_NEW) + 20, b"") == MOST_NEW
    made.later(11)
    assert "dropped connections=20" in made.log.getvalue()


def test_clients_that_answer_are_no_targets_of_a_scanner(rig: MakeRig, client: Listening) -> None:
    times = int(MOST_NEW) + 20
    assert reached(rig(), client, times, b"second flight".ljust(64)) == times


@pytest.mark.parametrize("bound", ["of one announcement", "of all"])
def test_silent_connections_give_way_to_a_worker(
    rig: MakeRig, client: Listening, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(forwarder, "MAXIMUM_FOR_ONE" if bound == "of one announcement" else "LEAST_CONNECTIONS", 4)
    made = rig(descriptors=0 if bound == "of all" else 100_000)
    with ExitStack() as stack:
        first, port = worker_to(made, client)
        silent = [first, *(stack.enter_context(connect(port)) for _ in range(5))]
        stack.enter_context(first)
        made.spin(lambda: made.connections == 4)
        worker = stack.enter_context(connect(port))
        worker.sendall(OPENING + b"first flight")
        start = time.monotonic()
        made.spin(lambda: client.waiting)
        assert time.monotonic() - start < CONNECT_DEADLINE  # for which each of them would have stayed
        with client.accept() as accepted:
            made.spin(lambda: readable(accepted, 20))
            assert accepted.recv(100) == OPENING + b"first flight"
        assert len(silent) == 6
