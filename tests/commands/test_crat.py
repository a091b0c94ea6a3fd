"""crat as an operator starts it; what it hears is in tests/network/test_alerts.py."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.environment import clean_environment, command, local_environment
from tests.service import Application, Service
from tests.waiting import PATIENCE


def crat(directory: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Runs there, which is its home too, with pipes."""
    environment = local_environment({"HOME": str(directory)})
    argv = command("crat", *map(str, arguments))
    settings: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(argv, cwd=directory, text=True, **settings)


def first_lines(process: subprocess.Popen[str]) -> str:
    """Up to the one that says that it listens."""
    text = ""
    assert process.stderr is not None
    while "listening" not in text:
        line = process.stderr.readline()
        assert line, text
        text += line
    return text


def test_without_names_it_takes_what_is_here_and_at_home(tmp_path: Path) -> None:
    (tmp_path / ".config/cexec").mkdir(parents=True)
    Application(tmp_path, "here")
    Application(tmp_path / ".config/cexec", "at-home")
    with crat(tmp_path) as process:
        assert "logging here.pub, at-home.pub, " in first_lines(process)
        process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("variable", "directory"), [("{}/config", "config"), ("config", ".config"), ("", ".config")], ids=str
)
def test_keys_are_looked_for_where_the_user_keeps_configuration(tmp_path: Path, variable: str, directory: str) -> None:
    """A relative directory in the variable counts as none."""
    for name in ("config", ".config"):
        (tmp_path / name / "cexec").mkdir(parents=True)
        Application(tmp_path / name / "cexec", name.removeprefix(".") + "-" + str(len(name)))
    environment = local_environment({"HOME": str(tmp_path), "XDG_CONFIG_HOME": variable.format(tmp_path)})
    with crat(tmp_path, env=environment) as process:
        assert f"logging config-{len(directory)}.pub, " in first_lines(process)
        process.terminate()


@pytest.mark.parametrize("output", ["app.pub", "link", "hard"])
def test_lines_are_not_added_to_a_key(tmp_path: Path, output: str) -> None:
    key = Application(tmp_path).public
    before = key.read_bytes()
    (tmp_path / "link").symlink_to(key)
    os.link(key, tmp_path / "hard")
    with crat(tmp_path, "--output", output, "app.pub") as process:
        try:
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, said) == (100, f"crat: --output {output} is the key app.pub; give another file\n")
    assert key.read_bytes() == before


def test_without_a_key_it_says_where_it_has_looked(tmp_path: Path) -> None:
    with crat(tmp_path, env=local_environment({"HOME": "/h", "XDG_CONFIG_HOME": str(tmp_path)})) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    told = f"crat: no client key *.pub here or in {tmp_path}/cexec; name one: crat APP.pub\n"
    assert (process.returncode, errors) == (111, told)


def test_one_that_hears_nothing_says_why(tmp_path: Path) -> None:
    Application(tmp_path)
    with crat(tmp_path, env=clean_environment({"CEXEC_GROUP": "239.1.2.3%no-such0"})) as process:
        assert first_lines(process).endswith(", listening on nothing (239.1.2.3%no-such0: no interface no-such0)\n")
        process.terminate()


def test_without_names_what_cannot_be_used_is_passed_over_and_told(tmp_path: Path) -> None:
    Application(tmp_path, "good")
    damaged = Application(tmp_path, "damaged").public
    damaged.write_text(re.sub(r"psk: .{8}", "psk: 00000000", damaged.read_text()))
    Application(tmp_path, "open").public.chmod(0o644)
    with crat(tmp_path) as process:
        said = first_lines(process)
        process.terminate()
    assert "damaged.pub is damaged: its checksum is wrong; not logged" in said
    assert "open.pub can be read by others; type: chmod 600 open.pub; not logged" in said
    assert "logging good.pub, " in said


def test_a_key_that_is_named_and_cannot_be_used_ends_it(tmp_path: Path) -> None:
    good, damaged = Application(tmp_path, "good").public, Application(tmp_path, "damaged").public
    damaged.write_text("nonsense\n")
    with crat(tmp_path, good, damaged) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 111
    assert len(errors.splitlines()) == 1 and "damaged.pub" in errors


def test_an_output_that_cannot_be_opened_is_told_before_anything_else(tmp_path: Path) -> None:
    with crat(tmp_path, "--output", tmp_path / "none" / "log", Application(tmp_path).public) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (111, f"crat: cannot open {tmp_path}/none/log: no such file or directory\n")


@pytest.mark.parametrize(("full", "reason"), [(True, "no space left on device"), (False, "broken pipe")])
def test_standard_output_that_cannot_be_written_is_a_failure(tmp_path: Path, full: bool, reason: str) -> None:
    """A full disk is waited for; a reader that has gone does not come back."""
    application = Application(tmp_path)
    service = Service(application, ["true"])
    reading, writing = os.pipe()
    os.close(reading)
    if full:
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    with crat(tmp_path, application.public, stdout=writing) as process:
        os.close(writing)
        first_lines(process)
        assert application.run().returncode == 0
        if full:
            assert process.stderr is not None and process.stderr.readline().endswith(f"{reason}; waiting\n")
            process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    service.close()
    assert process.returncode == 111
    assert errors.startswith(f"crat: cannot write to standard output: {reason}")
