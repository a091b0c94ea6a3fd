"""--send and --fetch on the client: names and attempts; files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cexec.client.attempt import files as client_files
from cexec.client.attempt.files import FilePlan, plan_files
from cexec.errors import LocalError, TooLongError, UsageError
from cexec.protocol.connection.options import READS, WRITES

pytestmark = pytest.mark.usefixtures("process_end")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def temporary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems with O_TMPFILE and without."""
    if not request.param:
        monkeypatch.setattr(client_files, "UNNAMED", 0)


def planned(sends: list[str], fetches: list[str]) -> FilePlan:
    plan = plan_files(sends, fetches)
    assert plan is not None
    return plan


def shape(plan: FilePlan) -> list[tuple[int, int, str]]:
    return [(stream.number, stream.directions, stream.name) for stream in plan.streams()]


def bring(plan: FilePlan, **contents: str) -> None:
    """Plays an attempt in which these files come."""
    names = {stream.name: stream.number for stream in plan.streams() if stream.directions == WRITES}
    sinks = plan.sinks()
    for name, text in contents.items():
        assert sinks[names[name]].write(memoryview(text.encode())) == len(text)
        sinks[names[name]].close()


def test_without_files_there_is_no_plan() -> None:
    assert plan_files([], []) is None


def test_names_on_both_sides(here: Path) -> None:
    (here / "d").mkdir()
    for name in ("a", "d/b", "c=d"):
        (here / name).touch()
    plan = planned(["a", "d/b", f"{here}/a=in/x", "c=d=y"], ["out", "sub/o2", "o3=d/o3", "o4=x=y"])
    assert shape(plan) == [
        (256, READS, "a"), (257, READS, "b"), (258, READS, "in/x"), (259, READS, "y"),
        (260, WRITES, "out"), (261, WRITES, "sub/o2"), (262, WRITES, "o3"), (263, WRITES, "o4"),
    ]  # fmt: skip
    assert [plan.name_of(number) for number in (257, 261, 262, 263)] == ["d/b", "o2", "d/o3", "x=y"]


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../x", "./x", "a//x", "a/", "\udcff"])
def test_a_name_that_leads_elsewhere_is_refused(here: Path, name: str) -> None:
    (here / "f").touch()
    with pytest.raises(UsageError, match="names in the job's directory"):
        plan_files([f"f={name}"], [])
    with pytest.raises(UsageError, match="names in the job's directory"):
        plan_files([], [f"{name}=f"])


@pytest.mark.parametrize("word", ["", "=", "x=", "=x"])
def test_half_a_pair_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="lacks a file's name"):
        plan_files([word], [])
    with pytest.raises(UsageError, match="lacks a file's name"):
        plan_files([], [word])


@pytest.mark.parametrize(
    ("word", "path", "name"),
    [
        (r"./x\=1.dat", "./x=1.dat", "x=1.dat"), (r"d/a\=b=c", "d/a=b", "c"), (r"a=b\=c", "a", "b=c"),
        (r"a\\=b", "a\\", "b"), (r"a\\\=b", r"a\=b", r"a\=b"), (r"a\b", r"a\b", r"a\b"), ("a=b=c", "a=b", "c"),
    ],
)  # fmt: skip
def test_an_equals_sign_in_a_name_has_a_backslash(here: Path, word: str, path: str, name: str) -> None:
    """Regression: a file called x=1.dat could not be sent under its own name."""
    (here / "d").mkdir()
    (here / path).touch()
    plan = planned([word], [])
    assert [(stream.name, plan.name_of(stream.number)) for stream in plan.streams()] == [(name, path)]


def test_names_that_are_fetched_may_have_an_equals_sign(here: Path) -> None:
    plan = planned([], [r"a\=b=c\=d", "e=f=g"])
    names = [(stream.name, plan.name_of(stream.number)) for stream in plan.streams()]
    assert names == [("a=b", "c=d"), ("e", "f=g")]


def test_what_is_no_result_is_not_fetched_into(here: Path) -> None:
    """Regression: --fetch replaced the key, and the file that standard output went to."""
    (here / "key").touch()
    os.link(here / "key", here / "hard")
    (here / "soft").symlink_to("key")
    status = os.stat(here / "key")
    others = {(status.st_dev, status.st_ino): "the key"}
    for name in ("key", "hard", "soft"):
        with pytest.raises(UsageError, match=f"cannot fetch into {name}: it is the key"):
            planned([], [f"a={name}"]).check_targets(others)
    planned(["key"], ["a=new"]).check_targets(others)


