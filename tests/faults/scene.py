"""The place in which one row of the campaign happens: hosts, workers, relays, a logger, a load, and the row's records.

Contract: `with Scene(directory, layout, plan) as scene:` has everything running but the load.  An injector uses
`fault()` around what it does, so that its begin and end are recorded, and `work()` to let jobs pass meanwhile.  When
the scene is left, the load's clients have ended, everything is stopped as a user would stop it, what remains is in
`left`, and all records are on disk.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from tests.environment import ROOT, clean_environment, command
from tests.faults.evidence import Evidence, gather
from tests.faults.link import BadRelay
from tests.faults.load import Load, Plan
from tests.faults.records import Ended, Fault, Left, Signalled, append, read_all
from tests.faults.recovery import recovery
from tests.lab import Host, Lab
from tests.loggers import Crat
from tests.relaying import Proxy
from tests.service import Application, Service
from tests.waiting import comes_true, wait_until

MARK = "FAULTS_MARK"  # everything that a worker starts inherits it
SLOTS = 4
PATIENCE = 120.0  # seconds in which a job must end and a fault must show
LOG_PATIENCE = 80.0  # seconds: a logger waits for a minute before it tells of a gap, or of a client that vanished
TRACEBACK = "Traceback (most recent call last)"
QUIET = 10.0  # seconds in which a worker puts away what its last jobs have left
DOOMED = ROOT / "tests" / "faults" / "doomed.py"
PROGRAM = ROOT / "tests" / "faults" / "program.py"


@dataclass(frozen=True)
class Layout:
    """Which hosts there are: `networks` as `Lab` has them."""

    networks: int | Sequence[Sequence[int]] = ((1, 2, 3, 4, 9),)
    client: int = 1
    workers: tuple[int, ...] = (2, 3, 4)
    relays: tuple[int, ...] = ()
    bad_relay: int = 0  # the host of a `BadRelay`
    nat: int = 0  # the host that hides its first network from the second, and passes announcements on to host 1
    logger: int = 9
    slots: int = SLOTS
    worker_environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Footprint:
    """Descriptors and bytes of memory of one cservice."""

    descriptors: int
    memory: int


class Worker:
    """One host's cservice, which may be killed and started again."""

    def __init__(self, scene: Scene, host: Host, options: Sequence[str] = ()) -> None:
        self.name = f"w{host.number}"
        self.host = host
        self.lives = 0
        self.footprint: Footprint | None = None
        self._scene = scene
        self._options = options
        self.service = self.start()

    def start(self, doom: str = "") -> Service:
        """A new life; `doom` is the point of doomed.py at which it will kill itself."""
        scene = self._scene
        self.lives += 1
        runtime = scene.directory / "runtime" / self.name
        for name in ("run", "tmp"):
            (runtime / name).mkdir(parents=True, exist_ok=True)
        environment = {
            **scene.layout.worker_environment,
            MARK: scene.mark,
            "FAULTS_WORKER": self.name,
            "FAULTS_STARTS": os.fspath(scene.directory / "starts"),
            "FAULTS_POINTS": os.fspath(scene.points),
            "XDG_RUNTIME_DIR": os.fspath(runtime / "run"),
            "XDG_STATE_HOME": os.fspath(scene.directory / "state" / self.name),
            "TMPDIR": os.fspath(runtime / "tmp"),
        }
        options = ["-j", str(scene.layout.slots), "--name", self.name, "--speed", "1", *self._options]
        launcher = [sys.executable, os.fspath(DOOMED), doom] if doom else None
        self.service = Service(
            scene.application,
            [sys.executable, "-S", os.fspath(PROGRAM)],
            options,
            self.host,
            environment,
            launcher=launcher,
        )
        return self.service

    def processes(self) -> list[psutil.Process]:
        """Those of cservice, not those of programs."""
        found = []
        for pid in self.service.pids():
            try:
                process = psutil.Process(pid)
                if os.fspath(PROGRAM) not in process.cmdline()[:3]:
                    found.append(process)
            except psutil.Error:
                continue  # it has ended meanwhile
        return found

    def kill(self) -> None:
        """SIGKILL of cservice and its job processes, not of programs, which the next life has to find."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # it has ended with cservice
        self.service.process.wait()
        self.keep_log()

    def keep_log(self) -> None:
        logs = self._scene.directory / "logs"
        logs.mkdir(exist_ok=True)
        (logs / f"{self.name}.{self.lives}").write_text("".join(line + "\n" for line in self.service.lines))

    def measure(self) -> Footprint:
        process = psutil.Process(self.service.pid)
        return Footprint(process.num_fds(), process.memory_info().rss)


class Scene:
    """A context manager."""

    def __init__(self, directory: Path, layout: Layout, plan: Plan, worker_options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.layout = layout
        self.mark = uuid.uuid4().hex
        self.points = directory / "points"
        self.points.mkdir(parents=True)
        self.lab = Lab(layout.networks)
        self.application = Application(directory)
        self.workers: list[Worker] = []
        self.relays: list[Proxy] = []
        self.bad_relay: BadRelay | None = None
        self._logger: Crat | None = None
        self._plan = plan
        self._worker_options = worker_options

    def __enter__(self) -> Self:
        self.lab.__enter__()
        try:
            layout = self.layout
            if layout.nat:
                make_nat(self.lab.host(layout.nat), self.lab.host(1))
            self.client = self.lab.host(layout.client)
            self.load = Load(self.directory, self.application, self.client, self._plan)
            self._logger = Crat(self.directory, "--json", self.application.public, host=self.lab.host(layout.logger))
            self.bad_relay = BadRelay(self.lab.host(layout.bad_relay)) if layout.bad_relay else None
            self.relays += [self.relay(number) for number in layout.relays]
            self.workers += [Worker(self, self.lab.host(number), self._worker_options) for number in layout.workers]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.load.abandon()
            self._end()
        finally:
            self.lab.close()

    def relay(self, number: int) -> Proxy:
        """Starts a cproxy between the two networks of a host."""
        host = self.lab.host(number)
        return Proxy(host, host.address, f"10.77.{host.networks[1]}.255")

    # what injectors use

    @contextmanager
    def fault(self, count: int = 1) -> Iterator[None]:
        """The fault lasts as long as the block; it counts as `count` of them."""
        begin = time.time()
        yield
        append(self.directory, Fault(begin, time.time(), count))

    @property
    def recovered(self) -> bool:
        """Each lane has succeeded since the last fault."""
        return not self.injected or recovery(self.directory, self.load.probes) is not None

    @property
    def injected(self) -> int:
        return sum(fault.count for fault in read_all(self.directory, Fault))

    def last(self, seconds: float) -> None:
        """Lets a fault last."""
        time.sleep(seconds)

    def work(self, jobs: int = 4) -> None:
        """Waits until so many more clients have ended, and no lane still feels the faults that are over."""
        wanted = self.load.done + jobs
        wait_until(lambda: self.load.done >= wanted or self.load.errors, PATIENCE)
        comes_true(lambda: self.recovered or self.load.errors, PATIENCE, pause=0.1)

    def reached(self, point: str) -> Worker:
        """Asks for a job to stand still at a point of program.py; the worker that runs it, when it has come there."""
        (self.points / point).touch()
        told = self.points / f"reached-{point}"
        wait_until(told.exists, PATIENCE)
        name = told.read_text()
        told.unlink()
        return next(worker for worker in self.workers if worker.name == name)

    # before and after

    def warm_up(self) -> None:
        """The first jobs, after which the footprints are taken."""
        for _ in range(3):
            self._greet()
        for worker in self.workers:
            worker.footprint = worker.measure()

    @contextmanager
    def ended(self) -> Iterator[None]:
        """The scene is left at the end of the block."""
        try:
            yield
        finally:
            self.__exit__()

    def settle(self) -> None:
        """Waits for what the loggers wait for: a gap shows when the worker's next alert comes."""
        self._greet()
        comes_true(self._accounted, LOG_PATIENCE, pause=1.0)

    def evidence(self) -> Evidence:
        for worker in self.workers:
            worker.keep_log()
        return gather(self.directory)

    def tracebacks(self) -> list[str]:
        """Errors in the source of cexec, which workers and clients have written to stderr."""
        logs = sorted((self.directory / "logs").glob("*"))
        found = [f"{path.name}: {line}" for path in logs for line in path.read_text().splitlines() if TRACEBACK in line]
        on_purpose = {one.id for one in read_all(self.directory, Signalled)}
        ended = [one for one in read_all(self.directory, Ended) if one.id not in on_purpose]
        return found + [f"{one.id}: {one.said}" for one in ended if os.fspath(ROOT / "cexec") in one.said]

    def _greet(self) -> None:
        """Each worker runs a job that the program does not note."""
        for worker in self.workers:
            words = ("--on", worker.name, self.application.public, "ID=", "KIND=exit", "SIZE=0", "STATUS=0")
            environment = clean_environment(self._plan.environment)
            result = self.client.run(command("cexec", "-n", *words), env=environment, capture_output=True)
            assert result.returncode == 0, result.stderr

    def _accounted(self) -> bool:
        evidence = self.evidence()
        return sum(map(len, evidence.untold.values())) <= sum(evidence.gaps.values())

    def _end(self) -> None:
        for worker in self.workers:
            if worker.service.process.poll() is None:
                worker.service.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.service.wait()
            worker.keep_log()
        comes_true(lambda: not marked(self.mark), QUIET)
        left = [f"process {process.pid} {' '.join(process.cmdline())}" for process in marked(self.mark)]
        files = [path for path in (self.directory / "runtime").rglob("*") if not path.is_dir()]
        left += [f"file {path.relative_to(self.directory)}" for path in files]
        if left:
            append(self.directory, *map(Left, left))
        for process in marked(self.mark):
            process.kill()
        for relay in (*self.relays, self.bad_relay):
            if relay is not None:
                relay.kill()
        if self._logger is not None:
            self._logger.process.terminate()
            self._logger.process.wait()


def make_nat(host: Host, inside: Host) -> None:
    """Connections go out through `host`; announcements that come there go to `inside`."""
    inside.ip(f"route add default via {host.address}")
    host.nft(
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100; }",
        f"add rule ip nat out oifname eth{host.networks[1]} masquerade",
        "add chain ip nat in { type nat hook prerouting priority -100; }",
        f"add rule ip nat in iifname eth{host.networks[1]} udp dport 3010 dnat to {inside.address}",
    )
    host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)


def marked(mark: str) -> list[psutil.Process]:
    """Processes whose environment carries the mark of a scene."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or it is another user's
    return found
