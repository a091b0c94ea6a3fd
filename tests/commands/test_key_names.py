"""The key that a user names: in the working directory or in ~/.config/cexec, for every command alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from cexec.protocol.base.keys import OwnerKey, encode_key
from tests import preloaded
from tests.environment import command, local_environment

OWNER = OwnerKey(bytes(range(32)))
FINGERPRINT = OWNER.fingerprint
NOT_A_PROGRAM = "no-such-program"


def run(*words: str, cwd: Path, config: Path) -> tuple[int, str]:
    """Returns the status and all that was said."""
    settings = {"XDG_CONFIG_HOME": str(config), "CEXEC_GROUP": "127.0.0.9", "CEXEC_TIMEOUT_ACCEPT": "0.1"}
    argv = command(words[0], *words[1:])
    ended = preloaded.run_text(argv, env=local_environment(settings), timeout=60, cwd=cwd)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration directory of a user who keeps all keys there."""
    directory = tmp_path / "config" / "cexec"
    directory.mkdir(parents=True)
    for name, key in (("app", OWNER), ("app.pub", OWNER.client_key()), ("app.relay", OWNER.relay_key())):
        (directory / name).write_text(encode_key(key))
        (directory / name).chmod(0o600)
    (tmp_path / "here").mkdir()
    return directory.parent


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("cexec", "app"), 111, f"cexec: no worker of {FINGERPRINT} answered in 0.1 s; "),
        (("cexec", "app.pub"), 111, f"cexec: no worker of {FINGERPRINT} answered in 0.1 s; "),
        (("cmap", "--dry-run", "app", ":::", "x"), 0, "cexec app"),
        (("cps", "app"), 111, f"cps: no worker of app ({FINGERPRINT}) answered; "),
        (("cservice", "app", NOT_A_PROGRAM), 100, f"cservice: {NOT_A_PROGRAM} is not found in the PATH "),
        (("cproxy", "--only", "app.relay", "nonsense address"), 100, "cproxy: 'nonsense address' is neither "),
        (("crat", "--output", "config/cexec/app.pub", "app"), 100, "crat: --output "),
        (("ckeygen", "--show", "app.pub"), 0, "client key"),
        (("ckeygen", "--list", "app"), 0, "ROLE"),
    ],
)
def test_a_plain_name_may_be_a_key_in_the_users_configuration(
    words: tuple[str, ...], status: int, expected: str, config: Path
) -> None:
    found = run(*(word.replace("config/", f"{config}/") for word in words), cwd=config.parent / "here", config=config)
    assert found[0] == status and expected.partition("|")[0].strip() in found[1], found


def test_a_key_that_is_issued_comes_from_there_too(config: Path) -> None:
    here = config.parent / "here"
    status, said = run("ckeygen", "--client", "laptop", "app", "laptop.pub", cwd=here, config=config)
    assert (status, said.partition(",")[0]) == (0, "laptop.pub is the key of the client laptop"), said
    assert (here / "laptop.pub").exists() and not (here / "app").exists()


def test_the_key_here_comes_first(config: Path) -> None:
    here = config.parent / "here"
    other = OwnerKey(bytes(32)).client_key()
    (here / "app.pub").write_text(encode_key(other))
    (here / "app.pub").chmod(0o600)
    assert other.fingerprint in run("cexec", "app", cwd=here, config=config)[1]


@pytest.mark.parametrize(
    ("words", "status", "advice"),
    [
        (("cexec", "nosuch"), 111, "copy nosuch.pub from its owner or make it with: ckeygen nosuch"),
        (("cmap", "nosuch", ":::", "x"), 111, "copy nosuch.pub from its owner or make it with: ckeygen nosuch"),
        (("cps", "nosuch"), 111, "copy nosuch.pub from its owner or make it with: ckeygen nosuch"),
        (("crat", "nosuch"), 111, "copy nosuch.pub from its owner or make it with: ckeygen nosuch"),
        (("cservice", "nosuch", "cat"), 111, "copy it from its owner or make it with: ckeygen nosuch"),
        (("cservice", "a.worker", "cat"), 111, "or make it with: ckeygen --worker NAME a a.worker"),
        (("cproxy", "--only", "nosuch.relay", "10.0.0.1"), 111, "or make it with: ckeygen --relay nosuch"),
        (("ckeygen", "--list", "nosuch"), 101, "or make it with: ckeygen nosuch"),
        (("cps",), 111, "name one: cps APP.pub"),
        (("crat",), 111, "name one: crat APP.pub"),
    ],
)
def test_the_status_without_a_key_is_the_same(words: tuple[str, ...], status: int, advice: str, tmp_path: Path) -> None:
    found, said = run(*words, cwd=tmp_path, config=tmp_path)
    assert (found, said.count("\n")) == (status, 1), said
    assert said.endswith(f"{advice}\n") and f"here or in {tmp_path}/cexec; " in said


@pytest.mark.parametrize(
    "words", [("cexec", "app"), ("cexec", "--all", "app"), ("cmap", "app", ":::", "x"), ("cps", "app")], ids=str
)
def test_when_nobody_answers_the_command_that_tells_why_is_named(words: tuple[str, ...], config: Path) -> None:
    status, said = run(*words, cwd=config.parent / "here", config=config)
    assert status == 111 and f"no worker of {'app (' if words[0] == 'cps' else ''}{FINGERPRINT}" in said
    assert said.endswith((" cexec --explain app tells why\n", "? cexec --explain app tells why\n"))


def test_who_has_asked_for_the_reason_is_not_told_to_ask(config: Path) -> None:
    status, said = run("cexec", "--explain", "app", cwd=config.parent / "here", config=config)
    assert status == 111 and "tells why" not in said
