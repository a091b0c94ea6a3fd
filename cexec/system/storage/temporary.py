"""The directory for temporary files of this process: $TMPDIR, /tmp and the others that Python tries.

Contract: `temporary_place` names it for messages and raises nothing; `check_temporary` raises `LocalError`, which says
what cannot be done, if no file can be made in any of them.
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
        reason = f"{reason_of(error)}; TMPDIR says where else there is room"
        raise LocalError(f"cannot {what} in {temporary_place()}: {reason}") from None
