"""Descriptors of the two processes: whole messages are read and written, and waited for.

Contract: `MessageReader.next` waits for a message and returns None at the end; `write_all` waits until everything is
written (`OSError` if nobody reads any more).  Large parts are read into their place.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from cexec.errors import ProtocolError
from cexec.pool.call_messages import SMALL, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.pool.call_messages import Buffer, CallMessage

MOST_BUFFERS = 512  # (ours) of one call of writev, which takes 1024 on Linux


class MessageReader:
    """The messages that come through one descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = Decoder()
        self._messages: deque[CallMessage] = deque()

    def next(self) -> CallMessage | None:
        while not self._messages:
            room = self._decoder.room()
            if room is not None:
                count = os.readv(self._fd, [room])
                self._messages += self._decoder.filled(count)
            else:
                data = os.read(self._fd, SMALL)
                count = len(data)
                self._messages += self._decoder.feed(data)
            if not count:
                if not self._decoder.idle:
                    raise ProtocolError("the messages end in the middle of one")
                return None
        return self._messages.popleft()


def write_all(fd: int, buffers: Sequence[Buffer]) -> None:
    views = deque(memoryview(one) for one in buffers)
    while views:
        written = os.writev(fd, [*views] if len(views) <= MOST_BUFFERS else [views[n] for n in range(MOST_BUFFERS)])
        while views and written >= len(views[0]):
            written -= len(views.popleft())
        if written:
            views[0] = views[0][written:]
