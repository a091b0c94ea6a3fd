"""What to type when a package is missing that cexec itself does without: an extra of pyproject.toml brings it.

Contract: `how_to_add()` names the command that fits how this cexec was installed.  It works in a checkout, from which
all documented installations are made.
"""

from __future__ import annotations

import sys

HOME_OF_MAKE = "/lib/cexec-cluster"  # of `make install`, below its PREFIX
HOME_OF_PIPX = "/pipx/venvs/"


def how_to_add(extra: str, prefix: str = sys.prefix) -> str:
    """Returns what brings the packages of an extra, for the end of a message; `prefix` is where Python has its own."""
    if prefix.endswith(HOME_OF_MAKE):
        command = f"make install PREFIX={prefix.removesuffix(HOME_OF_MAKE)} EXTRAS={extra}"
    elif HOME_OF_PIPX in prefix:
        command = f"pipx install --force '.[{extra}]'"
    else:
        command = f"pip install '.[{extra}]'"
    return f"in a checkout of cexec type: {command}"
