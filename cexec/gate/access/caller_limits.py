"""What a caller may ask of this server at most.

Contract: a value with defaults; the options of cgate change some of them.  All numbers are ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """Sizes in bytes, times in seconds."""

    body: int = 1 << 30  # of a request that is read whole, with its files
    body_pause: float = 30.0  # in which not one byte of such a body comes
    body_rate: float = 1024.0  # bytes a second that such a body comes with, after the first `body_pause` seconds
    rate: float = 1000.0  # requests a second of one token
    burst: float = 2000.0  # requests of one token at once
    jobs: int = 1000  # of one token that are queued or run at once
    mistakes: float = 2.0  # wrong secrets a second from one address
    mistakes_at_once: float = 20.0
    session: float = 12 * 3600.0  # life of a browser's session
    login: float = 300.0  # life of a one-time URL
    look: float = 1.0  # between two looks at whether the tokens of running requests are still valid


DEFAULT_LIMITS = CallerLimits()
