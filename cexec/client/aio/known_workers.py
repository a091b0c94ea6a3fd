"""The workers that a program has met, and those of them that it still counts on.

Contract: a worker is one running cservice, known by its instance; `meet` is told each time that one offers itself.  A
worker without leases that was not met for `FORGET_AFTER` is `forgotten`: it may have gone, and no job must wait for
it.  A worker that can run none of the jobs (`unfit`) stays known as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.protocol.datagrams.hello import Hello

FORGET_AFTER = 5.0  # seconds (ours)


class KnownWorker:
    """`leases`: connections that we have with it; `met`: when it was seen last; `fits`: it can run our jobs.

    `once`: a job that it may have started must never be repeated.
    """

    __slots__ = ("address", "fits", "instance", "key", "leases", "met", "name", "once", "slots")

    def __init__(self, hello: Hello, address: str) -> None:
        self.key = hello.instance.hex()
        self.instance = hello.instance
        self.name = f"{hello.name}@{address}"
        self.address = address
        self.slots = hello.slots
        self.once = hello.once
        self.leases = 0
        self.met = 0.0
        self.fits = True


class KnownWorkers:
    """All workers that were met, by instance."""

    def __init__(self) -> None:
        self._workers: dict[str, KnownWorker] = {}
        self._unfit: dict[str, str] = {}  # with the reason, in words
        self._unfit_since = 0.0  # since then there have been no other workers
        self.any_met = False

    def meet(self, hello: Hello, address: str, now: float) -> tuple[KnownWorker, bool]:
        """Returns the worker that offers itself, and True if it was unknown."""
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
        """Forgets a worker; returns True if it was known until now."""
        return self._workers.pop(worker.key, None) is not None

    def unfit(self, worker: KnownWorker, reason: str, now: float) -> bool:
        """Notes that a worker can run none of the jobs; returns True if that is new."""
        if not self._unfit:
            self._unfit_since = now
        new = worker.key not in self._unfit
        self._unfit[worker.key] = f"{worker.name}: {reason}"
        worker.fits = False
        return new

    def none_fits(self, patience: float, now: float) -> str:
        """Returns the reasons if for so many seconds there have been only unfit workers; else an empty text."""
        if any(worker.fits for worker in self._workers.values()):
            self._unfit_since = now
            return ""
        if not self._unfit or now < self._unfit_since + patience:
            return ""
        return "; ".join(self._unfit.values())

    def wait_again(self, now: float) -> None:
        """Says that for a while nobody was asked, so that `none_fits` begins to count its time now."""
        self._unfit_since = now

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
        """Returns how many leases there are of all workers with one name."""
        leases: dict[str, int] = {}
        for worker in self._workers.values():
            leases[worker.name] = leases.get(worker.name, 0) + worker.leases
        return leases
