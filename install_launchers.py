"""Gives the commands of an installation by `make install` the first lines with which they are safe and fast.

    python3 install_launchers.py HOME DESTDIR COMMAND...

Contract: `rewrite` changes the scripts in `bin` of the virtual environment HOME.  The option `-I` lets Python ignore
the caller's variables and modules.  The commands of OFTEN also have `-S`: Python takes a fifth less time to start
without the module `site`.  That module would have found the packages of the virtual environment; instead these commands
name the directory.  It is the first one until `cexec` has been imported, and the last one then.  pip writes first lines
without options, so `make install` calls this after pip.  Raises `ValueError` for a script that is none of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

OFTEN = ("cexec", "cexec-ssh")  # they are started thousands of times, and load nothing that wants `site`
OURS = "\nimport cexec\n"
# Python's modules come before ours from then on; `cexec` itself need not be looked for among all of them.
MOVED = "sys.path.append(sys.path.pop(0))"


def rewrite(home: str, names: Iterable[str], destination: str = "") -> None:
    """Rewrites the commands in `home`, which lies in the directory `destination` until a packager has packed it."""
    place = Path(f"{destination}{home}")
    (packages,) = place.glob("lib/python3.*/site-packages")
    found = f"{home}/{packages.relative_to(place)}"
    for name in names:
        script = place / "bin" / name
        _, _, rest = script.read_text(encoding="utf-8").partition("\n")
        first = [f"#!{home}/bin/python -I"]
        if name in OFTEN:
            first = [f"{first[0]}S", "import sys", "", f"sys.path.insert(0, {found!r})", ""]
            if rest.count(OURS) != 1:
                raise ValueError(f"{script} is no launcher of ours")
            before, _, rest = rest.partition(OURS)
            first.append(f"{before}{OURS}\n{MOVED}")
        script.write_text("\n".join([*first, rest]), encoding="utf-8")


if __name__ == "__main__":
    rewrite(sys.argv[1], sys.argv[3:], sys.argv[2])
