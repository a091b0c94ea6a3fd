"""What a `Bidder` asks for: its events.  docs/placement.md."""

from __future__ import annotations


class Event:
    """About one announcement."""

    __slots__ = ("identity",)

    def __init__(self, identity: bytes) -> None:
        self.identity = identity


class Connect(Event):
    """Connect to the client, or ask it to go on if it is a lease; answer with `reserved`, `withdrawn` or `failed`."""

    __slots__ = ()


class Queued(Event):
    """Tell the client that it is known here and has to wait."""

    __slots__ = ()


class Forget(Event):
    """This announcement is of no more interest: drop what is kept for it, a connection under way too.

    `over`: its job is taken or it was given up, so that copies that still come are to be ignored for a while; else it
    has only not been heard for long, and a copy is as good as new.
    """

    __slots__ = ("over",)

    def __init__(self, identity: bytes, *, over: bool) -> None:
        super().__init__(identity)
        self.over = over


class Penalized:
    """From now on this worker bids `seconds` late, for `reason`."""

    __slots__ = ("reason", "seconds")

    def __init__(self, seconds: float, reason: str) -> None:
        self.seconds = seconds
        self.reason = reason


class Recovered:
    """A job succeeded: this worker bids in time again."""

    __slots__ = ()
