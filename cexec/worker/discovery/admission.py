"""Which clients a worker serves: those whose certificate is valid, not revoked, and of a name that is wanted here.

Contract: `check` raises `CertificateError` with the reason for the client, for everything that begins: a job, a census.
`revoked` is for what runs already: it is true only if a list that can be trusted names the certificate, because a list
that is missing for a moment is no reason to end jobs.  docs/protocol.md sections 1.3 and 1.6.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from cexec.errors import CertificateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.protocol.base.certificate import Certificate
    from cexec.system.storage.revocations import Revocations


class Admission:
    """`patterns`: shell patterns of clients' names; all names are served if there are none."""

    def __init__(self, patterns: Sequence[str] = (), revocations: Revocations | None = None) -> None:
        self._patterns = patterns
        self._revocations = revocations

    @property
    def problem(self) -> str:
        """Why nobody at all is served, or ""."""
        return "" if self._revocations is None else self._revocations.problem

    @property
    def warning(self) -> str:
        """What the owner of this machine should know about the list, or ""."""
        return "" if self._revocations is None else self._revocations.warning

    def check(self, certificate: Certificate, wall_now: float) -> None:
        """Raises `CertificateError` unless its holder is served; `wall_now`: seconds since 1970."""
        certificate.check_dates(wall_now)
        if self._revocations is not None:
            self._revocations.check(certificate)
        if self._patterns and not any(fnmatchcase(certificate.name, pattern) for pattern in self._patterns):
            raise CertificateError(f"this worker does not serve the client {certificate.name}")

    def revoked(self, certificate: Certificate) -> bool:
        """Returns True if the latest list names it."""
        return self._revocations is not None and self._revocations.revoked(certificate)

    def refresh(self, now: float, *, at_once: bool = False) -> bool:
        """Looks for a new list if it is time, or `at_once`; returns True if the answers may be others now."""
        return self._revocations is not None and self._revocations.refresh(now, at_once=at_once)
