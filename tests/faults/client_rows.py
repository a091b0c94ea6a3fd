"""Faults of clients: signals, readers that go or are slow, descriptors of every kind, clients that are stopped."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.faults.kept_run import KeptRun
from tests.faults.load import Lane, Plan, Shape
from tests.faults.payloads import LARGE
from tests.faults.records import CEXEC
from tests.faults.rows import CLIENT, row
from tests.faults.scene import Scene
from tests.waiting import wait_until

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTERM)
SIGNALLED = ("small0", "bulk")  # lanes
MOMENTS = (0.0, 0.03, 0.06, 0.1, 0.15)  # seconds after a client has been seen
STOPPED = 4.0  # seconds
PAUSE = 0.02  # seconds
TASKS = 200  # of the run that is killed


def signal_all(scene: Scene, numbers: Sequence[int]) -> None:
    """The clients of two lanes get each signal at several moments of their lives."""
    moments = list(itertools.product(numbers, SIGNALLED, MOMENTS))
    with scene.fault(len(moments)):
        for number, lane, moment in moments:
            scene.work(1)
            scene.last(moment)
            while not scene.load.signal(lane, number):
                scene.last(0.005)


@row("signals", CLIENT, "HUP, INT, QUIT, USR1, USR2, ALRM and TERM to `cexec` at 70 moments of jobs")
def signals(scene: Scene) -> None:
    signal_all(scene, SIGNALS)


@row("killed", CLIENT, "SIGKILL of `cexec` at 10 moments of jobs")
def killed(scene: Scene) -> None:
    signal_all(scene, [signal.SIGKILL])


@row("stopped for 4 s", CLIENT, "SIGSTOP of every client (`cexec`, `--all`, `cmap`) for 4 s, twice")
def stopped(scene: Scene) -> None:
    for _ in range(2):
        scene.work()
        with scene.fault(len(scene.load.lanes)):
            for lane in scene.load.lanes:
                scene.load.signal(lane, signal.SIGSTOP)
            scene.last(STOPPED)
            for lane in scene.load.lanes:
                scene.load.signal(lane, signal.SIGCONT)


@row("cmap killed", CLIENT, "SIGKILL of `cmap --state` three times in one run; it goes on with --resume each time")
def cmap_killed(scene: Scene) -> None:
    run = KeptRun(scene, scene.directory / "kept", TASKS)
    run.start()
    for part in (1, 2, 3):
        run.wait_for(part * TASKS // 4)
        with scene.fault():
            run.kill()
        run.start()
    run.go_on()
    run.collect()


def submit_closed_early(lane: Lane) -> None:
    """`cexec < in | head -c 1000 > out`."""
    load, job, shape = lane.load, lane.new_id(), Shape(LARGE)
    load.submit(lane.name, job, CEXEC, shape, pipe=True, reads=1_000)
    with (load.directory / "in" / job).open("rb") as source:
        process = load.popen(load.cexec(job, shape), stdin=source, stdout=subprocess.PIPE)

    def read() -> None:
        with process.stdout:  # type: ignore[union-attr]
            data = os.read(process.stdout.fileno(), 1_000)  # type: ignore[union-attr]
        (load.directory / "out" / job).write_bytes(data)

    lane.finish(process, job, read)


@row("closed early", CLIENT, "the reader of standard output goes after 1,000 of 5 MB",
     plan=Plan(others=(submit_closed_early, submit_closed_early)))  # fmt: skip
def closed_early(scene: Scene) -> None:
    while scene.load.lanes["own0"].done < 10:
        with scene.fault():
            scene.work(3)


def submit_slowly(lane: Lane) -> None:
    """The input comes in pieces, and the output is read in pieces, with a pause after each."""
    load, job, shape = lane.load, lane.new_id(), Shape(LARGE)
    load.submit(lane.name, job, CEXEC, shape, pipe=True)
    reading, writing = os.pipe()
    process = load.popen(load.cexec(job, shape), stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    feeder = threading.Thread(target=_feed, args=(load.directory / "in" / job, writing))
    feeder.start()
    lane.finish(process, job, lambda: _read_slowly(process.stdout, load.directory / "out" / job))
    feeder.join()


def _feed(source: Path, fd: int) -> None:
    with source.open("rb") as file, open(fd, "wb", buffering=0) as pipe:
        try:
            while data := file.read(100_000):
                pipe.write(data)
                time.sleep(PAUSE)
        except BrokenPipeError:
            pass  # the job has failed


def _read_slowly(source: IO[bytes] | None, target: Path) -> None:
    assert source is not None
    with source, target.open("wb") as file:
        while data := os.read(source.fileno(), 50_000):
            file.write(data)
            time.sleep(PAUSE)


@row("slow reader, slow writer", CLIENT, "standard input comes in pieces of 100 KB, output is read in pieces of 50 KB",
     plan=Plan(others=(submit_slowly, submit_slowly)))  # fmt: skip
def slow(scene: Scene) -> None:
    while scene.load.lanes["own0"].done < 3:
        with scene.fault():
            scene.work(3)


INPUTS = ("file", "file at an offset", "pipe", "socket", "nothing", "closed")
OUTPUTS = ("file", "appended", "pipe", "socket")


def submit_every_kind(lane: Lane) -> None:
    """The next pair of INPUTS and OUTPUTS."""
    load, job = lane.load, lane.new_id()
    given, got = INPUTS[lane.done % len(INPUTS)], OUTPUTS[lane.done // len(INPUTS) % len(OUTPUTS)]
    shape = Shape(0 if given in ("nothing", "closed") else 100_000)
    load.submit(lane.name, job, CEXEC, shape, pipe=got in ("pipe", "socket"))
    source, target = load.directory / "in" / job, load.directory / "out" / job
    target.touch()
    with ExitStack() as stack:
        stdin, feed = stack.enter_context(_input(given, source))
        stdout, copy = stack.enter_context(_output(got, target))
        argv = load.cexec(job, shape)
        if given == "closed":
            argv = ["sh", "-c", 'exec "$0" "$@" <&-', *argv]
        process = load.popen(argv, stdin=stdin, stdout=stdout)
        os.close(stdout)
        feeder = threading.Thread(target=feed)
        feeder.start()
        lane.finish(process, job, copy)
        feeder.join()


@contextmanager
def _input(kind: str, source: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor from which the content of `source` can be read while the function runs."""
    if kind in ("pipe", "socket"):
        ours, theirs = _pair(kind)
        yield theirs, lambda: _feed_all(source, ours, theirs)
        return
    with source.open("rb") as file:
        if kind == "file at an offset":
            longer = source.with_name(f"{source.name}-longer")
            longer.write_bytes(b"x" * 70_000 + source.read_bytes())
            file = longer.open("rb")
            os.lseek(file.fileno(), 70_000, os.SEEK_SET)
        with file:
            yield file.fileno(), lambda: None


