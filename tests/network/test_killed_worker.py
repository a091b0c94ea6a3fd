"""kill -9 of the worker, that is of cservice and of its job's process, at the six points of a job's life.

The program writes its progress to standard error, as an encoder does, and stands still at the point under test while
it is the first attempt.  Then all of the worker is killed, and another is there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.fake_worker import LOOPBACK, SLOW, Connection, FakeWorker
from tests.service import Application, Service

SIZE = 3_000_000  # bytes of input, more than every window and pipe between, so that a kill in its middle is one

# An encoder in miniature: the output is the input backwards, line by line, between two lines of its own.
PROGRAM = """
import os, sys, time
point = os.environ["PEER_POINT"] if os.environ["CEXEC_ATTEMPT"] == "1" else ""
def progress(text):
    sys.stderr.write(text + "\\r")
    sys.stderr.flush()
    if text == point:
        time.sleep(100)
    while text == os.environ.get("PEER_GATE_AT") and not os.path.exists(os.environ["PEER_GATE"]):
        time.sleep(0.05)
progress("started")
first = sys.stdin.buffer.read(1_000_000)
progress("in the input")
lines = (first + sys.stdin.buffer.read()).splitlines()
output = b"".join(line[::-1] + b"\\n" for line in [b"<<<", *lines, b">>>"])
sys.stdout.buffer.write(output[:2_000_000])
sys.stdout.buffer.flush()
progress("in the output")
sys.stdout.buffer.write(output[2_000_000:])
sys.stdout.buffer.flush()
if point == "exited":
    if os.fork() == 0:
        time.sleep(0.2)  # until the parent, the program, has ended
        sys.stderr.write("exited\\r")
        sys.stderr.flush()
        time.sleep(100)
    os._exit(0)
