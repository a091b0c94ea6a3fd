"""Describes the worker that a host gets: its command line, its environment and the key that is issued for it.

Contract: `Service` is the same for all hosts.  `wanted(host, how)` is the record that a host's worker should have; the
worker there is left alone if it has the same.  `start_request` issues a key of the worker's own (`ckeygen --worker`)
unless the host has one that is valid; the owner's key never leaves this machine.  The request's members: record (app,
fingerprint, options, program, packages, environment, how, name, serial, not_after, release), key and revoked (base64 or
None), state and cache (names of files that cservice will write), grace (seconds).
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cexec.authority.issue import current_list, issue
from cexec.authority.make import read_owner
from cexec.boot.hosts import Host
from cexec.protocol.base.certificate import ROLE_WORKER, valid_name
from cexec.protocol.base.keys import ClientKey, OwnerKey
from cexec.protocol.base.limits import MAXIMUM_NAME
from cexec.system.host.load import SPEED_FILE
from cexec.system.storage.keyfile import find_key
from cexec.system.storage.series import series_name
from cexec.system.storage.user_files import SUFFIX as LIST_SUFFIX
from cexec.system.storage.user_files import memory_name

PASSED_ON = ("CEXEC_GROUP", "GROUP", "CEXEC_UDP_PORT")  # a worker has to listen where the clients announce
UNIT, DETACHED = "unit", "detached"
KEPT_FOR = 86_400  # seconds (ours): a key that ends earlier is replaced by a new one
_COMPARED = ("app", "fingerprint", "options", "program", "packages", "environment", "how")
_PERSISTENT, _EPHEMERAL = "-", "+"  # between fingerprint and name of a worker's directory
_DIRECTORY = re.compile(r"[0-9a-f]{4}-[0-9a-f]{4}[-+](.+)")


@dataclass(slots=True)
class Application:
    """The owner's key, here."""

    path: str
    name: str
    owner: OwnerKey
    client: ClientKey
    fingerprint: str

    @classmethod
    def find(cls, app: str) -> Application:
        path = find_key(app)
        owner = read_owner(path, "cboot issues a key for each worker with the private key, APP")
        base = os.path.basename(path)
        name = "".join(letter if valid_name(letter) else "-" for letter in base)[:MAXIMUM_NAME]
        return cls(path, name, owner, owner.client_key(), owner.fingerprint)


@dataclass(slots=True)
class Service:
    """`options` and `program`: the words of cservice before and after its key.  `days`: of new keys, None: no end.

    `packages`: what the worker's Python has besides cexec.
    """

    application: Application
    options: Sequence[str]
    program: Sequence[str]
    days: int | None = None
    grace: float = 10.0
    ephemeral: bool = False
    packages: Sequence[str] = ()

    def wanted(self, host: Host, how: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """Returns what the record of the host's worker should have."""
        slots = [] if host.slots is None else ["-j", str(host.slots)]
        return {
            "app": self.application.name,
            "fingerprint": self.application.fingerprint,
            "options": [*self.options, *slots],
            "program": list(self.program),
            "packages": list(self.packages),
            "environment": {name: environ[name] for name in PASSED_ON if environ.get(name)},
            "how": how,
        }

    def start_request(
        self, host: Host, wanted: dict[str, Any], before: dict[str, Any], release: str, scratch: Path
    ) -> dict[str, Any]:
        """Returns the request that starts the worker; `before` is the record that it has, or nothing."""
        key = None
        serial, not_after = before.get("serial", 0), before.get("not_after")
        if not self._is_valid(before):
            key, serial, not_after = self._new_key(host, scratch)
        listed = current_list(self.application.path, self.application.owner)
        text = None if listed is None else Path(self.application.path + LIST_SUFFIX).read_bytes()
        authority = self.application.owner.authority_public
        return {
            "do": "start",
            "worker": directory_name(self.application.fingerprint, host, ephemeral=self.ephemeral),
            "record": {**wanted, "name": host.name, "serial": serial, "not_after": not_after, "release": release},
            "key": None if key is None else base64.b64encode(key).decode(),
            "revoked": None if text is None else base64.b64encode(text).decode(),
            "state": [series_name(self.application.fingerprint, host.name), memory_name(authority)],
            "cache": [SPEED_FILE],
            "grace": self.grace,
        }

    def _is_valid(self, before: dict[str, Any]) -> bool:
        end = before.get("not_after")
        same = before.get("fingerprint") == self.application.fingerprint and before.get("app") == self.application.name
        return same and bool(before.get("serial")) and (end is None or end > time.time() + KEPT_FOR)

    def _new_key(self, host: Host, scratch: Path) -> tuple[bytes, int, int | None]:
        path = scratch / f"{host.name}.worker"
        certificate = issue(self.application.path, str(path), ROLE_WORKER, host.name, self.days).identity.certificate
        try:
            return path.read_bytes(), certificate.serial, certificate.not_after
        finally:
            path.unlink()


def is_same(record: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Returns True if a worker with this record does what is wanted."""
    return all(record.get(name) == wanted[name] for name in _COMPARED)


def directory_name(fingerprint: str, host: Host, *, ephemeral: bool) -> str:
    """Returns the name of the worker's directory on the host."""
    return f"{fingerprint}{_EPHEMERAL if ephemeral else _PERSISTENT}{host.name}"


def is_of(directory: str, name: str) -> bool:
    """Returns True if the directory is that of a worker of the host with this name, whatever the application is."""
    match = _DIRECTORY.fullmatch(directory)
    return match is not None and match[1] == name
