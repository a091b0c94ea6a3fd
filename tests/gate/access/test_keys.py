"""Tokens, sessions and codes in a state file."""

from __future__ import annotations

import hmac
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cexec.errors import CexecError, UsageError
from cexec.gate.access import key_rows
from cexec.gate.access.caller import TokenRole
from cexec.gate.access.secret import Kind, Secret, new_secret, parse_secret
from cexec.gate.store.database import Database

NOW = 1_000_000.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(str(tmp_path / "state"), sole=False)) as database:
        yield database


def add(database: Database, name: str = "ci", ends: float | None = None) -> Secret:
    return database.write_now(
        lambda connection: key_rows.add_token(connection, name, TokenRole.SUBMITTER, None, NOW, ends)
    )


def find(database: Database, secret: Secret, now: float = NOW) -> key_rows.Key | None:
    return database.read_now(lambda connection: key_rows.find_key(connection, secret, now))


def test_a_token_is_found_by_its_text_alone(database: Database) -> None:
    made = add(database)
    parsed = parse_secret(made.text)
    assert parsed is not None
    found = find(database, parsed)
    assert found is not None and (found.name, found.role, found.applications) == ("ci", TokenRole.SUBMITTER, None)
    assert find(database, new_secret(Kind.TOKEN)) is None
    assert find(database, Secret(Kind.SESSION, made.digest)) is None  # another kind


def test_the_state_has_no_secret_and_only_its_owner_reads_it(database: Database, tmp_path: Path) -> None:
    code = database.write_now(lambda connection: key_rows.add_login(connection, TokenRole.ADMIN, None, NOW, NOW + 300))
    session = database.write_now(lambda connection: key_rows.swap_login(connection, code, NOW, NOW + 300))
    assert session is not None
    texts = [add(database).text, code.text, session.text]
    for name in os.listdir(tmp_path):
        content = (tmp_path / name).read_bytes()
        assert not any(text.partition("_")[2].encode() in content for text in texts), name
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600, name


@pytest.mark.parametrize("plant", ["link", "others", "fifo"])
def test_a_state_that_others_may_have_planted_is_refused(tmp_path: Path, plant: str) -> None:
    path = tmp_path / "state"
    if plant == "link":
        (tmp_path / "real").touch(0o600)
        path.symlink_to(tmp_path / "real")
    elif plant == "others":
        path.touch()
        path.chmod(0o666)
    else:
        os.mkfifo(path)
    with pytest.raises(CexecError):
        Database(str(path), sole=False).close()


def test_a_token_ends_when_it_was_said(database: Database) -> None:
    made = add(database, ends=NOW + 10)
    assert find(database, made, NOW + 9.9) is not None
    assert find(database, made, NOW + 10) is None


def test_a_name_is_given_once_and_again_when_it_has_ended(database: Database) -> None:
    first = add(database, ends=NOW + 10)
    with pytest.raises(UsageError, match="there is a token ci: revoke it first"):
        add(database)
    later = database.write_now(
        lambda connection: key_rows.add_token(connection, "ci", TokenRole.ADMIN, None, NOW + 10, None)
    )
    assert find(database, first, NOW + 10) is None and find(database, later, NOW + 10) is not None
    # not even if the clock is set back now
    assert find(database, first, NOW) is None


def test_revoked_by_name_or_number(database: Database) -> None:
    one, two = add(database, "one"), add(database, "two")
    number = database.read_now(lambda connection: key_rows.list_keys(connection))[1].id
    assert [
        key.name for key in database.write_now(lambda connection: key_rows.revoke_keys(connection, "one", NOW))
    ] == ["one"]
    assert [key.name for key in database.write_now(lambda c: key_rows.revoke_keys(c, f"#{number}", NOW))] == ["two"]
    assert database.write_now(lambda connection: key_rows.revoke_keys(connection, "one", NOW)) == []
    assert find(database, one) is None and find(database, two) is None
    assert not database.read_now(lambda connection: key_rows.has_token(connection, NOW))


def test_numbers_are_never_given_again(database: Database) -> None:
    add(database, ends=NOW + 1)
    first = database.read_now(lambda connection: key_rows.list_keys(connection))[0].id
    database.write_now(lambda connection: key_rows.forget_old_keys(connection, NOW + 2 + key_rows.KEPT))
    assert database.read_now(lambda connection: key_rows.list_keys(connection)) == []
    add(database)
    assert database.read_now(lambda connection: key_rows.list_keys(connection))[0].id > first


def test_a_code_is_swapped_once_even_by_many_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    with closing(Database(path, sole=False)) as database:
        code = database.write_now(
            lambda connection: key_rows.add_login(connection, TokenRole.VIEWER, None, NOW, NOW + 300)
        )
    sessions: list[Secret | None] = []

    def swap() -> None:
        with closing(Database(path, sole=False)) as mine:
            sessions.append(mine.write_now(lambda connection: key_rows.swap_login(connection, code, NOW, NOW + 300)))

    threads = [threading.Thread(target=swap) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 8
    assert len([session for session in sessions if session is not None]) == 1


def test_a_code_that_is_too_old_is_none(database: Database) -> None:
    code = database.write_now(lambda connection: key_rows.add_login(connection, TokenRole.ADMIN, None, NOW, NOW + 300))
    assert database.write_now(lambda connection: key_rows.swap_login(connection, code, NOW + 300, NOW + 600)) is None
    token = add(database)
    assert database.write_now(lambda connection: key_rows.swap_login(connection, token, NOW, NOW + 600)) is None


def test_which_running_requests_are_over(database: Database) -> None:
    one, two = add(database, "one"), add(database, "two", ends=NOW + 10)
    numbers = [find(database, secret) for secret in (one, two)]
    ids = [key.id for key in numbers if key is not None]
    assert database.read_now(lambda connection: key_rows.ended_keys(connection, ids, NOW)) == set()
    assert database.read_now(lambda connection: key_rows.ended_keys(connection, ids, NOW + 10)) == {ids[1]}
    database.write_now(lambda connection: key_rows.revoke_keys(connection, "one", NOW))
    assert database.read_now(lambda connection: key_rows.ended_keys(connection, [*ids, 99], NOW)) == {ids[0], 99}


def test_how_long_a_search_takes_tells_nothing_of_a_token(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is asked for the hash, which nobody can choose, and what it finds is compared in constant time."""
    made = add(database)
    compared: list[tuple[bytes, bytes]] = []
    queries: list[str] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(key_rows, "compare_digest", compare)

    def search(connection: sqlite3.Connection) -> key_rows.Key | None:
        connection.set_trace_callback(queries.append)
        try:
            return key_rows.find_key(connection, made, NOW)
        finally:
            connection.set_trace_callback(None)

    assert database.read_now(search) is not None
    assert compared == [(made.digest, made.digest)]
    assert len(queries) == 1 and made.digest.hex().upper() in queries[0].upper()
    assert made.text not in queries[0]
