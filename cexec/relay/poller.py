"""What a relay's loop waits for, kept between two waits, because connections are many and change little.

Contract: `watch` sets what to wait for on a descriptor and whose it is, `forget` ends that, before the
next `wait` where the descriptor has been closed.
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
        """With a mask of 0 only for being hung up."""
        self._owners[fd] = owner
        if self._masks.get(fd) != mask:
            self._masks[fd] = mask
            self._poll.register(fd, mask)

    def forget(self, fd: int, owner: object) -> None:
        """Nothing happens where it is not watched, or is somebody else's meanwhile."""
        if self._owners.get(fd) is owner:
            del self._owners[fd], self._masks[fd]
            self._poll.unregister(fd)

    def wait(self, until: float) -> tuple[dict[int, int], list[object]]:
        """What has happened by descriptor, and to whom; nothing when the time `until` has come."""
        seconds = max(0.0, until - monotonic())
        events = dict(self._poll.poll(poll_timeout(seconds)))
        return events, list({id(owner): owner for owner in map(self._owners.__getitem__, events)}.values())
