"""Programs by the hash of their content: verified, bounded, shared, never evicted while in use."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path
from random import Random

import pytest

from cexec.errors import UsageError
from cexec.protocol.base.sodium import keyed_hash
from cexec.system.storage import program_cache
from cexec.system.storage.program_cache import (
    LABEL,
    CacheProblem,
    HeldProgram,
    ProgramCache,
    default_directory,
    hash_and_size,
)

pytestmark = pytest.mark.usefixtures("process_end")


def hash_of(content: bytes) -> str:
    return keyed_hash(b"", LABEL, content).hex()


def put(cache: ProgramCache, content: bytes, name: str | None = None) -> HeldProgram:
    draft = cache.draft(len(content))
    try:
        os.write(draft.fd, content)
        return cache.keep(draft, name or hash_of(content), len(content))
    finally:
        draft.discard()


def programs(cache: ProgramCache) -> set[str]:
    return {name for name in os.listdir(cache.directory) if name != "lock" and not name.endswith(".use")}


def test_a_program_is_kept_and_found_under_its_hash(tmp_path: Path) -> None:
    cache = ProgramCache(str(tmp_path / "deep" / "cache"))
    assert cache.use(hash_of(b"#!x")) is None
    held = put(cache, b"#!x")
    assert Path(held.path).read_bytes() == b"#!x" and os.access(held.path, os.X_OK)
    held.release()
    again = ProgramCache(cache.directory).use(hash_of(b"#!x"))
    assert again is not None and again.path == held.path


def test_a_draft_is_found_by_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    cache = ProgramCache(str(tmp_path))
    draft = cache.draft(3)
    os.write(draft.fd, b"#!x")
    assert ProgramCache(str(tmp_path)).use(hash_of(b"#!x")) is None
    draft.discard()
    assert programs(cache) == set()


def test_what_has_another_hash_is_not_kept(tmp_path: Path) -> None:
    cache = ProgramCache(str(tmp_path))
    with pytest.raises(CacheProblem, match="changed"):
        put(cache, b"#!x", hash_of(b"#!y"))
    assert programs(cache) == set()


def test_a_damaged_program_is_not_used_and_is_replaced(tmp_path: Path) -> None:
    cache = ProgramCache(str(tmp_path))
    held = put(cache, b"#!x")
    held.release()
    os.chmod(held.path, 0o700)
    Path(held.path).write_bytes(b"#!y")
    assert cache.use(hash_of(b"#!x")) is None
    put(cache, b"#!x")
    assert Path(held.path).read_bytes() == b"#!x"


def test_two_that_keep_the_same_have_one_file(tmp_path: Path) -> None:
    one, other = ProgramCache(str(tmp_path)), ProgramCache(str(tmp_path))
    first = put(one, b"#!x")
    inode = os.stat(first.path).st_ino
    second = put(other, b"#!x")
    assert os.stat(second.path).st_ino == inode and len(programs(one)) == 1


def test_the_least_recently_used_goes_first_and_none_in_use(tmp_path: Path) -> None:
    cache, other = ProgramCache(str(tmp_path), 8), ProgramCache(str(tmp_path), 8)
    contents = [b"aaa", b"bbb", b"ccc"]
    held = [put(cache, content) for content in contents[:2]]
    for age, one in enumerate(held):
        one.release()
        os.utime(f"{one.path}.use", ns=(age, age))
    in_use = other.use(hash_of(b"aaa"))  # now the most recently used
    put(cache, b"ccc").release()
    assert programs(cache) == {hash_of(b"aaa"), hash_of(b"ccc")}
    os.utime(f"{held[0].path}.use", ns=(0, 0))
    put(cache, b"ddd").release()
    assert programs(cache) == {hash_of(b"aaa"), hash_of(b"ddd")}
    assert in_use is not None
    holding = cache.use(hash_of(b"ddd"))
    with pytest.raises(CacheProblem, match="in use"):
        cache.draft(3)
    in_use.release()
    cache.draft(3).discard()
    assert holding is not None


def test_a_program_larger_than_the_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheProblem, match="9 bytes"):
        ProgramCache(str(tmp_path), 8).draft(9)


def test_drafts_count_until_their_receiver_is_dead(tmp_path: Path) -> None:
    cache = ProgramCache(str(tmp_path), 8)
    draft = cache.draft(6)
    with pytest.raises(CacheProblem):
        cache.draft(3)
    os.close(draft.fd)  # as the kernel does
    cache.draft(3).discard()
    assert programs(cache) == set()


def test_it_is_emptied_but_for_what_is_in_use(tmp_path: Path) -> None:
    cache = ProgramCache(str(tmp_path))
    put(cache, b"aaa").release()
    held = put(cache, b"bbb")
    cache.empty()
    assert programs(cache) == {hash_of(b"bbb")}
    held.release()
    (tmp_path / f"{hash_of(b'ccc')}.use").touch()  # it was evicted just when somebody wanted it
    cache.empty()
    assert os.listdir(tmp_path) == ["lock"]


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UsageError, match="chmod 700"):
        ProgramCache(str(tmp_path / "open"))


@pytest.mark.parametrize("stale", [".use", ""])
def test_what_another_host_removes_over_nfs_is_as_if_it_had_never_been_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    """Regression: `use` raised ESTALE; with the mark of use it looks again, without the program there is none."""
    cache = ProgramCache(str(tmp_path))
    put(cache, b"#!x").release()
    before = len(os.listdir("/proc/self/fd"))
    failures = [OSError(errno.ESTALE, "stale file handle")]
    look = program_cache.status_now

    def status_now(path: str) -> os.stat_result:
        if path.endswith(".use") == bool(stale) and failures:
            raise failures.pop()
        return look(path)

    monkeypatch.setattr(program_cache, "status_now", status_now)
    held = cache.use(hash_of(b"#!x"))
    assert not failures
    assert (held is None) == (stale == "")
    if held is not None:
        held.release()
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_workers_share_a_directory_that_is_too_small_for_all(tmp_path: Path) -> None:
    """None ever holds anything but a whole program, however they race."""
    contents = [bytes([number]) * 5000 for number in range(6)]
    children = []
    for seed in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                _use_at_random(ProgramCache(str(tmp_path), 20_000), contents, Random(seed))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert sum(os.path.getsize(tmp_path / name) for name in programs(ProgramCache(str(tmp_path)))) <= 20_000


def _use_at_random(cache: ProgramCache, contents: list[bytes], dice: Random) -> None:
    for _ in range(100):
        content = dice.choice(contents)
        try:
            held = cache.use(hash_of(content)) or put(cache, content)
        except CacheProblem:
            continue  # all that fits is in use
        assert Path(held.path).read_bytes() == content
        held.release()


def test_where_it_is(tmp_path: Path) -> None:
    assert default_directory({"HOME": "/h"}) == "/h/.cache/cexec/programs"
    assert default_directory({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == "/c/cexec/programs"
    with pytest.raises(UsageError, match="--program-cache"):
        default_directory({})
    (tmp_path / "f").write_bytes(b"abc")
    with open(tmp_path / "f", "rb") as file:
        assert hash_and_size(file.fileno()) == (hash_of(b"abc"), 3)
