"""What a test needs from the machine: tools on the PATH and network namespaces.

Contract: a `require_...` function returns, or ends the test: as skipped, and the run's last lines then say loudly how
many tests were skipped for want of what; with CI=true in the environment as failed.  debian-packages.txt lists the
packages that bring all of it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from typing import NoReturn

import pytest

from tests.environment import has_only_loopback

SKIP_REASON = "for want of "


def require_tool(*names: str) -> None:
    """Every program in `names` is on the PATH (or in sbin, where ordinary users find nft and ip)."""
    for name in names:
        if find_tool(name) is None:
            _skip(name)


def require_namespaces() -> None:
    """This process may make network namespaces and configure them: it is root, or `make test` made it so."""
    require_tool("unshare", "nsenter", "ip")
    if not namespaces_allowed():
        _skip("network namespaces")


def require_isolation() -> None:
    """Only the loopback is up, as in the namespace of `make test`, so the default group may be used."""
    if not has_only_loopback():
        _skip("a network of its own, as make test gives it")


def find_tool(name: str) -> str | None:
    """The path of a program."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")


@functools.cache
def namespaces_allowed() -> bool:
    """Whether a namespace can be made and an interface in it be set up."""
    attempt = ["unshare", "-n", find_tool("ip") or "ip", "link", "set", "lo", "up"]
    return subprocess.run(attempt, capture_output=True).returncode == 0


def wanted(reason: str) -> str | None:
    """What a skip's reason names as missing; None for a skip of another kind."""
    _, mark, name = reason.partition(SKIP_REASON)
    return name if mark else None


def _skip(name: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true and {name} is missing (debian-packages.txt, make test)", pytrace=False)
    pytest.skip(SKIP_REASON + name)
