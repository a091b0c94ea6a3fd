"""A worker's offer to a client, until the handshake is done."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from cexec.errors import DisconnectedError
from cexec.protocol.base.limits import CONNECT_DEADLINE
from cexec.protocol.base.sodium import aead_names
from cexec.protocol.connection.channel import ClientHandshake
from cexec.protocol.datagrams.hello import CONNECT
from cexec.worker.discovery.offer import CONNECTING, PROVED, SHAKING, Offer, UnreachableError
from cexec.worker.jobs.assignment import Assignment, receive, send
from tests.protocol.wires import APPLICATION, hello_of, transport_keys

SEALED = APPLICATION.announce()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def offer_to(listener: socket.socket) -> Offer:
    hello = hello_of(APPLICATION.worker, purpose=CONNECT)
    opened = APPLICATION.hear(SEALED)
    return Offer(SEALED.mac1, listener.getsockname(), opened, APPLICATION.worker.identity, hello, 0.0)


def proved(listener: socket.socket) -> tuple[Offer, ClientHandshake, socket.socket]:
    offer = offer_to(listener)
    client, _ = listener.accept()
    offer.advance(0.0)  # connected
    shaking = ClientHandshake(SEALED.handshake(), APPLICATION.client.authority_public, aead_names(), 0.0)
    shaking.receive_data(client.recv(shaking.wanted, socket.MSG_WAITALL), 0.0)
    client.sendall(shaking.data_to_send())
    while offer.state != PROVED:
        select.select([offer.connection], [], [], 5)
        offer.advance(0.0)
    return offer, shaking, client


def test_what_is_proved_goes_on_in_another_process(listener: socket.socket) -> None:
    offer, shaking, client = proved(listener)
    announcement = APPLICATION.hear(SEALED).announcement
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other, client:
        one.send(b"last")  # was meant for the connection before
        send(one, offer.connection, Assignment.of(announcement, offer.client, offer.records))
        offer.close()
        given = receive(other)
        assert given is not None
        connection, assignment = given
        assert (assignment.client, assignment.name) == (offer.client, announcement.certificate.name)
        assert (assignment.job_id, assignment.attempt) == (announcement.job_id, announcement.attempt)
        assert connection.getpeername() == client.getsockname()
        assert not os.get_inheritable(connection.fileno()) and connection.gettimeout() == 0.0
        records = assignment.records()
        assert shaking.records is not None
        assert transport_keys(records) == transport_keys(shaking.records)[::-1]
        assert records.cipher.name == shaking.records.cipher.name
        connection.close()
        one.close()
        assert receive(other) is None


def test_a_client_that_says_nothing_is_given_up(listener: socket.socket) -> None:
    offer = offer_to(listener)
    offer.advance(0.0)
    offer.handle_timeout(CONNECT_DEADLINE - 0.01)
    assert offer.state == SHAKING
    with pytest.raises(DisconnectedError, match="did not answer in time"):
        offer.handle_timeout(CONNECT_DEADLINE)
    offer.close()


def test_a_client_that_cannot_be_reached_is_told_apart(listener: socket.socket) -> None:
    offer = offer_to(listener)
    assert offer.state == CONNECTING
    with pytest.raises(UnreachableError, match="timed out"):
        offer.handle_timeout(CONNECT_DEADLINE)
    offer.close()
