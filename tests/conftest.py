"""Fixtures that start real things, and what the test run says at its end.

Contract: no test sees the developer's CEXEC_* settings, and nothing leaves the machine: outside the namespace of
`make test` the group is the loopback's.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from tests import loopback
from tests.descriptors import descriptors, end_of_process, left_open
from tests.environment import ROOT, local_environment
from tests.lab import Host, Lab
from tests.needs import require_namespaces, wanted
from tests.service import Application, Service, Shell

settings.register_profile("cexec", deadline=None, max_examples=60)  # the machine may be busy: time is no criterion
settings.load_profile("cexec")

HANDLED_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE,
                   signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH]  # fmt: skip

# Packages whose tests run in this process; others mostly start commands, and wait for their end.
CAREFUL = {"authority", "boot", "client", "cmap", "logger", "net", "protocol", "python", "relay", "system", "worker"}

# Packages whose tests take milliseconds each and wait for little; and a file of them that computes for seconds.
LONG_AMONG_SHORT = "test_simulation.py"
SHORT = {"authority", "client", "cmap", "fuzz", "logger", "net", "protocol", "relay", "system"}
SPREAD = 0.75  # the part of the other files over which those of networks are spread

MakeLab = Callable[[int | Sequence[Iterable[int]]], Lab]


class StartService(Protocol):
    """What the fixture `service` is."""

    def __call__(
        self,
        *program: str,
        options: Sequence[str] = (),
        application: Application = ...,
        host: Host | None = None,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> Service:
        """Runs `cservice OPTIONS... APP PROGRAM...`, on `host` or else here, and behind the command `wrapper`."""


def pytest_configure(config: pytest.Config) -> None:
    """Processes that run tests side by side do not hear one another; signals are as at a terminal's prompt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the whole run is in the background
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if hasattr(config, "workerinput"):
        loopback.own_network()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the files so that at any time some processes wait and others compute.

    The tests of networks mostly wait, so their files are spread over the first part of the others, large ones first.
    The files whose tests are short come last: no process has a long one left when the others have none.
    """
    files = list(dict.fromkeys(item.path for item in items))
    waiting = sorted((path for path in files if "network" in path.parts), key=lambda path: -path.stat().st_size)
    short = [path for path in files if SHORT.intersection(path.parts) and path.name != LONG_AMONG_SHORT]
    short = [path for path in short if path not in waiting]
    others = [path for path in files if path not in waiting and path not in short]
    places = {path: (number + 0.5) / len(waiting) * SPREAD for number, path in enumerate(waiting)}
    places |= {path: (number + 0.5) / len(others) for number, path in enumerate(others)}
    places |= {path: 1.0 + number for number, path in enumerate(short)}
    items.sort(key=lambda item: places[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that is collected becomes garbage, and looking for some takes a tenth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """All that was collected stays until the end: garbage is not looked for in it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Records of jobs, too: a cservice sweeps, and tells of, what other people's killed ones have left.

    And the numbers of jobs and of lists of revoked certificates, which tests would leave in the developer's home.
    """
    with pytest.MonkeyPatch.context() as patch:
        places = {"XDG_RUNTIME_DIR": "runtime", "XDG_STATE_HOME": "state"}
        own = {name: str(tmp_path_factory.mktemp(place)) for name, place in places.items()}
        environment = local_environment(own)
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A command that a test calls in this process may leave SIGINT to the system: the next test gets Python's again."""
    before = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_core_files() -> Iterator[None]:
    """Regression: a command that handles keys, called in this process, forbids core files; a later test wants one."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    yield
    if resource.getrlimit(resource.RLIMIT_CORE) != before and os.geteuid() == 0:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.fixture(autouse=True)
def _own_directory() -> Iterator[None]:
    """Regression: a test left another working directory, and tests of what a worker inherits failed after it."""
    before = os.getcwd()
    yield
    after = os.getcwd()
    os.chdir(before)
    assert after == before, "a test has to use monkeypatch.chdir"


@pytest.fixture(autouse=True)
def _no_descriptor_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Regression: tests left hundreds open, and those that need numbers below 256 failed if they came late."""
    before = descriptors()
    yield
    directory = ROOT / "tests"
    if request.path.is_relative_to(directory) and request.path.relative_to(directory).parts[0] in CAREFUL:
        getattr(request.node, "funcargs", {}).clear()  # the test is over, and pytest would hold what it was given
        assert not left_open(before), "a test has to close what it opens; see tests/descriptors.py"


@pytest.fixture
def process_end() -> Iterator[None]:
    """Closes at the end of the test what only the end of a process closes."""
    with end_of_process():
        yield


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """Key files of one application."""
    return Application(tmp_path)


@pytest.fixture
def lab() -> Iterator[MakeLab]:
    """Makes a `Lab`, which the test finds made and which goes when the test ends, whatever its outcome."""
    with ExitStack() as stack:

        def make(networks: int | Sequence[Iterable[int]]) -> Lab:
            require_namespaces()
            return stack.enter_context(Lab(networks))

        yield make


@pytest.fixture
def service(application: Application, lab: MakeLab) -> Iterator[StartService]:
    """Starts a `cservice`; at the end of the test each is stopped and must have left nothing behind."""
    with ExitStack() as stack:  # after `lab`, so that services are stopped before their hosts go

        def start(
            *program: str,
            options: Sequence[str] = (),
            application: Application = application,
            host: Host | None = None,
            environment: Mapping[str, str] | None = None,
            wrapper: Sequence[str] = (),
        ) -> Service:
            started = Service(application, program, options, host, environment, wrapper)
            stack.callback(started.close)
            return started

        yield start


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One worker for all tests of a module, each of which says what it runs; at the end nothing may be left."""
    worker = Shell(tmp_path_factory.mktemp("shell"), ["-j", "4"])
    yield worker
    worker.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One loud line for each thing that this machine lacks."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [wanted(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)]
    for name, count in sorted(Counter(filter(None, reasons)).items()):
        plural = "test" if count == 1 else "tests"
        terminalreporter.write_line(f"SKIPPED for want of {name}: {count} {plural}", red=True, bold=True)
