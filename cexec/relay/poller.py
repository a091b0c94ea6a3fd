"""The descriptors that a relay's loop waits for.  They are kept between two waits: they are many and change little.

Contract: `watch` sets the events of a descriptor and its owner, `forget` removes both.  A descriptor that was closed
must be forgotten before the next `wait`.
"""

from __future__ import annotations

import select
from time import monotonic

from cexec.system.io.wakeup import poll_timeout


class Poller:
    """Descriptors, what to wait for on each, and their owners."""

    __slots__ = ("_masks", "_owners", "_poll")

    def __init__(self) -> None:
        self._poll = select.poll()
        self._masks: dict[int, int] = {}
        self._owners: dict[int, object] = {}

    def watch(self, fd: int, mask: int, owner: object) -> None:
        """Waits for these events; a mask of 0 waits for a hang-up only."""
        self._owners[fd] = owner
        if self._masks.get(fd) != mask:
            self._masks[fd] = mask
            self._poll.register(fd, mask)

    def forget(self, fd: int, owner: object) -> None:
        """Does nothing if the descriptor is not watched, or has another owner by now."""
        if self._owners.get(fd) is owner:
            del self._owners[fd], self._masks[fd]
            self._poll.unregister(fd)

    def wait(self, until: float) -> tuple[dict[int, int], list[object]]:
        """Returns the events by descriptor, and the owners; both are empty if the time `until` has come."""
        seconds = max(0.0, until - monotonic())
        events = dict(self._poll.poll(poll_timeout(seconds)))
        return events, list({id(owner): owner for owner in map(self._owners.__getitem__, events)}.values())
