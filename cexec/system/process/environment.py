"""The environment that a command was started with, where Python or a change of directory has made another one of it.

Contract: `restore_locale` takes back what Python's locale coercion (PEP 538) has set, so that no program of ours gets
it; where the system does not tell with what this process was started, nothing is taken back.  `right_directory` lets
PWD name the working directory.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

_COERCED = (b"C.UTF-8", b"C.utf8", b"UTF-8")  # what Python may set


def restore_locale() -> None:
    """Gives LC_CTYPE the value, or none, that the caller gave to it.  Python's own text stays UTF-8."""
    if os.environb.get(b"LC_CTYPE") not in _COERCED:
        return
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read().split(b"\0")
    except OSError:
        return
    values = [one.partition(b"=")[2] for one in given if one.startswith(b"LC_CTYPE=")]
    if values:
        os.environb[b"LC_CTYPE"] = values[0]
    else:
        del os.environb[b"LC_CTYPE"]


def right_directory(environment: MutableMapping[bytes, bytes]) -> None:
    """Corrects PWD if it is there and names another directory than the working directory."""
    named = environment.get(b"PWD")
    if named is None:
        return
    try:
        if not named.startswith(b"/") or not os.path.samefile(named, b"."):
            environment[b"PWD"] = os.getcwdb()
    except OSError:
        del environment[b"PWD"]
