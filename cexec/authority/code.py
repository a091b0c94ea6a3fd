"""The short code that a giver prints and a taker types: `47-acid-badge`, a number and two words.

Contract: the number, 1 to 9999, travels in the clear, so that a taker finds its giver.  The two words are 16 random
bits that only the two people know.  A code is good for one try and ten minutes; docs/protocol.md section 2.7 says why
16 bits are then enough.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.authority.words import WORDS
from cexec.errors import UsageError
from cexec.protocol.datagrams.joining import LARGEST_NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Code:
    """`str` gives what is read aloud, and what SPAKE2 takes as the password."""

    number: int
    words: tuple[str, str]

    @classmethod
    def new(cls, draw: Callable[[int], int] = secrets.randbelow) -> Code:
        """Draws a code; `draw(n)` returns a number below n, which only tests choose."""
        return cls(1 + draw(LARGEST_NUMBER), (WORDS[draw(len(WORDS))], WORDS[draw(len(WORDS))]))

    @classmethod
    def parse(cls, text: str) -> Code:
        """Reads what a person has typed; raises `UsageError`."""
        digits, *words = text.strip().lower().replace(" ", "-").split("-")
        good = digits.isascii() and digits.isdigit() and digits[0] != "0" and len(digits) <= len(str(LARGEST_NUMBER))
        if not good or len(words) != 2:
            raise UsageError(f"{text!r} is no code: it is a number and two words, such as 47-{WORDS[0]}-{WORDS[1]}")
        for word in words:
            if word not in WORDS:
                raise UsageError(f"{text!r} is no code: {word!r} is none of its words; ask again how it is spelled")
        return cls(int(digits), (words[0], words[1]))

    def __str__(self) -> str:
        return "-".join([str(self.number), *self.words])

    @property
    def password(self) -> bytes:
        return str(self).encode()
