"""Builds a wheel in which the modules that a plain call of `cexec` needs are together in one more module.

To find and read a module costs such a call as much as its code does, so one file instead of fifty takes a fifth of the
call's CPU time.  setuptools calls `BuildWithBundle` (pyproject.toml) when it builds a wheel; a checkout and an editable
installation have no bundle, and import the modules themselves.

Contract: `bundle(root)` returns the source of `cexec/start_bundle.py`.  It contains the source of each module of
MODULES as the body of a class, because a class's body is compiled as a module's is: its names are looked up in a
dictionary.  The class is never made: `exec_module` runs the body in the module's own dictionary.  So the bundle is
ordinary source, which the Python that installs it compiles.  tests/test_start_bundle.py compares MODULES with what a
call loads.
"""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

from setuptools.command.build_py import build_py

FUTURE = "from __future__ import annotations\n"
NAME = "start_bundle"
MODULES = (
    "client.attempt.attempt", "client.attempt.descriptors", "client.attempt.inputs", "client.attempt.outputs",
    "client.attempt.signals", "client.attempt.stepping", "client.blocking.client", "client.blocking.driver",
    "client.request", "client.search.choice", "client.search.reception", "client.search.search", "client.search.trust",
    "commands.cexec", "common_errors", "net.announcer", "net.destinations", "net.groups", "net.interfaces", "net.pump",
    "net.sinks", "net.sockets", "protocol.base.certificate", "protocol.base.client_key", "protocol.base.limits",
    "protocol.base.noise", "protocol.base.sodium", "protocol.base.wire", "protocol.connection.channel",
    "protocol.connection.frames", "protocol.connection.options", "protocol.connection.records",
    "protocol.connection.session", "protocol.connection.session_states", "protocol.connection.silence",
    "protocol.connection.streams", "protocol.datagrams.announcement", "protocol.datagrams.datagram",
    "protocol.datagrams.hello", "protocol.datagrams.requirements", "protocol.decisions.race", "system.io.fds",
    "system.io.opened_fds", "system.io.wakeup", "system.reason", "system.signal_state", "system.storage.keyfile",
    "system.storage.user_files",
)  # fmt: skip

HEAD = f'''"""The modules of a plain call of `cexec`, together; made by bundle_start.py when the wheel was built."""

{FUTURE}
import sys


def bodies() -> None:
    """Holds the bodies as constants; it is never called."""
'''
TAIL = '''
_CODES = {
    one.co_name.replace("__", "."): one for one in bodies.__code__.co_consts if isinstance(one, type(bodies.__code__))
}
_SPEC = type(__spec__)


def find_spec(name, path=None, target=None):
    """Finds a module of the bundle, for sys.meta_path."""
    return _SPEC(name, sys.modules[__name__]) if name in _CODES else None


def create_module(spec):
    """The usual module will do."""


def exec_module(module):
    """Runs a module's body, once."""
    exec(_CODES.pop(module.__name__), module.__dict__)


def install():
    """Lets the modules be found here first."""
    sys.meta_path.insert(0, sys.modules[__name__])
'''


def bundle(root: Path) -> str:
    """Returns the source of the bundle of the package in `root`."""
    parts = [HEAD]
    for name in MODULES:
        source = (root / "cexec" / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
        parts.append(f"    class cexec__{name.replace('.', '__')}:\n{_indented(source.replace(FUTURE, '', 1))}\n")
    return "".join(parts) + TAIL


def _indented(source: str) -> str:
    """Moves a module to the right, without the lines that are within a text."""
    within = {
        row
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        for row in range(token.start[0] + 1, token.end[0] + 1)
    }
    lines = source.splitlines()
    return "\n".join(
        line if number in within or not line else f"        {line}" for number, line in enumerate(lines, 1)
    )


class BuildWithBundle(build_py):  # type: ignore[misc]  # setuptools has no types
    """Copies the package as always, and adds the bundle."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            Path(self.build_lib, "cexec", f"{NAME}.py").write_text(bundle(Path()), encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Names the bundle among the files of the wheel."""
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, f"{self.build_lib}/cexec/{NAME}.py"]
