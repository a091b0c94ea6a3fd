"""The proofs that workers have asked this client for, until it has returned them.

Contract: `asked` takes what a worker's answer carries; `take` returns the proofs that are to be sent now, at most so
many as one datagram holds, and is due at `due`.  Nobody acknowledges a proof, so `again`, called with each
announcement, makes those due once more that may have been lost; `settled` ends that, because the worker has believed
one.  Pure.  docs/protocol.md section 2.8.
"""

from __future__ import annotations

from cexec.protocol.datagrams.proof import MAXIMUM_PROOFS, PROOF_SIZE

INTERVAL = 0.02  # seconds (ours) between two datagrams: many workers that ask at the same time get one
TIMES = 3  # (ours) that a proof is sent
MAXIMUM_ASKING = 10_000  # workers (ours)
NEVER = float("inf")


class Proofs:
    """By the instance of the worker that has asked."""

    __slots__ = ("_again", "_next", "_now", "due")

    def __init__(self) -> None:
        self.due = NEVER
        self._now: dict[bytes, bytes] = {}
        self._again: dict[bytes, tuple[bytes, int]] = {}  # with the number of times that are left
        self._next = 0.0

    def asked(self, instance: bytes, proof: bytes, now: float) -> None:
        """Takes the proof that a worker has asked for; one of another size is of another version, and ignored."""
        if len(proof) == PROOF_SIZE and len(self._now) < MAXIMUM_ASKING:
            self._now[instance] = proof
            self._again[instance] = proof, TIMES
            self.due = min(self.due, max(now, self._next))

    def settled(self, instance: bytes) -> None:
        """Notes that a worker knows where this client receives."""
        self._again.pop(instance, None)

    def again(self, now: float) -> None:
        """Makes the proofs due that may have been lost."""
        for instance, (proof, _) in self._again.items():
            self._now[instance] = proof
        if self._now:
            self.due = min(self.due, max(now, self._next))

    def take(self, now: float) -> list[bytes]:
        """Returns the proofs to be sent now."""
        if now < self.due:
            return []
        self._next = now + INTERVAL
        taken = list(self._now)[:MAXIMUM_PROOFS]
        proofs = [self._now.pop(instance) for instance in taken]
        for instance in taken:
            proof, left = self._again.pop(instance, (b"", 0))
            if left > 1:
                self._again[instance] = proof, left - 1
        self.due = self._next if self._now else NEVER
        return proofs
