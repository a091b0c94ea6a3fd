"""Runs the tests against one mutant, in a process of its own.

Contract: `prepare()` once, then `verdict(mutant)` for each: KILLED if a test fails or the module cannot be imported,
SURVIVED if all tests pass, KILLED too if they take more than `limit` seconds of the CPU, because the mutant never ends.
`check` returns a limit for the machine at hand.  A mutant runs in a fork of this process, which has pytest and
Hypothesis in memory and no module of cexec.  Its memory is bounded.  It cannot touch anything else: the mutated modules
do no input and output, which the import contracts see to.
`ToolError` if a run says nothing about the mutant.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import math
import os
import resource
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest
from hypothesis import HealthCheck, settings

from tests.mutants.mutations import Mutant, compiled

ROOT = Path(__file__).resolve().parents[2]
KILLED, SURVIVED = "killed", "survived"
LONGEST = 300  # seconds of CPU that the tests of one module may take without a mutation
TOO_LONG = 2.5  # times as long as without a mutation
MOST_MEMORY = 4 << 30  # bytes of address space
EXAMPLES = 20  # that Hypothesis tries: always the same ones, so that a score can be had again
OPTIONS = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "--noconftest", "-o", "addopts=",
           "--import-mode=importlib", f"--rootdir={ROOT}"]  # fmt: skip


class ToolError(Exception):
    """A run that says nothing about its mutant."""


def source_of(module: str) -> tuple[Path, str]:
    """Returns the file of a module, and its text."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return path, path.read_text()


def prepare() -> None:
    """Makes this process one that mutants can be forked from."""
    loaded = [name for name in sys.modules if name.partition(".")[0] == "cexec"]
    if loaded:
        raise ToolError(f"{loaded[0]} has been imported already: its mutants would not be seen")
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    settings.register_profile(
        "mutants", deadline=None, derandomize=True, database=None, max_examples=EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    settings.load_profile("mutants")


def verdict(mutant: Mutant, tests: Sequence[str], limit: int) -> str:
    """Runs the tests against the mutant."""
    path, source = source_of(mutant.module)
    return judge(mutant.module, compiled(mutant, source, str(path)), tests, limit)


def judge(module: str, code: CodeType, tests: Sequence[str], limit: int) -> str:
    """Runs the tests against this code in place of the module's."""
    path, _ = source_of(module)
    status = in_fork(lambda: _run(module, str(path), code, tests, limit))
    if os.WIFSIGNALED(status):
        return KILLED  # by the limit of its CPU, or by a fault of its own
    match os.WEXITSTATUS(status):
        case pytest.ExitCode.OK:
            return SURVIVED
        case pytest.ExitCode.TESTS_FAILED | pytest.ExitCode.INTERRUPTED:
            return KILLED
        case (
            pytest.ExitCode.USAGE_ERROR
        ):  # a test that is named could not be imported; `check` has seen that it is there
            return KILLED
        case other:
            raise ToolError(f"pytest ended with {other} for {module}")


def check(module: str, tests: Sequence[str]) -> int:
    """Raises `ToolError` unless the tests pass with the module as it is: else every mutant would seem to be killed.

    Returns the seconds of CPU time that they may take with a mutant of it.
    """
    path, source = source_of(module)
    code = compile(source, str(path), "exec", dont_inherit=True)
    before = _used()
    if in_fork(lambda: _run(module, str(path), code, tests, LONGEST)):
        raise ToolError(f"the tests of {module} do not pass without any mutation")
    return math.ceil(TOO_LONG * (_used() - before))


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_fork(work: Callable[[], int]) -> int:
    """Returns the wait status of a fork that ends with what `work` returns, and says nothing."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os._exit(work())
    finally:
        os._exit(pytest.ExitCode.INTERNAL_ERROR)


def _run(module: str, path: str, code: CodeType, tests: Sequence[str], limit: int) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    sys.meta_path.insert(0, _Finder(module, path, code))
    for file in tests:  # one after the other: mostly the first one sees the mutant, and the others need not be read
        if status := pytest.main([*OPTIONS, file]):
            return int(status)
    return int(pytest.ExitCode.OK)


class _Loader(SourceFileLoader):
    """Gives the mutant's code in place of the file's."""

    def __init__(self, module: str, path: str, code: CodeType) -> None:
        super().__init__(module, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, path: str, code: CodeType) -> None:
        self._found = (module, path, code)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module, file, code = self._found
        if fullname != module:
            return None
        return importlib.util.spec_from_file_location(module, file, loader=_Loader(module, file, code))
