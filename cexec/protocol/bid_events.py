"""What goes into a bid, `Load`, and what a `Bidder` asks for, its events.  docs/placement.md."""

from __future__ import annotations

HIGHEST_LOAD = 5.0  # (ours) loads above this are all the same


class Load:
    """One sample of how busy this host is; `external` replaces the measured figures."""

    __slots__ = ("cpu", "external", "memory_pressure", "run_queue")

    def __init__(
        self, cpu: float = 0.0, run_queue: float = 0.0, memory_pressure: float = 0.0, external: float | None = None
    ) -> None:
        self.cpu = cpu  # 0 to 1: use of all CPUs together
        self.run_queue = run_queue  # tasks that run or want to, per core
        self.memory_pressure = memory_pressure  # 0 to 1
        self.external = external  # 0 idle, 1 full, more is allowed

    @property
    def level(self) -> float:
        """0 idle, 1 full, at most HIGHEST_LOAD."""
        measured = max(self.cpu, self.run_queue) + self.memory_pressure
        return max(0.0, min(measured if self.external is None else self.external, HIGHEST_LOAD))


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
