"""cboot's command line: what is refused before any host is asked, and with which words."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.environment import command, local_environment
from tests.preloaded import run_text
from tests.service import Application

SSH = "#!/bin/sh\necho 'ssh: connect to host x port 22: Connection refused' >&2\nexit 255\n"


@pytest.fixture
def application(tmp_path: Path) -> Application:
    return Application(tmp_path)


def cboot(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it with an ssh that reaches nobody."""
    ssh = directory / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    changes = {"PATH": f"{directory}:{os.defpath}", "XDG_CACHE_HOME": str(directory / "cache"), "HOME": str(directory)}
    return run_text(command("cboot", *arguments), env=local_environment(changes), timeout=60.0, cwd=directory)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there are no hosts: cboot HOSTFILE APP -- EXE"),
        (["", "app", "cat"], "HOSTFILE is empty; is a variable of the shell not set?"),
        (["-w", "a"], "the name of the application's key is missing"),
        (["-w", "a", "app"], "the program is missing that the workers run"),
        (["-w", "a[1-", "app", "cat"], "-w line 1: 'a[1-': a bracket is not closed"),
        (["-w", "a", "app", "--", "--no-such", "cat"], "no such option '--no-such': cservice --help"),
        (["-w", "a", "app", "--", "-j", "x", "cat"], "'x' is not a whole number"),
        (["-w", "a", "app", "--", "-j", "2"], "missing"),
        (["-w", "a", "app", "--", "--name", "x", "cat"], "--name is not for many hosts"),
        (["-w", "a", "app", "--", "--also=b", "cat"], "--also is not for many hosts"),
        (["-w", "a", "--stop", "app", "cat"], "--stop takes HOSTFILE and APP, and no program"),
        (["-w", "a", "--stop", "--remove", "app"], "--stop and --remove cannot be used together"),
        (["-w", "a", "--run", "x", "--status", "app"], "--status and --run cannot be used together"),
        (["-w", "a", "--dry-run", "--remove", "app"], "--dry-run and --remove cannot be used together"),
        (["-w", "a", "--keep-programs", "app", "cat"], "--keep-programs needs --remove"),
        (["-w", "a", "--json", "--run", "x", "app", "cat"], "--json and --run cannot be used together"),
        (["-w", "", "app", "cat"], "--hosts is empty"),
        (["-w", "a", "--ssh", "ssh '", "app", "cat"], '--ssh "ssh \'": no closing quotation'),
        (["-w", "a", "--ssh", "no-such-ssh -v", "app", "cat"], "there is no program 'no-such-ssh'"),
        (["-w", "a", "--with", "a b", "app", "cat"], "--with 'a b' is not the name of a package"),
        (["-w", "a", "--patience", "x", "app", "cat"], "--patience"),
        (["-w", "a", "-j", "0", "app", "cat"], "0 is not in the range"),
        (["-w", "a", "--wheels", "nowhere", "app", "cat"], "Directory 'nowhere' does not exist"),
        (["-w", "a", "--wheels", ".", "app", "cat"], "there is no wheel (*.whl) in it"),
        (
            ["-w", "a", "app", "tr", "-d", "x"],
            "what is for cservice and its program comes after --: cboot HOSTFILE APP -- EXE",
        ),
        (["-w", ":", "app", "cat"], "run cservice here"),
    ],
)
def test_wrong_use_is_told_before_any_host_is_asked(
    words: list[str], said: str, tmp_path: Path, application: Application
) -> None:
    ended = cboot(tmp_path, *words)
    assert (ended.returncode, ended.stdout) == (100, "")
    assert said in ended.stderr and ended.stderr.startswith("cboot: ") and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (["nowhere", "app", "cat"], "cannot read nowhere: no such file or directory", 111),
        (["node[1-3]", "app", "cat"], "hosts themselves are given by -w: cboot -w 'node[1-3]'", 111),
        (["-w", "a", "absent", "cat"], "absent does not exist", 111),
        (["-w", "a", "app.pub", "cat"], "cboot issues a key for each worker with the private key, APP", 101),
    ],
)
def test_files_that_cannot_be_used_are_named(
    words: list[str], said: str, status: int, tmp_path: Path, application: Application
) -> None:
    ended = cboot(tmp_path, *words)
    assert (ended.returncode, ended.stdout) == (status, "") and said.lower() in ended.stderr.lower()


