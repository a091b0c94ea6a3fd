"""Programs that a client brings, one for each platform, as the options of GO name them: docs/protocol.md section 4.2.

Contract: `encode` makes the options, `parse` reads them back or raises `ValueError` with words for the client;
`choose` picks the one for a platform.  A platform is `os-arch`, or ANY.
"""

from __future__ import annotations

from cexec.protocol.connection.options import PROGRAM, PROGRAM_STREAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY = "any"  # (protocol) the platform of a program that runs everywhere
NONE_FITS = "there is no program for"  # (protocol) a worker's reason begins so if no program fits its platform
HEXADECIMAL = "0123456789abcdef"
HASH_DIGITS = 64
LARGEST_PROGRAM = 1 << 34  # bytes (protocol)


class ProgramOffer:
    """A program that the client has.  `hash`: hexadecimal digits; `size`: bytes."""

    __slots__ = ("hash", "platform", "size")

    def __init__(self, platform: str, hash: str, size: int) -> None:
        self.platform = platform
        self.hash = hash
        self.size = size


def is_platform(text: str) -> bool:
    """Returns True if `text` has the form of a platform."""
    system, dash, machine = text.partition("-")
    plain = text.isascii() and all(c.isalnum() or c in "-_." for c in text)
    return text == ANY or (plain and bool(system and dash and machine))


def encode(offers: Iterable[ProgramOffer], stream: int) -> dict[str, str]:
    """Returns the options of GO for at least one offer."""
    return {PROGRAM_STREAM: str(stream)} | {f"{PROGRAM}{one.platform}": f"{one.hash} {one.size}" for one in offers}


def is_option(name: str) -> bool:
    """Returns True if this option of GO is about programs."""
    return name == PROGRAM_STREAM or (name.startswith(PROGRAM) and is_platform(name.removeprefix(PROGRAM)))


def parse(options: Mapping[str, str]) -> tuple[int, list[ProgramOffer]] | None:
    """Returns the number of the stream and the offers, or None if the client brings no program."""
    named = {name: value for name, value in options.items() if is_option(name)}
    if not named:
        return None
    number = named.pop(PROGRAM_STREAM, "")
    if not _is_number(number) or not named:
        raise ValueError("a program is offered without a stream, or a stream without a program")
    return int(number), [_parse_offer(name.removeprefix(PROGRAM), value) for name, value in named.items()]


def choose(offers: Iterable[ProgramOffer], platform: str) -> ProgramOffer | None:
    """Returns the offer for this platform, else the one for ANY, else None."""
    by_platform = {one.platform: one for one in offers}
    return by_platform.get(platform) or by_platform.get(ANY)


def _parse_offer(platform: str, value: str) -> ProgramOffer:
    digits, _, size = value.partition(" ")
    plain = len(digits) == HASH_DIGITS and not digits.strip(HEXADECIMAL)
    if not plain or not _is_number(size) or int(size) > LARGEST_PROGRAM:
        raise ValueError(f"the offer of a program for {platform} has not the form HASH SIZE")
    return ProgramOffer(platform, digits, int(size))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_PROGRAM))
