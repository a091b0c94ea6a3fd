"""The contracts of pyproject.toml refuse what they forbid: a forbidden import of each kind is planted.

Contract: import-linter checks a copy of the package as `make check` does, once as it is and once for each contract with
all that is planted against it, and has to name the line of each plant.  What it cannot see is checked here, which is
calls of functions that do I/O, and in test_private_names.py.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cexec"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
NAMES = {contract["id"]: contract["name"] for contract in CONTRACTS}
PURE = next(contract["forbidden_modules"] for contract in CONTRACTS if contract["id"] == "pure")
IO_FUNCTIONS = frozenset({"__import__", "breakpoint", "eval", "exec", "input", "open", "print"})

# Contract, file, and what is added to it.
PLANTS = [
    # upwards, from each layer to the one above it
    ("layers", "errors.py", "import cexec.protocol.base.limits"),
    ("layers", "protocol/base/limits.py", "import cexec.system.io.fds"),
    ("layers", "system/io/fds.py", "import cexec.net.groups"),
    ("layers", "pool/call_messages.py", "import cexec.system.io.fds"),
    ("layers", "net/groups.py", "import cexec.client.search.choice"),
    ("layers", "client/request.py", "import cexec.cmap.run_options"),
    ("layers", "client/request.py", "import cexec.python.completed"),
    ("layers", "python/completed.py", "import cexec.cmap.run_options"),
    ("layers", "python/completed.py", "import cexec.commands.common"),
    ("layers", "python/completed.py", "import cexec.joblib"),
    ("layers", "joblib.py", "import cexec.cmap.run_options"),
    ("layers", "cmap/run_options.py", "import cexec.joblib"),
    ("layers", "worker/worker.py", "import cexec.cmap.run_options"),
    ("layers", "relay/relay.py", "import cexec.cmap.run_options"),
    ("layers", "logger/logger.py", "import cexec.cmap.run_options"),
    ("layers", "authority/make.py", "import cexec.cmap.run_options"),
    ("layers", "cmap/setup.py", "import cexec.commands.common"),
    ("layers", "cmap/setup.py", "import cexec.gate.problem"),
    ("layers", "gate/problem.py", "import cexec.commands.common"),
    ("layers", "cmap/setup.py", "import cexec.boot.hosts"),
    ("layers", "joblib.py", "import cexec.boot.hosts"),
    ("layers", "boot/hosts.py", "import cexec.commands.common"),
    ("layers", "boot/hosts.py", "import cexec.gate.problem"),
    ("layers", "gate/problem.py", "import cexec.boot.hosts"),
    ("boot", "boot/run.py", "import cexec.boot.boot"),
    ("boot", "boot/visit.py", "import cexec.boot.run"),
    ("boot", "boot/ssh.py", "import cexec.boot.wheels"),
    ("boot", "boot/dummy_command.py", "import cexec.boot.target"),
    ("boot", "boot/node_sets.py", "import cexec.boot.hosts"),
    ("boot", "boot/stranger.py", ""),
    ("boot-remote", "boot/remote/place.py", "import cexec.system.units"),
    ("boot-remote", "boot/remote/place.py", "import psutil"),
    ("protocol", "protocol/base/limits.py", "import cexec.protocol.datagrams.datagram"),
    ("protocol", "protocol/datagrams/datagram.py", "import cexec.protocol.connection.frames"),
    ("protocol", "protocol/datagrams/datagram.py", "import cexec.protocol.decisions.lottery"),
    ("client", "client/search/choice.py", "import cexec.client.attempt.progress"),
    ("client", "client/attempt/progress.py", "import cexec.client.request"),
    ("client", "client/request.py", "import cexec.client.blocking.client"),
    ("worker", "worker/discovery/heard.py", "import cexec.worker.jobs.program"),
    ("worker", "worker/jobs/program.py", "import cexec.worker.worker"),
    ("cmap", "cmap/run/policy.py", "import cexec.cmap.run_options"),
    ("cmap", "cmap/inputs/tables.py", "import cexec.cmap.results.outcome"),
    ("cmap", "cmap/results/outcome.py", "import cexec.cmap.run.losses"),
    ("cmap", "cmap/run/losses.py", "import cexec.cmap.watch.report_style"),
    ("cmap", "cmap/run/losses.py", "import cexec.cmap.setup"),
    ("cmap", "cmap/run/losses.py", "import cexec.cmap.control.control_place"),
    ("cmap", "cmap/control/control_place.py", "import cexec.cmap.run.losses"),
    ("cmap", "cmap/results/outcome.py", "import cexec.cmap.control.control_place"),
    ("gate", "gate/problem.py", "import cexec.gate.store.database"),
    ("gate", "gate/jobs/engine.py", "import cexec.gate.http.app"),
    ("gate", "gate/http/app.py", "import cexec.gate.server"),
    ("gate", "gate/store/database.py", "import cexec.gate.access.caller"),
    ("gate", "gate/access/caller.py", "import cexec.gate.jobs.engine"),
    ("commands", "commands/common.py", "import cexec.commands.cexec_options"),
    ("commands", "commands/cmap_options.py", "import cexec.commands.cmap"),
    ("commands", "commands/served_keys.py", "import cexec.commands.cservice"),
    # sideways, between those that never meet
    ("layers", "client/request.py", "import cexec.worker.jobs.program"),
    ("layers", "worker/worker.py", "import cexec.client.search.choice"),
    ("layers", "relay/relay.py", "import cexec.worker.jobs.program"),
    ("layers", "logger/logger.py", "import cexec.worker.jobs.program"),
    ("layers", "relay/relay.py", "import cexec.logger.reporter"),
    ("layers", "authority/make.py", "import cexec.worker.jobs.program"),
    ("layers", "pool/call_messages.py", "import cexec.protocol.base.limits"),
    ("layers", "protocol/base/limits.py", "import cexec.pool.call_messages"),
    ("layers", "worker/worker.py", "import cexec.authority.record"),
    ("layers", "client/request.py", "import cexec.relay.buffers"),
    ("layers", "logger/logger.py", "import cexec.client.search.choice"),
    ("protocol", "protocol/connection/frames.py", "import cexec.protocol.decisions.lottery"),
    ("protocol", "protocol/decisions/lottery.py", "import cexec.protocol.connection.frames"),
    ("client", "client/blocking/client.py", "import cexec.client.everywhere.everywhere"),
    ("client", "client/everywhere/everywhere.py", "import cexec.client.aio.lease"),
    ("client", "client/aio/lease.py", "import cexec.client.blocking.client"),
    ("cmap", "cmap/setup.py", "import cexec.cmap.watch.report_style"),
    ("cmap", "cmap/watch/report_style.py", "import cexec.cmap.setup"),
    ("commands", "commands/cps.py", "import cexec.commands.crat"),
    ("commands", "commands/cmap_options.py", "import cexec.commands.cexec_options"),
    ("gate", "gate/http/app.py", "import cexec.gate.pcci.routes"),
    ("gate", "gate/pcci/routes.py", "import cexec.gate.http.app"),
    # what has no place yet
    ("layers", "stranger.py", ""),
    ("client", "client/stranger.py", ""),
    # single pairs
    ("session", "protocol/connection/session.py", "import cexec.protocol.connection.channel"),
    ("system", "system/host/load.py", "import cexec.protocol.decisions.bid_events"),
    ("cmap-worker", "cmap/run/losses.py", "import cexec.worker.jobs.program"),
    ("gate-worker", "gate/problem.py", "import cexec.worker.jobs.program"),
    # cycles, of modules and of packages
    ("acyclic", "net/groups.py", "import cexec.net.destinations"),
    ("acyclic", "system/process/process.py", "import cexec.system.host.container"),
    # forms of import
    ("layers", "errors.py", "from cexec.protocol import base"),
    ("layers", "errors.py", "from cexec.protocol.base.limits import UDP_PORT"),
    ("layers", "errors.py", "from .protocol.base import limits"),
    ("layers", "errors.py", "def late():\n    from cexec.protocol.base import limits"),
    ("layers", "errors.py", "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from cexec.protocol.base import limits"),
    *(("pure", "protocol/base/limits.py", f"import {name}") for name in ("_socket", "os", "random", "select", "time")),
    ("pure", "protocol/base/limits.py", "def late():\n    from os.path import join"),
    ("pure", "protocol/base/limits.py", "\n".join(f"import {name}" for name in PURE)),
]

# One process for all: import-linter looks for the package on the path, where ours is the copy and nothing is loaded.
DRIVER = """
import contextlib, io, json, pathlib, sys
from importlinter.cli import lint_imports