def test_a_host_that_fails_makes_the_status_one(tmp_path: Path, application: Application) -> None:
    ended = cboot(tmp_path, "--json", "--patience", "0", "-w", "a,b", "app", "cat")
    assert ended.returncode == 1
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(one["host"], one["state"], one["failure"]) for one in found] == [
        ("a", "failed", "refused"), ("b", "failed", "refused"),
    ]  # fmt: skip


def test_a_host_that_answers_without_end_does_not_end_the_run_of_the_others(
    tmp_path: Path, application: Application
) -> None:
    """Regression: brackets that are not closed ended it with a traceback."""
    hostile, ssh = tmp_path / "hostile", tmp_path / "reach"
    hostile.mkdir()
    (hostile / "python3").write_text("#!/bin/sh\nprintf '\\n%s ' \"$3\"; yes '[' | head -n 5000 | tr -d '\\n'; echo\n")
    ssh.write_text(f'#!/bin/sh\ncase "$*" in *" a "*) PATH={hostile}:$PATH exec sh;; esac\nexec {tmp_path}/ssh\n')
    for file in (hostile / "python3", ssh):
        file.chmod(0o755)
    ended = cboot(tmp_path, "--json", "--patience", "0", "--ssh", str(ssh), "-w", "a,b", "app", "cat")
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(one["host"], one["failure"]) for one in found] == [("a", "remote"), ("b", "refused")], ended.stderr
    assert found[0]["words"].startswith("it answers what cannot be read: '[[[")


def test_no_more_hosts_than_j_are_set_up_at_once(tmp_path: Path, application: Application) -> None:
    """An ssh of ours waits until another one is there, and notes how many there are."""
    ssh = tmp_path / "slow"
    ssh.write_text(
        "#!/bin/sh\nmkdir at.$$\nfor look in 1 2 3 4 5 6 7 8 9 10; do\n"
        "    set -- at.*; echo $# >> counts; test $# -gt 1 && break; sleep 0.1\ndone\n"
        "sleep 0.1; rmdir at.$$; exit 255\n"
    )
    ssh.chmod(0o755)
    ended = cboot(tmp_path, "--patience", "0", "-j", "2", "--ssh", str(ssh), "-w", "h[1-6]", "app", "cat")
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert ended.returncode == 1 and max(counts) == 2 and len(counts) >= 6


def test_a_file_of_hosts_is_read(tmp_path: Path, application: Application) -> None:
    (tmp_path / "hosts").write_text("# the room\n2/u@a:2200 # old\nb[1-2]\n")
    ended = cboot(tmp_path, "--patience", "0", "hosts", "app", "--", "cat")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["HOST", "u@a:2200", "b1", "b2"]
    assert ended.stderr.splitlines()[-1] == "cboot: 0 of 3 hosts serve; failed: refused 3"


def test_removal_needs_no_key(tmp_path: Path) -> None:
    ended = cboot(tmp_path, "--remove", "--patience", "0", "-w", "a")
    assert ended.returncode == 1 and "refused" in ended.stdout


def test_nothing_is_left_here(tmp_path: Path, application: Application) -> None:
    """But for the record of keys, and the wheels in the cache."""
    before = {path.name for path in tmp_path.iterdir()}
    cboot(tmp_path, "--patience", "0", "-w", "a", "app", "cat")
    assert {path.name for path in tmp_path.iterdir()} - before <= {"ssh", "cache"}


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        ("<&-", "standard input names no host"),
        ("< hosts", "standard input line 1: 'a\ufffd' is not a host"),
        ("> out <&1", "cannot read standard input: bad file descriptor"),
    ],
)
def test_hosts_from_an_odd_standard_input(
    application: Application, tmp_path: Path, redirection: str, said: str
) -> None:
    """Regression: a standard input that is closed was a traceback."""
    (tmp_path / "hosts").write_bytes(b"a\xff\n")
    script = f"exec {shlex.join(command('cboot', '--status', '--ssh', 'true', '-', application.secret))} {redirection}"
    ended = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=local_environment(), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (111 if "cannot" in said else 100, "")
    assert ended.stderr.startswith(f"cboot: {said}")
