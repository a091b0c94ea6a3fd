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
from tests.waiting import wait_until

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
    program = os.getpid()
    if os.fork() == 0:
        while os.getppid() == program:  # until it has ended
            time.sleep(0.01)
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


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return Application(tmp_path_factory.mktemp("application"))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("program") / "program"
    path.write_text(PROGRAM)
    return ["python3", os.fspath(path)]


class Workers:
    """Two workers with the program; `kill` finds the one that runs the job."""

    def __init__(
        self, application: Application, program: list[str], *options: str, runtime: Path | None = None
    ) -> None:
        """`runtime`: the directory for records of jobs, if not the one that all tests share."""
        self._application = application
        self._program = program
        self._options = options
        self.environment = LOOPBACK if runtime is None else {**LOOPBACK, "XDG_RUNTIME_DIR": str(runtime)}
        self._services: dict[str, Service] = {}
        self._seen: dict[str, int] = {}
        self.begin()

    def begin(self) -> None:
        """Both are there, and what they have said so far is of no interest any more."""
        for name in ("one", "other"):
            if name not in self._services:
                options = ["--name", name, "--speed", "1", *self._options]
                self._services[name] = Service(self._application, self._program, options, environment=self.environment)
            self._seen[name] = len(self._services[name].lines)

    def kill(self) -> str:
        """Kills the worker that has accepted the job, and all that it started; returns its name."""
        # The program may have spoken before its worker's log says that the job was accepted.
        wait_until(lambda: any(self.said(name, " accepted ") for name in self._services))
        (busy,) = [name for name in self._services if self.said(name, " accepted ")]
        self._services.pop(busy).kill()
        return busy

    def said(self, name: str, text: str) -> list[str]:
        return [line for line in self._services[name].lines[self._seen[name] :] if text in line]

    def finished(self, name: str) -> str:
        """What this worker says when it has done the job again; it may still be about to tell of an earlier job."""

        def found() -> list[str]:
            return [line for line in self.said(name, " finished ") if " attempt=2 " in line]

        self._services[name].wait_for(lambda line: bool(found()))
        return found()[0]

    def close(self) -> None:
        for service in self._services.values():
            service.close()


@pytest.fixture(scope="module")
def crew(application: Application, program: list[str]) -> Iterator[Workers]:
    workers = Workers(application, program)
    yield workers
    workers.close()


@pytest.fixture
def apart(tmp_path: Path) -> Application:
    """Another application, for tests with other workers."""
    return Application(tmp_path)


@pytest.fixture
def workers(crew: Workers) -> Workers:
    crew.begin()
    return crew


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

    def run(
        point: str, *options: str, pipe: bool = False, spool: str = "", application: Application = application
    ) -> Job:
        with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
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
    assert "attempt=2" in workers.finished("one" if killed == "other" else "other")


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
    apart: Application, program: list[str], start: StartJob
) -> None:
    workers = Workers(apart, program, "--once")
    job = start("started", application=apart)
    job.wait_for("started")
    workers.kill()
    workers.close()
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


def test_held_output_of_a_program_that_fails_is_dropped(apart: Application, service: StartService) -> None:
    service("sh", "-c", "echo half; exit 3", application=apart, environment=LOOPBACK)
    result = apart.run("--hold", environment=LOOPBACK)
    assert (result.returncode, result.stdout) == (3, b"")
    result = apart.run("--hold", "--keep-partial", environment=LOOPBACK)
    assert (result.returncode, result.stdout) == (3, b"half\n")


@pytest.mark.parametrize("point", ["before it writes", "when it has written"])
def test_files_are_sent_again_and_those_that_are_fetched_are_of_one_attempt(
    apart: Application, tmp_path: Path, lines: bytes, point: str
) -> None:
    stop = "if test $CEXEC_ATTEMPT = 1; then printf 'here\\r' >&2; sleep 100; fi"
    write = "(echo attempt $CEXEC_ATTEMPT; cat data) > result"
    steps = [stop, write] if point == "before it writes" else [write, stop]
    workers = Workers(apart, ["sh", "-c", "; ".join(steps)])
    (tmp_path / "data").write_bytes(lines)
    (tmp_path / "result").write_bytes(b"an older one")
    options = ["--send", f"{tmp_path}/data=data", "--fetch", f"result={tmp_path}/result"]
    with open(os.devnull, "r+b") as null:
        job = Job(apart, "", stdin=null.fileno(), stdout=null.fileno(), options=options, spool="")
    job.wait_for("here")
    before = sorted(os.listdir(tmp_path))
    assert (tmp_path / "result").read_bytes() == b"an older one"
    killed = workers.kill()
    assert job.finish() == 0, job.said
    (line,) = job.lines_of_ours
    assert line.startswith(f"cexec: worker {killed} at 127.0.0.1 failed: ") and line.endswith("; running the job again")
    assert (tmp_path / "result").read_bytes() == b"attempt 2\n" + lines
    assert sorted(os.listdir(tmp_path)) == before
    workers.close()


# The two points before the worker has the job: what its kernel does for a killed process is played.


def test_killed_before_the_handshake_it_never_had_the_job(
    apart: Application, service: StartService, program: list[str], start: StartJob, tmp_path: Path, wanted: bytes
) -> None:
    other = service(*program, application=apart, environment=SLOW)
    with FakeWorker(apart, Connection.close, attempts=1) as fake:
        job = start("nowhere", application=apart)
        assert job.finish() == 0
    assert (fake.played, job.lines_of_ours) == (1, [])
    assert (tmp_path / "out").read_bytes() == wanted
    other.wait_for("attempt=1")


def test_killed_when_it_has_just_confirmed_the_job_is_done_by_the_other(
    apart: Application, service: StartService, program: list[str], start: StartJob, tmp_path: Path, wanted: bytes
) -> None:
    other = service(*program, application=apart, environment=SLOW)
    with FakeWorker(apart, lambda connection: connection.shake().confirm().close(), attempts=1):
        job = start("nowhere", application=apart)
        assert job.finish() == 0
    (line,) = job.lines_of_ours
    assert line.startswith("cexec: worker fake at 127.0.0.1 failed: disconnected unexpectedly")
    assert line.endswith("; running the job again")
    assert (tmp_path / "out").read_bytes() == wanted
    other.wait_for("attempt=2")


def test_what_is_swept_after_one_attempt_is_not_the_next(
    apart: Application,
    service: StartService,
    program: list[str],
    start: StartJob,
    tmp_path: Path,
    wanted: bytes,
) -> None:
    """Regression: both attempts carried the same mark, and the sweep for the first one ended the second."""
    workers = Workers(apart, program, runtime=tmp_path)
    gate = tmp_path / "gate"
    job = start("in the input", "GATE_AT=in the output", f"GATE={gate}", application=apart)
    job.wait_for("in the input")
    workers.kill()
    job.wait_for("in the output")  # of the second attempt
    service("true", application=apart, environment=workers.environment).wait_for("swept")
    gate.touch()
    assert job.finish() == 0, job.said
    assert (tmp_path / "out").read_bytes() == wanted
    workers.close()
