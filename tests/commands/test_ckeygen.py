"""ckeygen(1): exit statuses, files, messages."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from cexec import __version__
from cexec.authority import make
from cexec.commands import ckeygen
from cexec.protocol.base import sodium
from cexec.protocol.base.keys import (
    ROLE_CLIENT,
    Certificate,
    ClientKey,
    Identity,
    OwnerKey,
    RelayKey,
    decode_key,
    encode_key,
)
from cexec.system.storage.keyfile import read_key
from cexec.system.storage.whole_files import write_new
from tests.commands.keygen import Ended, Run, contents, fails
from tests.environment import command
from tests.needs import require_tool, skip_for_want_of

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """ckeygen in this process."""

    def call(*arguments: str) -> Ended:
        status = ckeygen.main(list(arguments))
        return Ended(status, *capfd.readouterr())

    return call


def run_process(*arguments: str, stdin: bytes = b"") -> Ended:
    ended = subprocess.run(command("ckeygen", *arguments), input=stdin, capture_output=True, timeout=60)
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


# Making keys


def test_two_files_are_made_and_the_user_is_told_what_to_do_with_them(run: Run) -> None:
    ended = run("app")
    assert (ended.status, ended.output) == (0, "")
    owner, client = read_key("app", (OwnerKey,)), read_key("app.pub", (ClientKey,))
    assert encode_key(owner.client_key()) == encode_key(client)
    assert ended.errors == (
        f"app is the private key of {owner.fingerprint}: on the workers run  cservice app PROGRAM\n"
        "app.pub is for the clients, copy it there and keep it secret: whoever holds it may run jobs\n"
    )
    assert sorted(contents()) == ["app", "app.pub"]


def test_the_first_line_of_app_pub_says_that_it_is_a_secret(run: Run) -> None:
    run("app")
    assert Path("app.pub").read_text().splitlines()[0].startswith("# SECRET")


def test_every_new_key_is_another(run: Run) -> None:
    run("a")
    run("b")
    assert read_key("a", (OwnerKey,)).seed != read_key("b", (OwnerKey,)).seed


@pytest.mark.parametrize("mask", [0, 0o277])
def test_the_files_are_the_owners_alone_whatever_the_umask(run: Run, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert run("app").status == 0
    finally:
        os.umask(before)
    assert [Path(name).stat().st_mode & 0o777 for name in ("app", "app.pub")] == [0o600, 0o600]


def test_the_client_key_may_have_any_name(run: Run) -> None:
    assert run("app", "for alice").status == 0
    assert sorted(contents()) == ["app", "for alice"]


def test_run_again_it_finds_the_same_files(run: Run) -> None:
    first = run("app")
    before = contents()
    again = run("app", "app.pub")
    assert (again.status, again.output) == (0, "")
    assert [line.partition(" ")[::2] for line in again.errors.splitlines()] == [
        (name, f"exists already, unchanged; it {rest}")
        for name, _, rest in (line.partition(" ") for line in first.errors.splitlines())
    ]
    assert contents() == before
    os.unlink("app.pub")
    lines = run("app").errors.splitlines()
    assert lines[0].startswith("app exists already, unchanged; it is the private key of ")
    assert lines[1].startswith("app.pub is for the clients")


def test_a_missing_public_file_is_made_again_byte_for_byte(run: Run) -> None:
    run("app")
    before = contents()
    os.unlink("app.pub")
    assert run("app").status == 0
    assert contents() == before


def test_a_comment_in_the_public_file_is_no_difference(run: Run) -> None:
    run("app")
    with open("app.pub", "a") as file:
        file.write("# Alice has this one\n")
    before = contents()
    assert run("app").status == 0
    assert contents() == before


def test_a_private_key_from_a_pipe_makes_its_public_file(run: Run) -> None:
    reader, writer = os.pipe()
    os.write(writer, encode_key(OwnerKey(b"s" * 32)).encode())
    os.close(writer)
    assert run(f"/dev/fd/{reader}", "app.pub").status == 0
    os.close(reader)
    assert read_key("app.pub", (ClientKey,)).fingerprint == OwnerKey(b"s" * 32).fingerprint


def test_a_relay_key_is_made_beside_the_others_when_asked_for(run: Run) -> None:
    run("app")
    assert run("--relay", "app").status == 0
    relay = read_key("app.relay", (RelayKey,))
    assert relay.mac1_key == read_key("app.pub", (ClientKey,)).mac1_key
    before = contents()
    assert run("app", "--relay").status == 0
    assert contents() == before


# From standard input


@pytest.mark.parametrize("option", ["-stdin", "--stdin"])
def test_standard_input_makes_the_same_key_everywhere(option: str) -> None:
    text = b"program" * 100_000
    ended = run_process(option, "one", stdin=text)
    assert ended.status == 0
    assert ended.errors.splitlines()[2] == (
        "both are exactly as secret as the standard input was: public input makes a public key"
    )
    assert run_process("two", option, stdin=text).status == 0
    made = contents()
    assert made["one"] == made["two"]
    assert made["one.pub"] == made["two.pub"]
    assert decode_key(made["one"]).from_input
    assert b"exactly as secret as that input was" in made["one"]
    assert b"exactly as secret as that input was" in made["one.pub"]
    assert run_process(option, "one", stdin=text).status == 0
    assert contents() == made


def test_another_standard_input_than_the_keys_is_104_and_changes_nothing() -> None:
    run_process("-stdin", "app", stdin=b"program")
    before = contents()
    fails(run_process("-stdin", "app", stdin=b"Program"), 104, "app exists and is not the key of this standard input")
    os.unlink("app.pub")
    assert run_process("-stdin", "app", stdin=b"Program").status == 104
    assert contents() == {"app": before["app"]}


def test_standard_input_does_not_match_a_random_key(run: Run) -> None:
    run("app")
    before = contents()
    assert run_process("-stdin", "app", stdin=b"program").status == 104
    assert contents() == before


def test_empty_standard_input_is_wrong_use() -> None:
    fails(run_process("-stdin", "app"), 100, "standard input is empty, and everybody knows the key of nothing")
    assert contents() == {}


def test_standard_input_that_cannot_be_read_is_temporary() -> None:
    with open(os.devnull, "wb") as unreadable:
        ended = subprocess.run(
            command("ckeygen", "-stdin", "app"), stdin=unreadable, capture_output=True, text=True, timeout=60
        )
    assert (ended.returncode, ended.stderr) == (111, "ckeygen: cannot read standard input: bad file descriptor\n")
    assert contents() == {}


# What is wrong with files


def test_an_invalid_private_key_is_101_and_stays(run: Run) -> None:
    run("app")
    Path("app.pub").unlink()
    text = Path("app").read_bytes()
    for damaged in (b"", text[:40], text.replace(b"seed: ", b"seed: 0"), b"\0" * 100_000):
        Path("app").write_bytes(damaged)
        ended = run("app")
        assert ended.status == 101
        assert ended.errors.startswith("ckeygen: app is damaged: ")
        assert contents() == {"app": damaged}


def test_a_private_key_that_others_may_read_is_101_and_says_what_to_type(run: Run) -> None:
    run("app")
    os.chmod("app", 0o644)
    fails(run("app"), 101, "app can be read by others; type: chmod 600 app")


def test_a_private_key_of_root_and_a_group_is_fine(run: Run) -> None:
    run("app")
    os.chmod("app", 0o640)
    assert run("app").status == 0


@pytest.mark.parametrize("name", ["app.pub", "app.relay"])
def test_another_kind_of_key_in_place_of_the_private_one_is_101(run: Run, name: str) -> None:
    run("app", "--relay")
    before = contents()
    kind = {"app.pub": "client", "app.relay": "relay"}[name]
    fails(run(name), 101, f"{name} is a {kind} key; APP must be the private key or not exist yet")
    assert contents() == before


def test_a_directory_or_a_dangling_link_in_place_of_the_private_key_is_101(run: Run) -> None:
    os.mkdir("directory")
    os.symlink("nowhere", "link")
    assert [run(name).status for name in ("directory", "link")] == [101, 101]
    assert sorted(os.listdir()) == ["directory", "link"]


def test_a_different_public_file_is_102_and_is_left_untouched(run: Run) -> None:
    run("app")
    run("other")
    before = contents()
    fails(run("app", "other.pub"), 102, "other.pub belongs to another private key and was left untouched")
    fails(run("app", "other"), 102, "other is a private key; it is in the way and was left untouched")
    assert contents() == before


def test_a_file_that_is_no_key_in_place_of_the_public_one_is_102(run: Run) -> None:
    run("app")
    Path("notes").write_text("my notes")
    os.chmod("notes", 0o600)
    ended = run("app", "notes")
    assert (ended.status, Path("notes").read_text()) == (102, "my notes")
    os.mkdir("directory")
    assert run("app", "directory").status == 102


def test_no_private_key_is_made_when_another_ones_public_file_is_in_place(run: Run) -> None:
    run("other", "app.pub")
    before = contents()
    fails(run("app"), 102, "app.pub belongs to another private key and was left untouched")
    assert contents() == before


def test_a_lost_private_key_comes_back_from_the_same_standard_input() -> None:
    run_process("-stdin", "app", stdin=b"program")
    before = contents()
    os.unlink("app")
    assert run_process("-stdin", "app", stdin=b"program").status == 0
    assert contents() == before


def test_a_public_file_that_others_may_read_is_102_and_says_what_to_type(run: Run) -> None:
    run("app")
    os.chmod("app.pub", 0o644)
    fails(run("app"), 102, "app.pub can be read by others; type: chmod 600 app.pub")


def test_places_that_cannot_be_written_are_103_and_102(run: Run) -> None:
    fails(run("none/app"), 103, "cannot write none/app: no such file or directory")
    fails(run("app", "none/app.pub"), 102, "cannot write none/app.pub: no such file or directory")
    assert sorted(contents()) == ["app"]
    assert run("app").status == 0


FULL_DISK = """
mount -t tmpfs -o size=64k none "$1" || exit 77
cd "$1"
dd if=/dev/zero of=filler bs=4096 2>/dev/null
"$2" "$3" app; echo "status $?"
ls -A
truncate -s -4096 filler
"$2" "$3" app; echo "status $?"
ls -A
truncate -s -8192 filler
"$2" "$3" app; echo "status $?"
ls -A
"$2" "$3" --show app.pub
"""


def test_a_full_disk_is_103_then_102_and_leaves_no_half_of_a_file() -> None:
    require_tool("unshare", "mount", "dd", "truncate")
    options = ["-m"] if os.geteuid() == 0 else ["-rm"]
    os.mkdir("disk")
    ended = subprocess.run(
        ["unshare", *options, "sh", "-c", FULL_DISK, "sh", "disk", *command("ckeygen")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if ended.returncode == 77 or "unshare" in ended.stderr:
        skip_for_want_of("a small file system")
    lines = ended.stdout.splitlines()
    expected = ["status 103", "filler", "status 102", "app", "filler", "status 0", "app", "app.pub", "filler"]
    assert lines[: len(expected)] == expected
    assert "kind: client key" in lines
    assert "ckeygen: cannot write app: no space left on device\n" in ended.stderr
    assert "ckeygen: cannot write app.pub: no space left on device\n" in ended.stderr


# Several at once, and interruptions


def test_many_at_once_on_one_name_end_with_the_same_two_files() -> None:
    for name in ("a", "b"):
        argv = command("ckeygen", name)
        started = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(6)]
        endings = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
        assert {status for _, status in endings} == {0}
        assert len({errors.replace("exists already, unchanged; it ", "") for errors, _ in endings}) == 1
        assert encode_key(read_key(name, (OwnerKey,)).client_key()) == Path(f"{name}.pub").read_text()
    assert sorted(contents()) == ["a", "a.pub", "b", "b.pub"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_faster_one_at_any_moment_is_taken_for_the_owner(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Before the first or the second file of ours is written, another ckeygen has written both of its own."""
    other = OwnerKey(b"o" * 32)
    writes: list[str] = []

    def write_second(path: str, text: str) -> None:
        writes.append(path)
        if len(writes) == number:
            for name, key in (("app", other), ("app.pub", other.client_key())):
                if not os.path.exists(name):
                    write_new(name, encode_key(key))
        write_new(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(make, "write_new", write_second)
        patch.setattr(sodium, "random_bytes", lambda size: b"o" * size if number == 2 else os.urandom(size))
        assert run("app").status == 0
    assert read_key("app", (OwnerKey,)).seed == other.seed
    assert read_key("app.pub", (ClientKey,)).fingerprint == other.fingerprint


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_waits_for_standard_input_leaves_nothing(sent: signal.Signals) -> None:
    process = subprocess.Popen(
        command("ckeygen", "-stdin", "app"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until_reading(process.pid)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert (process.returncode, errors) == (111, "ckeygen: interrupted\n")
    else:
        assert (process.returncode, errors) == (-sent, "")
    assert contents() == {}


def wait_until_reading(pid: int) -> None:
    """Until the process blocks in a read of its pipe (or, where that cannot be seen, for a second)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if "pipe" in Path(f"/proc/{pid}/wchan").read_text():
                return
        except OSError:
            time.sleep(1)
            return
        time.sleep(0.01)


@pytest.mark.parametrize("moment", ["write", "fsync", "link", "unlink"])
def test_ctrl_c_in_the_middle_of_writing_waits_until_the_file_is_whole(
    run: Run, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    function, own = getattr(os, moment), threading.get_ident()

    def interrupted(*arguments: object) -> object:
        if threading.get_ident() == own:  # the threads of the test runner write, too
            signal.raise_signal(signal.SIGINT)
        return function(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, interrupted)
        ended = run("app")
    assert (ended.status, ended.errors) == (111, "ckeygen: interrupted\n")
    assert sorted(contents()) == ["app"]
    assert run("app").status == 0
    assert sorted(contents()) == ["app", "app.pub"]


# Showing


def test_show_tells_kind_fingerprint_names_and_dates(run: Run) -> None:
    run("app", "--relay")
    fingerprint = read_key("app", (OwnerKey,)).fingerprint
    assert run("--show", "app").output == f"kind: private key\nfingerprint: {fingerprint}\n"
    assert run("--show", "app.relay").output == f"kind: relay key\nfingerprint: {fingerprint}\n"
    assert run("--show", "app.pub").output == (
        f"kind: client key\nfingerprint: {fingerprint}\nclient: default\nserial: 1\n"
        "valid from: no date\nvalid until: no date\n"
    )


def test_show_tells_the_dates_of_a_named_client(run: Run) -> None:
    owner = OwnerKey(b"s" * 32)
    signing_seed = b"t" * 32
    issued = Certificate.issue(
        owner.authority_seed, ROLE_CLIENT, "alice", 7, sodium.signing_public_key(signing_seed), 0, 1_795_260_300
    )
    client = owner.client_key()
    alice = ClientKey(client.worker_public, client.psk, client.authority_public, Identity(issued, signing_seed))
    write_new("alice", encode_key(alice))
    assert run("--show", "alice").output.splitlines()[2:] == [
        "client: alice",
        "serial: 7",
        "valid from: 1970-01-01 00:00 UTC",
        "valid until: 2026-11-21 11:25 UTC",
    ]


def test_show_tells_a_worker_and_that_a_key_was_made_from_input(run: Run) -> None:
    owner = OwnerKey.from_standard_input([b"program"])
    write_new("app.worker", encode_key(owner.worker_key("box")))
    output = run("--show", "app.worker").output
    assert "kind: worker key\n" in output
    assert "worker: box\n" in output
    assert "made from: standard input, and exactly as secret\n" in output


def test_nothing_secret_is_ever_printed(run: Run) -> None:
    owner = OwnerKey.from_standard_input([b"program"])
    worker = owner.worker_key("box")
    for name, key in (("app", owner), ("app.worker", worker), ("app.pub", owner.client_key())):
        write_new(name, encode_key(key))
    printed = "".join(
        ended.output + ended.errors
        for ended in (run("app", "--relay"), *(run("--show", name) for name in sorted(os.listdir())))
    )
    hidden = [line.partition(": ")[2] for text in contents().values() for line in text.decode().splitlines()]
    secrets = [value for value in hidden if len(value) >= 64]
    assert len(secrets) > 10
    assert not any(secret in printed for secret in secrets)


def test_show_of_what_is_no_key_is_101(run: Run) -> None:
    Path("notes").write_text("my notes")
    os.chmod("notes", 0o600)
    fails(run("--show", "notes"), 101, "notes is damaged: it does not begin like a cexec key")
    ended = run("--show", "none")
    assert ended.status == 101 and ended.errors.startswith("ckeygen: none does not exist")


# Wrong use, and output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the name of the application's key is missing; see ckeygen --help"),
        ([""], "APP is empty; is a variable of the shell not set?"),
        (["a", "b", "c"], "got unexpected extra argument (c); see ckeygen --help"),
        (["-x", "app"], "no such option '-x'; see ckeygen --help"),
        (["--show"], "--show needs a value; see ckeygen --help"),
        (["--show", "app", "app"], "--show takes one file and nothing else"),
        (["--show", "app", "--relay"], "--show cannot be used with --stdin or --relay"),
        (["--client", "laptop", "app"], "--client takes NAME, then APP, then the FILE to write"),
        (["--worker", "box"], "the name of the application's key is missing; see ckeygen --help"),
        (["--client", "a", "--worker", "b", "app", "f"], "--client and --worker cannot be used together"),
        (["--client", "a", "--revoke", "b", "app"], "--revoke and --client cannot be used together"),
        (["--client", "a", "--relay", "app", "f"], "--client cannot be used with --stdin or --relay"),
        (["--days", "3", "app"], "--days needs --client or --worker"),
        (
            ["--days", "0", "--client", "a", "app", "f"],
            "invalid value for '--days': 0 is not in the range 1<=x<=100000; see ckeygen --help",
        ),
        (["--revoke", "a", "app", "f"], "--revoke takes NAME or SERIAL, then APP, and nothing else"),
        (["--list", "app", "f"], "--list takes one file and nothing else"),
        (["app", "./app"], "app and ./app must be different files"),
        (["--relay", "app", "app.relay"], "app and app.relay and app.relay must be different files"),
    ],
)
def test_wrong_use_is_100_and_makes_nothing(run: Run, arguments: list[str], message: str) -> None:
    fails(run(*arguments), 100, message)
    assert contents() == {}


def test_version_and_help_go_to_standard_output(run: Run) -> None:
    version = run("--version")
    assert (version.status, version.output, version.errors) == (0, f"ckeygen {__version__}\n", "")
    summary = run("--help")
    assert (summary.status, summary.errors) == (0, "")
    for word in ("-stdin, --stdin", "--show FILE", "--relay", "[APP.pub]"):
        assert word in summary.output


def test_a_name_that_begins_with_a_dash_comes_after_two(run: Run) -> None:
    assert run("--", "-x").status == 0
    assert sorted(contents()) == ["-x", "-x.pub"]


def test_a_name_cannot_move_the_cursor(run: Run) -> None:
    ended = run("a\x1b[2J\nb")
    assert ended.status == 0
    assert "\x1b" not in ended.errors
    assert ended.errors.count("\n") == 2
    assert "'a\\x1b[2J\\nb'" in ended.errors


def test_a_name_that_is_no_utf_8_is_taken_as_it_is() -> None:
    name = os.fsdecode(b"\xff\xfe")
    assert run_process(name).status == 0
    assert sorted(os.listdir()) == [name, f"{name}.pub"]


@pytest.mark.parametrize("output", ["/dev/full", "closed pipe"])
def test_what_cannot_be_shown_is_no_success(run: Run, output: str) -> None:
    run("app")
    if output == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(output, os.O_WRONLY)
    ended = subprocess.run(
        command("ckeygen", "--show", "app"), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert ended.returncode == 111
    assert "Traceback" not in ended.stderr
    if output == "/dev/full":
        assert ended.stderr == "ckeygen: cannot write to standard output: no space left on device\n"


def test_keys_are_made_although_nobody_can_be_told() -> None:
    with open("/dev/full", "wb") as full:
        assert subprocess.run(command("ckeygen", "app"), stderr=full, timeout=60).returncode == 0
    assert sorted(contents()) == ["app", "app.pub"]


def test_the_file_for_relays_is_told(tmp_path: Path) -> None:
    argv = command("ckeygen", "--relay", "app")
    made = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert made.returncode == 0
    assert made.stderr.splitlines()[2:] == ["app.relay is for relays:  cproxy --only app.relay SELF"]
