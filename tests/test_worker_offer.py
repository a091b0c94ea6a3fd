"""A worker's offer to a client that is slow."""

from __future__ import annotations

import select
import socket

import pytest

from cexec.errors import DisconnectedError
from cexec.protocol import frames
from cexec.protocol.channel import ClientHandshake
from cexec.protocol.hello import CONNECT
from cexec.protocol.limits import GO_DEADLINE
from cexec.protocol.session import Session
from cexec.protocol.sodium import aead_names
from cexec.worker_offer import CONFIRMED, PROVED, Offer
from tests.protocol.wires import APPLICATION, hello_of


def test_a_client_whose_go_comes_too_late_is_told_that_the_slot_is_gone() -> None:
    """A client on a busy machine took this for a worker that breaks off jobs, and complained of it."""
    sealed = APPLICATION.announce()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hello = hello_of(APPLICATION.worker, purpose=CONNECT)
        opened = APPLICATION.hear(sealed)
        offer = Offer(sealed.mac1, listener.getsockname(), opened, APPLICATION.worker.identity, hello, 0.0)
        client, _ = listener.accept()
    with client:
        offer.advance(0.0)  # connected
        shaking = ClientHandshake(sealed.handshake(), APPLICATION.client.authority_public, aead_names(), 0.0)
        shaking.receive_data(client.recv(shaking.wanted, socket.MSG_WAITALL), 0.0)
        client.sendall(shaking.data_to_send())
        while offer.state != PROVED:
            select.select([offer.connection], [], [], 5)
            offer.advance(0.0)
        offer.confirm(0.0)
        offer.handle_timeout(GO_DEADLINE - 0.01)
        assert offer.state == CONFIRMED
        with pytest.raises(DisconnectedError, match="did not answer in time"):
            offer.handle_timeout(GO_DEADLINE)
        offer.close()
        records, session = shaking.records, Session(worker=False, now=0.0)
        assert records is not None
        while data := client.recv(4096):
            records.receive_buffer()[: len(data)] = data
            records.received(len(data))
        told = []
        while (frame := records.next_event()) is not None:
            session.receive_data(frame, 0.0)
            told.append(session.next_event())
    assert [event.kind for event in told if event is not None] == [frames.CONFIRM, frames.WITHDRAW]
