"""No module, test or benchmark uses a private name of another module.

Counted are `_x` of an object that is neither `self` nor `cls` nor a class of the same module, `from module import _x`,
and names in strings: `setattr(module, "_x", ...)` and the dotted names that `monkeypatch` takes.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("cexec", "tests", "benchmarks")

# Names of other people's modules that are private by their form only.
ALLOWED = {
    "os._exit",  # documented; the only way to end a forked process without its parent's clean-up
    "os._Environ",  # the type of os.environ
    "executor._max_workers",  # of the executors of concurrent.futures, which Dask reads
    "one._accept",  # of `_socket.socket`, whose `accept` is `socket`'s
    "_operator._compare_digest",  # `hmac.compare_digest`, without the 3 ms that `hmac` takes to import
}
STANDARD = {"_socket", "_signal", "_stat", "_thread"}  # modules; a test may replace one in the module that imports it
ACCESSORS = {"setattr", "getattr", "delattr", "hasattr"}
DOTTED = re.compile(r"cexec(\.[a-z_0-9]+)+\.([A-Za-z]\w*\.)*_[a-z]\w*")
# A source without any of these has nothing to find.  That saves most of the time, for most sources are such ones.
CANDIDATE = re.compile(
    rf"""(?<!\bself)(?<!\bcls)\._[^\W_]|\bimport\b[\w\s,()]*\b_[^\W_]|\b({"|".join(ACCESSORS)})\(|{DOTTED.pattern}"""
)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in STANDARD


def uses(source: str) -> list[str]:
    """Every use of another module's private name, as `line: expression`."""
    if not CANDIDATE.search(source):
        return []
    nodes = list(ast.walk(ast.parse(source)))
    own = {"self", "cls", *(node.name for node in nodes if isinstance(node, ast.ClassDef))}
    found = []
    for node in nodes:
        if isinstance(node, ast.Attribute) and private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in own):
                found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"{node.module}.{one.name}") for one in node.names if private(one.name)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ACCESSORS:
            names = [str(one.value) for one in node.args[1:2] if isinstance(one, ast.Constant)]
            found += [(node.lineno, f"{ast.unparse(node.args[0])}.{one}") for one in names if private(one)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            found.append((node.lineno, node.value))
    return [f"{line}: {text}" for line, text in sorted(found) if text not in ALLOWED]


def test_no_private_name_of_another_module_is_used() -> None:
    sources = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    files = [path for path in sources if not path.name.startswith("cexec_pb2")]  # which a generator has written
    assert len(files) > 300
    found = [f"{path.relative_to(ROOT)}:{use}" for path in files for use in uses(path.read_text())]
    assert not found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("other._x", ["1: other._x"]),
        ("self.other._x = 1", ["1: self.other._x"]),
        ("call()._x", ["1: call()._x"]),
        ("from cexec.net import _x, y", ["1: cexec.net._x"]),
        ("monkeypatch.setattr(sockets, '_listen', 1)", ["1: sockets._listen"]),
        ("monkeypatch.setattr(sockets, '_socket', 1)", []),
        ("set('cexec.net.sockets._listen')", ["1: cexec.net.sockets._listen"]),
        ("set('cexec.net.sockets.Listener._x')", ["1: cexec.net.sockets.Listener._x"]),
        ("class A:\n def f(self, o): self._x; A._y; o.__class__; o._z", ["2: o._z"]),
        ("import _socket; _socket.socket(); os._exit(1); x = _private()", []),
    ],
)
def test_the_check_finds_what_it_is_meant_to_find(source: str, found: list[str]) -> None:
    assert uses(source) == found
