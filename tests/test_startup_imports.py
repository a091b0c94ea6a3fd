"""What a plain call of `cexec` must not have loaded: it is started thousands of times, and each one costs it time.

In milliseconds of a start that takes 10 altogether: signal 4, enum or hmac 3, argparse 3, subprocess 3.5, re 5,
logging 7.5, typing 8, dataclasses 8, psutil 13.5, click 18, importlib.metadata 23, asyncio 31, zeroconf 54.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.service import Application
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent

FORBIDDEN = {
    "argparse", "ast", "asyncio", "cffi", "click", "collections", "contextlib", "dataclasses", "datetime", "enum",
    "functools", "hashlib", "heapq", "hmac", "importlib.metadata", "inspect", "ipaddress", "json", "logging",
    "nacl.bindings", "operator", "pathlib", "psutil", "random", "re", "selectors", "shutil", "signal", "socket",
    "struct", "subprocess", "tempfile", "textwrap", "threading", "traceback", "typing", "uuid", "warnings", "weakref",
    "zeroconf",
}  # fmt: skip

UNNEEDED = {
    "cexec.client.attempt.rare_events", "cexec.client.search.messages", "cexec.commands.cexec_table", "cexec.errors",
    "cexec.net.connecting", "cexec.net.liveness", "cexec.net.resolver", "cexec.protocol.base.keys",
    "cexec.protocol.connection.ahead_job", "cexec.protocol.connection.worker_handshake",
    "cexec.protocol.datagrams.opened_announcement", "cexec.system.io.held_output", "cexec.system.io.special_fds",
    "cexec.system.process.open_files", "cexec.system.storage.directories", "cexec.system.storage.key_names",
    "cexec.system.storage.revocations", "cexec.system.storage.whole_files",
}  # fmt: skip

LATER = {
    "cexec.client.attempt.inputs", "cexec.client.attempt.outputs",
    "cexec.client.blocking.driver", "cexec.client.search.trust",
    "cexec.net.pump", "cexec.protocol.connection.channel", "cexec.protocol.connection.frames",
    "cexec.protocol.connection.session", "cexec.system.io.fds", "cexec.system.io.wakeup",
    "cexec.protocol.base.revocation", "cexec.system.storage.revocations",
}  # fmt: skip


OF_TERMINALS = {
    "cexec.client.attempt.escape_keys", "cexec.client.attempt.local_terminal", "cexec.client.attempt.screen_modes",
    "cexec.client.attempt.terminal_hint", "cexec.client.blocking.terminal_driver",
    "cexec.protocol.connection.terminal_request", "cexec.system.io.pseudo_terminal", "termios",
}  # fmt: skip


# A call that has waited for 0.25 s loads this, and what it may need later.  On a busy machine every worker is slow.
OF_SLOW_ANSWERS = "cexec.client.search.failure_alert"


def imports_in_order(
    argv: list[str], input: bytes = b"", changes: Mapping[str, str] | None = None
) -> tuple[list[str], subprocess.CompletedProcess[bytes]]:
    """What a run of Python imports, from its first moment to its last, as told by -X importtime."""
    environment = {**local_environment(changes), "PYTHONPROFILEIMPORTTIME": "1"}
    result = subprocess.run(argv, input=input, env=environment, capture_output=True, timeout=30)
    lines = [line for line in result.stderr.decode().splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines], result


def imports_of_a_quick_call(
    argv: list[str], input: bytes = b"", changes: Mapping[str, str] | None = None
) -> tuple[list[str], subprocess.CompletedProcess[bytes]]:
    """The same of the first call of `cexec` whose worker is quick."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found, result = imports_in_order(argv, input, changes)
        if OF_SLOW_ANSWERS not in found:
            return found, result
        assert time.monotonic() < deadline, "no worker has been quick"


def loaded_modules(
    argv: list[str], input: bytes = b"", changes: Mapping[str, str] | None = None
) -> tuple[set[str], subprocess.CompletedProcess[bytes]]:
    """The same as `imports_in_order`, in no order."""
    found, result = imports_in_order(argv, input, changes)
    return set(found), result


