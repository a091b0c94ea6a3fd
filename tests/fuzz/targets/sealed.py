"""What is inside the encryption: a hostile client, worker or logger, which has a key file, can send any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cexec.client.attempt.screen_modes import ScreenModes
from cexec.errors import CexecError, ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import Certificate
from cexec.protocol.base.limits import MAXIMUM_STREAMS, MAXIMUM_TEXT
from cexec.protocol.base.noise import Handshake
from cexec.protocol.base.wire import Reader
from cexec.protocol.connection import frames, program_offer
from cexec.protocol.connection.frames import Exit, Go, Refusal
from cexec.protocol.connection.options import TELL_WANTED, YES
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.session import Session
from cexec.protocol.connection.session_states import STATES
from cexec.protocol.connection.terminal_request import TerminalRequest
from cexec.protocol.datagrams.alert import Acknowledgement, Alert
from cexec.protocol.datagrams.announcement import PROLOGUE, Announcement
from cexec.protocol.datagrams.client_jobs import LONGEST_AGE, LONGEST_VALUE, ClientJob, encode_jobs, parse_jobs
from cexec.protocol.datagrams.hello import Hello, open_hello
from cexec.protocol.datagrams.opened_announcement import open_announcement
from cexec.protocol.datagrams.presence import Followed, Presence
from cexec.protocol.datagrams.requirements import Requirements, parse_needs
from cexec.system.process.resource_limits import Limits
from tests.fuzz.target import pieces, target, words
from tests.protocol.wires import APPLICATION, job

SEALED = APPLICATION.announce()
OPENED = APPLICATION.hear(SEALED)
CIPHER = sodium.aead(sodium.aead_names()[0])
LONGEST = 64  # bytes of a sequence that is recognised however it is cut
ATTRIBUTES = {"os": "linux", "mem": "4000000000", "cpus": "4", "name": "n", "host": "h"}


@target(ProtocolError)
def values(data: bytes) -> None:
    """The value codecs, in an order that the data chooses."""
    order, reader = data[:8], Reader(data[8:])
    read = (reader.u8, reader.u16, reader.u32, reader.u64, reader.short_bytes, reader.long_bytes, reader.text,
            reader.long_text, reader.mapping, reader.zeros)  # fmt: skip
    for byte in order:
        read[byte % len(read)]()
    reader.finish()


@target(ProtocolError)
def certificate(data: bytes) -> None:
    """A certificate."""
    found = Certificate.decode(data)
    assert found.encode() == data
    try:
        found.check(APPLICATION.client.authority_public, found.role, 0.0)
    except CexecError:
        pass


@target(ProtocolError)
def announcement(data: bytes) -> None:
    """The content of an announcement."""
    found = Announcement.decode(data)
    assert found.encode() == data
    found.requirements.lacking(ATTRIBUTES, ["10.0.0.1"])


@target(ProtocolError)
def signed_announcement(data: bytes) -> None:
    """An announcement with any payload, by a holder of a client file."""
    key = APPLICATION.client
    handshake = Handshake("Npsk0", initiator=True, prologue=PROLOGUE, psk=key.psk, remote_static=key.worker_public)
    inner = handshake.write_message(lambda h: data)
    open_announcement(APPLICATION.worker, inner)
    raise AssertionError("no signature of these bytes can be right")


@target(ProtocolError)
def requirements(data: bytes) -> None:
    """Requirements of a job."""
    found = Requirements.decode(data)
    assert found.encode() == data
    found.lacking(ATTRIBUTES, ["10.0.0.1"])


@target(ProtocolError)
def hello(data: bytes) -> None:
    """A worker's description of itself."""
    found = Hello.decode(data)
    again = found.encode()  # other bytes if it offers unknown ciphers
    assert Hello.decode(again).encode() == again


@target(ProtocolError)
def signed_hello(data: bytes) -> None:
    """A first message of a connection with any payload, by a holder of a worker file."""
    message = OPENED.handshake().write_message(lambda h: data)
    open_hello(SEALED.handshake(), message, APPLICATION.client.authority_public)
    raise AssertionError("no signature of these bytes can be right")


@target(ProtocolError)
def alert(data: bytes) -> None:
    """The content of an alert."""
    assert Alert.decode(data).encode() == data


@target(ProtocolError)
def acknowledgement(data: bytes) -> None:
    """The content of an acknowledgement."""
    assert Acknowledgement.decode(data).encode() == data


@target(ProtocolError)
def presence(data: bytes) -> None:
    """The content of HELLO and BYE."""
    found = Presence.decode(data)
    assert found.encode() == data
    followed = Followed()
    assert followed.news(found) == (found.sequence > 0)
    assert not followed.news(found)


@target(ProtocolError)
def go(data: bytes) -> None:
    """GO, and what its options mean."""
    found = Go.decode(data)
    assert found.encode() == data
    assert len(found.streams) <= MAXIMUM_STREAMS
    for read in (program_offer.parse, Limits.from_options):
        try:
            read(found.options)
        except ValueError:
            pass


