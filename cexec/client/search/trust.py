"""Decides which workers a client trusts: those that are not in the list of revoked certificates.

Contract: `Trust.check` judges a worker that offers itself, `check_list` says if there can be any.  A `RevocationWatch`
goes on while a job runs: `look(now)`, called at `next_timeout`, raises `RevokedError` once the worker's certificate has
been revoked, so that the client hangs up; a list that is missing for a moment ends no job.  What reads a list is loaded
with the first one that may be there: most clients have none.  docs/protocol.md section 1.6.
"""

from __future__ import annotations

from time import monotonic

from cexec.common_errors import NoWorkerError
from cexec.system.storage.user_files import list_path, never_seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.base.keys import ClientKey
    from cexec.system.storage.revocations import Revocations

WATCH_INTERVAL = 5.0  # seconds (ours) between two looks at the list while a job runs
LOOK_INTERVAL = 2.0  # seconds (ours) between two looks for a first list, as between two looks at a list


class Trust:
    """The verdicts for one application."""

    def __init__(self, key: ClientKey, key_path: str, *, required: bool) -> None:
        """`required`: no worker is trusted until there is a list."""
        self._fingerprint = key.fingerprint
        self._authority = key.authority_public
        self._path = list_path(key_path)
        self._required = required
        self._revocations: Revocations | None = None  # from the first list on that may be there
        self._next_look = 0.0

    def check_list(self) -> None:
        """Raises `NoWorkerError` if no worker can be trusted now, whoever it is."""
        found = self.found(monotonic())
        if found is not None and found.problem:
            raise NoWorkerError(f"no worker of {self._fingerprint} is trusted: {found.problem}")

    def check(self, certificate: Certificate) -> None:
        """Raises `CertificateError` unless the worker is to be trusted."""
        found = self.found(monotonic())
        if found is not None:
            found.check(certificate)

    def watch(self, certificate: Certificate) -> RevocationWatch:
        """Returns the watch over a worker that has been given a job."""
        return RevocationWatch(self.found, certificate)

    def found(self, now: float) -> Revocations | None:
        """Returns the verdicts of the list as it is now; None while no list was ever there and none is required."""
        if self._revocations is not None:
            self._revocations.refresh(now)
        elif now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL
            if self._required or not never_seen(self._path, self._authority):
                from cexec.system.storage.revocations import Revocations

                self._revocations = Revocations(self._path, self._authority, required=self._required)
        return self._revocations


class RevocationWatch:
    """Looks at the list now and then."""

    __slots__ = ("_certificate", "_find", "_next")

    def __init__(self, find: Callable[[float], Revocations | None], certificate: Certificate) -> None:
        """`find` returns the verdicts at a time, as `Trust.found` does."""
        self._find = find
        self._certificate = certificate
        self._next = monotonic() + WATCH_INTERVAL

    def next_timeout(self) -> float:
        return self._next

    def look(self, now: float) -> None:
        """Raises `RevokedError` if the worker has been revoked."""
        if now < self._next:
            return
        self._next = now + WATCH_INTERVAL
        found = self._find(now)
        if found is not None and found.revoked(self._certificate):
            from cexec.errors import RevokedError

            who = f"{self._certificate.name} (serial {self._certificate.serial})"
            raise RevokedError(f"certificate of {who} has been revoked")
