"""The events of a `Bidder`, and the outcomes that it is told.  docs/placement.md."""

from __future__ import annotations

import enum


class Outcome(enum.Enum):
    """Says how a job of this worker ended, as far as that tells something of the worker."""

    SUCCEEDED = enum.auto()
    FAILED = enum.auto()  # the program's status was not 0
    REFUSED = enum.auto()  # this worker could not start it, another one may
    UNFIT = enum.auto()  # no worker would start it
    BROKEN = enum.auto()  # it has no exit status: its client was lost, or the process that ran it


class BidEvent:
    """About one announcement."""

    __slots__ = ("identity",)

    def __init__(self, identity: bytes) -> None:
        self.identity = identity


class Connect(BidEvent):
    """Connect to the client, or ask it to go on if it is a lease; answer with `reserved`, `withdrawn` or `failed`."""

    __slots__ = ()


class Withdraw(BidEvent):
    """Take a reserved slot back if its client has given no job yet; answer with `released`, or with `started`."""

    __slots__ = ()


class Wanted(BidEvent):
    """Tell the client of a job that runs that another one waits for its slot; the client has asked for that."""

    __slots__ = ()


class Queued(BidEvent):
    """Tell the client that it is known here and has to wait."""

    __slots__ = ()


class Prove(BidEvent):
    """Ask the client to prove that it receives where its announcement seems to come from."""

    __slots__ = ()


class Forget(BidEvent):
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