def quickly_loaded(argv: list[str], input: bytes = b"") -> tuple[set[str], subprocess.CompletedProcess[bytes]]:
    """The same as `imports_of_a_quick_call`, in no order."""
    found, result = imports_of_a_quick_call(argv, input)
    return set(found), result


def test_a_plain_call_loads_nothing_that_is_slow(service: StartService, application: Application) -> None:
    service("cat")
    bare, _ = loaded_modules([sys.executable, "-c", "pass"])
    argv, _ = application.client()
    loaded, result = quickly_loaded(argv, b"hello")
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()
    assert {"cexec.commands.cexec", "_socket", "nacl._sodium"} <= loaded  # what it needs, so the list is a list
    assert not loaded & FORBIDDEN - bare


def test_a_job_that_ends_well_loads_nothing_for_other_jobs(service: StartService, application: Application) -> None:
    service("true")
    argv, _ = application.client()
    assert all(ROOT.joinpath(*name.split(".")).with_suffix(".py").exists() for name in UNNEEDED)
    loaded, result = quickly_loaded(argv)
    assert result.returncode == 0, result.stderr.decode()
    assert not loaded & UNNEEDED


def test_a_plain_call_reads_no_file_of_a_package(service: StartService, application: Application) -> None:
    """bin/cexec makes the packages that it needs: their files are empty."""
    service("cat")
    argv, _ = application.client()
    loaded, result = quickly_loaded(argv, b"hello")
    assert result.stdout == b"hello", result.stderr.decode()
    own = {name for name in loaded if name.startswith("cexec.")}
    packages = {name.rpartition(".")[0] for name in own} - {"cexec"}
    assert {"cexec.commands", "cexec.protocol.connection"} <= packages
    assert not own & packages
    for name in packages:
        content = ROOT.joinpath(*name.split("."), "__init__.py").read_text()
        assert not [one for one in ast.parse(content).body if not isinstance(one, ast.Expr)], name


@pytest.mark.parametrize("options", [[], ["--tty"]])
def test_a_job_without_a_terminal_loads_nothing_of_terminals(
    service: StartService, application: Application, options: list[str]
) -> None:
    service("sh", "-c", "echo said >&2", options=options)
    argv, _ = application.client()
    loaded, result = quickly_loaded(argv)
    assert result.returncode == 0 and not loaded & OF_TERMINALS
    assert loaded_modules([*argv, "-t"])[0] >= OF_TERMINALS - {"cexec.client.attempt.terminal_hint"}


@pytest.mark.parametrize("flags", [["-n"], ["-t"], ["--all", "--tag"]])
def test_a_call_with_flags_alone_does_not_load_click(
    service: StartService, application: Application, flags: list[str]
) -> None:
    service("true")
    argv, _ = application.client()
    loaded, result = loaded_modules([*argv, *flags])
    assert result.returncode == 0, result.stderr.decode()
    assert "cexec.commands.cexec" in loaded and "click" not in loaded


def test_what_comes_after_the_announcement_is_loaded_while_the_worker_is_busy() -> None:
    loaded, _ = loaded_modules([sys.executable, "-c", "import cexec.commands.cexec"])
    assert "cexec.protocol.datagrams.announcement" in loaded
    assert not loaded & LATER


def test_the_check_sees_a_module_that_is_loaded_late() -> None:
    loaded, _ = loaded_modules([sys.executable, "-c", "def f():\n import argparse\nf()"])
    assert "argparse" in loaded


def test_a_run_of_cmap_without_a_journal_loads_nothing_for_steering(
    service: StartService, application: Application
) -> None:
    service("cat")
    control = {"cexec.cmap.steering", "cexec.cmap.control.answering"}
    for words in ([], ["--state", str(application.public.with_name("s"))]):
        loaded, result = loaded_modules(command("cmap", application.public, *words, ":::", "a"))
        assert result.returncode == 0, result.stderr.decode()
        found = {name for name in loaded if name.startswith(("cexec.cmap.control", "cexec.cmap.steering"))}
        assert found >= control if words else not found