@target(ProtocolError)
def terminal_request(data: bytes) -> None:
    """The value of GO's option for a terminal."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    found = TerminalRequest.decode(text)
    assert found.encode() == text
    assert max(found.rows, found.columns) <= frames.LARGEST_WINDOW and "/" not in found.term


@target()
def screen(data: bytes) -> None:
    """What a program shows on a person's terminal, in pieces: the same modes, however it is cut."""
    cut, whole = ScreenModes(), ScreenModes()
    shown = list(pieces(data))
    whole.feed(b"".join(shown))
    for piece in shown:
        cut.feed(piece)
    assert len(whole.restoring()) < 1000
    if len(data) <= LONGEST:  # a longer sequence may be cut beyond recognition
        assert cut.restoring() == whole.restoring()


@target(ProtocolError)
def exit_frame(data: bytes) -> None:
    """EXIT."""
    found = Exit.decode(data)
    assert found.encode() == data
    assert 0 <= found.exit_status <= 255


@target(ProtocolError)
def refusal(data: bytes) -> None:
    """REFUSED, and the texts of other frames."""
    found = Refusal.decode(data)
    assert found.encode() == data and len(frames.text_body(found.reason)) <= MAXIMUM_TEXT


@target(ProtocolError)
def frame(data: bytes) -> None:
    """The head of a frame."""
    kind, stream, body = frames.parse(memoryview(data), numbered=True)
    assert frames.frame(kind, body, stream, data[1]) == data


def _session(*, worker: bool, stage: int) -> Session:
    session = Session(worker=worker, now=0.0, numbered=bool(stage & 4))
    go = job(options={TELL_WANTED: YES} if stage & 8 else {})
    steps: list[Callable[[], None]] = (
        [session.confirm, lambda: _told(session, frames.frame(frames.GO, go.encode())), session.started]
        if worker
        else [lambda: _told(session, frames.frame(frames.CONFIRM)), lambda: session.go(go),
              lambda: _told(session, frames.frame(frames.STARTED, bytes(1)))]
    )  # fmt: skip
    for step in steps[: stage % 4]:
        step()
    return session


def _told(session: Session, data: bytes) -> None:
    session.receive_data(memoryview(data), 0.0)
    while (event := session.next_event()) is not None:
        if event.kind == frames.DATA:
            session.consumed(event.stream, len(event.data))
    session.data_to_send()


def _hostile_frames(data: bytes, *, worker: bool) -> None:
    session = _session(worker=worker, stage=data[0] if data else 0)
    try:
        for one in pieces(data[1:]):
            _told(session, one)
            assert session.state == STATES[session.stage]
            assert all(half.window >= 0 and half.consumed <= half.received for half in session.incoming.values())
    except ProtocolError as error:
        try:
            session.handle_timeout(0.0)
        except ProtocolError as later:
            assert later is error
            raise
        raise AssertionError("a failure was forgotten") from error


@target(ProtocolError)
def frames_of_a_client(data: bytes) -> None:
    """Frames of a client, at a worker in any stage."""
    _hostile_frames(data, worker=True)


@target(ProtocolError)
def frames_of_a_worker(data: bytes) -> None:
    """Frames of a worker, at a client in any stage."""
    _hostile_frames(data, worker=False)


@target(ProtocolError)
def records(data: bytes) -> None:
    """Bytes where records should be, from a peer that has proved nothing."""
    made = Records(CIPHER, bytes(32), bytes(32), proved=False)
    assert made.receive_data(data, 0.0) == []
    assert len(made.receive_buffer()) <= 4096


@target(ProtocolError)
def packed_record(data: bytes) -> None:
    """What a record of a peer that has the keys contains: several frames."""
    header = (len(data) + CIPHER.tag_size).to_bytes(4, "big")
    box = bytearray(data + bytes(CIPHER.tag_size))
    CIPHER.seal(bytes(32), 0, memoryview(box), len(data), header)
    made = Records(CIPHER, bytes(32), bytes(32), proved=True, packed=True)
    found = made.receive_data(header + box, 0.0)
    assert b"".join(len(one).to_bytes(4, "big") + one for one in found) == data
    assert made.at_record_boundary


@target()
def needs(data: bytes) -> None:
    """Attributes of a worker, against any needs."""
    for one in words(data).split("\n"):
        name, _, value = one.partition("=")
        Requirements({name: value}).lacking({name: value, "mem": value})
        try:
            parse_needs(one)
        except CexecError:
            pass


@target()
def jobs_of_clients(data: bytes) -> None:
    """The jobs that run on a worker, in its answer to a census: what is understood encodes to the same jobs."""

    def fields(jobs: Iterable[ClientJob]) -> list[tuple[int, str, str]]:
        return [(job.seconds, job.host, job.client) for job in jobs]

    text = data.decode("utf-8", "replace")
    found = parse_jobs(text)
    assert all(0 <= job.seconds <= LONGEST_AGE for job in found)
    oldest_first = fields(sorted(found, key=lambda job: -job.seconds))
    value = encode_jobs(found, LONGEST_VALUE)
    assert len(value.encode()) <= LONGEST_VALUE
    again = fields(parse_jobs(value))
    assert again == oldest_first[: len(again)]
    assert len(again) == len(found) or len(text.encode()) > LONGEST_VALUE
