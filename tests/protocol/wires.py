"""Keys, and a client and a worker joined by a fake wire with a fake clock.

Contract: a `Side` owns one handshake, then records and a session, and keeps what happened in `events`, `output` and
`error`; after an error it is dead, as after the end of its connection.  A `Wire` joins two sides: `flow()` carries
bytes in chunks of any size until nobody has anything to say; `flip` and `cut` damage one direction at a byte offset.
`Robot` sides play a whole small job by themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from cexec.errors import CexecError, DisconnectedError
from cexec.protocol.base import keys, noise, sodium
from cexec.protocol.base.limits import FIRST_REVISION, SECOND_REVISION
from cexec.protocol.connection import frames
from cexec.protocol.connection.channel import ClientHandshake
from cexec.protocol.connection.frames import Exit, Go, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.session import Event, Session
from cexec.protocol.connection.worker_handshake import WorkerHandshake
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.datagrams.hello import CONNECT, Hello
from cexec.protocol.datagrams.opened_announcement import OpenedAnnouncement, open_announcement

JOB_ID = b"job number 16 by"
INSTANCE = b"instance 16 byte"

hostile_bytes = st.binary(max_size=400)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
each_cipher = pytest.mark.parametrize("cipher", sodium.aead_names())


class Application:
    """The keys of one application: an owner's, a client's and two workers'."""

    def __init__(self, seed: bytes) -> None:
        self.owner = keys.OwnerKey(seed)
        self.client = self.owner.client_key()
        self.worker = self.owner.worker_key("honest")
        self.other_worker = self.owner.worker_key("other")

    def announce(self, **fields: object) -> SealedAnnouncement:
        return SealedAnnouncement(self.client, **{"job_id": JOB_ID, "attempt": 1, **fields})  # type: ignore[arg-type]

    def hear(self, sealed: SealedAnnouncement, key: keys.WorkerKey | None = None) -> OpenedAnnouncement:
        """What a worker makes of the datagram."""
        parsed = datagram.parse(sealed.datagram(0, 4000, 8), [self.client.mac1_key])
        assert parsed is not None
        return open_announcement(key or self.worker, parsed.inner)


APPLICATION = Application(b"\x01" * 32)
STRANGERS = Application(b"\x02" * 32)


def hello_of(key: keys.WorkerKey, **fields: object) -> Hello:
    known = {"purpose": CONNECT, "instance": INSTANCE, "certificate": key.identity.certificate, "host": "host-1"}
    return Hello(**{"ciphers": sodium.aead_names(), **known, **fields})  # type: ignore[arg-type]


