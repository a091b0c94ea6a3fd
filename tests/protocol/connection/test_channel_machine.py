"""A connection from its first byte on, in pieces of any size, against a model of what was sent.

Frames arrive whole, in order and unchanged, or the receiver says that something is wrong and never gives another one.
What waits is bounded on both sides (N7), and a peer that has proved nothing gets no large buffer.
docs/protocol.md sections 3 and 4.1.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cexec.errors import CexecError, ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import (
    CONNECT_DEADLINE,
    FIRST_REVISION,
    FRAME_LENGTH,
    MAXIMUM_DATA,
    MAXIMUM_FRAME,
    RECORD_HEADER,
    SECOND_REVISION,
)
from cexec.protocol.connection import frames
from cexec.protocol.connection.channel import FIRST_FLIGHT, ClientHandshake
from cexec.protocol.connection.records import FIRST_BUFFER, MAXIMUM_WAITING, SEND_BUFFERS, Records
from cexec.protocol.connection.worker_handshake import WorkerHandshake
from tests.protocol.wires import APPLICATION, client_handshake, worker_handshake

SIZES = st.sampled_from([1, 2, 4, 5, 63, 64, 300, 696, 5000, 1 << 20])
DATA = st.sampled_from([1, 100, 4000, 5000, MAXIMUM_DATA])
LONGEST_RECORD = 2 * (RECORD_HEADER + FRAME_LENGTH + MAXIMUM_FRAME + 32)


class End:
    """One end: its handshake, then records; what it has sent, what has come, and the bytes on their way to it."""

    def __init__(self, handshake: WorkerHandshake | ClientHandshake) -> None:
        self.handshake = handshake
        self.sent: list[bytes] = []
        self.found: list[bytes] = []
        self.arriving = b""
        self.begun = False  # its first record is on its way
        self.error: CexecError | None = None

    @property
    def records(self) -> Records | None:
        return self.handshake.records

    def receive(self, data: bytes) -> None:
        try:
            while data and self.records is None:
                size = min(len(data), self.handshake.wanted)
                self.handshake.receive_data(data[:size], 0.0)
                data = data[size:]
            if data:
                assert self.records is not None
                self._receive_records(self.records, data)
        except ProtocolError as error:
            self.error = error

    def _receive_records(self, records: Records, data: bytes) -> None:
        while data:
            room = records.receive_buffer()
            assert 0 < len(room) <= LONGEST_RECORD
            if not self.found:
                assert len(room) <= FIRST_BUFFER
            size = min(len(room), len(data))
            room[:size] = data[:size]
            records.received(size)
            data = data[size:]
            while (frame := records.next_event()) is not None:
                self.found.append(bytes(frame))


class Connection(RuleBasedStateMachine):
    @initialize(
        cipher=st.sampled_from(sodium.aead_names()), revision=st.sampled_from([FIRST_REVISION, SECOND_REVISION])
    )
    def connect(self, cipher: str, revision: int) -> None:
        sealed = APPLICATION.announce()
        opened, offer = APPLICATION.hear(sealed), {"ciphers": [cipher], "revision": revision}
        worker = worker_handshake(opened.handshake(), APPLICATION.worker, **offer)
        self.worker = End(worker)
        self.client = End(client_handshake(sealed.handshake(), APPLICATION.client))
        self.damaged = False
        self.client.arriving = worker.data_to_send()
        assert len(self.client.arriving) == FIRST_FLIGHT

    def _ends(self, worker: bool) -> tuple[End, End]:
        return (self.worker, self.client) if worker else (self.client, self.worker)

    @rule(worker=st.booleans(), size=SIZES)
    def arrive(self, worker: bool, size: int) -> None:
        """The next bytes come; what a handshake answers goes out at once."""
        end, other = self._ends(worker)
        data, end.arriving = end.arriving[:size], end.arriving[size:]
        if end.error is None:
            end.receive(data)
            other.arriving += end.handshake.data_to_send()

    @rule(worker=st.booleans(), size=SIZES)
    def kernel_takes(self, worker: bool, size: int) -> None:
        end, other = self._ends(worker)
        if end.records is not None:
            waiting = end.records.data_to_send()
            assert len(waiting) <= MAXIMUM_WAITING
            assert sum(len(view) > MAXIMUM_FRAME // 2 for view in waiting) <= SEND_BUFFERS
            assert end.records.all_sent == (not waiting)
            data = b"".join(bytes(view) for view in waiting)[:size]
            end.records.data_sent(len(data))
            end.begun |= bool(data)
            other.arriving += data

    @rule(worker=st.booleans(), kind=st.sampled_from([frames.CONFIRM, frames.PING, frames.RELEASE]))
    def send_frame(self, worker: bool, kind: int) -> None:
        end, _ = self._ends(worker)
        if end.records is not None and not end.records.congested and (end.begun or not end.sent):
            end.records.send_frame(frames.frame(kind))
            end.sent.append(frames.frame(kind))

    @rule(worker=st.booleans(), size=DATA, byte=st.integers(0, 255))
    def send_data(self, worker: bool, size: int, byte: int) -> None:
        end, _ = self._ends(worker)
        if end.records is None or not end.begun:
            return  # the first record is a small one: a confirmation, or GO
        buffer = end.records.data_buffer()
        assert (buffer is not None) == end.records.has_room or end.records.congested
        if buffer is not None:
            buffer[:size] = bytes([byte]) * size
            end.records.send_data(frames.head(frames.DATA, 1), size)
            end.sent.append(frames.head(frames.DATA, 1) + bytes([byte]) * size)

    @precondition(lambda self: not self.damaged)
    @rule(worker=st.booleans(), at=st.integers(0, 1 << 20), bit=st.integers(0, 7), chance=st.integers(0, 9))
    def flip_a_bit(self, worker: bool, at: int, bit: int, chance: int) -> None:
        end, _ = self._ends(worker)
        if end.arriving and chance == 7:
            at %= len(end.arriving)
            end.arriving = end.arriving[:at] + bytes([end.arriving[at] ^ 1 << bit]) + end.arriving[at + 1 :]
            self.damaged = True

    @invariant()
    def what_has_come_is_what_was_sent(self) -> None:
        for end, other in (self._ends(True), self._ends(False)):
            assert end.found == other.sent[: len(end.found)]

    @invariant()
    def only_damage_is_an_error_and_it_stays(self) -> None:
        for end in (self.worker, self.client):
            if end.error is not None:
                assert self.damaged
                with pytest.raises(ProtocolError) as later:
                    if end.records is None:
                        end.handshake.receive_data(b"", 0.0)
                    else:
                        end.records.next_event()
                assert later.value is end.error

    @invariant()
    def a_flight_has_its_deadline_until_it_has_come(self) -> None:
        for end in (self.worker, self.client):
            wanted = CONNECT_DEADLINE if end.records is None and end.error is None else None
            assert end.handshake.next_timeout() == wanted

    def teardown(self) -> None:
        """All arrives, unless something was damaged."""
        if not hasattr(self, "client"):
            return
        for _ in range(3):
            for worker in (True, False):
                self.kernel_takes(worker, 1 << 30)
                self.arrive(worker, 1 << 30)
        self.what_has_come_is_what_was_sent()
        if not self.damaged:
            assert len(self.client.found) == len(self.worker.sent)
            assert len(self.worker.found) == len(self.client.sent)
            assert self.client.records is not None and self.client.records.at_record_boundary


TestConnection = Connection.TestCase
TestConnection.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
