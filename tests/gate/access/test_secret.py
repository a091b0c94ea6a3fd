"""The format of secrets: exactly what is made is read."""

from __future__ import annotations

from hashlib import sha256

import pytest

from cexec.gate.access.secret import HIDDEN, Kind, has_secret, hide_secrets, new_secret, parse_secret

KINDS = list(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_is_read(kind: Kind) -> None:
    made = new_secret(kind)
    assert parse_secret(made.text) == made
    assert made.digest == sha256(made.text.encode()).digest()
    assert made.text not in repr(made)


def test_a_secret_has_256_random_bits() -> None:
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    assert new_secret(Kind.TOKEN, random).text == f"cgate_{'A' * 43}"
    assert asked == [32]
    assert len({new_secret(Kind.TOKEN).text for _ in range(100)}) == 100


def test_the_kind_is_a_part_of_the_secret() -> None:
    texts = {kind: new_secret(kind, bytes) for kind in KINDS}
    assert len({made.digest for made in texts.values()}) == len(KINDS)


@pytest.mark.parametrize(
    "text",
    ["", "cgate_", f"cgate_{'A' * 42}", f"cgate_{'A' * 44}", f"cgate_{'A' * 43}\n", f" cgate_{'A' * 43}",
     f"CGATE_{'A' * 43}", f"cgatex_{'A' * 43}", f"cgate_{'A' * 42}=", f"cgate_{'A' * 42}é", f"cgate_{'+' * 43}",
     "A" * 43],
)  # fmt: skip
def test_nothing_else_is_read(text: str) -> None:
    assert parse_secret(text) is None


def test_no_other_text_means_the_same_secret() -> None:
    """The last of 43 letters has two bits too many."""
    text = new_secret(Kind.TOKEN, bytes).text
    accepted = [letter for letter in "ABCD" if parse_secret(text[:-1] + letter)]
    assert accepted == ["A"]


def test_every_part_of_a_text_is_hidden() -> None:
    one, two = new_secret(Kind.TOKEN).text, new_secret(Kind.LOGIN).text
    hidden = hide_secrets(f"GET /x?a={one}&b={two.replace('_', '%5f', 1)}#{one[:30]}")
    assert hidden == f"GET /x?a={HIDDEN}&b={HIDDEN}#{HIDDEN}"
    assert has_secret(one) and not has_secret(hidden) and not has_secret("cgate_token")
