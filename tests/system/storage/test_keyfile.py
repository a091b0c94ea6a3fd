"""Key files on the disk: who may read them, how they are found, and that they are written once and whole."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cexec.errors import KeyFileError, LocalError
from cexec.protocol.base.keys import ClientKey, OwnerKey, RelayKey, WorkerKey, encode_key
from cexec.system.storage import keyfile, whole_files
from cexec.system.storage.keyfile import find_client_key, find_key, read_key
from cexec.system.storage.user_files import key_descriptor, quoted
from cexec.system.storage.whole_files import write_new
from tests.environment import local_environment
from tests.needs import NOBODY, require_second_user, skip_for_want_of

OWNER = OwnerKey(b"s" * 32)
ANY = (OwnerKey, ClientKey, WorkerKey, RelayKey)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory with an application's four files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", "")
    for name, key in (
        ("app", OWNER),
        ("app.pub", OWNER.client_key()),
        ("app.worker", OWNER.worker_key("w")),
        ("app.relay", OWNER.relay_key()),
    ):
        write_new(name, encode_key(key))
    return tmp_path


@pytest.fixture
def ordinary_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory of an ordinary user, and the test is that user: no permission stops root."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    require_second_user()
    directory = Path(tempfile.mkdtemp())
    os.chown(directory, NOBODY, -1)
    os.seteuid(NOBODY)
    yield directory
    os.seteuid(0)
    shutil.rmtree(directory)


# Reading


def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "app.revoked"
    whole_files.replace_file(str(path), "first", 0o644)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("first", 0o644)
    for moment in ("write", "fsync", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, moment, fails)
            with pytest.raises(LocalError, match=r"cannot write .*: no space left on device"):
                whole_files.replace_file(str(path), "second", 0o644)
        assert path.read_text() == "first"
        assert os.listdir(tmp_path) == ["app.revoked"]
    whole_files.replace_file(str(path), "second", 0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("second", 0o600)


def fails(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_each_kind_of_key_is_read_as_what_it_is(here: Path) -> None:
    for name, kind in (("app", OwnerKey), ("app.pub", ClientKey), ("app.worker", WorkerKey), ("app.relay", RelayKey)):
        key = read_key(name, ANY)
        assert type(key) is kind
        assert key.fingerprint == OWNER.fingerprint


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o700])
def test_a_file_that_only_its_owner_and_group_can_read_is_taken(here: Path, mode: int) -> None:
    os.chmod("app.pub", mode)
    assert isinstance(read_key("app.pub", (ClientKey,)), ClientKey)


@pytest.mark.parametrize(
    ("mode", "what"), [(0o644, "read"), (0o604, "read"), (0o660, "changed"), (0o620, "changed"), (0o602, "changed")]
)
def test_a_file_open_to_others_is_refused_with_the_chmod_to_type(here: Path, mode: int, what: str) -> None:
    os.chmod("app.pub", mode)
    with pytest.raises(KeyFileError) as error:
        read_key("app.pub", (ClientKey,))
    assert str(error.value) == f"app.pub can be {what} by others; type: chmod 600 app.pub"


def test_the_chmod_to_type_survives_a_shell(here: Path) -> None:
    os.rename("app.pub", "it's mine.pub")
    os.chmod("it's mine.pub", 0o644)
    with pytest.raises(KeyFileError) as error:
        read_key("it's mine.pub", (ClientKey,))
    assert os.system(str(error.value).partition("type: ")[2]) == 0
    assert isinstance(read_key("it's mine.pub", (ClientKey,)), ClientKey)


def test_quoted_leaves_plain_names_alone() -> None:
    assert [quoted(name) for name in ("a/b-c_d.e", "a b", "$x", "")] == ["a/b-c_d.e", "'a b'", "'$x'", "''"]


def test_a_key_of_the_wrong_kind_is_refused_with_the_one_that_is_needed(here: Path) -> None:
    with pytest.raises(KeyFileError) as error:
        read_key("app.pub", (OwnerKey, WorkerKey), "cservice needs app, the private key")
    assert str(error.value) == "app.pub is a client key; cservice needs app, the private key"
    with pytest.raises(KeyFileError) as error:
        read_key("app", (ClientKey, WorkerKey))
    assert str(error.value) == "app is a private key; needed is a client key or a worker key"


def test_a_damaged_file_is_named(here: Path) -> None:
    Path("app.pub").write_bytes(Path("app.pub").read_bytes()[:-9])
    with pytest.raises(KeyFileError, match=r"^app\.pub is damaged: "):
        read_key("app.pub", (ClientKey,))


@pytest.mark.parametrize("size", [0, 1, 20_000, 5_000_000])
def test_a_file_of_any_size_that_is_no_key_is_damaged(here: Path, size: int) -> None:
    write_new("other", "#" * size)
    with pytest.raises(KeyFileError, match=r"^other is damaged: "):
        read_key("other", ANY)


def test_an_endless_device_is_damaged_and_not_read_for_ever() -> None:
    with pytest.raises(KeyFileError, match=r"^/dev/zero is damaged: it is longer than 16384 bytes"):
        read_key("/dev/zero", ANY)


def test_what_is_absent_or_a_directory_is_told(here: Path) -> None:
    os.mkdir("directory")
    os.symlink("loop", "loop")
    for name, what in (
        ("none", "no such file"),
        ("directory", "is a directory"),
        ("loop", "too many levels"),
        ("app/x", "not a"),
    ):
        with pytest.raises(KeyFileError, match=rf"^{name} cannot be read: {what}"):
            read_key(name, ANY)


def test_a_file_that_we_may_not_read_is_told(ordinary_directory: Path) -> None:
    path = ordinary_directory / "app"
    write_new(str(path), encode_key(OWNER))
    path.chmod(0)
    with pytest.raises(KeyFileError, match="cannot be read: permission denied"):
        read_key(str(path), ANY)


def test_too_many_open_files_is_no_fault_of_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LocalError, match="cannot read app: too many open files"):
        read_key("app", ANY)


def test_a_key_comes_through_a_pipe_in_any_pieces(here: Path) -> None:
    reader, writer = os.pipe()
    path = f"/dev/fd/{reader}"

    def feed() -> None:
        for byte in encode_key(OWNER.client_key()).encode():
            os.write(writer, bytes([byte]))
        os.close(writer)

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert isinstance(read_key(path, (ClientKey,)), ClientKey)
    feeder.join()
    assert key_descriptor(path) == reader
    os.close(reader)


def test_a_named_pipe_of_this_user_is_waited_for(here: Path) -> None:
    os.mkfifo("queue", 0o600)
    writer = threading.Thread(target=lambda: Path("queue").write_text(encode_key(OWNER)))
    writer.start()
    assert isinstance(read_key("queue", (OwnerKey,)), OwnerKey)
    writer.join()


# What another user has put in place


@pytest.fixture
def shared(here: Path) -> Path:
    """A directory such as /tmp, which is the current one."""
    require_second_user()
    made = here / "shared"
    made.mkdir()
    made.chmod(0o1777)
    os.chdir(made)
    return made


@pytest.mark.parametrize("directory", [".", ".."], ids=["where all can make files", "elsewhere"])
def test_a_pipe_of_another_user_is_refused_and_not_waited_for(directory: str, shared: Path) -> None:
    """Regression: a FIFO in the place of the key held cservice and cexec up for ever."""
    path = f"{directory}/planted"
    os.mkfifo(path, 0o600)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(KeyFileError, match="planted belongs to another user; use a copy of your own"):
        read_key(path, ANY)
    with pytest.raises(KeyFileError, match="planted belongs to another user; use a copy of your own"):
        keyfile.open_key(path)


def test_a_key_of_another_user_is_refused_where_all_can_make_files(shared: Path) -> None:
    """Whoever has made it can be a client of the worker that takes it for its own."""
    for directory in (".", ".."):
        write_new(f"{directory}/planted", encode_key(OWNER))
        os.chown(f"{directory}/planted", NOBODY, NOBODY)
    with pytest.raises(KeyFileError, match="belongs to another user"):
        read_key("planted", ANY)
    assert isinstance(read_key("../planted", ANY), OwnerKey)  # root serves a user's key


def test_a_link_of_another_user_is_refused_where_all_can_make_files(shared: Path) -> None:
    for name, user in (("planted", NOBODY), ("own", os.geteuid())):
        os.symlink("../app", name)
        os.chown(name, user, -1, follow_symlinks=False)
    with pytest.raises(KeyFileError, match="belongs to another user"):
        read_key("planted", ANY)
    assert isinstance(read_key("own", ANY), OwnerKey)


def test_what_is_read_again_and_again_is_no_pipe(here: Path) -> None:
    os.mkfifo("app.revoked", 0o600)
    with pytest.raises(KeyFileError, match="is no regular file"):
        keyfile.read_guarded("app.revoked")


def test_reading_leaves_no_descriptor_open(here: Path) -> None:
    before = os.listdir("/dev/fd")
    read_key("app", ANY)
    for name in ("none", "."):
        with pytest.raises(KeyFileError):
            read_key(name, ANY)
    assert len(os.listdir("/dev/fd")) == len(before)


@pytest.mark.parametrize(
    ("path", "descriptor"),
    [
        ("/dev/fd/63", 63),
        ("/proc/self/fd/5", 5),
        ("/dev/stdin", 0),
        ("app.pub", None),
        ("/dev/fd/", None),
        ("/dev/fd/3x", None),
        ("/dev/fd/-1", None),
        ("/dev/fd/²", None),
        ("63", None),
    ],
)
def test_the_descriptor_that_a_path_names(path: str, descriptor: int | None) -> None:
    assert key_descriptor(path) == descriptor


# Finding


@pytest.mark.parametrize("name", ["app.pub", "app", "./app"])
def test_a_client_key_is_found_by_its_name_with_and_without_the_ending(here: Path, name: str) -> None:
    assert Path(find_client_key(name)) == Path("app.pub")


def test_a_client_key_is_found_where_there_is_no_private_key(here: Path) -> None:
    os.unlink("app")
    assert find_client_key("app") == "app.pub"
    os.rename("app.pub", "plain")
    assert find_client_key("plain") == "plain"


def test_a_client_key_is_found_beside_a_directory_of_the_same_name(here: Path) -> None:
    os.unlink("app")
    os.mkdir("app")
    assert find_client_key("app") == "app.pub"


def test_a_client_key_called_by_its_exact_name_wins_over_one_with_the_ending(here: Path) -> None:
    os.unlink("app")
    write_new("app", encode_key(OwnerKey(b"t" * 32).client_key()))
    assert find_client_key("app") == "app"


def test_a_private_key_without_its_public_half_is_found_so_that_it_can_be_refused(here: Path) -> None:
    os.unlink("app.pub")
    assert find_client_key("app") == "app"


def test_a_pipe_is_found_and_not_read(here: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    assert find_client_key(f"/dev/fd/{reader}") == f"/dev/fd/{reader}"
    assert os.read(reader, 2) == b"x"
    os.mkfifo("queue")
    os.rename("app.pub", "queue.pub")
    assert find_client_key("queue") == "queue"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("name", "missing"), [("x", "neither x nor x.pub exists"), ("x.pub", "x.pub does not exist")])
def test_when_neither_is_there_the_names_and_ckeygen_are_told(here: Path, name: str, missing: str) -> None:
    with pytest.raises(KeyFileError) as error:
        find_client_key(name)
    assert str(error.value) == f"{missing}; copy x.pub from its owner or make it with: ckeygen x"


@pytest.mark.parametrize(
    ("find", "name", "meant"),
    [
        (find_client_key, "ap", "app.pub"),
        (find_client_key, "apps.pub", "app.pub"),
        (find_key, "ap", "app"),
        (find_key, "nod1.worker", "node1.worker"),
        (find_key, "ap.relay", "app.relay"),
        (find_key, "readmee", ""),  # no key is beside it
        (find_key, "zzz.pub", ""),  # the end alone is no likeness
    ],
)
def test_the_key_that_was_meant_is_named(here: Path, find: Callable[[str], str], name: str, meant: str) -> None:
    for other in ("node1.worker", "readme"):
        Path(other).touch()
    with pytest.raises(KeyFileError) as error:
        find(name)
    assert f"; did you mean {meant}? Otherwise copy " in str(error.value) if meant else "mean" not in str(error.value)


def test_a_directory_that_we_may_not_search_is_told(ordinary_directory: Path) -> None:
    closed = ordinary_directory / "closed"
    closed.mkdir(0o600)
    with pytest.raises(KeyFileError, match=r"closed/app\.pub cannot be read: permission denied"):
        find_client_key(f"{closed}/app")


# Writing


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_a_new_file_has_its_mode_whatever_the_umask(tmp_path: Path, umask: Callable[[int], int], mask: int) -> None:
    umask(mask)
    for name, mode in (("a", 0o600), ("b", 0o640)):
        write_new(str(tmp_path / name), "text", mode)
        assert (tmp_path / name).stat().st_mode & 0o7777 == mode
        assert (tmp_path / name).read_text() == "text"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_is_never_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("old")
    os.symlink("nowhere", "link")
    os.mkdir("directory")
    for name in ("file", "link", "directory"):
        with pytest.raises(FileExistsError):
            write_new(name, "new")
    assert Path("file").read_text() == "old"
    assert sorted(os.listdir()) == ["directory", "file", "link"]


def no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_file_system_without_hard_links_gets_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    write_new(str(tmp_path / "file"), "text")
    assert (tmp_path / "file").read_text() == "text"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("function", ["write", "fchmod", "fsync", "link", "rename"])
def test_whatever_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, function: str
) -> None:
    def fail(*_: object) -> None:
        raise failure

    if function == "rename":
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, function, fail)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else LocalError
    with pytest.raises(expected) as error:
        write_new(str(tmp_path / "file"), "text")
    if expected is LocalError:
        assert str(error.value) == f"cannot write {tmp_path}/file: no space left on device"
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1]))
    write_new(str(tmp_path / "file"), "some text")
    assert (tmp_path / "file").read_text() == "some text"


def test_of_many_writers_at_once_exactly_one_wins_and_its_text_is_whole(tmp_path: Path) -> None:
    for turn in range(20):
        path = str(tmp_path / str(turn))
        start = threading.Barrier(8)
        winners: list[str] = []

        def write(text: str, path: str = path, start: threading.Barrier = start, winners: list[str] = winners) -> None:
            start.wait()
            try:
                write_new(path, text)
            except FileExistsError:
                return
            winners.append(text)

        writers = [threading.Thread(target=write, args=(f"{number}" * 1000,)) for number in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [Path(path).read_text()] == winners
    assert len(os.listdir(tmp_path)) == 20


def test_a_missing_or_closed_directory_is_told(ordinary_directory: Path) -> None:
    with pytest.raises(LocalError, match=r"cannot write .*/none/file: no such file or directory"):
        write_new(str(ordinary_directory / "none" / "file"), "text")
    closed = ordinary_directory / "closed"
    closed.mkdir(0o500)
    with pytest.raises(LocalError, match="permission denied"):
        write_new(str(closed / "file"), "text")


def test_a_directory_that_cannot_be_listed_takes_a_new_file(ordinary_directory: Path) -> None:
    closed = ordinary_directory / "closed"
    closed.mkdir(0o300)
    write_new(str(closed / "file"), "text")
    assert (closed / "file").read_text() == "text"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """Regression: the draft's name was longer than the file's."""
    write_new(str(tmp_path / ("n" * 255)), "text")
    assert os.listdir(tmp_path) == ["n" * 255]


def test_a_path_without_a_directory_is_in_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_new("file", "text")
    assert os.listdir(tmp_path) == ["file"]
    assert 4 * len(encode_key(OWNER.worker_key("n" * 64))) < keyfile.MAXIMUM_KEY_FILE


# core files

FORBID = """
import sys
from cexec.system.storage import keyfile
keyfile.LIMITS = sys.argv[1]
keyfile.forbid_core_files()
print("resource" in sys.modules)
import resource
print(resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


@pytest.mark.parametrize(
    ("limit", "file", "loads"),
    [("0", "/proc/self/limits", False), ("0", "/proc/self/no such file", True), ("1", "/proc/self/limits", True),
     ("unlimited", "/proc/self/limits", True), ("unlimited", "/proc/self/no such file", True)],
)  # fmt: skip
def test_a_process_that_reads_a_key_writes_no_core_file(limit: str, file: str, loads: bool) -> None:
    """Where the limit is 0 by default, no time is spent on Python's module for limits."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        skip_for_want_of("core files")
    script = f'ulimit -S -c {limit}; exec "$@"'
    argv = ["sh", "-c", script, "sh", sys.executable, "-c", FORBID, file]
    ended = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout.split() == [str(loads), "0"]
