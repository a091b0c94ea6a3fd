"""The verdicts of a list of revoked certificates: fail closed once a list was seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.errors import RevokedError
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.base.revocation import RevocationList, encode_list
from cexec.system.storage.revocations import LOOK_INTERVAL, Revocations
from cexec.system.storage.user_files import list_path

OWNER = OwnerKey(b"s" * 32)
ALICE = OWNER.issue_client("alice", 7).identity.certificate
BOB = OWNER.issue_client("bob", 8).identity.certificate


class Place:
    """A list beside a key, and the directory of the memory."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "app.revoked"
        self.state = tmp_path / "state"

    def write(self, serial: int, *revoked: int, owner: OwnerKey = OWNER) -> None:
        listed = RevocationList(owner.authority_public, owner.fingerprint, serial, dict.fromkeys(revoked, "x"))
        draft = self.path.with_suffix(".draft")
        draft.write_text(encode_list(listed, owner.authority_seed))
        draft.chmod(0o644)
        draft.rename(self.path)

    def open(self, *, required: bool = False) -> Revocations:
        path, state = os.fspath(self.path), os.fspath(self.state)
        return Revocations(path, OWNER.authority_public, required=required, directory=state)

    @property
    def memory(self) -> Path:
        (found,) = self.state.iterdir()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refused(revocations: Revocations, words: str) -> None:
    """Everybody is refused, for this reason."""
    for certificate in (ALICE, BOB):
        with pytest.raises(RevokedError, match=words):
            revocations.check(certificate)


def test_without_a_list_that_was_ever_seen_nothing_is_revoked(place: Place) -> None:
    place.open().check(ALICE)
    assert not place.state.exists()


