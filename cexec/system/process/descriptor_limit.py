"""The limit of open descriptors, RLIMIT_NOFILE: a service needs many, and the programs that it starts get the usual.

Contract: `raise_limit` raises this process's soft limit as far as its hard limit allows, and raises `LocalError` if
that is too little.  The soft limit that was there before is kept: `lowered` is a block in which it holds again, for a
call that starts a program, and `restore` sets it for good, in a child that is to become one.  A program may have a
descriptor with a higher number, so both are told the highest one.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cexec.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST = 64  # descriptors (ours): a service has some twenty open before its first job
MOST = 65_536  # descriptors (ours): a hard limit may be a thousand million

_before: int | None = None  # the soft limit before it was raised


def raise_limit(most: int = MOST) -> int:
    """Returns how many descriptors may be open now."""
    global _before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft == resource.RLIM_INFINITY:
        return most
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            wanted = soft
        else:
            _before = soft if _before is None else _before
    if max(soft, wanted) < LEAST:
        raise LocalError(f"only {max(soft, wanted)} descriptors may be open, and {LEAST} are needed; raise ulimit -n")
    return max(soft, wanted)


def restore(highest: int) -> None:
    """Makes the limit what it was, or as high as the descriptor `highest` needs."""
    if _before is not None:
        _set(max(_before, highest + 1))


def can_be_lowered(highest: int) -> bool:
    """Returns True if the limit before allows such a descriptor."""
    return _before is None or highest < _before


@contextmanager
def lowered(highest: int) -> Iterator[None]:
    """Does so for a while."""
    if _before is None:
        yield
        return
    raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    restore(highest)
    try:
        yield
    finally:
        _set(raised)


def _set(soft: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
