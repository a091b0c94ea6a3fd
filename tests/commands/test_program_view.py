"""What a program sees of itself and of its surroundings is what the worker's owner wrote, and nothing of Python's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.environment import command, local_environment
from tests.needs import require_isolation
from tests.service import Application, Service

Serve = Callable[..., Service]
SHOW = "import os, sys; print(sys.orig_argv[0]); print(sys.prefix); print(os.environ.get('PWD') == os.getcwd())"
WITHOUT_LOCALE = ("env", "-u", "LANG", "-u", "LC_ALL", "-u", "LC_CTYPE")


@pytest.fixture
def serve(application: Application) -> Iterator[Serve]:
    """Starts a worker by way of a wrapper."""
    with ExitStack() as stack:

        def start(program: Sequence[str], options: Sequence[str] = (), wrapper: Sequence[str] = ()) -> Service:
            service = Service(application, program, options, wrapper=wrapper)
            stack.callback(service.close)
            return service

        yield start


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment's directory, and links to its python."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    (venv / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "link").symlink_to(venv)
    return venv


@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
@pytest.mark.parametrize(
    "written", ["ABSOLUTE/venv/bin/python", "venv/bin/python", "./venv/bin/python", "link/bin/python"]
)
def test_argv_0_is_what_the_owner_wrote(
    serve: Serve, application: Application, environment: Path, written: str, private: bool
) -> None:
    """Regression: it was the last part of the path, so a virtual environment's python used other modules."""
    directory = environment.parent
    program = written.replace("ABSOLUTE", os.fspath(directory))
    serve(
        [program, "-c", SHOW],
        ["--private-dir"] if private else [],
        ["env", "-C", os.fspath(directory), f"PWD={directory}"],
    )
    here = subprocess.run(
        [program, "-c", SHOW], cwd=directory, env=local_environment({"PWD": str(directory)}), capture_output=True
    )
    result = application.run()
    first, prefix, right = result.stdout.decode().splitlines()
    local_first, local_prefix, _ = here.stdout.decode().splitlines()
    moved = private and not os.path.isabs(program)  # there its own path would name nothing
    assert (
        os.path.normpath(first) == os.path.normpath(directory / program) if moved else first == local_first == program
    )
    assert os.path.realpath(prefix) == os.path.realpath(local_prefix) == os.path.realpath(environment)
    assert right == "True"


def test_a_name_of_the_path_stays_a_name(serve: Serve, application: Application) -> None:
    serve(["env", "python3", "-c", SHOW])
    assert application.run().stdout.splitlines()[0] == b"python3"
    # env itself, whose argv[0] is what its usage says
    assert application.run().returncode == 0


@pytest.mark.parametrize("options", [[], ["--private-dir"], ["--private-dir", "--clean-env"]], ids=" ".join)
def test_pwd_names_the_directory_of_the_program(serve: Serve, application: Application, options: list[str]) -> None:
    """Also if whoever started the worker has changed the directory without a word, as a service manager does."""
    wrapper = ["sh", "-c", 'cd /usr; PWD=/etc exec "$@"', "sh"]
    serve([sys.executable, "-c", "import os; print(os.environ['PWD']); print(os.getcwd())"], options, wrapper)
    named, real = application.run().stdout.decode().splitlines()
    assert named == real and (real == "/usr") == (not options)


@pytest.mark.parametrize(
    ("given", "expected"), [((), []), (("LC_CTYPE=C",), ["LC_CTYPE=C"]), (("LC_CTYPE=C.UTF-8",), ["LC_CTYPE=C.UTF-8"]),
                            (("LANG=C",), [])]
)  # fmt: skip
def test_the_program_gets_no_locale_that_the_owner_did_not_set(
    serve: Serve, application: Application, given: tuple[str, ...], expected: list[str]
) -> None:
    """Regression: Python sets LC_CTYPE=C.UTF-8 for itself in the locale C (PEP 538)."""
    serve(["env"], [], [*WITHOUT_LOCALE, *given])
    found = application.run().stdout.decode().splitlines()
    assert [line for line in found if line.startswith(("LC_CTYPE=", "LC_ALL="))] == expected


def test_a_check_of_cmap_gets_no_locale_either(serve: Serve, application: Application) -> None:
    serve(["cat"])
    argv = command("cmap", "--validate", "! printenv LC_CTYPE", application.public, ":::", "a")
    result = subprocess.run([*WITHOUT_LOCALE, *argv], env=local_environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("options", [[], ["--nice", "1"], ["--isolate"]], ids=["spawned", "forked", "isolated"])
def test_a_script_without_an_interpreter_runs_as_from_a_shell(
    serve: Serve, application: Application, tmp_path: Path, options: list[str]
) -> None:
    if "--isolate" in options:
        require_isolation()
    script = tmp_path / "script"
    script.write_text('read line; echo "$line from $0 $1"\n')
    script.chmod(0o755)
    serve([os.fspath(script), "one"], options)
    result = application.run(input=b"it\n")
    assert (result.returncode, result.stdout) == (0, f"it from {script} one\n".encode())


@pytest.mark.parametrize(
    ("text", "words"),
    [("#!/nowhere/perl\n", "its interpreter /nowhere/perl is not there"), ("#!/bin/sh\r\necho\r\n", "CR LF")],
)
def test_a_script_that_cannot_start_is_refused_when_the_worker_starts(
    application: Application, tmp_path: Path, text: str, words: str
) -> None:
    script = tmp_path / "script"
    script.write_bytes(text.encode())
    script.chmod(0o755)
    argv = command("cservice", application.secret, script)
    result = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=30)
    assert result.returncode == 100 and f"{script} cannot be started: its " in result.stderr and words in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [("#!/nowhere/perl\n", "its interpreter /nowhere/perl is not there"), ("#!/bin/sh\r\necho\r\n", "CR LF")],
)
def test_a_script_that_was_spoiled_meanwhile_is_named_to_the_client(
    serve: Serve, application: Application, tmp_path: Path, text: str, words: str
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    serve([os.fspath(script)])
    script.write_bytes(text.encode())
    result = application.run("--on", "localhost,127.0.0.1", timeout=60)
    assert result.returncode == 111 and words in result.stderr.decode()
