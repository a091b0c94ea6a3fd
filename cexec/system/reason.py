"""The text of an operating system's error, as an error line has it.

Contract: `reason_of` takes the exception or its number and returns the system's text in lower case, without a period.
It never raises and never returns an empty text.
"""

from __future__ import annotations

import os

UNKNOWN = "unknown error"


def reason_of(error: OSError | int | None) -> str:
    """Returns what went wrong; an exception's own text wins over the text of its number, which may say less."""
    if isinstance(error, OSError):
        if error.strerror:
            return error.strerror.lower()
        if not error.errno:
            text = str(error)  # not all lower-cased: it may hold a name
            return text[:1].lower() + text[1:] or UNKNOWN
        error = error.errno
    return os.strerror(error).lower() if error else UNKNOWN
