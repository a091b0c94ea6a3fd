"""Giving and taking without a network: one right code, one try, and nothing is sent before both sides are proved."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("spake2")

from cexec.authority import exchange
from cexec.authority.code import Code
from cexec.authority.exchange import LIFETIME, MOST_SENT, PATIENCE, SEEKING, Giver, Taker
from cexec.authority.words import WORDS
from cexec.errors import LocalError
from cexec.protocol.datagrams import joining

CODE = Code(47, (WORDS[1], WORDS[2]))
WRONG = Code(47, (WORDS[1], WORDS[3]))
CONTENT = bytes(range(256)) * 20  # several pieces


class Hall:
    """A giver and takers that hear each other; what passed, in order.  `change` may alter or drop a datagram."""

    def __init__(self, change: Callable[[bytes], bytes | None] = lambda data: data) -> None:
        self.now = 100.0
        self.giver = Giver(CODE, "app.pub", CONTENT, self.now)
        self.passed: list[joining.JoinMessage] = []
        self.change = change

    def carry(self, data: bytes) -> list[bytes]:
        """To the giver; what it answers."""
        return [] if (changed := self.pass_on(data)) is None else self.giver.receive_data(changed, self.now)

    def pass_on(self, data: bytes) -> bytes | None:
        message = joining.decode_message(data)
        assert message is not None and joining.encode_message(message) == data
        self.passed.append(message)
        return self.change(data)

    def run(self, taker: Taker, longest: float = 60.0) -> None:
        """Until the taker is over, or for so long."""
        until = self.now + longest
        while not taker.over and self.now < until:
            self.now = max(self.now, min(taker.next_timeout(), until))
            going = taker.handle_timeout(self.now)
            while going:
                answers = self.carry(going.pop(0))
                for answer in answers:
                    changed = self.pass_on(answer)
                    if changed is not None:
                        going += taker.receive_data(changed, self.now)
            self.giver.handle_timeout(self.now)

    def kinds(self) -> list[type[joining.JoinMessage]]:
        return [type(message) for message in self.passed]


def test_the_file_passes_after_both_sides_are_proved() -> None:
    hall = Hall()
    taker = Taker(CODE, hall.now)
    hall.run(taker)
    assert (taker.failure, taker.name, taker.content) == ("", "app.pub", CONTENT)
    assert hall.giver.over and hall.giver.failure == ""
    pieces = hall.kinds().count(joining.Piece)
    assert pieces > 3
    assert hall.kinds() == [
        joining.Seek,
        joining.Found,
        joining.TakerProof,
        joining.GiverProof,
        *[joining.Ask, joining.Piece] * pieces,
        joining.Done,
        joining.Done,
        joining.Done,
    ]


def test_a_wrong_code_is_one_try_for_both_and_nothing_was_sent() -> None:
    hall = Hall()
    wrong = Taker(WRONG, hall.now)
    hall.run(wrong)
    assert "did not accept the code, which is wrong or used up" in wrong.failure
    assert (hall.giver.over, "this one is used up" in hall.giver.failure) == (True, True)
    assert {*hall.kinds()} == {joining.Seek, joining.Found, joining.TakerProof}
    right = Taker(CODE, hall.now)
    hall.run(right)
    assert right.failure and right.content == b""


def test_another_number_is_not_answered_and_uses_nothing_up() -> None:
    hall = Hall()
    other = Taker(Code(48, CODE.words), hall.now)
    hall.run(other)
    assert other.failure == "nobody on this network gives anything under that number"
    assert hall.now == pytest.approx(100.0 + SEEKING)
    taker = Taker(CODE, hall.now)
    hall.run(taker)
    assert taker.content == CONTENT


def test_a_giver_that_does_not_know_the_code_learns_one_proof_and_gives_nothing() -> None:
    """The taker answers the first FOUND only; more of them would be more guesses."""
    taker = Taker(CODE, 0.0)
    (seek,) = taker.handle_timeout(0.0)
    impostors = [Giver(Code(47, (WORDS[9], WORDS[n])), "evil", b"evil", 0.0) for n in range(5)]
    founds = [impostor.receive_data(seek, 0.0)[0] for impostor in impostors]
    proofs = [answer for found in founds for answer in taker.receive_data(found, 0.0)]
    assert len(proofs) == 1
    assert impostors[0].receive_data(proofs[0], 0.0) == []
    message = joining.decode_message(proofs[0])
    assert message is not None
    assert taker.receive_data(joining.encode_message(joining.GiverProof(message.session, bytes(32), 1)), 0.0) == []
    assert taker.failure == "the machine that answered does not know the code; get a new one"
    assert taker.content == b""


def test_nothing_is_given_before_the_takers_proof_and_nothing_asked_before_the_givers() -> None:
    giver, taker = Giver(CODE, "n", CONTENT, 0.0), Taker(CODE, 0.0)
    (seek,) = taker.handle_timeout(0.0)
    (found,) = giver.receive_data(seek, 0.0)
    session = joining.decode_message(seek).session  # type: ignore[union-attr]
    for index in range(3):
        assert giver.receive_data(joining.encode_message(joining.Ask(session, index, bytes(32))), 0.0) == []
    assert taker.receive_data(joining.encode_message(joining.Piece(session, 0, b"x")), 0.0) == []
    assert taker.receive_data(joining.encode_message(joining.GiverProof(session, bytes(32), 1)), 0.0) == []
    (proof,) = taker.receive_data(found, 0.0)
    (answer,) = giver.receive_data(proof, 0.0)
    assert giver.receive_data(joining.encode_message(joining.Ask(session, 0, bytes(32))), 0.0) == []  # not keyed by K
    assert taker.receive_data(answer, 0.0)


def test_once_a_taker_is_proved_nobody_else_is_heard() -> None:
    hall = Hall()
    first, second = Taker(CODE, hall.now), Taker(CODE, hall.now)
    seeks = [taker.handle_timeout(hall.now)[0] for taker in (first, second)]
    founds = [hall.carry(seek)[0] for seek in seeks]
    proofs = [taker.receive_data(found, hall.now)[0] for taker, found in zip((first, second), founds, strict=True)]
    assert hall.carry(proofs[0])
    assert hall.carry(proofs[1]) == [] and hall.carry(seeks[1]) == []
    assert not hall.giver.over


@pytest.mark.parametrize("lost", range(4))
def test_datagrams_that_are_lost_are_sent_again(lost: int) -> None:
    count = [0]

    def lossy(data: bytes) -> bytes | None:
        count[0] += 1
        return None if count[0] % 4 == lost else data

    hall = Hall(lossy)
    taker = Taker(CODE, hall.now)
    hall.run(taker)
    assert (taker.failure, taker.content) == ("", CONTENT)


@pytest.mark.parametrize(
    "kind", [joining.Seek, joining.Found, joining.TakerProof, joining.GiverProof, joining.Ask, joining.Piece]
)
def test_a_changed_datagram_of_any_kind_gives_no_other_file(kind: type[joining.JoinMessage]) -> None:
    def change(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if type(joining.decode_message(data)) is kind else data

    hall = Hall(change)
    taker = Taker(CODE, hall.now)
    hall.run(taker)
    assert taker.over and taker.failure and taker.content == b""


@pytest.mark.parametrize("element", [b"A" + bytes(32), b"A" + b"\xff" * 32, b"B" + bytes(32), b"?" * 33])
def test_an_element_that_is_no_point_of_the_curve_is_not_answered(element: bytes) -> None:
    hall = Hall()
    assert hall.carry(joining.encode_message(joining.Seek(bytes(16), 47, element))) == []
    taker = Taker(CODE, hall.now)
    (seek,) = taker.handle_timeout(hall.now)
    session = joining.decode_message(seek).session  # type: ignore[union-attr]
    assert taker.receive_data(joining.encode_message(joining.Found(session, element)), hall.now) == []
    assert taker.failure == "the answer makes no sense; get a new code"


def test_a_flood_of_seeks_costs_a_bounded_number_of_runs_and_of_sessions() -> None:
    hall = Hall()
    template = joining.decode_message(Taker(CODE, 0.0).handle_timeout(0.0)[0])
    assert isinstance(template, joining.Seek)
    answered = 0
    for number in range(2000):
        hall.now += 0.001
        seek = joining.Seek(number.to_bytes(16, "big"), 47, template.element)
        answered += len(hall.carry(joining.encode_message(seek)))
    assert answered <= exchange.RUN_BURST + 2.0 * exchange.RUN_RATE + 1
    assert not hall.giver.over  # it was no try: nobody has proved anything


def test_a_code_ends_after_ten_minutes() -> None:
    hall = Hall()
    hall.giver.handle_timeout(hall.now + LIFETIME - 0.1)
    assert not hall.giver.over
    hall.giver.handle_timeout(hall.now + LIFETIME)
    assert hall.giver.failure == "nobody has typed the code within 10 minutes"
    assert LIFETIME == 600.0


def test_a_taker_that_goes_is_noticed_and_so_is_a_giver() -> None:
    hall = Hall()
    taker = Taker(CODE, hall.now)
    (seek,) = taker.handle_timeout(hall.now)
    (proof,) = taker.receive_data(hall.carry(seek)[0], hall.now)
    (answer,) = hall.carry(proof)
    taker.receive_data(answer, hall.now)
    hall.giver.handle_timeout(hall.now + PATIENCE)
    assert hall.giver.failure == "the other machine has gone without saying that it has the file; look there"
    taker.handle_timeout(hall.now + PATIENCE)
    assert taker.failure == "the other machine has gone; give the file again with a new code"


def test_a_giver_sends_a_bounded_number_of_pieces() -> None:
    hall = Hall()
    taker = Taker(CODE, hall.now)
    (seek,) = taker.handle_timeout(hall.now)
    (proof,) = taker.receive_data(hall.carry(seek)[0], hall.now)
    (ask,) = taker.receive_data(hall.carry(proof)[0], hall.now)
    assert sum(len(hall.carry(ask)) for _ in range(MOST_SENT + 50)) == MOST_SENT


def test_nothing_that_passes_has_the_content_or_the_words_in_it() -> None:
    hall = Hall()
    taker = Taker(CODE, hall.now)
    hall.run(taker)
    everything = b"".join(map(joining.encode_message, hall.passed))
    assert CONTENT[:32] not in everything and b"app.pub" not in everything
    assert not any(word.encode() in everything for word in CODE.words)


def test_a_machine_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *arguments: Any, **others: Any) -> Any:
        if name == "spake2":
            raise ImportError(name)
        return load(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for make in (lambda: Taker(CODE, 0.0), lambda: Giver(CODE, "n", b"", 0.0)):
        with pytest.raises(LocalError, match=r"pip install '\.\[join\]'"):
            make()