def _feed_all(source: Path, ours: int, theirs: int) -> None:
    os.close(theirs)
    with source.open("rb") as file, open(ours, "wb", buffering=0) as end:
        try:
            while data := file.read(1 << 16):
                end.write(data)
        except OSError:
            pass  # the job has failed


@contextmanager
def _output(kind: str, target: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor, and the function that brings what is written there into `target`."""
    if kind in ("pipe", "socket"):
        theirs, ours = _pair(kind)
        yield theirs, lambda: _read_all(ours, target)
    else:
        yield os.open(target, os.O_WRONLY | (os.O_APPEND if kind == "appended" else 0)), lambda: None


def _read_all(fd: int, target: Path) -> None:
    with open(fd, "rb", buffering=0) as end, target.open("wb") as file:
        while data := end.read(1 << 16):
            file.write(data)


def _pair(kind: str) -> tuple[int, int]:
    """Our end and theirs, if we write."""
    if kind == "pipe":
        reading, writing = os.pipe()
        return writing, reading
    one, other = socket.socketpair()
    return one.detach(), other.detach()


@row("every kind of descriptor", CLIENT, "24 pairs of standard input (file, file at an offset, pipe, socket, /dev/null,"
     " closed) and output (file, appended, pipe, socket)", plan=Plan(others=(submit_every_kind,)))  # fmt: skip
def every_kind(scene: Scene) -> None:
    for number in range(len(INPUTS) * len(OUTPUTS)):
        with scene.fault():
            wait_until(lambda: scene.load.lanes["own0"].done > number or scene.load.errors)  # noqa: B023