def mutations(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with a few bytes changed, cut, inserted or repeated."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        result = data
        for start, size, new in edits:
            start %= len(result) + 1
            result = result[:start] + new + result[start + size :]
        return result

    edit = st.tuples(st.integers(0, 4096), st.integers(0, 8), st.binary(max_size=8))
    return st.lists(edit, min_size=1, max_size=4).map(apply)


def cut_anywhere(data: bytes) -> list[bytes]:
    """Every proper beginning of `data`."""
    return [data[:size] for size in range(len(data))]


each_revision = pytest.mark.parametrize("revision", [FIRST_REVISION, SECOND_REVISION])


def record_pair(cipher: str, *, proved: bool = True, packed: bool = False) -> tuple[Records, Records]:
    """Two ends of a connection with well-known keys."""
    one, other = b"\x11" * 32, b"\x22" * 32
    aead = sodium.aead(cipher)
    return (
        Records(aead, one, other, proved=proved, packed=packed),
        Records(aead, other, one, proved=proved, packed=packed),
    )


def sent_bytes(records: Records) -> bytes:
    """All that waits to be sent, taken by the kernel."""
    data = b"".join(records.data_to_send())
    records.data_sent(len(data))
    return data


def transport_keys(records: Records) -> tuple[bytes, bytes]:
    return records.keys[2:]


class Side:
    """One end of a connection.  `react` is called with every event of the session."""

    def __init__(self, handshake: WorkerHandshake | ClientHandshake, *, now: float = 0.0) -> None:
        self.worker = isinstance(handshake, WorkerHandshake)
        self.handshake = handshake
        self.session = Session(worker=self.worker, now=now)
        self.error: CexecError | None = None
        self.hello: Hello | None = None
        self.events: list[tuple[int, int]] = []  # frame type, stream
        self.output: dict[int, bytes] = {}
        self.exits: list[Exit] = []

    @property
    def records(self) -> Records:
        records = self.handshake.records
        assert records is not None
        return records

    def react(self, event: Event, now: float) -> None:
        """For robots."""

    def ready(self, now: float) -> None:
        """The handshake is done: for robots."""

    def bytes_to_send(self) -> bytes:
        if self.error is not None:
            return b""
        data = self.handshake.data_to_send()
        if self.handshake.records is not None:
            self.seal_frames()
            data += sent_bytes(self.records)
        return data

    def seal_frames(self) -> None:
        for frame in self.session.data_to_send():
            self.records.send_frame(frame)

    def receive(self, data: bytes, now: float) -> None:
        if self.error is not None:
            return
        try:
            self._receive(data, now)
        except CexecError as error:
            self.error = error

    def end_of_file(self) -> None:
        """What every driver makes of the end of a connection."""
        if self.error is None:
            self.error = DisconnectedError("disconnected unexpectedly")

    def send_data(self, stream: int, data: bytes) -> None:
        self.seal_frames()  # no data overtakes the GO or STARTED that it belongs to
        buffer = self.records.data_buffer()
        assert buffer is not None
        buffer[: len(data)] = data
        self.records.send_data(self.session.data_head(stream, len(data)), len(data))

    def _receive(self, data: bytes, now: float) -> None:
        if self.handshake.records is None:
            flight, data = data[: self.handshake.wanted], data[self.handshake.wanted :]
            self.handshake.receive_data(flight, now)
            if self.handshake.records is None:
                return
            self.session = Session(worker=self.worker, now=now, numbered=self.records.packed)
            if isinstance(self.handshake, ClientHandshake):
                self.hello = self.handshake.next_event()
            self.ready(now)
        for frame in self.records.receive_data(data, now):
            self.session.receive_data(memoryview(frame), now)
            while (event := self.session.next_event()) is not None:
                self.events.append((event.kind, event.stream))
                if event.kind == frames.DATA:
                    self.output[event.stream] = self.output.get(event.stream, b"") + bytes(event.data)
                if event.exit is not None:
                    self.exits.append(event.exit)
                self.react(event, now)


class WorkerRobot(Side):
    """Serves one program: it writes its input backwards to 1 and its length to 2, and exits with 3."""

    def ready(self, now: float) -> None:
        self.session.confirm()

    def react(self, event: Event, now: float) -> None:
        if event.kind == frames.GO:
            self.session.started()
        elif event.kind == frames.DATA:
            self.session.consumed(0, len(event.data))
        elif event.kind == frames.END:
            self.send_data(1, self.output[0][::-1])
            self.send_data(2, str(len(self.output[0])).encode())
            self.session.end(1)
            self.session.end(2)
            self.session.exit(Exit(kind=frames.EXITED, status=3, endings=[]))


class ClientRobot(Side):
    """Runs one job with `INPUT`, and goes when it is over."""

    INPUT = b"some input"

    def react(self, event: Event, now: float) -> None:
        if event.kind == frames.CONFIRM and not self.exits:
            self.session.go(job())
            self.send_data(0, self.INPUT)
            self.session.end(0)
        elif event.kind == frames.DATA:
            self.session.consumed(event.stream, len(event.data))


def job(**fields: object) -> Go:
    """A job with the three standard streams."""
    streams = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)]
    return Go(**{"job_id": JOB_ID, "attempt": 1, "streams": streams, **fields})  # type: ignore[arg-type]


