"""What commands have changed of tokens while `cgate` serves, for the audit.

Contract: `look(keys)` takes all keys of the state file and returns words about each token and login code that is new,
and each token and session that was revoked, since the last look.  The first look is made by the constructor.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from cexec.gate.access.key_rows import Key
from cexec.gate.access.secret import Kind

_MADE = {Kind.TOKEN: "token add", Kind.LOGIN: "login"}


class KeyChanges:
    """`keys`: those that are there at the start."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._revoked = {key.id: key.revoked is not None for key in keys}

    def look(self, keys: Iterable[Key]) -> list[tuple[str, str]]:
        """Returns what was done, and of which key."""
        found = []
        for key in keys:
            apps = "all applications" if key.applications is None else ", ".join(sorted(key.applications))
            about = f"{key.kind} #{key.id} is a {key.role.name.lower()} of {apps}"
            before = self._revoked.get(key.id)
            if before is None and key.kind in _MADE:
                found.append((f"{_MADE[key.kind]} {key.name}", about))
            if key.revoked is not None and not before:
                found.append((f"token revoke {key.name}", about))
            self._revoked[key.id] = key.revoked is not None
        return found
