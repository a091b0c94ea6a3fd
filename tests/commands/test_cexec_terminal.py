"""Which jobs of `cexec` have a terminal, and what a person is told whose program misses one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.screen import Screen
from tests.service import Application, Service

SAYS = 'test -t 0 && test -t 1 && echo terminal || echo pipe; eval "$PEER_RUN"'
HINT = "cexec: no terminal there; see cexec -t"


@pytest.fixture(scope="module")
def wanting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """A service whose program wants a terminal."""
    application = Application(tmp_path_factory.mktemp("wanting"))
    worker = Service(application, ["sh", "-c", SAYS], ["--tty", "-j", "2"])
    yield application
    worker.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    application = Application(tmp_path_factory.mktemp("plain"))
    worker = Service(application, ["sh", "-c", SAYS], ["-j", "2"])
    yield application
    worker.close()


def on_screen(application: Application, *options: str, out: Path | None = None) -> list[str]:
    """What a person sees of `cexec`, whose output goes to the terminal or to a file."""
    argv, environment = application.client(*options)
    with Screen() as screen:
        if out is None:
            process = screen.run(argv, environment)
        else:
            with out.open("wb") as file:
                process = screen.run(argv, environment, {1: file})
        screen.end(process)
        return screen.lines()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], "terminal"), (["-t"], "terminal"), (["--tty"], "terminal"), (["-T"], "pipe"), (["--no-tty"], "pipe"),
        (["-n"], "pipe"), (["--hold"], "pipe"), (["--progress"], "pipe"),
    ],
)  # fmt: skip
def test_a_service_that_wants_a_terminal_gets_one_at_a_terminal(
    wanting: Application, options: list[str], shown: str
) -> None:
    assert on_screen(wanting, *options) == [shown]


@pytest.mark.parametrize(("options", "shown"), [([], "pipe"), (["-t"], "terminal"), (["-T"], "pipe")])
def test_another_service_gets_one_if_it_is_asked_for(plain: Application, options: list[str], shown: str) -> None:
    assert on_screen(plain, *options) == [shown]


def test_without_a_terminal_here_there_is_none_unless_it_is_asked_for(wanting: Application) -> None:
    done = wanting.run()
    assert (done.stdout, done.stderr) == (b"pipe\n", b"")
    assert wanting.run("-t").stdout == b"terminal\r\n"
    assert wanting.run("-t", "-n").stdout == b"terminal\r\n"


def test_one_who_types_but_does_not_see_the_output_is_told(wanting: Application, tmp_path: Path) -> None:
    assert on_screen(wanting, out=tmp_path / "out") == [HINT]
    assert on_screen(wanting, "-T", out=tmp_path / "out") == []
    assert on_screen(wanting, "-t", out=tmp_path / "out") == []
    assert (tmp_path / "out").read_bytes() == b"terminal\r\n"


@pytest.mark.parametrize(
    ("script", "hinted"),
    [
        ("top", True), ("stty size", True), ("echo not a tty >&2; exit 1", True),
        ("echo not a tty >&2", False), ("echo not a tty; exit 1", False), ("echo wrong >&2; exit 1", False),
    ],
)  # fmt: skip
def test_a_program_that_fails_for_want_of_a_terminal_gets_a_hint(plain: Application, script: str, hinted: bool) -> None:
    done = plain.run(f"RUN={script}")
    assert done.stderr.decode().endswith(f"{HINT}\n") is hinted
    assert HINT not in plain.run("-T", f"RUN={script}; exit 1").stderr.decode()


def test_the_complaint_may_be_at_the_beginning_or_at_the_end_of_much(plain: Application) -> None:
    for script in ("echo not a tty; seq 100000", "seq 100000; echo not a tty"):
        assert plain.run(f"RUN=exec >&2; {script}; exit 1").stderr.decode().endswith(f"{HINT}\n")


def test_a_service_may_give_none(application: Application, service: StartService) -> None:
    service("sh", "-c", SAYS + "; stty", options=["--no-tty"])
    assert on_screen(application) == ["pipe", "stty: 'standard input': Inappropriate ioctl for device"]  # and no hint
    done = application.run("-t", environment={"CEXEC_TIMEOUT_ACCEPT": "3"})
    assert done.returncode == 111 and b"gives no terminal (cservice --no-tty, or an older cexec)" in done.stderr


@pytest.mark.parametrize("option", ["--no-tty", "--hold", "--progress", "--all"])
def test_options_that_exclude_a_terminal(application: Application, option: str) -> None:
    done = application.run("-t", option)
    assert (done.returncode, done.stderr.decode()) == (100, f"cexec: --tty cannot be used with {option}\n")


def test_a_terminal_of_no_known_type_and_size(wanting: Application) -> None:
    done = wanting.run("-t", "-n", "RUN=echo $TERM; stty size", environment={"TERM": "../etc/passwd"})
    assert done.stdout == b"terminal\r\ndumb\r\n0 0\r\n"


def test_a_closed_input_is_an_empty_one(wanting: Application) -> None:
    argv, environment = wanting.client("-t", "RUN=cat")
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *argv], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.replace(b"^D\b\b", b"")) == (0, b"terminal\r\n")


def test_a_census_does_not_show_it_as_a_label(wanting: Application) -> None:
    done = subprocess.run(command("cps", wanting.public), env=local_environment(), capture_output=True, timeout=60)
    assert done.returncode == 0 and b"terminal" not in done.stdout
