"""The keys that cservice serves, and whom it serves with them, as the command line says it.

Contract: `served_keys` reads key files and the list of revoked certificates beside each.  It raises `KeyFileError`,
`CertificateError` (the worker's own certificate is not valid) or `UsageError`.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.errors import CertificateError, UsageError
from cexec.protocol.base.certificate import valid_name
from cexec.protocol.base.keys import OwnerKey, WorkerKey
from cexec.protocol.base.limits import MAXIMUM_NAME
from cexec.system.storage.keyfile import find_key, open_key, read_key
from cexec.system.storage.revocations import Revocations
from cexec.system.storage.user_files import list_path
from cexec.worker.discovery.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class ServedKey:
    """One application's key for a worker, and the clients that it admits."""

    key: WorkerKey
    admission: Admission


@dataclass(slots=True)
class OpenedKey:
    """A key file that was opened and not read yet: the process may become another user first."""

    path: str
    descriptor: int


def open_keys(apps: Sequence[str]) -> list[OpenedKey]:
    """Opens these key files."""
    paths = [find_key(app) for app in apps]
    return [OpenedKey(path, open_key(path)) for path in paths]


def served_keys(
    opened: Sequence[OpenedKey], name: str | None, patterns: Sequence[str], *, require_revoked: bool
) -> list[ServedKey]:
    """Returns what is served with these key files; `name` is that of a worker whose key is the private one."""
    apps = [one.path for one in opened]
    # CEXEC_REVOKED can name the list of one application only: those of the others are beside their keys.
    lists = [list_path(app, {} if index else os.environ) for index, app in enumerate(apps)]
    served = [_served_key(one, name, patterns, path, require_revoked) for one, path in zip(opened, lists, strict=True)]
    for app, one in zip(apps[1:], served[1:], strict=True):
        if [other.key.fingerprint for other in served].count(one.key.fingerprint) > 1:
            raise UsageError(f"--also {app}: its key {one.key.fingerprint} is served already")
    return served


def _served_key(
    opened: OpenedKey, name: str | None, patterns: Sequence[str], revoked: str | None, require_revoked: bool
) -> ServedKey:
    app = opened.path
    key = _worker_key(opened, name)
    revocations = Revocations(revoked, key.authority_public, required=require_revoked)
    if revocations.revoked(key.identity.certificate):
        raise CertificateError(f"{app}: this worker's own certificate is revoked; ask its owner for a new one")
    return ServedKey(key, Admission(patterns, revocations))


def _worker_key(opened: OpenedKey, name: str | None) -> WorkerKey:
    app = opened.path
    needed = "cservice needs the private key that ckeygen made, APP, or an APP.worker"
    key = read_key(app, (OwnerKey, WorkerKey), needed, descriptor=opened.descriptor)
    if isinstance(key, WorkerKey):
        try:
            key.identity.certificate.check_dates(time.time())
        except CertificateError as error:
            raise CertificateError(f"{app}: {error}; ask its owner for a new one, or set the clock") from None
        return key
    assert isinstance(key, OwnerKey)  # read_key gives nothing else
    if name is not None and not valid_name(name):
        raise UsageError(f"--name {name!r}: up to {MAXIMUM_NAME} letters, digits, dots, - and _")
    return key.worker_key(name or _host_name())


def _host_name() -> str:
    """This host's name, as far as a certificate can say it."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())
    return plain[:MAXIMUM_NAME] or "worker"
