"""The store of a worker's arrays: private, whole files, one for all slots, and nothing left behind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cexec.pool import call_messages as m
from cexec.pool.array_store import CHANGED, ArrayStore
from cexec.pool.shared_arrays import MissingArrayError, shared_array, use
from tests.environment import clean_environment
from tests.pool.worker import PoolWorker

NAME = "0123abcd"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    use("")


def put(store: ArrayStore, number: int, data: bytes, digest: bytes | None = None, size: int = 7) -> str | None:
    """Gives an array to the store in pieces of this size, the first of which has the message's head."""
    parts = [data, digest or sha256(data).digest()]
    message = b"".join(bytes(one) for one in m.encode(m.ARRAY, number, parts=parts))
    head = m.HEADER_SIZE + 2 * m.LENGTH_SIZE
    cuts = [0, *range(head, len(message), size), len(message)]
    said = None
    for start, end in itertools.pairwise(cuts):
        assert said is None
        said = store.take(m.MessagePiece(m.ARRAY, number, message[start:end], start == 0, len(message) - end))
    return said


@pytest.mark.parametrize("size", [1, 32, 33, 100_000])
def test_an_array_is_one_private_file(place: Path, size: int) -> None:
    with closing(ArrayStore(NAME)) as store:
        assert put(store, 5, b"x" * 1000, size=size) == ""
        path = Path(store.path) / "5"
        assert path.read_bytes() == b"x" * 1000
        assert path.stat().st_mode & 0o777 == 0o600 and Path(store.path).stat().st_mode & 0o777 == 0o700
        store.drop(5)
        store.drop(5)
        assert not path.exists()
    assert list(place.iterdir()) == []


def test_slots_share_a_store_until_the_last_one_leaves(place: Path) -> None:
    first, second = ArrayStore(NAME), ArrayStore(NAME)
    with closing(ArrayStore(NAME + "0")) as other:
        assert first.identity == second.identity != other.identity
    put(first, 1, b"abc")
    first.close()
    assert (Path(second.path) / "1").read_bytes() == b"abc"
    second.close()
    assert list(place.iterdir()) == []
    with closing(ArrayStore(NAME)) as later:
        assert later.identity != first.identity


def test_what_changed_on_the_way_is_not_kept() -> None:
    with closing(ArrayStore(NAME)) as store:
        assert put(store, 1, b"abc", b"?" * 32) == CHANGED
        assert sorted(os.listdir(store.path)) == ["identity"]
        assert put(store, 1, b"abc") == ""


def test_a_disk_without_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(ArrayStore(NAME)) as store:
        with monkeypatch.context() as patch, open("/dev/full", "wb") as full:
            patch.setattr("os.open", lambda *_, **__: os.dup(full.fileno()))
            patch.setattr("os.unlink", lambda *_, **__: None)
            assert put(store, 1, b"abc") == "No space left on device"
        assert put(store, 2, b"abc") == ""


def test_a_part_that_somebody_removes_is_told() -> None:
    with closing(ArrayStore(NAME)) as store:
        message = b"".join(bytes(one) for one in m.encode(m.ARRAY, 1, parts=[b"abc", sha256(b"abc").digest()]))
        assert store.take(m.MessagePiece(m.ARRAY, 1, message[:42], True, len(message) - 42)) is None
        (part,) = (name for name in os.listdir(store.path) if name != "identity")
        os.unlink(os.path.join(store.path, part))
        assert store.take(m.MessagePiece(m.ARRAY, 1, message[42:], False, 0)) == "No such file or directory"
        store.take(m.MessagePiece(m.ARRAY, 1, message[:42], True, len(message) - 42))  # and another one that never ends


def test_the_directory_must_be_ours_alone(place: Path) -> None:
    path = place / f"cexec-pool-{os.geteuid()}-{NAME}"
    path.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="not private"):
        ArrayStore(NAME)
    path.rmdir()
    path.symlink_to(place)
    with pytest.raises(OSError):
        ArrayStore(NAME)
    with pytest.raises(OSError, match="no name"):
        ArrayStore("../x")


def test_what_a_killed_slot_has_left_is_removed(place: Path) -> None:
    script = f"from cexec.pool.array_store import ArrayStore; import os; ArrayStore('{NAME}'); os._exit(0)"
    environment = clean_environment({"TMPDIR": str(place)})
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert len(list(place.iterdir())) == 1
    with closing(ArrayStore("else")) as store:
        assert list(place.iterdir()) == [Path(store.path)]


def test_a_directory_that_was_given_the_name_of_a_store_loses_nothing(place: Path) -> None:
    """Where there is no sticky bit, another user can rename a directory of this one."""
    moved = place / f"cexec-pool-{os.geteuid()}-ffff"
    moved.mkdir(0o700)
    for name in ("7", "thesis.tex"):
        (moved / name).write_text("precious")
    ArrayStore(NAME).close()
    assert sorted(path.name for path in moved.iterdir()) == ["7", "thesis.tex"]


def test_an_array_that_is_not_there_is_missing(place: Path) -> None:
    pytest.importorskip("numpy")
    use(str(place))
    with pytest.raises(MissingArrayError) as caught:
        shared_array(3, "u1", (1,), "C", "r")
    assert caught.value.number == 3
    (place / "3").symlink_to("/etc/passwd")
    with pytest.raises(MissingArrayError):
        shared_array(3, "u1", (1,), "C", "r")


def test_the_program_keeps_arrays_and_says_what_it_lacks(place: Path) -> None:
    pytest.importorskip("numpy")
    from cexec.pool.pickles import dump

    class Named:
        def __init__(self, number: int) -> None:
            self.number = number

        def __reduce__(self) -> tuple[Any, ...]:
            return shared_array, (self.number, "u1", (3,), "C", "r")

    with PoolWorker(environment={"TMPDIR": str(place)}) as worker:
        assert worker.set_up().kind == m.READY
        worker.send(m.OPEN_STORE, parts=[NAME.encode()])
        store = worker.receive()
        assert store.kind == m.STORE and store.parts[0] and not store.parts[1]
        worker.send(m.ARRAY, 4, parts=[b"abc", sha256(b"abc").digest()])
        kept = worker.receive()
        assert (kept.kind, kept.id, kept.parts) == (m.KEPT, 4, [b""])
        total = worker.function(lambda array: int(array.sum()))
        worker.send(m.CALL, 1, total, dump(((Named(4),), {}), "the arguments"))
        assert worker.outcome() == sum(b"abc")
        worker.send(m.DROP_ARRAY, 4)
        worker.send(m.CALL, 2, total, dump(((Named(4),), {}), "the arguments"))
        lacking = worker.receive()
        assert (lacking.kind, lacking.id, lacking.about) == (m.LACKING, 2, 4)
    assert list(place.iterdir()) == []
