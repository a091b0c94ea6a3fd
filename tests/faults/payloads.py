"""Inputs of jobs: random bytes, no two alike.

Contract: `write(path, size, name)` makes a file of `size` bytes that begins with `name`, as far as there is room.
"""

from __future__ import annotations

import os
from pathlib import Path

SMALL = (0, 1, 65_535, 65_536, 1_000)  # bytes
LARGE = 5_000_000
HUGE = 200_000_000
_BLOCK = os.urandom(1 << 22)


def write(path: Path, size: int, name: str) -> None:
    head = f"{name}\n".encode()[:size]
    with path.open("wb") as file:
        file.write(head)
        left, turn = size - len(head), 0
        while left > 0:
            start = os.urandom(2)[0] * 1000 + turn  # no two pieces of a file are alike
            left -= file.write(_BLOCK[start : start + left])
            turn += 1