def test_where_this_user_may_not_look_no_list_was_seen_and_that_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: `cservice --user` with a key in a directory of root refused every job."""

    def stat(path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied", path)

    place.write(3, 7)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        blind = place.open()
        blind.check(ALICE)
        assert "cannot be looked at: permission denied" in blind.warning
        refused(place.open(required=True), "is missing and required")
    with pytest.raises(RevokedError):
        place.open().check(ALICE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        refused(place.open(), "is missing, and list 3 was seen before")


def test_a_required_list_that_was_never_there_refuses_everybody(place: Place) -> None:
    refused(place.open(required=True), "app.revoked is missing and required; copy it from its owner")
    place.write(1, 7)
    place.open(required=True).check(BOB)


def test_a_listed_certificate_is_revoked_and_others_are_not(place: Place) -> None:
    place.write(1, 7)
    revocations = place.open()
    with pytest.raises(RevokedError, match=r"certificate of alice \(serial 7\) is revoked"):
        revocations.check(ALICE)
    revocations.check(BOB)


def test_a_list_that_was_seen_and_is_missing_refuses_everybody(place: Place) -> None:
    place.write(3, 7)
    running = place.open()
    place.path.unlink()
    assert running.refresh(LOOK_INTERVAL)
    for revocations in (running, place.open()):
        refused(revocations, "app.revoked is missing, and list 3 was seen before; copy it")


def test_a_damaged_list_refuses_everybody_also_the_first_one(place: Place) -> None:
    place.write(3, 7)
    text = place.path.read_text()
    place.path.write_text(text.replace("revoked: 7", "revoked: 9"))
    refused(place.open(), "its signature is wrong")
    place.path.write_text(text)
    place.open().check(BOB)


def test_an_older_list_refuses_everybody_until_the_newer_one_is_back(place: Place) -> None:
    place.write(3, 7)
    revocations = place.open()
    place.write(2)
    revocations.refresh(LOOK_INTERVAL)
    refused(revocations, "is list 2, but list 3 was seen before; copy the newer one")
    refused(place.open(), "is list 2, but list 3 was seen before")
    place.write(3, 7)
    assert revocations.refresh(2 * LOOK_INTERVAL)
    revocations.check(BOB)


def test_the_list_of_another_application_refuses_everybody(place: Place) -> None:
    other = OwnerKey(b"t" * 32)
    place.write(9, 7, owner=other)
    refused(place.open(), rf"is the list of another application \({other.fingerprint}\)")
    place.write(1)
    place.open().check(ALICE)  # and number 9 of the other one is not remembered


def test_a_list_that_others_may_change_refuses_everybody(place: Place) -> None:
    place.write(1)
    place.path.chmod(0o664)
    refused(place.open(), "can be changed by others; type: chmod go-w")


def test_a_list_that_is_no_file_refuses_everybody(place: Place) -> None:
    place.path.mkdir()
    refused(place.open(), "is no regular file")


def test_a_pipe_in_the_place_of_a_list_refuses_everybody_and_is_not_waited_for(place: Place) -> None:
    """Regression: whoever could make a FIFO there held each cservice and cexec up, also those that ran already."""
    place.write(1)
    revocations = place.open()
    revocations.check(ALICE)
    place.path.unlink()
    os.mkfifo(place.path)
    assert revocations.refresh(LOOK_INTERVAL)
    refused(revocations, "app.revoked is no regular file")
    refused(place.open(), "app.revoked is no regular file")


def test_a_new_list_counts_after_the_next_look_and_not_before(place: Place) -> None:
    place.write(1)
    revocations = place.open()
    assert revocations.refresh(0.0) is False
    place.write(2, 7)
    assert revocations.refresh(LOOK_INTERVAL / 2) is False
    revocations.check(ALICE)
    assert revocations.refresh(LOOK_INTERVAL) is True
    refuses = pytest.raises(RevokedError, match="is revoked")
    with refuses:
        revocations.check(ALICE)
    assert revocations.refresh(2 * LOOK_INTERVAL) is False


def test_a_list_is_read_at_once_when_that_is_wanted(place: Place) -> None:
    revocations = place.open()
    assert not revocations.refresh(100.0)
    place.write(1, 7)
    assert not revocations.refresh(100.1)
    assert revocations.refresh(100.1, at_once=True)
    refused_alice = revocations.revoked(ALICE)
    assert refused_alice and not revocations.refresh(100.1, at_once=True)


def test_a_list_seen_by_another_process_counts_too(place: Place) -> None:
    place.write(1)
    revocations = place.open()
    place.write(5, 7)
    place.open()
    place.write(1)
    revocations.refresh(LOOK_INTERVAL)
    refused(revocations, "is list 1, but list 5 was seen before")


@pytest.mark.parametrize("content", [b"", b"5\n", b"x" * 20 + b"\n", b"0" * 21, b"0" * 400])
def test_a_damaged_memory_refuses_everybody(place: Place, content: bytes) -> None:
    place.write(1)
    place.open().check(ALICE)
    place.memory.write_bytes(content)
    refused(place.open(), "is damaged, which has the number of the latest list")


def test_the_memory_never_goes_back(place: Place) -> None:
    place.write(1)
    older = place.open()
    place.write(4)
    place.open()
    before = place.memory.read_bytes()
    place.write(2)
    older.refresh(LOOK_INTERVAL)
    assert place.memory.read_bytes() == before == b"00000000000000000004\n"


def test_without_a_place_for_the_memory_the_process_remembers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    place.write(3, 7)
    revocations = Revocations(os.fspath(place.path), OWNER.authority_public)
    place.path.unlink()
    revocations.refresh(LOOK_INTERVAL)
    refused(revocations, "list 3 was seen before")


def test_a_number_that_cannot_be_remembered_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.state.write_text("no directory")
    assert place.open().warning == ""
    place.write(3)
    assert "cannot be remembered in" in place.open().warning
    for name in ("XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    nowhere = Revocations(os.fspath(place.path), OWNER.authority_public)
    assert "there is no directory in which the number of the list can be remembered" in nowhere.warning
    place.state.unlink()
    assert place.open().warning == ""


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("app", "app.revoked"),
        ("app.pub", "app.revoked"),
        ("dir/app.worker", "dir/app.revoked"),
        (".pub", ".pub.revoked"),
        ("laptop", "laptop.revoked"),
        ("/dev/fd/7", None),
    ],
)
def test_the_list_stands_beside_the_key(key: str, expected: str | None) -> None:
    assert list_path(key, {}) == expected
    assert list_path(key, {"CEXEC_REVOKED": "/etc/list"}) == "/etc/list"
