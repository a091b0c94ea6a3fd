"""Decides which workers a client trusts: those that are not in the list of revoked certificates.

Contract: `Trust.check` judges a worker that offers itself, `check_list` says if there can be any.  A `RevocationWatch`
goes on while a job runs: `look(now)`, called at `next_timeout`, raises `RevokedError` once the worker's certificate has
been revoked, so that the client hangs up; a list that is missing for a moment ends no job.  docs/protocol.md
section 1.6.
"""

from __future__ import annotations

from time import monotonic

from cexec.errors import NoWorkerError, RevokedError
from cexec.system.storage.revocations import Revocations, list_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.base.keys import ClientKey

WATCH_INTERVAL = 5.0  # seconds (ours) between two looks at the list while a job runs


class Trust:
    """The verdicts for one application."""

    def __init__(self, key: ClientKey, key_path: str, *, required: bool) -> None:
        """`required`: no worker is trusted until there is a list."""
        self._fingerprint = key.fingerprint
        self._revocations = Revocations(list_path(key_path), key.authority_public, required=required)

    def check_list(self) -> None:
        """Raises `NoWorkerError` if no worker can be trusted now, whoever it is."""
        self._revocations.refresh(monotonic())
        if self._revocations.problem:
            raise NoWorkerError(f"no worker of {self._fingerprint} is trusted: {self._revocations.problem}")

    def check(self, certificate: Certificate) -> None:
        """Raises `CertificateError` unless the worker is to be trusted."""
        self._revocations.refresh(monotonic())
        self._revocations.check(certificate)

    def watch(self, certificate: Certificate) -> RevocationWatch:
        """Returns the watch over a worker that has been given a job."""
        return RevocationWatch(self._revocations, certificate)


class RevocationWatch:
    """Looks at the list now and then."""

    __slots__ = ("_certificate", "_next", "_revocations")

    def __init__(self, revocations: Revocations, certificate: Certificate) -> None:
        self._revocations = revocations
        self._certificate = certificate
        self._next = monotonic() + WATCH_INTERVAL

    def next_timeout(self) -> float:
        return self._next

    def look(self, now: float) -> None:
        """Raises `RevokedError` if the worker has been revoked."""
        if now < self._next:
            return
        self._next = now + WATCH_INTERVAL
        self._revocations.refresh(now)
        if self._revocations.revoked(self._certificate):
            who = f"{self._certificate.name} (serial {self._certificate.serial})"
            raise RevokedError(f"certificate of {who} has been revoked")
