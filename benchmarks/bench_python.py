"""Measures the Python API.

    make bench BENCH=benchmarks/bench_python.py

Each part is a module of its own, which says what it measures and by which variables.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import python_client, python_executor
from benchmarks.common import Unfit, skipped

PARTS = {"the clients": python_client.measure, "executors": python_executor.measure}


def main() -> None:
    for name, measure in PARTS.items():
        try:
            measure()
        except Unfit as reason:
            skipped(name, str(reason))


if __name__ == "__main__":
    main()
