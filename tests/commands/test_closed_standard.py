"""Commands whose standard descriptors are closed: one line that says so, never a traceback and never success."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from cexec.errors import EXIT_TEMPORARY
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.service import Application


def run(redirection: str, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = f"exec {shlex.join(command(name, *arguments))} {redirection}"
    return subprocess.run(["sh", "-c", script], env=local_environment(), capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("name", "options"), [("ckeygen", ["--show"]), ("cps", []), ("cps", ["--json"]), ("cps", ["--watch"])]
)
def test_output_that_is_closed_is_told(
    service: StartService, application: Application, name: str, options: list[str]
) -> None:
    """Regression: `cps APP.pub >&-` was a traceback, and `ckeygen --show FILE >&-` had status 0."""
    service("cat")
    result = run(">&-", name, *options, application.public)
    assert (result.returncode, result.stdout) == (EXIT_TEMPORARY, "")
    assert result.stderr == f"{name}: cannot write to standard output: bad file descriptor\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_page_that_nobody_can_see_is_no_success(option: str) -> None:
    """Regression: `cexec --version >&-` had status 0."""
    result = run(">&-", "cexec", option)
    assert (result.returncode, result.stdout) == (EXIT_TEMPORARY, "")
    assert result.stderr == "cexec: cannot write to standard output: bad file descriptor\n"


def test_settings_that_nobody_can_see_are_no_success() -> None:
    """Regression: `cexec-ssh -G WORKER >&-` had status 0."""
    result = run(">&-", "cexec-ssh", "-G", "w")
    assert (result.returncode, result.stdout, result.stderr) == (
        255,
        "",
        "cexec-ssh: cannot write: bad file descriptor\n",
    )


def test_a_dry_run_whose_output_is_closed(application: Application) -> None:
    result = run(">&-", "cmap", "--dry-run", application.public, "--", "{}", ":::", "a")
    assert (result.returncode, result.stdout) == (255, "")  # lower ones are numbers of failed tasks
    assert result.stderr == "cmap: cannot write to standard output: bad file descriptor\n"


def test_inputs_that_are_named_need_no_standard_input(service: StartService, application: Application) -> None:
    """Regression: `cmap APP.pub ::: a <&-` was a traceback."""
    service("echo", "done")
    result = run("<&-", "cmap", application.public, ":::", "a")
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_cexec_still_sees_what_is_closed(service: StartService, application: Application) -> None:
    """With an option, which is where click parses."""
    service("sh", "-c", "cat 2>/dev/null || echo closed")
    result = run("<&-", "cexec", "--hold", application.public)
    assert (result.returncode, result.stdout, result.stderr) == (0, "closed\n", "")
