"""The workers that a coordinator has met, and which of them it still counts on.

Contract: a worker is one running cservice, known by its instance; `join` is told each time that one offers itself,
`leased` and `parted` as leases begin and end.  One that has none and was not met for `FORGET_AFTER` is `forgotten`:
it may have gone, and no task must wait for it.  That it can run none of the tasks (`unfit`) is never forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.protocol.datagrams.hello import Hello

FORGET_AFTER = 5.0  # seconds (ours)


class KnownWorker:
    """`leases`: connections that we have with it; `met`: when it was seen last; `fits`: it can run our tasks."""

    __slots__ = ("address", "fits", "instance", "key", "leases", "met", "name", "slots")

    def __init__(self, hello: Hello, address: str) -> None:
        self.key = hello.instance.hex()
        self.instance = hello.instance
        self.name = f"{hello.name}@{address}"
        self.address = address
        self.slots = hello.slots
        self.leases = 0
        self.met = 0.0
        self.fits = True


class KnownWorkers:
    """By instance."""

    def __init__(self) -> None:
        self._workers: dict[str, KnownWorker] = {}
        self._unfit: dict[str, str] = {}  # and why, in words
        self._unfit_since = 0.0  # nobody has been there but these
        self.any_met = False

    def meet(self, hello: Hello, address: str, now: float) -> tuple[KnownWorker, bool]:
        """The worker that offers itself, and whether it was unknown."""
        self.any_met = True
        key = hello.instance.hex()
        unknown = key not in self._workers
        if unknown:
            self._workers[key] = KnownWorker(hello, address)
            self._workers[key].fits = key not in self._unfit
        worker = self._workers[key]
        worker.met = now
        return worker, unknown

    def lost(self, worker: KnownWorker) -> bool:
        """Whether it was known until now."""
        return self._workers.pop(worker.key, None) is not None

    def unfit(self, worker: KnownWorker, reason: str, now: float) -> bool:
        """It says that it can run none of the tasks; whether that is new."""
        if not self._unfit:
            self._unfit_since = now
        new = worker.key not in self._unfit
        self._unfit[worker.key] = f"{worker.name}: {reason}"
        worker.fits = False
        return new

    def none_fits(self, patience: float, now: float) -> str:
        """Why, if for so many seconds there have been only workers that are unfit; else nothing."""
        if any(worker.fits for worker in self._workers.values()):
            self._unfit_since = now
            return ""
        if not self._unfit or now < self._unfit_since + patience:
            return ""
        return "; ".join(self._unfit.values())

    def forgotten(self, now: float) -> list[KnownWorker]:
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
