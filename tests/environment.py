"""Where tests find the program and what environment they give to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK_GROUP = "127.255.255.255"  # a broadcast that never leaves the machine
ABSENT_NAME = f"{'a' * 64}.example"  # no host's, and no name server need be asked, because a part of it is too long
# Read by cexec besides CEXEC_*; and what would keep a command from finding its modules compiled, as an installation has
# them, which makes its start three times longer.
OURS = ("GROUP", "BOOST", "CONCURRENCY", "MAXFD", "PYTHONDONTWRITEBYTECODE")
# Read by all commands on a terminal: a test's terminal is not the one that we run on.
TERMINALS = ("TERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


def command(name: str, *arguments: str | os.PathLike[str]) -> list[str]:
    """The argv that runs one of the project's commands from the source tree with this Python."""
    return [sys.executable, os.fspath(ROOT / "bin" / name), *(os.fspath(argument) for argument in arguments)]


def clean_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what configures cexec, then `changes`: for a process that has a network to itself."""
    left_out = {*OURS, *TERMINALS}
    environment = {k: value for k, value in os.environ.items() if not k.startswith("CEXEC_") and k not in left_out}
    environment.update(PYTHONPATH=os.fspath(ROOT), TERM="xterm")
    return {**environment, **(changes or {})}


def local_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """`clean_environment` for a process in our own network: kept to the loopback unless only that one is up."""
    group = {} if has_only_loopback() else {"CEXEC_GROUP": LOOPBACK_GROUP}
    return clean_environment({**group, **(changes or {})})


def has_only_loopback() -> bool:
    """Whether nothing that we send can leave the machine, as in the namespace that `make test` runs in."""
    return all(name.startswith("lo") for name, state in psutil.net_if_stats().items() if state.isup)
