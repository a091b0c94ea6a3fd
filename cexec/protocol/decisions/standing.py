"""How far a worker may believe that a client is where its announcement seems to come from.

Contract: mac1 does not cover the source of a datagram, so anybody who has recorded an announcement can send it again
from wherever he likes.  A `Standing` is what speaks for the source; more is better.  docs/protocol.md section 2.8.
"""

from __future__ import annotations

import enum


class Standing(enum.IntEnum):
    """The standing of one way to a client, or of its best living way."""

    DOUBTED = 0  # another process of this host says so, and it may be anybody's: nothing but one PROVE goes there
    UNPROVED = 1  # the kernel says so: one connection while places are free, else one datagram
    PROVED = 2  # the client has returned bytes that were sent there
