"""The ranks of docs/architecture.md hold: what a module imports is of lower rank, and `protocol/` is pure.

All import statements count, also those inside functions and those for type checkers only: a type is a dependency too.
"""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"

# Modules of one rank do not import one another; 2.1 is a rank of its own between 2 and 3.  The modules under a `.*`
# are the exception: system modules may import one another, without cycles.  A row of its own wins over a `.*`.
RANKS: dict[float, tuple[str, ...]] = {
    0: (
        "errors",
        "protocol.allowance",
        "protocol.limits",
    ),
    1: (
        "protocol.program_offer",
        "protocol.relay_cache",
        "protocol.sodium",
        "protocol.wire",
    ),
    2: (
        "protocol.alerting",
        "protocol.bid_events",
        "protocol.bloom",
        "protocol.certificate",
        "protocol.competition",
        "protocol.datagram",
        "protocol.frames",
        "protocol.lottery",
        "protocol.noise",
        "protocol.remembered",
        "protocol.reputation",
        "protocol.requirements",
    ),
    2.1: (
        "protocol.keys",
        "protocol.redelivered",
        "protocol.streams",
    ),
    3: (
        "protocol.alert",
        "protocol.announcement",
        "protocol.hello",
    ),
    3.1: (
        "protocol.channel",
        "protocol.presence",
        "protocol.relay_datagram",
    ),
    4: (
        "protocol.bid",
        "protocol.census",
        "protocol.race",
        "protocol.session",
    ),
    5: ("system.*",),
    5.8: (
        "client.causes",
        "client.programs",
    ),
    5.9: (
        "client.explain",
        "client.files",
        "client.progress",
        "relay.buffers",
        "relay.names",
        "relay.plan",
        "relay.poller",
        "worker.assignment",
        "worker.carrier",
        "worker.files",
        "worker.programs",
        "worker.streams",
    ),
    5.95: ("worker.program",),
    6: (
        "census",
        "client.candidate",
        "client.descriptors",
        "client.signals",
        "client.targets",
        "client.words",
        "group_receiver",
        "logger.journal",
        "relay.side",
        "relay.splice",
        "relay.table",
        "worker.alerts",
        "worker.heard",
        "worker.job",
        "worker.load",
        "worker.offer",
        "worker.presence",
    ),
    6.1: (
        "client.alerts",
        "client.all_input",
        "client.all_output",
        "client.inputs",
        "client.outputs",
        "logger.output",
        "relay.connection",
        "roster",
        "worker.answers",
        "worker.lease",
    ),
    6.15: ("client.race",),
    6.2: (
        "client.all_search",
        "client.job",
        "logger.logger",
        "relay.forwarder",
        "worker.hearing",
        "worker.running",
    ),
    6.21: ("worker.jobs",),
    6.3: (
        "client.all_run",
        "client.client",
        "relay.relay",
        "worker.worker",
    ),
    6.4: (
        "aio",
        "client.all",
    ),
    6.405: ("aio_search",),
    6.41: (
        "cmap.appending",
        "cmap.blocks",
        "cmap.lockfile",
        "cmap.notation",
        "cmap.outcome",
        "cmap.store",
    ),
    6.42: (
        "cmap.journal",
        "cmap.policy",
        "cmap.tables",
    ),
    6.43: (
        "cmap.joblog",
        "cmap.parameters",
        "cmap.scheduler",
        "cmap.tasks",
        "cmap.templates",
    ),
    6.44: (
        "cmap.events",
        "cmap.plan",
        "cmap.results",
        "cmap.sources",
    ),
    6.45: (
        "cmap.attempt",
        "cmap.checks",
        "cmap.collect",
        "cmap.commit",
        "cmap.history",
        "cmap.report_style",
        "cmap.validate",
    ),
    6.46: (
        "cmap.pacing",
        "cmap.runs",
        "cmap.saver",
        "cmap.statistics",
        "cmap.workers",
        "cmap.worklist",
    ),
    6.47: (
        "cmap.display",
        "cmap.explain",
        "cmap.parts",
        "cmap.report",
    ),
    6.48: (
        "cmap.attempts",
        "cmap.setup",
    ),
    6.49: ("cmap.coordinator",),
    6.8: ("commands.common",),
    6.9: (
        "commands.cexec_options",
        "commands.cmap_options",
        "commands.cmap_watch",
    ),
    7: ("commands.*",),
}
FORBIDDEN = {"protocol.session": "protocol.channel"}  # the pump is handed both

IO_MODULES = frozenset({
    "_asyncio", "_io", "_posixsubprocess", "_random", "_signal", "_socket", "_thread", "asyncio", "builtins",
    "concurrent", "ctypes", "datetime", "fcntl", "glob", "importlib", "io", "logging", "mmap", "multiprocessing", "os",
    "pathlib", "posix", "posixpath", "psutil", "pty", "queue", "random", "resource", "sched", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "stat", "subprocess", "sys", "tempfile",
    "termios", "threading", "time", "tty", "uuid", "zeroconf",
})  # fmt: skip
IO_FUNCTIONS = frozenset({"__import__", "breakpoint", "eval", "exec", "input", "open", "print"})