class Damage:
    """What happens to one direction: a bit flipped at offset `flip`, and nothing but the end after `cut` bytes."""

    def __init__(self, *, flip: int | None = None, cut: int | None = None) -> None:
        self.flip = flip
        self.cut = cut
        self.carried = b""
        self.ended = False

    def apply(self, data: bytes) -> bytes:
        start = len(self.carried)
        if self.cut is not None and start + len(data) >= self.cut:
            data, self.ended = data[: max(0, self.cut - start)], True
        if self.flip is not None and start <= self.flip < start + len(data):
            at = self.flip - start
            data = data[:at] + bytes([data[at] ^ 1 << self.flip % 8]) + data[at + 1 :]
        self.carried += data
        return data


class Wire:
    """A client and a worker, and what lies between them."""

    def __init__(
        self,
        worker: Side,
        client: Side,
        *,
        chunk: int = 1 << 20,
        to_client: Damage | None = None,
        to_worker: Damage | None = None,
    ) -> None:
        self.worker = worker
        self.client = client
        self.chunk = chunk
        self.now = 0.0
        self.to_client = to_client or Damage()
        self.to_worker = to_worker or Damage()

    def flow(self) -> Wire:
        """Carries bytes until nobody has anything to say."""
        while self._carry(self.worker, self.client, self.to_client) | self._carry(
            self.client, self.worker, self.to_worker
        ):
            pass
        return self

    def raise_errors(self) -> Wire:
        for side in (self.client, self.worker):
            if side.error is not None:
                raise side.error
        return self

    def _carry(self, sender: Side, receiver: Side, damage: Damage) -> bool:
        data = sender.bytes_to_send()
        if data and not damage.ended:
            arriving = damage.apply(data)
            for start in range(0, len(arriving), self.chunk):
                receiver.receive(arriving[start : start + self.chunk], self.now)
        if damage.ended or sender.error is not None:
            receiver.end_of_file()
        return bool(data)


def join(
    application: Application = APPLICATION,
    *,
    sealed: SealedAnnouncement | None = None,
    robots: bool = False,
    revision: int = SECOND_REVISION,
    worker_ciphers: list[str] | None = None,
    client_ciphers: list[str] | None = None,
    **wire: object,
) -> Wire:
    """A client and a worker at the two ends of a new connection; nothing has been said yet."""
    sealed = sealed or application.announce()
    offer: dict[str, object] = {} if worker_ciphers is None else {"ciphers": worker_ciphers}
    worker = worker_handshake(application.hear(sealed).handshake(), application.worker, revision=revision, **offer)
    client = client_handshake(sealed.handshake(), application.client, client_ciphers)
    make: Callable[..., Side] = WorkerRobot if robots else Side
    make_client: Callable[..., Side] = ClientRobot if robots else Side
    return Wire(make(worker), make_client(client), **wire)  # type: ignore[arg-type]


def worker_handshake(handshake: noise.Handshake, key: keys.WorkerKey, **hello: object) -> WorkerHandshake:
    return WorkerHandshake(handshake, key.identity, hello_of(key, **hello), 0.0)


def client_handshake(
    handshake: noise.Handshake, key: keys.ClientKey, ciphers: list[str] | None = None
) -> ClientHandshake:
    return ClientHandshake(handshake, key.authority_public, ciphers or sodium.aead_names(), 0.0)


def connected(**options: object) -> Wire:
    """A connection after its handshake."""
    return join(**options).flow().raise_errors()  # type: ignore[arg-type]


def running(go: Go | None = None, **options: object) -> Wire:
    """A connection on which a job has been started."""
    wire = connected(**options)
    start_job(wire, go)
    return wire


def start_job(wire: Wire, go: Go | None = None) -> None:
    """Confirms, gives the job and starts it."""
    wire.worker.session.confirm()
    wire.flow().raise_errors()
    wire.client.session.go(go or job())
    wire.flow().raise_errors()
    wire.worker.session.started()
    wire.flow().raise_errors()
