"""A process that has few descriptors left.

Contract: within `few_descriptors(count)` the process can open `count` more, whatever was open before.
`descriptors_of(pid)` are the numbers that are open there.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

SPARE = 32  # above the highest that is open, so that there is room for any count that a test wants


def descriptors_of(pid: int | None = None) -> set[int]:
    directory = f"/proc/{pid or os.getpid()}/fd"
    found = set(map(int, os.listdir(directory)))
    if pid is None:
        found = {fd for fd in found if os.path.lexists(f"{directory}/{fd}")}  # without that of listdir itself
    return found


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors_of()) + SPARE, hard))
    taken: list[int] = []
    try:
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
