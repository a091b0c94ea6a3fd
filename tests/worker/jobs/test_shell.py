"""A shell service: the account, and the command and environment of one job."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.protocol.connection.frames import PERMANENT, Refusal
from cexec.protocol.connection.options import SFTP, SUBSYSTEM
from cexec.worker.jobs import shell
from cexec.worker.jobs.shell import Shell, find_shell
from tests.protocol.wires import job

BASE = {b"HOME": b"/h", b"PATH": b"/bin"}
SHELL = Shell("bob", "/h", "/bin/bash", BASE)
EXTRA = {
    b"REMOTE_ADDR": b"10.0.0.1", b"REMOTE_PORT": b"5", b"SERVER_ADDR": b"fe80::2", b"SERVER_PORT": b"7",
    b"PEER_LANG": b"C", b"PEER_X": b"1", b"CEXEC_JOB": b"00",
}  # fmt: skip


def account(monkeypatch: pytest.MonkeyPatch, path: str, number: int = 1000) -> None:
    entry = pwd.struct_passwd(("bob", "x", number, number, "", "/home/bob", path))
    monkeypatch.setattr(os, "geteuid", lambda: number)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)


def test_the_account_and_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    account(monkeypatch, "/bin/sh")
    found = find_shell()
    assert (found.account, found.home, found.path) == ("bob", "/home/bob", "/bin/sh")
    assert found.environment == {
        b"HOME": b"/home/bob", b"LOGNAME": b"bob", b"MAIL": b"/var/mail/bob", b"SHELL": b"/bin/sh", b"USER": b"bob",
        b"PATH": b"/usr/local/bin:/usr/bin:/bin:/usr/games",
    }  # fmt: skip
    monkeypatch.setenv("TZ", "UTC")
    account(monkeypatch, "", 0)
    found = find_shell()
    assert found.path == "/bin/sh" and found.environment[b"TZ"] == b"UTC"
    assert found.environment[b"PATH"].startswith(b"/usr/local/sbin:")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/usr/sbin/nologin", "lets nobody log in, because its shell is /usr/sbin/nologin"),
        ("/bin/false", "lets nobody log in"),
        ("/does/not/exist", "/does/not/exist, cannot be started"),
    ],
)
def test_an_account_that_is_for_no_person(monkeypatch: pytest.MonkeyPatch, path: str, words: str) -> None:
    account(monkeypatch, path)
    with pytest.raises(UsageError, match=words):
        find_shell()


def test_a_number_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(UsageError, match="user number 4000000 has no account"):
        find_shell()


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ([], {}, ["-bash"]),
        ([b""], {}, ["-bash"]),
        ([b"ls  -l"], {}, ["bash", "-c", b"ls  -l"]),
        ([b"ls", b"", b"\xff"], {}, ["bash", "-c", b"ls  \xff"]),
    ],
)
def test_the_words_of_a_job(arguments: list[bytes], options: dict[str, str], words: list[bytes | str]) -> None:
    found, _ = shell.command_of(SHELL, job(arguments=arguments, options=options), EXTRA)
    assert found == words


def test_the_words_in_a_sandbox() -> None:
    assert shell.without_first_word(["-bash"], "/bin/bash") == ["/bin/bash", "-l"]
    assert shell.without_first_word(["bash", "-c", b"ls"], "/bin/bash") == ["/bin/bash", "-c", b"ls"]


def test_the_environment_of_a_job() -> None:
    go = job(environment={"LANG": b"C", "LC_ALL": b"x", "GIT_PROTOCOL": b"version=2", "X": b"1", "LANGUAGE": b"de"})
    extra = {**EXTRA, **{b"PEER_" + name.encode(): value for name, value in go.environment.items()}}
    _, environment = shell.command_of(SHELL, go, extra)
    assert environment == {
        **BASE, b"PWD": os.getcwdb(), b"SSH_CLIENT": b"10.0.0.1 5 7", b"SSH_CONNECTION": b"10.0.0.1 5 fe80::2 7",
        b"LANG": b"C", b"LC_ALL": b"x", b"GIT_PROTOCOL": b"version=2", b"PEER_X": b"1", b"PEER_LANGUAGE": b"de",
        **{name: value for name, value in EXTRA.items() if not name.startswith(b"PEER_")},
    }  # fmt: skip


def test_a_subsystem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = tmp_path / "sftp-server"
    monkeypatch.setattr(shell, "SFTP_SERVERS", (os.fspath(server),))
    go = job(options={SUBSYSTEM: SFTP}, arguments=[b"ignored"])
    missing = shell.check(go, SHELL)
    assert isinstance(missing, Refusal) and missing.kind == PERMANENT and "openssh-sftp-server" in missing.reason
    server.write_text("")
    server.chmod(0o755)
    assert shell.check(go, SHELL) is None
    assert shell.command_of(SHELL, go, EXTRA)[0] == ["bash", "-c", os.fspath(server)]
    other, none = shell.check(job(options={SUBSYSTEM: "netconf"}), SHELL), shell.check(go, None)
    assert other is not None and "there is no subsystem 'netconf' here, only sftp" in other.reason
    assert none is not None and "offers no shell" in none.reason
    assert shell.check(job(), SHELL) is shell.check(job(), None) is None


def test_a_home_that_is_not_there_is_the_root_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Shell("bob", os.fspath(tmp_path / "missing"), "/bin/sh").enter()
    assert os.getcwd() == "/"
    Shell("bob", os.fspath(tmp_path), "/bin/sh").enter()
    assert os.getcwd() == os.fspath(tmp_path)
