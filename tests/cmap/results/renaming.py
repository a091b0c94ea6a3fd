"""Results that get their names, as `Committer` does it."""

from __future__ import annotations

from collections.abc import Sequence

from cexec.cmap.results.renames import Rename, ResultDirectories


def carry_out(renames: Sequence[Rename]) -> None:
    """All of it: the directories are opened, the results named, the directories closed."""
    directories = ResultDirectories()
    try:
        directories.hold(renames)
        directories.carry_out(renames)
    finally:
        directories.close()
