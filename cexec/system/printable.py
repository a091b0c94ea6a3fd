"""Text that a peer has chosen, as it may reach a terminal or a log: the one place that makes it harmless.

Contract: `printable(text)` is on one line and has no character that acts on a terminal or hides others: controls (C0,
C1, DEL), line and paragraph separators, overrides of the direction of writing, bytes that are no UTF-8.  They appear as
`\\x1b`, `\\n`, `\\u202e`.  The message of every `CexecError` is such a text already.  `write_line` writes a line of it
to a descriptor and never raises because nobody reads it.
"""

from __future__ import annotations

import os

from cexec.errors import printable

__all__ = ["printable", "write_line"]


def write_line(fd: int, text: str) -> None:
    try:
        os.write(fd, f"{printable(text)}\n".encode())
    except OSError:
        pass  # the reader has gone
