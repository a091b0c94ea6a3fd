"""The state file: committed together, taken back alone, read beside the writer, and one cgate at a time."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.errors import LocalError, UsageError
from cexec.gate.store import database
from cexec.gate.store.database import Database, StateFullError
from tests.environment import ROOT


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "gate.sqlite")


@pytest.fixture
def state(path: str) -> Iterator[Database]:
    opened = Database(path, sole=True)
    opened.write_now(lambda connection: connection.execute("CREATE TABLE number (value INTEGER UNIQUE)"))
    yield opened
    opened.close()


def insert(value: int, connection: sqlite3.Connection) -> int:
    connection.execute("INSERT INTO number VALUES (?)", (value,))
    return value


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [value for (value,) in connection.execute("SELECT value FROM number ORDER BY value")]


def test_what_has_been_written_is_read(state: Database) -> None:
    async def use() -> list[int]:
        assert await state.write(lambda connection: insert(3, connection)) == 3
        return await state.read(numbers)

    assert asyncio.run(use()) == [3]


def test_a_change_that_fails_is_taken_back_alone(state: Database) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert(7, connection)
        raise ValueError("no")

    async def use() -> list[object]:
        changes = [
            state.write(lambda connection, value=value: insert(value, connection))  # type: ignore[misc]
            for value in (1, 2, 2, 3)
        ]
        return list(await asyncio.gather(*changes, state.write(half), return_exceptions=True))

    first, second, again, third, failed = asyncio.run(use())
    assert (first, second, third) == (1, 2, 3)
    assert isinstance(again, LocalError) and "unique" in str(again)
    assert isinstance(failed, ValueError)
    assert state.read_now(numbers) == [1, 2, 3]


def test_a_reader_does_not_wait_for_a_writer(state: Database) -> None:
    other = Database(state.path, sole=False)

    def change(connection: sqlite3.Connection) -> None:
        insert(1, connection)
        assert state.read_now(numbers) == []

    other.write_now(change)
    assert state.read_now(numbers) == [1]
    other.close()


def test_the_file_is_for_its_owner_alone(state: Database) -> None:
    assert os.stat(state.path).st_mode & 0o777 == 0o600


def test_the_second_server_is_refused_with_the_pid(state: Database) -> None:
    with pytest.raises(LocalError, match=f"another cgate serves with this state: .* in use by process {os.getpid()} "):
        Database(state.path, sole=True)
    Database(state.path, sole=False).close()


def test_after_a_kill_what_was_told_is_there(path: str) -> None:
    code = f"""
import asyncio, os
from cexec.gate.store.database import Database
async def main():
    state = Database({path!r}, sole=True)
    await state.write(lambda c: c.execute("CREATE TABLE number (value INTEGER)"))
    for value in range(20):
        await state.write(lambda c: c.execute("INSERT INTO number VALUES (?)", (value,)))
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    state = Database(path, sole=True)
    assert state.read_now(numbers) == list(range(20))
    state.close()


def test_a_newer_file_is_refused(path: str) -> None:
    Database(path, sole=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={database.VERSION + 1}")
    connection.close()
    with pytest.raises(UsageError, match="was written by a newer cgate"):
        Database(path, sole=True)
    assert not os.path.exists(f"{path}-lock")


@pytest.mark.parametrize("content", [b"x", b"a text, and no database at all"])
def test_another_file_is_refused_and_stays(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(UsageError, match="is not a state file of cgate"):
        Database(path, sole=True)
    assert Path(path).read_bytes() == content


def test_another_database_is_refused_and_stays(path: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (value INTEGER)")
    connection.close()
    with pytest.raises(UsageError, match="is not a state file of cgate"):
        Database(path, sole=True)


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"cannot write the state .*no such file or directory"):
        Database(str(tmp_path / "none" / "gate.sqlite"), sole=True)


def test_without_room_nothing_is_told_to_be_written(state: Database) -> None:
    pages = state.read_now(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    state.write_now(lambda connection: connection.execute("CREATE TABLE big (value BLOB)"))

    async def use() -> None:
        await state.write(lambda connection: connection.execute(f"PRAGMA max_page_count={pages + 2}"))
        with pytest.raises(StateFullError, match="no space left on device"):
            await state.write(lambda connection: connection.execute("INSERT INTO big VALUES (zeroblob(100000))"))
        await state.write(lambda connection: insert(5, connection))  # the next small one has room again

    asyncio.run(use())
    assert state.read_now(numbers) == [5]
