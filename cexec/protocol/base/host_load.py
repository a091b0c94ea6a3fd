"""The load of a host, on which its bids depend.  docs/placement.md."""

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
