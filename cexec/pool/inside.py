"""Says whether this program runs inside a call.

Contract: `is_inside` is true in a runner and in the processes that it starts.  There an `Executor` runs its calls in
the process itself, so that a call never waits for a slot that it holds; and joblib does the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

VARIABLE = "CEXEC_IN_CALL"


def enter(environment: MutableMapping[str, str], path: Sequence[str]) -> None:
    """`path`: where the modules are that the client has sent; other programs that a call starts find them as well."""
    environment[VARIABLE] = "1"
    environment.setdefault("JOBLIB_MULTIPROCESSING", "0")  # joblib's own setting: no processes, no threads
    if path:
        environment["PYTHONPATH"] = os.pathsep.join((*path, *filter(None, [environment.get("PYTHONPATH")])))


def is_inside() -> bool:
    return VARIABLE in os.environ
