"""The directory for temporary files of this process: $TMPDIR, /tmp and the others that Python tries.

Contract: `temporary_place` names it for messages and raises nothing; `no_temporary` makes the `LocalError` that says
what cannot be done there; `check_temporary` raises it if no file can be made in any of them.
"""

from __future__ import annotations

from cexec.errors import LocalError
from cexec.system.reason import reason_of


def temporary_place() -> str:
    import tempfile

    try:
        return tempfile.gettempdir()
    except OSError:
        return "TMPDIR, /tmp or /var/tmp"


def check_temporary(what: str) -> None:
    import tempfile

    try:
        tempfile.TemporaryFile().close()
    except OSError as error:
        raise no_temporary(what, error) from None


def no_temporary(what: str, error: OSError | str) -> LocalError:
    reason = error if isinstance(error, str) else reason_of(error)
    return LocalError(f"cannot {what} in {temporary_place()}: {reason}; TMPDIR says where else there is room")
