"""Which workers a client trusts: those of a list that may come at any time, and all while there never was one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cexec.client.search import trust as module
from cexec.client.search.trust import Trust
from cexec.errors import NoWorkerError, RevokedError
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.base.revocation import RevocationList, encode_list
from cexec.system.storage.user_files import memory_name, never_seen

OWNER = OwnerKey(b"s" * 32)
REVOKED = OWNER.issue_worker("box", 7).identity.certificate
OTHER = OWNER.issue_worker("other", 8).identity.certificate
READER = "cexec.system.storage.revocations"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(module, "LOOK_INTERVAL", 0.0)
    return tmp_path / "home"


def trust(tmp_path: Path, *, required: bool = False) -> Trust:
    return Trust(OWNER.client_key(), os.fspath(tmp_path / "app.pub"), required=required)


def write_list(tmp_path: Path, serial: int = 1) -> Path:
    path = tmp_path / "app.revoked"
    content = RevocationList(OWNER.authority_public, OWNER.fingerprint, serial, {7: "box"})
    path.write_text(encode_list(content, OWNER.authority_seed))
    return path


def test_where_there_never_was_a_list_everybody_is_trusted_and_its_reader_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, READER, raising=False)
    judge = trust(tmp_path)
    judge.check_list()
    judge.check(REVOKED)
    judge.watch(REVOKED).look(1e18)
    assert READER not in sys.modules


def test_a_list_counts_from_the_moment_when_it_is_there(tmp_path: Path) -> None:
    judge = trust(tmp_path)
    judge.check(REVOKED)
    watch = judge.watch(REVOKED)
    write_list(tmp_path)
    judge.check(OTHER)
    with pytest.raises(RevokedError, match="of box"):
        judge.check(REVOKED)
    with pytest.raises(RevokedError, match="of box"):
        watch.look(1e18)


def test_a_list_that_was_seen_by_an_earlier_call_is_missed(tmp_path: Path, home: Path) -> None:
    path = write_list(tmp_path)
    trust(tmp_path).check_list()
    path.unlink()
    with pytest.raises(NoWorkerError, match="is missing, and list 1 was seen before"):
        trust(tmp_path).check_list()
    assert (home / ".local/state/cexec" / memory_name(OWNER.authority_public)).exists()


def test_a_list_that_is_required_is_missed(tmp_path: Path) -> None:
    with pytest.raises(NoWorkerError, match="is missing and required"):
        trust(tmp_path, required=True).check_list()


def test_a_place_that_cannot_be_looked_at_may_have_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "no", path)

    path = os.fspath(tmp_path / "app.revoked")
    assert never_seen(path, OWNER.authority_public)
    monkeypatch.setattr(os, "lstat", refuse)
    assert not never_seen(path, OWNER.authority_public)


@pytest.mark.parametrize("variable", ["HOME", "XDG_STATE_HOME"])
def test_a_memory_in_any_of_our_directories_is_one(tmp_path: Path, variable: str) -> None:
    environ = {"HOME": f"{tmp_path}/a", "XDG_STATE_HOME": f"{tmp_path}/b"}
    assert never_seen(None, OWNER.authority_public, environ)
    below = {"HOME": "a/.local/state/cexec", "XDG_STATE_HOME": "b/cexec"}[variable]
    (tmp_path / below).mkdir(parents=True)
    (tmp_path / below / memory_name(OWNER.authority_public)).touch()
    assert not never_seen(None, OWNER.authority_public, environ)
