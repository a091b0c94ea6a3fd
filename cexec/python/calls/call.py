"""One call of an `Executor`: what is sent of it, who waits for it, and what has become of it.

Contract: made in the thread that submits, which also pickles, so that what is wrong with an argument is found there.
From then on it belongs to the pool's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.pool.call_messages import Part


class SentFunction:
    """A function in the form in which workers get it, each once."""

    __slots__ = ("id", "name", "parts", "users")

    def __init__(self, id: int, name: str, parts: list[Part]) -> None:
        self.id = id
        self.name = name
        self.parts = parts
        self.users = 0  # calls and maps that still need it


class Call:
    """`kind`, `function` and `parts` make its message; `size` is that of the parts in bytes.

    `settle` is given its outcome: (True, result) or (False, exception).
    """

    __slots__ = ("crashes", "dropped", "function", "kind", "parts", "settle", "size", "slot", "wire_id")

    def __init__(
        self, kind: int, function: SentFunction, parts: list[Part], size: int, settle: Callable[[bool, Any], None]
    ) -> None:
        self.kind = kind
        self.function = function
        self.parts = parts
        self.size = size
        self.settle = settle
        self.slot: object = None  # that has it now
        self.wire_id = 0  # its number there; another one each time that it is sent
        self.crashes: list[tuple[str, str]] = []  # the ends of processes in which it ran: worker, and reason in words
        self.dropped = False  # nobody wants its outcome
