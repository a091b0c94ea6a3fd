"""The place in which one row of the campaign happens: hosts, workers, relays, a logger, a load, and the row's records.

Contract: `with Scene(directory, layout, plan) as scene:` has everything running but the load.  An injector uses
`fault()` around what it does, so that its begin and end are recorded, and `work()` to let jobs pass meanwhile.  When
the scene is left, the load's clients have ended, everything is stopped as a user would stop it, what remains is in
`left`, and all records are on disk.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import psutil

from tests.environment import ROOT, clean_environment, command
from tests.faults.evidence import Evidence, gather
from tests.faults.link import BadRelay, Script
from tests.faults.load import Load, Plan
from tests.faults.records import LOGGERS, Ended, Fault, Left, Signalled, append, read_all
from tests.faults.recovery import recovery
from tests.faults.worker import MARK, Worker
from tests.lab import Host, Lab
from tests.loggers import Crat
from tests.relaying import Proxy
from tests.service import Application
from tests.waiting import comes_true, wait_until

Hired = TypeVar("Hired", Proxy, Script)

SLOTS = 4
PATIENCE = 120.0  # seconds in which a job must end and a fault must show
LOG_PATIENCE = 80.0  # seconds: a logger waits for a minute before it tells of a gap, or of a client that vanished
TRACEBACK = "Traceback (most recent call last)"
QUIET = 10.0  # seconds in which a worker puts away what its last jobs have left


@dataclass(frozen=True)
class Layout:
    """Which hosts there are: `networks` as `Lab` has them."""

    networks: int | Sequence[Sequence[int]] = ((1, 2, 3, 4, 9),)
    client: int = 1
    workers: tuple[int, ...] = (2, 3, 4)
    relays: tuple[int, ...] = ()
    bad_relay: int = 0  # the host of a `BadRelay`
    stranger: int = 0  # the host of a neighbour that has, or has not, a key
    nat: int = 0  # the host that hides its first network from the second, and passes announcements on to host 1
    logger: int = 9
    second_logger: int = 0
    slots: int = SLOTS
    worker_environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Tally:
    """How many faults there were."""

    count: int


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
        self._helpers: list[Proxy | Script] = []
        self.loggers: list[Crat] = []
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
            self.loggers += [self.logger(number) for number in range(1 + (layout.second_logger > 0))]
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

    def logger(self, number: int) -> Crat:
        """Starts a logger, the first or the second; it adds to what it has written before."""
        directory = self.directory / LOGGERS[number]
        directory.mkdir(exist_ok=True)
        host = self.lab.host((self.layout.logger, self.layout.second_logger)[number])
        return Crat(directory, "--json", self.application.public, host=host)

    def relay(self, number: int, *, back: bool = False) -> Proxy:
        """Starts a cproxy from the first network of a host to the second, or back."""
        host = self.lab.host(number)
        near, far = host.networks[:2][:: -1 if back else 1]
        return Proxy(host, host.address_on(near), f"10.77.{far}.255")

    def hires(self, helper: Hired) -> Hired:
        """Ends this helper with the scene."""
        self._helpers.append(helper)
        return helper

    # what injectors use

    @contextmanager
    def fault(self, count: int = 1) -> Iterator[Tally]:
        """The fault lasts as long as the block; it counts as `count` of them, or as many as the tally has then."""
        tally = Tally(count)
        begin = time.time()
        yield tally
        append(self.directory, Fault(begin, time.time(), tally.count))

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
        return not self.evidence().unaccounted

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
        for helper in (*self.relays, *self._helpers):
            helper.kill()
        if self.bad_relay is not None:
            self.bad_relay.kill()
        for logger in self.loggers:
            logger.process.terminate()
            logger.process.wait()


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
