"""Secrets that let their bearer in: tokens, sessions of a browser, one-time login codes.

Contract: a secret is 256 random bits, written as its kind's prefix and 43 letters of base64url.  The state file knows
only its SHA-256, taken of the whole text, so a secret of one kind never counts as one of another kind.  `parse_secret`
accepts exactly the texts that `new_secret` can return.  `hide_secrets` takes them out of a text for a log.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

SIZE = 32  # bytes of randomness (ours)
_LETTERS = 43  # of base64url for 32 bytes, without padding


class Kind(StrEnum):
    """What a secret is for."""

    TOKEN = "token"  # a program sends it with each request
    SESSION = "session"  # a browser sends it as a cookie
    LOGIN = "login"  # a browser swaps it for a session, once


PREFIXES = {Kind.TOKEN: "cgate_", Kind.SESSION: "cgates_", Kind.LOGIN: "cgatel_"}
_KINDS = {prefix: kind for kind, prefix in PREFIXES.items()}
_SECRET = re.compile(rf"(cgate[sl]?_)([A-Za-z0-9_-]{{{_LETTERS}}})", re.ASCII)
_LOOKS_LIKE_ONE = re.compile(r"cgate[sl]?(?:_|%5f)[A-Za-z0-9_%-]{20,}", re.ASCII | re.IGNORECASE)
HIDDEN = "cgate_..."


@dataclass(frozen=True, slots=True)
class Secret:
    """What the server keeps of a secret; `text` is there only where it was made."""

    kind: Kind
    digest: bytes
    text: str = field(default="", repr=False, compare=False)


def new_secret(kind: Kind, random: Callable[[int], bytes] = secrets.token_bytes) -> Secret:
    """Returns a new secret; `random` is for tests."""
    text = PREFIXES[kind] + urlsafe_b64encode(random(SIZE)).decode().rstrip("=")
    return Secret(kind, _digest(text), text)


def parse_secret(text: str) -> Secret | None:
    """Returns what to look for in the state file; None for a text that is no secret."""
    found = _SECRET.fullmatch(text)
    if found is None:
        return None
    letters = found[2]
    # 43 letters hold 258 bits: a text with other last bits would be a second name of the same secret
    if urlsafe_b64encode(urlsafe_b64decode(f"{letters}=")).decode() != f"{letters}=":
        return None
    return Secret(_KINDS[found[1]], _digest(text))


def hide_secrets(text: str) -> str:
    """Returns the text without anything that may be a secret."""
    return _LOOKS_LIKE_ONE.sub(HIDDEN, text)


def has_secret(text: str) -> bool:
    """Returns True if something in the text may be a secret."""
    return _LOOKS_LIKE_ONE.search(text) is not None


def _digest(text: str) -> bytes:
    return sha256(text.encode("ascii")).digest()
