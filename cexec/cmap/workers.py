"""The workers that a coordinator has met, and which of them it still counts on.

Contract: a worker is one running cservice, known by its instance; `join` is told each time that one offers itself,
`leased` and `parted` as leases begin and end.  One that has none and was not met for `FORGET_AFTER` is `forgotten`:
it may have gone, and no task must wait for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.hello import Hello

FORGET_AFTER = 5.0  # seconds (ours)


class Worker:
    """`leases`: connections that we have with it; `met`: when it was seen last."""

    __slots__ = ("address", "instance", "key", "leases", "met", "name", "slots")

    def __init__(self, hello: Hello, address: str) -> None:
        self.key = hello.instance.hex()
        self.instance = hello.instance
        self.name = f"{hello.name}@{address}"
        self.address = address
        self.slots = hello.slots
        self.leases = 0
        self.met = 0.0


class Workers:
    """By instance."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self.any_met = False

    def meet(self, hello: Hello, address: str, now: float) -> tuple[Worker, bool]:
        """The worker that offers itself, and whether it was unknown."""
        self.any_met = True
        key = hello.instance.hex()
        unknown = key not in self._workers
        if unknown:
            self._workers[key] = Worker(hello, address)
        worker = self._workers[key]
        worker.met = now
        return worker, unknown

    def lost(self, worker: Worker) -> bool:
        """Whether it was known until now."""
        return self._workers.pop(worker.key, None) is not None

    def forgotten(self, now: float) -> list[Worker]:
        """Forgets those that may have gone."""
        gone = [w for w in self._workers.values() if not w.leases and now >= w.met + FORGET_AFTER]
        for worker in gone:
            del self._workers[worker.key]
        return gone

    @property
    def leases(self) -> int:
        return sum(worker.leases for worker in self._workers.values())

    def by_name(self) -> dict[str, int]:
        """Leases of all workers that are called so."""
        leases: dict[str, int] = {}
        for worker in self._workers.values():
            leases[worker.name] = leases.get(worker.name, 0) + worker.leases
        return leases
