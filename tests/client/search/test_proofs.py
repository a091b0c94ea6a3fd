"""The proofs that workers have asked for: returned at once, together, and again until they are believed."""

from __future__ import annotations

from cexec.client.search.proofs import INTERVAL, NEVER, TIMES, Proofs
from cexec.protocol.datagrams.proof import MAXIMUM_PROOFS, PROOF_SIZE


def proof(number: int) -> bytes:
    return number.to_bytes(PROOF_SIZE, "big")


def test_the_first_one_is_returned_at_once_and_those_that_follow_together() -> None:
    proofs = Proofs()
    assert (proofs.due, proofs.take(0.0)) == (NEVER, [])
    proofs.asked(b"a", proof(1), 5.0)
    assert proofs.due == 5.0
    assert proofs.take(5.0) == [proof(1)]
    for number in range(2, 10):
        proofs.asked(bytes([number]), proof(number), 5.001)
    assert proofs.due == 5.0 + INTERVAL and proofs.take(5.001) == []
    assert proofs.take(5.0 + INTERVAL) == [proof(number) for number in range(2, 10)]
    assert proofs.due == NEVER


def test_more_than_fit_into_one_datagram_go_into_several() -> None:
    proofs = Proofs()
    for number in range(MAXIMUM_PROOFS + 1):
        proofs.asked(number.to_bytes(2, "big"), proof(number), 0.0)
    assert len(proofs.take(0.0)) == MAXIMUM_PROOFS
    assert proofs.take(proofs.due) == [proof(MAXIMUM_PROOFS)]


def test_a_proof_is_sent_three_times_unless_the_worker_shows_that_it_has_come() -> None:
    proofs = Proofs()
    proofs.asked(b"a", proof(1), 0.0)
    proofs.asked(b"b", proof(2), 0.0)
    sent = [proofs.take(0.0)]
    proofs.settled(b"b")
    for now in range(1, 10):
        proofs.again(float(now))
        sent.append(proofs.take(float(now)))
    assert [one for one in sent if one] == [[proof(1), proof(2)], *[[proof(1)]] * (TIMES - 1)]
    assert proofs.due == NEVER


def test_a_later_proof_of_a_worker_replaces_the_earlier_one() -> None:
    proofs = Proofs()
    proofs.asked(b"a", proof(1), 0.0)
    proofs.asked(b"a", proof(2), 0.0)
    assert proofs.take(0.0) == [proof(2)]


def test_what_is_no_proof_is_not_returned() -> None:
    """Else a worker could make a client send what it likes to the group."""
    proofs = Proofs()
    for size in (0, PROOF_SIZE - 1, PROOF_SIZE + 1, 200):
        proofs.asked(b"a", b"x" * size, 0.0)
    assert proofs.due == NEVER
