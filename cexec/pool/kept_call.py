"""A call that a keeper has taken, and has perhaps given to its runner.

Contract: `data` is what has come of it.  A short call keeps that until it is done, so that it can be given to another
runner; a long one until it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.pool.call_messages import SMALL

if TYPE_CHECKING:
    from cexec.pool.call_messages import MessagePiece


class KeptCall:
    """A call that the keeper has taken.  `data` is what has come of it, and is not kept once a long one is given."""

    __slots__ = ("data", "id", "long", "missing", "unwanted")

    def __init__(self, piece: MessagePiece) -> None:
        self.id = piece.id
        self.data = [piece.data]
        self.missing = piece.missing
        self.long = piece.missing > 0 or len(piece.data) > SMALL
        self.unwanted = False  # what comes of it is passed over
