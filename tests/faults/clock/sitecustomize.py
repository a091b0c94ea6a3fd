"""A wall clock that is wrong: a process of Python that has this directory in PYTHONPATH reads it.

Contract: `time.time` and `time.time_ns` are off by the seconds that the file $FAULTS_CLOCK says at that moment.  Clocks
that measure intervals, and the times of files, are right.
"""

from __future__ import annotations

import os
import time

_right, _right_ns, _path = time.time, time.time_ns, os.environ.get("FAULTS_CLOCK", "")


def _off() -> float:
    try:
        with open(_path) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


if _path:
    time.time = lambda: _right() + _off()
    time.time_ns = lambda: _right_ns() + int(_off() * 1e9)
