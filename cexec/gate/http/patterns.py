"""The forms of texts that clients send: the OpenAPI document tells them, and the code holds what comes against them.

Contract: each is a regular expression for a whole text, in what ECMA-262, Python and Rust have in common.  None has a
NUL in it, because no program can be given one.  Halves of characters (lone surrogates) are no text for Rust, so that
the code alone refuses them.
"""

from __future__ import annotations

_NONE = r"\u0000"
_CONTROLS = r"\u0000-\u001f\u007f-\u009f"
_SPACES = r"\u0000- \u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_UUID = "[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}"
_NUMBER = r"[0-9]+(\.[0-9]+)?[KMGT]?"


def _path(none: str) -> str:
    """Returns the form of a relative path without `.` and `..`; `none`: what no part of it has besides a slash."""
    part = rf"([^/.{none}]|\.[^/.{none}]|\.\.[^/{none}])[^/{none}]*"
    return f"^{part}(/{part})*$"


TEXT = rf"^[^{_NONE}]*$"
FILE_NAME = _path(_NONE)
FETCHED_NAME = _path(rf"\\{_CONTROLS}")  # it stands in an address, where a backslash means a slash to some programs
_VARIABLE = "[A-Za-z_][A-Za-z0-9_]{0,63}"
VARIABLE = f"^{_VARIABLE}$"
PAIR = rf"^{_VARIABLE}=[^{_NONE}]*$"
NEED = (rf"^((cpus|mem)(={_NUMBER})?|instance(={_UUID})?"
        rf"|(?!(cpus|mem|instance)(=|$))[^=,{_SPACES}]+(=[^,{_SPACES}]+)?)$")  # fmt: skip
WORKER = rf"^(instance={_UUID}|(?!instance=)[^,{_SPACES}]+)$"
KEY = "^[!-~]([ -~]{0,253}[!-~])?$"  # an Idempotency-Key
