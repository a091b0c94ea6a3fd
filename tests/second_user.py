"""Commands that become NOBODY, where perhaps only root can read this Python.

Contract: `readable_python(place)` returns the words that run a command, and stay in front of it, in a mount namespace
where everybody can read the Python of these tests; `place` is an empty directory.  Where that is not possible the test
is skipped, loudly.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.environment import ROOT
from tests.needs import NOBODY, require_second_user, require_tool, skip_for_want_of

# Words before a command: it becomes NOBODY, and may read the interpreter's modules nevertheless, wherever those are.
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
             "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # fmt: skip

# The directory that others may not enter is covered by an empty one, in which only Python is seen again.
_SCRIPT = """
mount --bind "$1" "$3" && mount -t tmpfs -o mode=755 tmpfs "$2" && mkdir -p "$1" && mount --bind "$3" "$1" || exit 125
shift 3; exec "$@"
"""


def readable_python(place: Path) -> list[str]:
    require_second_user()
    if _closed(ROOT) is not None or _closed(Path(sys.prefix)) is not None:
        skip_for_want_of("a checkout that other users can read")
    prefix = Path(sys.base_prefix).resolve()
    closed = _closed(prefix)
    if closed is None:
        return []
    require_tool("unshare", "mount")
    wrapper = ["unshare", "-m", "sh", "-c", _SCRIPT, "sh", os.fspath(prefix), os.fspath(closed), os.fspath(place)]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        skip_for_want_of("mount namespaces")
    return wrapper


def _closed(path: Path) -> Path | None:
    """The first directory of a path that others may not enter."""
    return next((one for one in (*reversed(path.parents), path) if not one.stat().st_mode & stat.S_IXOTH), None)
