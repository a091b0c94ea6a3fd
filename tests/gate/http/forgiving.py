"""Runs `cgate` for a tester that is wrong on purpose: without its limit of wrong tokens, and with little patience.

Contract: `forgiving.py PYTHON CGATE [ARG...]` runs CGATE in this process, as the wrapper of a `Gate`.
"""

from __future__ import annotations

import os
import runpy
import sys
from dataclasses import replace

from cexec.gate.access import caller_limits

MANY = 1e9
PATIENCE = "0.3"  # seconds until a job is given up that no worker fits

caller_limits.DEFAULT_LIMITS = replace(caller_limits.DEFAULT_LIMITS, mistakes=MANY, mistakes_at_once=MANY)
os.environ["CEXEC_TIMEOUT_ACCEPT"] = PATIENCE
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
