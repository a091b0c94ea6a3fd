"""The children that this process has started itself, by number: whatever else is its child is a stray.

Contract: who starts a process that is to live beside this one says so by `started`, before it does anything else, and
`ended` once it has been reaped.  This is for processes without threads: between a fork and `started` nobody looks.
`adopt_existing` names the children that this process had before it was this program, for example those of the shell
script that replaced itself by it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set

_known: set[int] = set()


def started(pid: int) -> None:
    _known.add(pid)


def ended(pid: int) -> None:
    _known.discard(pid)


def known() -> Set[int]:
    """Returns the numbers of all of them."""
    return _known


def adopt_existing() -> None:
    """Counts all children of this moment as started by this process."""
    from cexec.system.process.process_tree import children  # here, because a client with a helper does not need it

    _known.update(children(os.getpid()))