progress("done")
"""
POINTS = ("started", "in the input", "in the output", "exited")  # after GO; those before GO are below


@pytest.fixture(scope="module")
def lines() -> bytes:
    return b"".join(b"%09d\n" % number for number in range(SIZE // 10))


@pytest.fixture(scope="module")
def wanted(lines: bytes) -> bytes:
    return b"<<<\n" + b"".join(line[::-1] + b"\n" for line in lines.splitlines()) + b">>>\n"


class Workers:
    """Two workers with the program; `kill` finds the one that runs the job."""

    def __init__(self, service: StartService, tmp_path: Path, *options: str) -> None:
        program = tmp_path / "program"
        program.write_text(PROGRAM)
        argv = ("python3", os.fspath(program))
        self.services = [
            service(*argv, options=["--name", name, "--speed", "1", *options], environment=LOOPBACK)
            for name in ("one", "other")
        ]

    def kill(self) -> str:
        """Kills the worker that has accepted the job, and all that it started; returns its name."""
        (busy,) = [one for one in self.services if any(" accepted " in line for line in one.lines)]
        busy.kill()
        return "one" if busy is self.services[0] else "other"


@pytest.fixture
def workers(service: StartService, tmp_path: Path) -> Workers:
    return Workers(service, tmp_path)


class Job:
    """`cexec app.pub POINT=...` with these standard descriptors; what it says on stderr can be waited for."""

    def __init__(
        self, application: Application, point: str, *, stdin: int, stdout: int, options: list[str], spool: str
    ):
        argv, environment = application.client(
            *options, f"POINT={point}", environment={**LOOPBACK, "CEXEC_SPOOL": spool}
        )
        self.said = b""
        self._process = subprocess.Popen(argv, env=environment, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)

    def wait_for(self, text: str) -> None:
        """Until the program has said so; its progress ends with a carriage return."""
        assert self._process.stderr is not None
        while text.encode() + b"\r" not in self.said:
            piece = os.read(self._process.stderr.fileno(), 1000)
            assert piece, f"cexec ended and said {self.said.decode()}"
            self.said += piece

    def finish(self) -> int:
        """The exit status."""
        assert self._process.stderr is not None
        self.said += self._process.stderr.read()
        self._process.stderr.close()
        return self._process.wait(60)

    @property
    def lines_of_ours(self) -> list[str]:
        return [line for line in self.said.decode().replace("\r", "\n").splitlines() if line.startswith("cexec: ")]


StartJob = Callable[..., Job]


@pytest.fixture
def start(application: Application, tmp_path: Path, lines: bytes) -> Iterator[StartJob]:
    """Starts `cexec app.pub < in > out`, or with a pipe as its input."""
    (tmp_path / "in").write_bytes(lines)
    feeders: list[subprocess.Popen[bytes]] = []

    def run(point: str, *options: str, pipe: bool = False, spool: str = "", output: str = "out") -> Job:
        with (tmp_path / "in").open("rb") as source, (tmp_path / output).open("wb") as target:
            stdin = source.fileno()
            if pipe:
                feeders.append(subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE))
                stdin = feeders[-1].stdout.fileno()  # type: ignore[union-attr]
            return Job(application, point, stdin=stdin, stdout=target.fileno(), options=list(options), spool=spool)

    yield run
    for feeder in feeders:
        feeder.kill()
        feeder.communicate()


@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_without_a_fault_there_is_one_attempt(
    workers: Workers, start: StartJob, tmp_path: Path, wanted: bytes, pipe: bool
) -> None:
    job = start("nowhere", pipe=pipe, spool="100000" if pipe else "")
    assert job.finish() == 0
    assert job.lines_of_ours == []
    assert (tmp_path / "out").read_bytes() == wanted


@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("point", POINTS)
def test_the_result_is_right_and_came_from_the_other_worker(
    workers: Workers, start: StartJob, tmp_path: Path, wanted: bytes, point: str, pipe: bool
) -> None:
    job = start(point, pipe=pipe)
    job.wait_for(point)
    killed = workers.kill()
    assert job.finish() == 0, job.said
    (line,) = job.lines_of_ours
    assert line.startswith(f"cexec: worker {killed} at 127.0.0.1 failed: disconnected unexpectedly")
    assert line.endswith("; running the job again")
    assert (tmp_path / "out").read_bytes() == wanted
    (other,) = [one for one in workers.services if any(" finished " in line for line in one.lines)]
    assert "attempt=2" in other.wait_for(" finished ")


@pytest.mark.parametrize("point", POINTS[1:])
def test_a_pipe_whose_spool_has_overflowed_is_a_failure(
    workers: Workers, start: StartJob, tmp_path: Path, point: str
) -> None:
    job = start(point, pipe=True, spool="100000")
    job.wait_for(point)
    workers.kill()
    assert job.finish() == 111
    (line,) = job.lines_of_ours
    assert "; not repeated, because " in line
    assert (
        " bytes of standard input cannot be given again; CEXEC_SPOOL, which is 100000, says how many are kept" in line
    )
    assert (tmp_path / "out").read_bytes() == b""  # make must not meet half a file


def test_without_retries_it_is_a_failure(workers: Workers, start: StartJob, tmp_path: Path) -> None:
    job = start("in the output", "--retries", "0")
    job.wait_for("in the output")
    workers.kill()
    assert job.finish() == 111
    assert job.lines_of_ours[0].endswith("; not repeated, because --retries is 0")
    assert (tmp_path / "out").read_bytes() == b""


def test_a_job_of_a_service_that_runs_it_once_is_not_repeated(
    service: StartService, start: StartJob, tmp_path: Path
) -> None:
    workers = Workers(service, tmp_path, "--once")
    job = start("started")
    job.wait_for("started")
    workers.kill()
    assert job.finish() == 111
    assert job.lines_of_ours[0].endswith(
        "; not repeated, because this service must not run a job twice (cservice --once)"
    )


def test_keep_partial_leaves_what_was_written(workers: Workers, start: StartJob, tmp_path: Path, wanted: bytes) -> None:
    job = start("in the output", "--retries", "0", "--keep-partial")
    job.wait_for("in the output")
    workers.kill()
    assert job.finish() == 111
    left = (tmp_path / "out").read_bytes()
    assert left and wanted.startswith(left)


def test_an_input_file_that_changes_meanwhile_is_a_failure(workers: Workers, start: StartJob, tmp_path: Path) -> None:
    job = start("in the input")
    job.wait_for("in the input")
    with (tmp_path / "in").open("ab") as file:
        file.write(b"more\n")
    workers.kill()
    assert job.finish() == 111
    assert job.lines_of_ours[0].endswith(
        "; not repeated, because the file that is standard input has changed meanwhile"
    )


@contextmanager
def into_a_pipe(application: Application, tmp_path: Path, point: str, *options: str) -> Iterator[tuple[Job, int]]:
    """`cexec app.pub < in | ...`, and the reading end."""
    reading, writing = os.pipe()
    with (tmp_path / "in").open("rb") as source:
        job = Job(application, point, stdin=source.fileno(), stdout=writing, options=list(options), spool="")
    os.close(writing)
    with open(reading, "rb", buffering=0):
        yield job, reading


def read(fd: int, size: int) -> bytes:
    """`size` bytes, or what comes before the end."""
    result = b""
    while len(result) < size and (piece := os.read(fd, size - len(result))):
        result += piece
    return result


def test_output_in_a_pipe_cannot_be_taken_back(
    application: Application, workers: Workers, start: StartJob, tmp_path: Path, wanted: bytes
) -> None:
    with into_a_pipe(application, tmp_path, "in the output") as (job, reading):
        got = read(reading, 2_000_000)
        job.wait_for("in the output")
        workers.kill()
        got += read(reading, SIZE)
        assert job.finish() == 111
    assert job.lines_of_ours[0].endswith(
        "; not repeated, because 2000000 bytes have been written to standard output, which is no file"
    )
    assert got == wanted[:2_000_000]


def test_output_in_a_pipe_that_is_held_comes_from_one_attempt(
    application: Application, workers: Workers, start: StartJob, tmp_path: Path, wanted: bytes
) -> None:
    with into_a_pipe(application, tmp_path, "in the output", "--hold") as (job, reading):
        job.wait_for("in the output")
        workers.kill()
        assert read(reading, 2 * SIZE) == wanted
        assert job.finish() == 0
    assert len(job.lines_of_ours) == 1


def test_held_output_of_a_program_that_fails_is_dropped(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    service("sh", "-c", "echo half; exit 3", environment=LOOPBACK)
    result = application.run("--hold", environment=LOOPBACK)
    assert (result.returncode, result.stdout) == (3, b"")
    result = application.run("--hold", "--keep-partial", environment=LOOPBACK)
    assert (result.returncode, result.stdout) == (3, b"half\n")


# The two points before the worker has the job: what its kernel does for a killed process is played.


def test_killed_before_the_handshake_it_never_had_the_job(
    application: Application, service: StartService, start: StartJob, tmp_path: Path, wanted: bytes
) -> None:
    other = patient_worker(service, tmp_path)
    with FakeWorker(application, Connection.close, attempts=1) as fake:
        job = start("nowhere")
        assert job.finish() == 0
    assert (fake.played, job.lines_of_ours) == (1, [])
    assert (tmp_path / "out").read_bytes() == wanted
    other.wait_for("attempt=1")


def test_killed_when_it_has_just_confirmed_the_job_is_done_by_the_other(
    application: Application, service: StartService, start: StartJob, tmp_path: Path, wanted: bytes
) -> None:
    other = patient_worker(service, tmp_path)
    with FakeWorker(application, lambda connection: connection.shake().confirm().close(), attempts=1):
        job = start("nowhere")
        assert job.finish() == 0
    (line,) = job.lines_of_ours
    assert line.startswith("cexec: worker fake at 127.0.0.1 failed: disconnected unexpectedly")
    assert line.endswith("; running the job again")
    assert (tmp_path / "out").read_bytes() == wanted
    other.wait_for("attempt=2")


def patient_worker(service: StartService, tmp_path: Path) -> Service:
    """One that leaves the first attempt to a faster one."""
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    return service("python3", os.fspath(program), environment=SLOW)


def test_what_is_swept_after_one_attempt_is_not_the_next(
    workers: Workers, service: StartService, start: StartJob, tmp_path: Path, wanted: bytes
) -> None:
    """Regression: both attempts carried the same mark, and the sweep for the first one ended the second."""
    gate = tmp_path / "gate"
    job = start("in the input", "GATE_AT=in the output", f"GATE={gate}")
    job.wait_for("in the input")
    workers.kill()
    job.wait_for("in the output")  # of the second attempt
    service("true", environment=LOOPBACK).wait_for("swept")
    gate.touch()
    assert job.finish() == 0, job.said
    assert (tmp_path / "out").read_bytes() == wanted
