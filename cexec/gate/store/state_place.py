"""Where the state file of `cgate` is unless `--state` says otherwise.

Contract: `default_state` returns $XDG_STATE_HOME/cexec/gate.sqlite, and makes the directory for its user alone.
`LocalError` if there is no such place.
"""

from __future__ import annotations

import os

from cexec.errors import LocalError
from cexec.system.reason import reason_of
from cexec.system.storage.directories import state_directory

NAME = "gate.sqlite"


def default_state() -> str:
    directory = state_directory()
    if directory is None:
        raise LocalError("there is no directory for the state (HOME is not set, or others can change it): give --state")
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make {directory}: {reason_of(error)}; give --state") from None
    return os.path.join(directory, NAME)
