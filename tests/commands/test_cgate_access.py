"""cgate token, cgate login, cgate tls, and where cgate listens: exit statuses, outputs, messages."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cexec.commands import cgate
from cexec.gate.access.key_rows import set_site
from cexec.gate.access.secret import Kind, parse_secret
from cexec.gate.store.database import Database
from tests.commands.keygen import Ended
from tests.environment import command, local_environment
from tests.service import Application
from tests.terminal import INTERRUPT, Terminal
from tests.waiting import PATIENCE

Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """cgate in this process."""

    def call(*arguments: str) -> Ended:
        return Ended(cgate.main(list(arguments)), *capfd.readouterr())

    return call


def run_process(*arguments: str | os.PathLike[str]) -> Ended:
    """A cgate that must not come to serve."""
    ended = subprocess.run(
        command("cgate", *arguments), capture_output=True, timeout=PATIENCE, env=local_environment(), text=True
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


# Tokens


def test_a_token_is_printed_alone_and_once(run: Run) -> None:
    ended = run("token", "add", "ci", "--state", "state", "--app", "keys/app.pub", "--days", "90")
    assert ended.status == 0
    secret = parse_secret(ended.output.rstrip("\n"))
    assert secret is not None and secret.kind is Kind.TOKEN
    assert re.fullmatch(
        r"ci is a submitter of app, until \d{4}-\d\d-\d\d; keep the token, it is not shown again\n"
        r"programs send it with each request:  Authorization: Bearer TOKEN\n",
        ended.errors,
    )
    assert stat.S_IMODE(os.stat("state").st_mode) == 0o600
    for arguments in (("list",), ("list", "--json"), ("revoke", "ci")):
        later = run("token", *arguments, "--state", "state")
        assert later.status == 0 and ended.output.strip() not in later.output + later.errors


def test_tokens_are_listed(run: Run) -> None:
    run("token", "add", "ci", "--state", "state")
    run("token", "add", "eyes", "--role", "viewer", "--app", "b", "--app", "a", "--state", "state")
    run("token", "revoke", "ci", "--state", "state")
    head, first, second = run("token", "list", "--state", "state").output.splitlines()
    assert head.split() == ["NUMBER", "KIND", "NAME", "ROLE", "APPS", "MADE", "ENDS", "STATE"]
    assert first.split()[1:5] == ["token", "ci", "submitter", "all"] and first.split()[-1] == "revoked"
    assert second.split()[1:5] == ["token", "eyes", "viewer", "a,b"] and second.split()[-1] == "valid"
    facts = [json.loads(line) for line in run("token", "list", "--json", "--state", "state").output.splitlines()]
    assert [(one["name"], one["valid"], one["apps"]) for one in facts] == [
        ("ci", False, None),
        ("eyes", True, ["a", "b"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("add",), 100, " add: missing argument 'NAME'; see cgate token add --help"),
        (("add", "a b"), 100, " add: NAME is 'a b', but must be 1 to 64 letters, digits, '.', '_', '@' or '-'"),
        (("add", "login"), 100, " add: login is the name of all sessions of browsers; give the token another one"),
        (("add", "x", "--app", ""), 100, " add: --app is empty; is a variable of the shell not set?"),
        (
            ("add", "x", "--days", "0"), 100,
            " add: invalid value for '--days': 0 is not in the range 1<=x<=36500; see cgate token add --help",
        ),
        (
            ("list", "--state", "none"), 111,
            " list: there is no state file none; --state names that of the cgate that is meant",
        ),
        ((), 100, ": one of add, list, revoke has to follow: none was given"),
        (("remove", "x"), 100, ": one of add, list, revoke has to follow: 'remove' is none of them"),
    ],
)  # fmt: skip
def test_wrong_use_is_told(run: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    ended = run("token", *arguments)
    assert (ended.status, ended.output, ended.errors) == (status, "", f"cgate token{message}\n")


def test_a_name_is_used_once(run: Run) -> None:
    assert run("token", "add", "ci").status == 0
    again = run("token", "add", "ci")
    assert (again.status, again.output) == (100, "")
    assert again.errors == "cgate token add: there is a token ci: revoke it first (cgate token revoke ci)\n"
    revoked = run("token", "revoke", "ci")
    assert (revoked.status, revoked.errors) == (0, "the token ci (number 1) is revoked\n")
    assert run("token", "add", "ci").status == 0
    assert os.path.exists(".local/state/cexec/gate.sqlite")


def test_what_is_not_there_cannot_be_revoked(run: Run) -> None:
    run("token", "add", "ci")
    for who in ("cl", "#7", "1"):
        ended = run("token", "revoke", who)
        message = f"cgate token revoke: there is no valid token or session {who}; cgate token list shows them\n"
        assert (ended.status, ended.errors) == (111, message)


@pytest.mark.parametrize("kind", ["text", "link", "directory", "other"])
def test_a_state_that_is_none_is_refused(run: Run, here: Path, kind: str) -> None:
    state = here / "state"
    if kind == "text":
        state.write_text("my notes")
        state.chmod(0o600)
    elif kind == "link":
        run("token", "add", "ci", "--state", "real")
        state.symlink_to("real")
    elif kind == "directory":
        state.mkdir()
    else:
        import sqlite3

        with sqlite3.connect(state) as database:
            database.execute("CREATE TABLE mine (a)")
        database.close()
    before = state.read_bytes() if kind in ("text", "other") else b""
    ended = run("token", "add", "ci", "--state", "state")
    assert ended.status in (100, 111) and ended.output == "" and ended.errors.startswith("cgate token add: ")
    assert kind not in ("text", "other") or state.read_bytes() == before


# Login


def test_a_url_is_printed_alone(run: Run) -> None:
    run("token", "add", "ci", "--state", "state")
    none = run("login", "--state", "state")
    assert (none.status, none.output) == (111, "")
    assert none.errors == "cgate login: no cgate has served with this state yet; start it first\n"
    database = Database("state", sole=False)
    database.write_now(lambda connection: set_site(connection, "http://127.0.0.1:8042"))
    database.close()
    ended = run("login", "--state", "state", "--role", "viewer", "--for", "1h")
    assert ended.status == 0
    base, _, code = ended.output.strip().partition("#")
    assert base == "http://127.0.0.1:8042/login"
    secret = parse_secret(code)
    assert secret is not None and secret.kind is Kind.LOGIN
    assert ended.errors == "good once, within 1 h 00 min; keep it to yourself\n"
    assert "login" not in run("token", "list", "--state", "state").output.split("\n", 1)[1]  # no session yet


def test_on_a_terminal_the_first_line_lets_a_browser_in_once(here: Path) -> None:
    application = Application(here)
    argv = command("cgate", "--http", "127.0.0.1:0", "--state", "state", application.public)
    with Terminal(argv, local_environment()) as terminal:
        terminal.wait_for(b"(good once)")
        first = terminal.seen.decode().splitlines()[0]
        found = re.fullmatch(r"cgate: serving app at (http://127\.0\.0\.1:\d+); open (\S+) \(good once\).*", first)
        assert found, first
        base, url = found.groups()
        where, _, code = url.partition("#")
        assert where == f"{base}/login"
        with httpx.Client(base_url=base, trust_env=False, verify=False, headers={"Origin": base}) as client:
            assert client.post("/login", data={"code": code}).status_code == 303
            assert client.get("/v1/apps").json() == {"apps": [{"name": "app"}]}
            assert client.post("/login", data={"code": code}).status_code == 401
        terminal.type(INTERRUPT)
        assert terminal.wait() == 0
    assert code.encode() not in terminal.seen.replace(url.encode(), b"", 1)  # nor in the line of the audit


def test_a_url_of_the_command_lets_a_browser_in(here: Path, run: Run) -> None:
    application = Application(here)
    gate = subprocess.Popen(
        command("cgate", "--http", "127.0.0.1:0", "--state", "state", application.public),
        env=local_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert gate.stderr is not None
    try:
        first = gate.stderr.readline()
        assert "#" not in first and "cgate login" in first  # not on a terminal: no secret in a log
        url = run("login", "--state", "state", "--role", "viewer").output.strip()
        base, _, code = url.partition("/login#")
        with httpx.Client(base_url=base, trust_env=False, verify=False, headers={"Origin": base}) as client:
            assert client.post("/login", data={"code": code}).status_code == 303
            assert client.get("/v1/apps").status_code == 200
            assert client.post("/v1/jobs", json={"app": "app"}).status_code == 403
            assert run("token", "revoke", "login", "--state", "state").status == 0
            assert client.get("/v1/apps").status_code == 401
    finally:
        gate.terminate()
        gate.communicate(timeout=PATIENCE)
    assert gate.returncode == 0


# TLS


def test_certificates_are_made_once(run: Run, here: Path) -> None:
    ended = run("tls", "init", "tls", "gate.example.org", "10.0.0.5")
    assert (ended.status, ended.output) == (0, "")
    assert "cgate --tls-cert tls/server.pem --tls-key tls/server.key --client-ca tls/ca.pem" in ended.errors
    before = {path.name: path.read_bytes() for path in (here / "tls").iterdir()}
    assert run("tls", "client", "tls", "ci").status == 0
    assert (here / "tls" / "ci.key").stat().st_mode & 0o777 == 0o600
    for name, status, words in (
        ("ci", 111, "tls/ci.pem exists already, and nothing is replaced"),
        ("ca", 100, "TOKEN is 'ca', which is the name of a file of cgate tls init"),
        ("../ci", 100, "NAME is '../ci', but must be"),
    ):
        refused = run("tls", "client", "tls", name)
        assert refused.status == status and words in refused.errors
    assert "cannot read none/ca.pem: no such file or directory" in run("tls", "client", "none", "ci").errors
    for path in (here / "tls").glob("ci.*"):
        path.unlink()
    again = run("tls", "init", "tls")
    assert (again.status, again.errors) == (111, "cgate tls init: tls/ca.pem exists already, and nothing is replaced\n")
    assert {path.name: path.read_bytes() for path in (here / "tls").iterdir()} == before


# Where cgate listens


@pytest.mark.parametrize("where", ["0.0.0.0:0", "[::]:0"])
def test_it_does_not_listen_beyond_loopback_without_tls_and_a_token(run: Run, here: Path, where: str) -> None:
    application = Application(here)
    state = ("--state", "state")
    ended = run_process(*state, "--http", where, application.public)
    assert (ended.status, ended.output) == (100, "")
    assert re.fullmatch(
        r"cgate: --http \S+ is not a loopback address, and needs TLS there: "
        r"give --tls-cert and --tls-key \(cgate tls init DIR makes them\)\n",
        ended.errors,
    )
    run("tls", "init", "tls")
    tls = ("--tls-cert", "tls/server.pem", "--tls-key", "tls/server.key")
    ended = run_process(*state, *tls, "--http", where, application.public)
    assert ended.status == 100
    assert ended.errors.endswith("no token is valid yet: make one first (cgate token add)\n")
    grpc = run_process(*state, "--http", "127.0.0.1:0", "--grpc", where, application.public)
    assert grpc.status == 100 and "--grpc " in grpc.errors and "is not a loopback address, and needs TLS" in grpc.errors
    half = run_process(*state, "--tls-cert", "tls/server.pem", "--http", where, application.public)
    assert half.status == 100 and "--tls-cert and --tls-key are given together" in half.errors
