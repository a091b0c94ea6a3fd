"""Text is UTF-8 in `cmap`, whatever the locale says: what a user or a file has written is passed on byte by byte.

Contract: `enter_utf8_mode` is called by the launcher before anything else.  In another locale Python would read the
words of the command line as that locale's letters and write them as UTF-8, and could not open files with other letters.
It returns in Python's UTF-8 mode, in which bytes that are no UTF-8 are surrogate escapes; it may start this process
anew for that.
"""

from __future__ import annotations

import os
import sys


def enter_utf8_mode() -> None:
    if not sys.flags.utf8_mode and sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
