"""What a test needs from the machine: tools on the PATH, network namespaces, public vectors and the like.

Contract: a `require_...` function returns, or ends the test: as skipped, and the run's last lines then say loudly how
many tests were skipped for want of what; with CI=true in the environment as failed.  A test with a need of its own
calls `skip_for_want_of`.  debian-packages.txt lists the packages that bring all of it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from cexec.protocol.base import sodium
from tests.environment import ROOT, has_only_loopback

NOBODY = 65_534  # a user who is not root and owns nothing
VECTORS = ROOT.parent / "shared" / "vectors"  # beside the checkout
SKIP_REASON = "for want of "


def require_tool(*names: str) -> None:
    """Every program in `names` is on the PATH (or in sbin, where ordinary users find nft and ip)."""
    for name in names:
        if find_tool(name) is None:
            skip_for_want_of(name)


def require_namespaces() -> None:
    """This process may make network namespaces and configure them: it is root, or `make test` made it so."""
    require_tool("unshare", "nsenter", "ip")
    if not namespaces_allowed():
        skip_for_want_of("network namespaces")


def require_isolation() -> None:
    """Only the loopback is up, as in the namespace of `make test`, so the default group may be used."""
    if not has_only_loopback():
        skip_for_want_of("a network of its own, as make test gives it")


def require_second_user() -> None:
    """This process may become NOBODY."""
    if os.geteuid() != 0 or not _user_exists_here(NOBODY):
        skip_for_want_of("a second user")


def require_aegis() -> None:
    """Both the libsodium of this Python and its CPU can do AEGIS-256."""
    if sodium.AEGIS not in sodium.aead_names():
        skip_for_want_of("AEGIS-256 (PyNaCl 1.6 and a CPU with AES)")


def require_vectors(name: str) -> Path:
    """The file of public test vectors."""
    path = VECTORS / name
    if not path.exists():
        skip_for_want_of(f"the public vectors {path}")
    return path


def require_module(*names: str) -> None:
    """These modules of Python are installed, for example those of the extra `test` that are large."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            skip_for_want_of(f"the Python module {name}")


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


def skip_for_want_of(name: str) -> NoReturn:
    """Ends the test."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true and {name} is missing (debian-packages.txt, make test)", pytrace=False)
    pytest.skip(SKIP_REASON + name)


def _user_exists_here(user: int) -> bool:
    """In a user namespace of its own, as an ordinary user has it, root is alone."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return True  # no user namespaces
    return any(int(first) <= user < int(first) + int(count) for first, _, count in map(str.split, lines))
