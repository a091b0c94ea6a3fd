"""The agent as text: the modules of `cexec/boot/remote/`, which a host's Python reads from its standard input.

Contract: `command(python)` is a command line for any login shell; what its standard input must begin with is
`source()`.  After that the agent reads its request.
"""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

# Single quotes and no `!`: sh, csh and fish read it alike.
LOADER = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
PACKAGE = "cexec.boot.remote"
MODULES = ("place", "release", "service", "placed_worker", "watchdog", "main")  # each imports only those before it

_PRELUDE = """\
import sys, types
def add(name, text=""):
    module = types.ModuleType(name)
    module.__path__ = []
    sys.modules[name] = module
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, module)
    exec(compile(text, "<" + name + ">", "exec"), module.__dict__)
"""


def command(python: str) -> str:
    """Returns what ssh runs; -I because neither PYTHONPATH nor the user's own modules may get in the way."""
    return f"exec {shlex.quote(python)} -I -c '{LOADER}'"


@functools.cache
def source() -> bytes:
    """Returns the length of the text in a line of its own, and the text."""
    directory = Path(__file__).parent / "remote"
    packages = [PACKAGE.rsplit(".", depth)[0] for depth in range(PACKAGE.count("."), 0, -1)] + [PACKAGE]
    lines = [_PRELUDE, *(f"add({name!r})" for name in packages)]
    lines += [f"add({f'{PACKAGE}.{name}'!r}, {(directory / f'{name}.py').read_text()!r})" for name in MODULES]
    lines.append(f"sys.modules[{f'{PACKAGE}.main'!r}].main()")
    text = "\n".join(lines).encode()
    return str(len(text)).encode() + b"\n" + text
