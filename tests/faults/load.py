"""The load of a row: lanes of clients, each of which submits one job after the other until the row ends.

Contract: a lane writes each job into `submitted` before its client starts and into `ended` when it has ended; what the
clients left is in `out`.  `Load.stop` lets the running clients end; one that has not in DEADLINE seconds is killed and
never recorded as ended, so that the checker finds it lost.  `signal` reaches the client of a lane and is recorded.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.environment import clean_environment, command
from tests.faults import payloads
from tests.faults.records import ALL, CAT, CEXEC, CMAP, EXIT, SUM, Ended, Signalled, Submitted, append
from tests.lab import Host
from tests.service import Application

DEADLINE = 120.0  # seconds from the start of a client, or from the end of the row, to its end
KINDS = (CAT, SUM, CAT, CAT, SUM, CAT, SUM, EXIT)  # exits are few, since a worker slows down after three in a row
IMPATIENT = {"CEXEC_TIMEOUT_ACCEPT": "10"}  # seconds that --all waits for a worker that was there and has gone
BREATH = 0.1  # seconds between two jobs of a lane: more jobs than a machine can do would hide how fast it recovers
SAID = 3000  # characters of what a client said that are kept


@dataclass(frozen=True)
class Plan:
    """Which lanes there are, and what they submit."""

    small: int = 2  # lanes of small jobs
    piped: int = 1  # lanes of small jobs whose output is a pipe
    bulk: tuple[int, ...] = (payloads.HUGE, payloads.LARGE)  # bytes of the jobs of the one lane of large jobs, in turn
    tasks: int = 8  # of a run of cmap, of which there is one after the other
    at_once: int = 2  # tasks of a run that run at the same time
    everywhere: bool = True  # a lane of `cexec --all`
    others: tuple[Callable[[Lane], None], ...] = ()  # lanes of a row's own
    options: tuple[str, ...] = ()  # of cexec
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """What one job does."""

    size: int
    kind: str = CAT
    status: int = 0
    pause: float = 0  # seconds for which the program says nothing first
    act: str = ""  # what else the program does, one of the ACTS of program.py


class Lane:
    """One client after the other."""

    def __init__(self, load: Load, name: str, submit: Callable[[Lane], None], deadline: float = DEADLINE) -> None:
        self.name = name
        self.deadline = deadline
        self.load = load
        self.process: subprocess.Popen[Any] | None = None
        self.job = ""
        self.done = 0
        self.stopping = threading.Event()
        self._numbers = itertools.count(1)
        self._submit = submit
        self.thread = threading.Thread(target=self._run, daemon=True)

    def new_id(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    def finish(self, process: subprocess.Popen[Any], job: str, output: Callable[[], None] | None = None) -> None:
        """Waits for the end of the client of `job`; `output` takes what comes through its pipe meanwhile."""
        self.job, self.process = job, process
        timer = threading.Timer(self.deadline, process.kill)
        timer.start()
        try:
            if output is not None:
                output()
            said = process.stderr.read().decode(errors="replace") if process.stderr else ""
            status = process.wait()
        finally:
            in_time = timer.is_alive()
            timer.cancel()
            self.process = None
        if in_time:
            append(self.load.directory, Ended(job, status, time.time(), said[-SAID:]))
        self.done += 1

    def stop(self, deadline: float) -> None:
        """Lets the client end, until `deadline` of monotonic()."""
        self.stopping.set()
        self.thread.join(max(deadline - time.monotonic(), 0.1))
        if self.thread.is_alive() and self.process is not None:
            self.process.kill()
            self.thread.join()

    def submit_once(self) -> None:
        try:
            self._submit(self)
        except BaseException as error:
            self.load.errors.append(error)

    def _run(self) -> None:
        try:
            while not self.stopping.wait(BREATH):
                self._submit(self)
        except BaseException as error:
            self.load.errors.append(error)


class Load:
    """All lanes."""

    def __init__(self, directory: Path, application: Application, host: Host, plan: Plan) -> None:
        self.directory = directory
        self.application = application
        self.host = host
        self.plan = plan
        self.errors: list[BaseException] = []
        self._random = random.Random(directory.name)
        for name in ("in", "out", "runs"):
            (directory / name).mkdir(exist_ok=True)
        self.lanes = {lane.name: lane for lane in self._plan_lanes()}

    def _plan_lanes(self) -> list[Lane]:
        plan = self.plan
        lanes = [Lane(self, f"small{number}", submit_small) for number in range(plan.small)]
        lanes += [Lane(self, f"piped{number}", submit_piped) for number in range(plan.piped)]
        if plan.bulk:
            sizes = itertools.chain(plan.bulk, itertools.repeat(plan.bulk[-1]))
            lanes.append(Lane(self, "bulk", lambda lane: submit_bulk(lane, next(sizes))))
        if plan.tasks:
            lanes.append(Lane(self, "cmap", lambda lane: submit_table(lane, plan.tasks)))
        if plan.everywhere:
            lanes.append(Lane(self, "all", submit_everywhere))
        lanes += [Lane(self, f"own{number}", submit) for number, submit in enumerate(plan.others)]
        return lanes

    @property
    def probes(self) -> set[str]:
        """The lanes by which recovery is measured."""
        return {name for name in self.lanes if name.startswith(("small", "piped", "cmap"))}

    @property
    def done(self) -> int:
        """How many clients have ended."""
        return sum(lane.done for lane in self.lanes.values())

    def start(self) -> None:
        for lane in self.lanes.values():
            lane.thread.start()

    def stop(self) -> None:
        for lane in self.lanes.values():
            lane.stopping.set()
        deadline = time.monotonic() + DEADLINE
        for lane in self.lanes.values():
            lane.stop(deadline)
        if self.errors:
            raise self.errors[0]

    def abandon(self) -> None:
        """Ends what still runs, without a record."""
        for lane in self.lanes.values():
            lane.stopping.set()
            if lane.process is not None:
                lane.process.kill()

    def signal(self, lane: str, number: int) -> bool:
        """Sends a signal to the client of a lane; False if there is none at this moment."""
        process, job = self.lanes[lane].process, self.lanes[lane].job
        if process is None or process.poll() is not None:
            return False
        append(self.directory, Signalled(job, number))
        process.send_signal(number)
        return True

    def shape(self) -> Shape:
        """A small job, drawn."""
        kind = self._random.choice(KINDS)
        return Shape(self._random.choice(payloads.SMALL), kind, self._random.randint(1, 99) if kind == EXIT else 0)

    def submit(self, lane: str, job: str, way: str, shape: Shape, **more: Any) -> None:
        """Makes the input and records the job."""
        payloads.write(self.directory / "in" / job, shape.size, job)
        append(
            self.directory,
            Submitted(job, way, shape.kind, shape.size, shape.status, time.time(), lane=lane, **more),
        )

    def cexec(self, job: str, shape: Shape, *options: str, key: Path | None = None) -> list[str]:
        peers = [f"ID={job}", f"KIND={shape.kind}", f"SIZE={shape.size}", f"STATUS={shape.status}"]
        peers += [f"PAUSE={shape.pause}"] if shape.pause else []
        peers += [f"ACT={shape.act}"] if shape.act else []
        own = () if "--all" in options else self.plan.options
        return command("cexec", *own, *options, key or self.application.public, *peers)

    def make_table(self, lane: str, run: str, tasks: int) -> None:
        """The tasks of a run of `cmap`."""
        table = ["id,kind,size,status"]
        for row in range(1, tasks + 1):
            shape, job = self.shape(), f"{run}.{row}"
            self.submit(lane, job, CMAP, shape, run=run, row=row)
            table.append(f"{job},{shape.kind},{shape.size},{shape.status}")
        (self.directory / "runs" / f"{run}.csv").write_text("\n".join(table) + "\n")

    def cmap(self, run: str, results: str, joblog: str, *options: str) -> list[str]:
        """`results` is the name of a result, with the placeholder {id}."""
        names = ("id", "kind", "size", "status")
        peers = [word for name in names for word in ("--peer", f"{name.upper()}={{{name}}}")]
        return command(
            "cmap", self.application.public, "--params", f"runs/{run}.csv", "--stdin", "in/{id}", "--stdout", results,
            "--stderr", "/dev/null", "--joblog", joblog, "-j", str(self.plan.at_once), *peers, *options,
        )  # fmt: skip

    def popen(
        self, argv: list[str], variables: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        environment = clean_environment({**self.plan.environment, **(variables or {})})
        return self.host.popen(argv, env=environment, cwd=self.directory, stderr=subprocess.PIPE, **options)


def submit_small(lane: Lane) -> None:
    submit_to_file(lane, lane.load.shape())


def submit_bulk(lane: Lane, size: int) -> None:
    submit_to_file(lane, Shape(size))


def submit_to_file(
    lane: Lane,
    shape: Shape,
    key: Path | None = None,
    options: Sequence[str] = (),
    launcher: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> None:
    """`cexec < in > out`: whatever is written can be taken back.  `launcher` is a command before it."""
    load, job = lane.load, lane.new_id()
    load.submit(lane.name, job, CEXEC, shape)
    with (load.directory / "in" / job).open("rb") as source, (load.directory / "out" / job).open("wb") as target:
        argv = [*launcher, *load.cexec(job, shape, *options, key=key)]
        process = load.popen(argv, variables, stdin=source, stdout=target)
    lane.finish(process, job)


def submit_piped(lane: Lane) -> None:
    """`cexec < in | cat > out`: what has been written cannot be taken back."""
    load, job, shape = lane.load, lane.new_id(), lane.load.shape()
    load.submit(lane.name, job, CEXEC, shape, pipe=True)
    with (load.directory / "in" / job).open("rb") as source:
        process = load.popen(load.cexec(job, shape), stdin=source, stdout=subprocess.PIPE)
    lane.finish(process, job, lambda: _copy(process.stdout, load.directory / "out" / job))


def _copy(source: IO[bytes] | None, target: Path) -> None:
    assert source is not None
    with source, target.open("wb") as file:
        while data := source.read(1 << 16):
            file.write(data)


def submit_everywhere(lane: Lane) -> None:
    """`cexec --all < in > out`."""
    load, job, shape = lane.load, lane.new_id(), Shape(1_000)
    load.submit(lane.name, job, ALL, shape)
    with (load.directory / "in" / job).open("rb") as source, (load.directory / "out" / job).open("wb") as target:
        process = load.popen(load.cexec(job, shape, "--all"), IMPATIENT, stdin=source, stdout=target)
    lane.finish(process, job)


def submit_table(lane: Lane, tasks: int) -> None:
    """One run of `cmap`, with a table of small tasks."""
    load, run = lane.load, lane.new_id()
    load.make_table(lane.name, run, tasks)
    argv = load.cmap(run, "out/{id}", f"runs/{run}.joblog")
    lane.finish(load.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL), run)
