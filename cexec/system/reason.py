"""The text of an operating system's error, as an error line has it.

Contract: `reason_of` takes the exception or its number and returns the system's text in lower case, without a period.
It never raises and never returns an empty text.  `failed_call` is the message about a call that nobody expected to
fail, with what to do where that is known; `why_not_writable` is why access(2) has said no for a directory.
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


def failed_call(error: OSError) -> str:
    import errno

    advice = {
        errno.EMFILE: "; raise ulimit -n",
        errno.EAGAIN: "; see ulimit -u, and pids.max of the control group",
        errno.ENOMEM: "; see ulimit -v, and memory.max of the control group",
    }
    about = f" for {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
    if error.errno == errno.ENOENT and not about and _is_nowhere():
        return "the working directory has been removed; go to another one by cd"
    return f"a system call failed{about}: {reason_of(error)}{advice.get(error.errno or 0, '')}"


def _is_nowhere() -> bool:
    """Returns True if the working directory has been removed, so that relative paths mean nothing."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def why_not_writable(directory: str) -> str:
    import errno

    try:
        read_only = bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        read_only = False
    return reason_of(errno.EROFS if read_only else errno.EACCES)