def check(*contracts):
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        # What was not planted in is not read again.
        status = lint_imports(cache_dir="cache", no_logo=True, limit_to_contracts=contracts)
    return status, written.getvalue()

results = [check()]
for contract, plants in json.load(sys.stdin):
    names = {pathlib.Path("cexec", name) for name, _ in plants}
    before = {path: path.read_text() for path in names if path.exists()}
    for name, text in plants:
        with pathlib.Path("cexec", name).open("a") as file:
            file.write(text + "\\n")
    results.append(check(contract))
    for path in names:
        path.write_text(before[path]) if path in before else path.unlink()
results.append(check())
print(json.dumps(results))
"""


# The numbers of the plants against each contract, which one run of import-linter sees.
TOGETHER = {name: [at for at, (contract, _, _) in enumerate(PLANTS) if contract == name] for name in NAMES}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Exit status and output of import-linter: as it is, with the plants against each contract, and as it is again."""
    copy = tmp_path_factory.mktemp("contracts")
    shutil.copytree(PACKAGE, copy / "cexec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    argv = [sys.executable, "-c", DRIVER]
    work = [(contract, [PLANTS[number][1:] for number in numbers]) for contract, numbers in TOGETHER.items()]
    ended = subprocess.run(argv, cwd=copy, input=json.dumps(work), capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"import-linter could not be run: {ended.stderr}"
    refused: list[tuple[int, str]] = json.loads(ended.stdout)
    return refused


def broken(output: str) -> set[str]:
    """The names of the contracts that the output calls broken."""
    return set(re.findall(r"^(.*) BROKEN\b", output, re.MULTILINE))


@pytest.mark.parametrize("at", [0, -1])
def test_the_package_keeps_its_contracts(results: list[tuple[int, str]], at: int) -> None:
    status, output = results[at]
    assert (status, broken(output)) == (0, set()), output
    assert f"{len(CONTRACTS)} kept, 0 broken" in output


def first_line(number: int) -> int:
    """Where a plant begins in its file, behind what is there and the plants before it."""
    contract, name, _ = PLANTS[number]
    path = PACKAGE / name
    above = [PLANTS[other][2] for other in TOGETHER[contract] if other < number and PLANTS[other][1] == name]
    return 1 + sum(len(text.splitlines()) for text in [path.read_text() if path.exists() else "", *above])


@pytest.mark.parametrize(
    "number", range(len(PLANTS)), ids=[f"{contract}-{name}-{text[:60]}" for contract, name, text in PLANTS]
)
def test_a_forbidden_import_is_refused(results: list[tuple[int, str]], number: int) -> None:
    contract, name, text = PLANTS[number]
    status, output = results[1 + list(TOGETHER).index(contract)]
    assert status == 1 and NAMES[contract] in broken(output), output
    module = f"cexec.{name.removesuffix('.py').replace('/', '.')}"
    if contract == "acyclic":
        assert f"No cycles are allowed in {'.'.join(module.split('.')[:2])}." in output, output
    elif not text:
        assert f"- {module}\n" in output, output
    said = " ".join(output.split())
    for at, line in enumerate(text.splitlines(), first_line(number)):
        if contract != "acyclic" and (imported := re.match(r" *(?:import|from) ([\w.]+)", line)):
            named = imported[1].partition(".")[0]
            assert re.search(rf"{re.escape(module)} -> {named}\S* \([^)]*\bl\.{at}\b", said), (line, output)


def test_every_contract_has_a_plant() -> None:
    assert {contract for contract, _, _ in PLANTS} == NAMES.keys()
    assert len(PURE) >= 45 and {"_socket", "asyncio", "os", "random", "select", "socket", "threading", "time"} < {*PURE}


def modules(folder: str = "") -> list[Path]:
    found = sorted((PACKAGE / folder).rglob("*.py"))
    assert len(found) >= 10
    return found


def io_calls(tree: ast.AST) -> list[str]:
    return [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IO_FUNCTIONS
    ]


def test_protocol_calls_nothing_that_does_io() -> None:
    found = {str(path): io_calls(ast.parse(path.read_text())) for path in modules("protocol")}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_package_itself_imports_nothing() -> None:
    packages = [path for path in modules() if path.name == "__init__.py"]
    assert len(packages) >= 10
    for path in packages:
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert [ast.unparse(node) for node in imports if "__future__" not in ast.unparse(node)] == [], path


def test_the_checks_see_what_they_look_for() -> None:
    assert io_calls(ast.parse("def f():\n    open('x')\n    print()")) == ["open", "print"]
