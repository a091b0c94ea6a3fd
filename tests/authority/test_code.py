"""Short codes: what is drawn can be typed, and nothing else."""

from __future__ import annotations

import pytest

from cexec.authority.code import Code
from cexec.authority.words import WORDS
from cexec.errors import UsageError
from cexec.protocol.datagrams.joining import LARGEST_NUMBER


def test_the_words_are_one_byte_each_and_easy_to_read_aloud() -> None:
    assert len(WORDS) == len(set(WORDS)) == 256
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 8 for word in WORDS)


def test_every_number_and_every_word_is_drawn() -> None:
    least, most = Code.new(lambda below: 0), Code.new(lambda below: below - 1)
    assert (least.number, most.number) == (1, LARGEST_NUMBER)
    assert (least.words, most.words) == ((WORDS[0], WORDS[0]), (WORDS[-1], WORDS[-1]))
    asked: list[int] = []
    Code.new(lambda below: asked.append(below) or 0)  # type: ignore[func-returns-value]
    assert asked == [LARGEST_NUMBER, 256, 256]  # 16 bits that only the two people know


def test_a_code_is_read_as_it_is_written_and_as_it_is_typed() -> None:
    code = Code(47, (WORDS[0], WORDS[9]))
    for text in (str(code), f" {str(code).upper()}\n", str(code).replace("-", " ")):
        assert Code.parse(text) == code
    assert code.password == f"47-{WORDS[0]}-{WORDS[9]}".encode()


@pytest.mark.parametrize(
    "text", ["", "47", "47-acid", "acid-badge", "047-acid-badge", "0-acid-badge", "99999-acid-badge",
             "4\u0667-acid-badge", "47-acid-badge-acid", "47--badge", "-47-acid-badge", "47-acid-nonsense"],
)  # fmt: skip
def test_anything_else_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="is no code"):
        Code.parse(text)
