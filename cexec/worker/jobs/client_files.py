"""The bytes of files that the jobs of each client have on this machine's disk, as their processes report them.

Contract: `hold` notes what one process has, and returns False if its client has more than it may; `drop` forgets a
process, also one that has nothing.  A process reports in steps, so a client can have a little more than its limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class ClientFiles:
    """`most`: bytes of one client, 0 for any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Hashable, tuple[bytes, int]] = {}  # client and bytes, by process
        self._sums: dict[bytes, int] = {}  # by client

    def hold(self, process: Hashable, client: bytes, size: int) -> bool:
        """Returns True if the client may have so much together with its other processes."""
        self.drop(process)
        if not size:
            return True
        self._held[process] = (client, size)
        total = self._sums[client] = self._sums.get(client, 0) + size
        return not self._most or total <= self._most

    def drop(self, process: Hashable) -> None:
        client, size = self._held.pop(process, (b"", 0))
        if size:
            self._sums[client] -= size
            if not self._sums[client]:
                del self._sums[client]
