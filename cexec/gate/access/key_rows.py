"""Tokens, sessions and login codes in the state file.

Contract: every function takes a connection of `store.database` and the time (seconds since 1970); those that change
something run in one transaction.  A key is valid from when it was made until it ends or is revoked; nothing is kept in
memory, so a change by another process counts from the next request on.  What is returned never has a secret, except
from the functions that have just made it.  A found key's digest is compared in constant time; that the index is
searched by digest tells an observer nothing, because nobody can choose a digest.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest

from cexec.errors import UsageError
from cexec.gate.access.caller import Caller, TokenRole
from cexec.gate.access.names import SESSION_NAME
from cexec.gate.access.secret import Kind, Secret, new_secret

KEPT = 30 * 86400.0  # seconds (ours) for which an ended token is still listed
_COLUMNS = "id, kind, name, digest, role, apps, made, ends, revoked"
_VALID = "revoked IS NULL AND (ends IS NULL OR ends > ?)"


@dataclass(frozen=True, slots=True)
class Key:
    """One row.  `ends`, `revoked`: None for never."""

    id: int
    kind: Kind
    name: str
    digest: bytes
    role: TokenRole
    applications: frozenset[str] | None
    made: float
    ends: float | None
    revoked: float | None

    def valid(self, now: float) -> bool:
        return self.revoked is None and (self.ends is None or now < self.ends)

    def identity(self, most_jobs: int) -> Caller:
        return Caller(self.name, self.role, self.applications, self.id, most_jobs)


def add_token(
    connection: sqlite3.Connection,
    name: str,
    role: TokenRole,
    applications: frozenset[str] | None,
    now: float,
    ends: float | None = None,
) -> Secret:
    """Returns the new token with its text.  `UsageError` if a token of that name is valid."""
    of_name = "kind = 'token' AND name = ? AND revoked IS NULL"
    row = connection.execute(f"SELECT ends FROM access_key WHERE {of_name}", [name]).fetchone()
    if row is not None:
        if row[0] is None or row[0] > now:
            raise UsageError(f"there is a token {name}: revoke it first (cgate token revoke {name})")
        connection.execute(f"UPDATE access_key SET revoked = ends WHERE {of_name}", [name])
    return _add(connection, Kind.TOKEN, name, role, applications, now, ends)


def add_login(
    connection: sqlite3.Connection, role: TokenRole, applications: frozenset[str] | None, now: float, ends: float
) -> Secret:
    """Returns the code of a one-time URL, with its text."""
    return _add(connection, Kind.LOGIN, SESSION_NAME, role, applications, now, ends)


def swap_login(connection: sqlite3.Connection, code: Secret, now: float, ends: float) -> Secret | None:
    """Returns a new session for the code, which is gone then; None if there is no such code, or no longer."""
    found = find_key(connection, code, now) if code.kind is Kind.LOGIN else None
    if found is None:
        return None
    connection.execute("DELETE FROM access_key WHERE id = ?", [found.id])
    return _add(connection, Kind.SESSION, SESSION_NAME, found.role, found.applications, now, ends)


def find_key(connection: sqlite3.Connection, secret: Secret, now: float) -> Key | None:
    """Returns the valid key of this secret."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM access_key WHERE digest = ?", [secret.digest]).fetchone()
    key = None if row is None else _key(row)
    if key is None or not compare_digest(key.digest, secret.digest):
        return None
    return key if key.kind is secret.kind and key.valid(now) else None


def find_named_token(connection: sqlite3.Connection, name: str, now: float) -> Key | None:
    """Returns the valid token of this name."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM access_key WHERE kind = 'token' AND name = ? AND {_VALID}", [name, now]
    ).fetchone()
    return None if row is None else _key(row)


def list_keys(connection: sqlite3.Connection, kinds: Iterable[Kind] = (Kind.TOKEN, Kind.SESSION)) -> list[Key]:
    """Returns the keys of these kinds, also those that are not valid any more."""
    wanted = set(kinds)
    rows = connection.execute(f"SELECT {_COLUMNS} FROM access_key ORDER BY name, id")
    return [key for key in map(_key, rows) if key.kind in wanted]


def revoke_keys(connection: sqlite3.Connection, who: str, now: float) -> list[Key]:
    """Revokes all valid tokens and sessions called `who`, or the one with that number (`#12`); returns them."""
    found = [key for key in list_keys(connection) if key.valid(now) and who in (key.name, f"#{key.id}")]
    for key in found:
        connection.execute("UPDATE access_key SET revoked = ? WHERE id = ?", [now, key.id])
    return found


def ended_keys(connection: sqlite3.Connection, ids: Iterable[int], now: float) -> set[int]:
    """Returns which of the keys with these ids are not valid any more."""
    left = set(ids)
    if left:
        valid = connection.execute(f"SELECT id FROM access_key WHERE {_VALID}", [now])
        left.difference_update(row[0] for row in valid)
    return left


def has_token(connection: sqlite3.Connection, now: float) -> bool:
    """Returns True if somebody can come in by a token."""
    valid = connection.execute(f"SELECT 1 FROM access_key WHERE kind = 'token' AND {_VALID} LIMIT 1", [now])
    return valid.fetchone() is not None


def forget_old_keys(connection: sqlite3.Connection, now: float) -> None:
    """Removes codes and sessions that have ended, and tokens that ended long ago."""
    connection.execute("DELETE FROM access_key WHERE kind != 'token' AND (ends <= ? OR revoked IS NOT NULL)", [now])
    connection.execute(
        "DELETE FROM access_key WHERE kind = 'token' AND (ends <= ? OR revoked <= ?)", [now - KEPT, now - KEPT]
    )


def set_site(connection: sqlite3.Connection, url: str) -> None:
    """Remembers the address of the cgate that serves."""
    connection.execute("INSERT OR REPLACE INTO access_site VALUES (1, ?)", [url])


def find_site(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT url FROM access_site").fetchone()
    return None if row is None else str(row[0])


def _add(
    connection: sqlite3.Connection,
    kind: Kind,
    name: str,
    role: TokenRole,
    applications: frozenset[str] | None,
    now: float,
    ends: float | None,
) -> Secret:
    secret = new_secret(kind)
    apps = None if applications is None else json.dumps(sorted(applications))
    connection.execute(
        "INSERT INTO access_key (kind, name, digest, role, apps, made, ends) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [kind.value, name, secret.digest, role.name.lower(), apps, now, ends],
    )
    return secret


def _key(row: tuple[int, str, str, bytes, str, str | None, float, float | None, float | None]) -> Key:
    number, kind, name, digest, role, apps, made, ends, revoked = row
    applications = None if apps is None else frozenset(json.loads(apps))
    return Key(number, Kind(kind), name, digest, TokenRole[role.upper()], applications, made, ends, revoked)