def test_a_file_that_nobody_wants_is_dropped(here: Path) -> None:
    (here / "null").symlink_to("/dev/null")
    for path in ("/dev/null", "null"):
        plan = planned([], [f"a={path}", "c=/dev/null", "b=kept"])
        bring(plan, a="A", b="B", c="C")
        plan.commit(0)
        assert sorted(os.listdir(here)) == ["kept", "null"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_no_name_twice(here: Path) -> None:
    (here / "f").touch()
    (here / "l").symlink_to("f")
    for sends, fetches in ((["f", "l=f"], []), ([], ["a=x", "a=y"]), ([], ["a=f", "b=l"])):
        with pytest.raises(UsageError, match="twice"):
            plan_files(sends, fetches)
    assert shape(planned(["f"], ["f"])) == [(256, READS, "f"), (257, WRITES, "f")]


def test_too_many_files() -> None:
    with pytest.raises(UsageError, match="at most 768 files"):
        plan_files([], [f"f{number}" for number in range(769)])


def test_names_that_have_no_room_are_refused_here() -> None:
    assert shape(planned([], ["\u00e9" * 127])) == [(256, WRITES, "\u00e9" * 127)]
    with pytest.raises(TooLongError, match=r"aaa\.\.\.: such a name has at most 255 bytes"):
        plan_files([], ["a" * 256])
    with pytest.raises(TooLongError, match="at most 255 bytes"):
        plan_files([], ["\u00e9" * 128])


def test_what_cannot_be_sent(here: Path) -> None:
    os.mkfifo(here / "pipe")
    for word, kind, text in (
        ("absent", LocalError, "cannot read absent: no such file or directory"),
        ("pipe", UsageError, "cannot send pipe: it is not a regular file"),
        (".=d", UsageError, "cannot send .: it is not a regular file"),
    ):
        with pytest.raises(kind, match=text):
            plan_files([word], [])


def test_what_cannot_be_fetched_into(here: Path) -> None:
    os.mkfifo(here / "pipe")
    (here / "d").mkdir()
    for word, kind in (
        ("a=pipe", UsageError),
        ("a=/dev/zero", UsageError),
        ("a=d", UsageError),
        ("a=no/f", LocalError),
    ):
        with pytest.raises(kind, match=r"cannot (fetch into|write) "):
            plan_files([], [word])
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)


def test_each_attempt_sends_from_the_beginning(here: Path) -> None:
    (here / "f").write_text("all of it")
    plan = planned(["f"], [])
    buffer = memoryview(bytearray(100))
    for _ in range(2):
        source = plan.sources()[256]
        assert source.read_into(buffer) == 9
        assert source.read_into(buffer) == 0
        source.close()
    assert plan.inodes() == {((here / "f").stat().st_dev, (here / "f").stat().st_ino)}


def test_a_file_that_changes_between_attempts_ends_the_job(here: Path) -> None:
    (here / "f").write_text("one")
    plan = planned(["f"], [])
    plan.sources()
    (here / "f").write_text("another")
    with pytest.raises(LocalError, match="f has changed"):
        plan.sources()


@pytest.mark.usefixtures("temporary")
def test_files_appear_when_the_job_is_done_and_not_before(here: Path) -> None:
    (here / "b").write_text("old")
    plan = planned([], ["a", "b"])
    bring(plan, a="new a", b="new b")
    assert not (here / "a").exists() and (here / "b").read_text() == "old"
    plan.commit(0)
    assert (here / "a").read_text() == "new a" and (here / "b").read_text() == "new b"
    assert sorted(os.listdir(here)) == ["a", "b"]


@pytest.mark.usefixtures("temporary")
def test_the_mode_is_that_of_a_new_file(here: Path) -> None:
    before = os.umask(0o027)
    try:
        plan = planned([], ["a"])
        bring(plan, a="x")
    finally:
        os.umask(before)
    plan.commit(0)
    assert stat.S_IMODE((here / "a").stat().st_mode) == 0o640


@pytest.mark.usefixtures("temporary")
def test_an_attempt_that_fails_leaves_nothing(here: Path) -> None:
    plan = planned([], ["a", "b"])
    bring(plan, a="half of ")
    plan.discard()
    assert os.listdir(here) == []
    bring(plan, a="all", b="")
    plan.commit(0)
    assert (here / "a").read_text() == "all" and (here / "b").read_text() == ""


@pytest.mark.usefixtures("temporary")
def test_a_file_that_is_missing_after_a_success_is_an_error_and_none_appears(here: Path) -> None:
    plan = planned([], ["a", "b"])
    bring(plan, a="x")
    plan.failed(257, "no such file")
    with pytest.raises(LocalError, match="cannot fetch b: the program has succeeded, but no such file"):
        plan.commit(0)
    assert os.listdir(here) == []


@pytest.mark.usefixtures("temporary")
def test_after_a_failure_those_that_are_there_come(here: Path) -> None:
    plan = planned([], ["a", "b"])
    bring(plan, a="x")
    plan.failed(257, "no such file")
    plan.commit(3)
    assert os.listdir(here) == ["a"]


def test_a_failure_of_one_attempt_is_none_of_the_next(here: Path) -> None:
    plan = planned([], ["a"])
    plan.sinks()
    plan.failed(256, "no such file")
    bring(plan, a="x")
    plan.commit(0)
    assert (here / "a").read_text() == "x"


def test_a_link_stays_and_what_it_points_to_is_replaced(here: Path) -> None:
    (here / "real").write_text("old")
    (here / "link").symlink_to("real")
    plan = planned([], ["a=link"])
    bring(plan, a="new")
    plan.commit(0)
    assert (here / "link").is_symlink() and (here / "real").read_text() == "new"


@pytest.mark.usefixtures("temporary")
def test_a_target_that_cannot_be_replaced_is_named(here: Path) -> None:
    plan = planned([], ["a", "b"])
    bring(plan, a="x", b="y")
    (here / "a").mkdir()
    with pytest.raises(LocalError, match="cannot write a: is a directory"):
        plan.commit(0)
    assert os.listdir(here) == ["a"]


def test_nothing_is_named_while_the_job_runs(here: Path) -> None:
    """A killed client then leaves nothing."""
    plan = planned([], ["a"])
    plan.sinks()
    assert os.listdir(here) == []
    plan.discard()


def test_a_long_name_is_no_obstacle(here: Path) -> None:
    plan = planned([], ["x" * 255])
    bring(plan, **{"x" * 255: "y"})
    plan.commit(0)
    assert (here / ("x" * 255)).read_text() == "y"