def source_files() -> dict[str, Path]:
    """Module name without `cexec.` -> file; packages' own `__init__` apart."""
    files = sorted((ROOT / "cexec").rglob("*.py"))
    named = {".".join(path.relative_to(ROOT / "cexec").with_suffix("").parts): path for path in files}
    return {name: path for name, path in named.items() if name.rpartition(".")[2] != "__init__"}


MODULES = source_files()


def rank_of(module: str) -> float | None:
    """The rank that the table gives to a module."""
    package = module.rpartition(".")[0] + ".*"
    for name in (module, package):
        for rank, names in RANKS.items():
            if name in names:
                return rank
    return None


def imported_names(tree: ast.AST, module: str) -> set[str]:
    """Full names of all that a module's import statements may mean, `from a import b` both as `a` and as `a.b`."""
    package = f"cexec.{module}".rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def imports_of(module: str, tree: ast.AST | None = None) -> set[str]:
    """The modules of the project that a module imports, without `cexec.`."""
    names = imported_names(tree or ast.parse(MODULES[module].read_text()), module)
    return {name.removeprefix("cexec.") for name in names} & MODULES.keys() - {module}


def rank_errors(module: str, imports: set[str]) -> list[str]:
    """What is wrong with one module's imports."""
    rank = rank_of(module)
    if rank is None:
        return [f"{module} has no rank: add it to RANKS in tests/test_ranks.py and to the table in {ARCHITECTURE.name}"]
    errors = []
    for imported in sorted(imports):
        other = rank_of(imported)
        together = rank == other and f"{module.rpartition('.')[0]}.*" in RANKS[rank] and rank == rank_of("system.x")
        if other is not None and other >= rank and not together:
            errors.append(f"{module} (rank {rank}) imports {imported} (rank {other})")
        if FORBIDDEN.get(module) == imported:
            errors.append(f"{module} imports {imported}, which it must not know")
    return errors


def purity_errors(tree: ast.AST, module: str) -> list[str]:
    """What a module of `protocol/` does that is not pure."""
    roots = {name.partition(".")[0] for name in imported_names(tree, module)}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return sorted(f"{module} names {name}" for name in roots & IO_MODULES | called & IO_FUNCTIONS)


def test_there_are_modules_to_look_at() -> None:
    assert {"errors", "protocol.wire", "protocol.noise"} <= MODULES.keys()
    assert "errors" in imports_of("protocol.wire")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_lower_ranks(module: str) -> None:
    assert not rank_errors(module, imports_of(module))


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("protocol.")))
def test_a_protocol_module_is_pure(module: str) -> None:
    assert not purity_errors(ast.parse(MODULES[module].read_text()), module)


@pytest.mark.parametrize("path", sorted((ROOT / "cexec").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_package_itself_imports_nothing(path: Path) -> None:
    assert not imported_names(ast.parse(path.read_text()), "__init__") - {"__future__", "__future__.annotations"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({module: imports_of(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_table_names_no_module_that_is_gone() -> None:
    packages = {module.rpartition(".")[0] + ".*" for module in MODULES}
    listed = {name for names in RANKS.values() for name in names}
    assert not listed - MODULES.keys() - packages


def test_the_architecture_document_has_the_same_table() -> None:
    rows = re.findall(r"^\| ([0-9.]+) \| (.*?) \|", ARCHITECTURE.read_text(), re.MULTILINE)
    assert {float(rank): tuple(sorted(re.findall(r"`([^`]+)`", names))) for rank, names in rows} == RANKS


def parse_all(source: str, module: str) -> set[str]:
    return imports_of(module, ast.parse(source))


def test_the_check_sees_every_form_of_import() -> None:
    assert parse_all("import cexec.protocol.wire", "errors") == {"protocol.wire"}
    assert parse_all("from cexec.protocol import wire, sodium", "errors") == {"protocol.wire", "protocol.sodium"}
    assert parse_all("from cexec.protocol.wire import Reader", "errors") == {"protocol.wire"}
    assert parse_all("from . import wire", "protocol.noise") == {"protocol.wire"}
    assert parse_all("from ..errors import CexecError", "protocol.noise") == {"errors"}
    assert parse_all("def f():\n    from .wire import Reader", "protocol.noise") == {"protocol.wire"}


def test_the_check_refuses_what_it_should() -> None:
    assert rank_errors("protocol.wire", {"protocol.sodium"}) == [
        "protocol.wire (rank 1) imports protocol.sodium (rank 1)"
    ]
    assert rank_errors("protocol.session", {"protocol.channel"})
    assert rank_errors("system.one", {"commands.cexec"})
    assert rank_errors("commands.one", {"commands.two"})
    assert not rank_errors("system.one", {"system.two", "protocol.session"})
    (unknown,) = rank_errors("protocol.unknown", set())
    assert "add it to RANKS" in unknown
    impure = "def f():\n    import time, os.path\n    open('x')\n"
    assert purity_errors(ast.parse(impure), "protocol.x") == [
        "protocol.x names open", "protocol.x names os", "protocol.x names time",
    ]  # fmt: skip
