"""The number of threads that numerical libraries start in each call.

Contract: `limits` returns the variables for an environment, from which those are left out that it has already.  Calls
of all slots run at once, so each gets its share of the CPUs: without this, a machine with 8 slots and 8 CPUs would run
64 threads.  The libraries read the variables when they are loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SLOTS = "CEXEC_SLOTS"  # cservice(1), ENVIRONMENT


def cpus() -> int:
    """Returns how many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limits(environment: Mapping[str, str], cpus: int) -> dict[str, str]:
    slots = environment.get(SLOTS, "")
    share = max(1, cpus // int(slots)) if slots.isascii() and slots.isdigit() and int(slots) else 1
    return {name: str(share) for name in VARIABLES if name not in environment}
