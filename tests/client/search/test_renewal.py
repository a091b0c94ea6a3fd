"""Announcements that were made anew: workers of the earlier ones are still understood, and no longer than a while."""

from __future__ import annotations

import pytest

from cexec.client.search.renewal import MAXIMUM_EARLIER, Earlier
from cexec.errors import ProtocolError
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from tests.protocol.wires import APPLICATION


def renewed(times: int) -> tuple[Earlier, list[SealedAnnouncement]]:
    """All announcements, the latest last; it is not in `Earlier`."""
    earlier, made = Earlier(), [APPLICATION.announce()]
    for _ in range(times):
        earlier.replaced(made[-1])
        made.append(made[-1].anew(APPLICATION.client, (5, 4)))
    return earlier, made


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_worker_of_any_of_them_gets_its_handshake(which: int) -> None:
    earlier, made = renewed(MAXIMUM_EARLIER)
    worker = APPLICATION.hear(made[which]).handshake()
    client = earlier.handshake(made[-1])
    payload, h = client.read_message(worker.write_message(lambda h: b"hello" + h))
    assert payload == b"hello" + h
    assert worker.read_message(client.write_message(lambda h: b"answer"))[0] == b"answer"
    assert client.finished and client.hash == worker.hash
    assert client.split() == worker.split()


def test_a_stranger_gets_none() -> None:
    earlier, made = renewed(2)
    client = earlier.handshake(made[-1])
    other = APPLICATION.hear(APPLICATION.announce()).handshake()
    with pytest.raises(ProtocolError):
        client.read_message(other.write_message(lambda h: b"hello"))
    worker = APPLICATION.hear(made[0]).handshake()  # and whoever comes after it is understood
    assert client.read_message(worker.write_message(lambda h: b"hello"))[0] == b"hello"


def test_few_are_kept_and_the_keys_of_the_others_are_erased() -> None:
    earlier, made = renewed(MAXIMUM_EARLIER + 3)
    kept = made[-1 - MAXIMUM_EARLIER : -1]
    assert list(earlier) == kept
    assert [earlier.of(sealed.mac1) for sealed in made] == [*[None] * 3, *kept, None]
    for sealed in made[:3]:
        with pytest.raises(ValueError, match="erased"):
            sealed.handshake()
    earlier.erase()
    for sealed in kept:
        with pytest.raises(ValueError, match="erased"):
            sealed.handshake()
