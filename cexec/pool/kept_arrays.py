"""A keeper's part in the messages about arrays that calls share.

Contract: `open`, `take` and `drop` follow OPEN_STORE, ARRAY and DROP_ARRAY, and give what they answer to `answer`.
`note` is the message that tells a runner where the arrays are; empty without a store.  `descriptors` are those that a
runner must not have.  docs/python.md, "What an executor and a worker say to each other".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.pool import call_messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.pool.array_store import ArrayStore
    from cexec.pool.call_messages import Buffer


class KeptArrays:
    """The arrays of one client."""

    def __init__(self, answer: Callable[[list[Buffer]], None]) -> None:
        self.note = b""
        self._answer = answer
        self._store: ArrayStore | None = None

    @property
    def descriptors(self) -> list[int]:
        return [] if self._store is None else [self._store.fd]

    def open(self, data: bytes) -> None:
        from cexec.pool.array_store import ArrayStore  # few programs share arrays

        (message,) = m.Decoder().feed(data)
        try:
            store = self._store = ArrayStore(message.parts[0].decode())
        except OSError as error:
            self._answer(m.encode(m.STORE, parts=[b"", str(error).encode()]))
            return
        self.note = b"".join(m.encode(m.OPEN_STORE, parts=[os.fsencode(store.path)]))
        self._answer(m.encode(m.STORE, parts=[store.identity, b""]))

    def take(self, piece: m.MessagePiece) -> None:
        if self._store is not None and (problem := self._store.take(piece)) is not None:
            self._answer(m.encode(m.KEPT, piece.id, parts=[problem.encode()]))

    def drop(self, number: int) -> None:
        if self._store is not None:
            self._store.drop(number)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
