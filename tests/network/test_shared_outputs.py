"""Eight clients at once that share one output file, while their workers are killed one after the other.

No byte of a completed job and no older byte of a file is ever lost, and what a completed job wrote comes from one of
its attempts.
"""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_worker import LOOPBACK
from tests.needs import require_tool
from tests.service import Application, Service
from tests.waiting import PAUSE

AT_ONCE = 8
LINES = 20  # of each job, both on standard output and on standard error, one every 30 milliseconds
WORKERS = 3
KILL_INTERVAL = 0.5  # seconds between a worker's start and the end of another one; a job takes 0.6 at least
PROGRAM = (
    f"for i in $(seq 0 {LINES - 1}); do echo $PEER_ID $CEXEC_ATTEMPT out $i; echo $PEER_ID $CEXEC_ATTEMPT err $i >&2; "
    "sleep 0.03; done"
)
OLDER = b"".join(b"an older line, number %04d\n" % number for number in range(5000))
each_number = pytest.mark.parametrize(
    "jobs", [8, pytest.param(400, marks=[pytest.mark.campaign, pytest.mark.timeout(900)])]
)


class Workers:
    """Some workers, of which one is killed and replaced from time to time."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._services = [self._start() for _ in range(WORKERS)]

    def _start(self) -> Service:
        options = ["-j", "4", "--speed", "1"]
        return Service(self._application, ["sh", "-c", PROGRAM], options, environment=LOOPBACK)

    def replace(self) -> bool:
        """Kills the oldest one that has a job and starts another; returns False if none has a job."""
        at_work = [service for service in self._services if _jobs(service) > 0]
        if not at_work:
            return False
        self._services.remove(at_work[0])
        at_work[0].kill()
        self._services.append(self._start())
        return True

    def close(self) -> None:
        for service in self._services:
            service.close()


def _jobs(service: Service) -> int:
    """How many jobs it has that have not ended."""
    return sum((" accepted " in line) - (" finished " in line) for line in service.lines)


@pytest.fixture
def workers(application: Application) -> Iterator[Workers]:
    made = Workers(application)
    yield made
    made.close()


def run_all(
    workers: Workers, application: Application, directory: Path, redirection: str, each: str, jobs: int
) -> dict[str, int]:
    """The exit statuses of `cexec ID=... EACH` for all jobs, with `redirection` of xargs for all of them."""
    require_tool("xargs")
    argv, environment = application.client("--retries", "5", environment={**LOOPBACK, "CEXEC_TIMEOUT_ACCEPT": "60"})
    one = f'id=$1; shift; "$@" ID=$id </dev/null {each}; echo $id $? >>statuses'
    words = ["xargs", f"-P{AT_ONCE}", "-I{}", "bash", "-c", one, "bash", "{}", *argv]
    script = f'seq 1 {jobs} | "$@" {redirection}'
    killed, most = 0, max(2, jobs // 4)  # else a slow machine would let no job end
    with subprocess.Popen(["bash", "-c", script, "bash", *words], env=environment, cwd=directory) as running:
        try:
            time.sleep(KILL_INTERVAL)
            while running.poll() is None:
                if killed < most and workers.replace():
                    killed += 1
                    time.sleep(KILL_INTERVAL)
                else:
                    time.sleep(PAUSE)  # a busy machine may take longer to start a job than to do it
        finally:
            running.kill()
    assert killed > 0, "no worker was killed that had a job"
    statuses = dict(line.split() for line in (directory / "statuses").read_text().splitlines())
    assert len(statuses) == jobs
    return {job: int(status) for job, status in statuses.items()}


def attempts_of(lines: list[str]) -> dict[str, dict[str, list[str]]]:
    """What is there of each job: attempt -> "out 0", "err 0" and so on."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        words = line.split()
        if len(words) == 4 and words[2] in ("out", "err"):
            found[words[0]][words[1]].append(f"{words[2]} {words[3]}")
    return found


def check(lines: list[str], statuses: dict[str, int], channels: tuple[str, ...]) -> None:
    """All of every completed job is there, in order and from one attempt."""
    assert set(statuses.values()) <= {0, 111}
    assert 0 in statuses.values()
    found = attempts_of(lines)
    for job, status in statuses.items():
        if status == 0:
            (attempt,) = found[job].values()
            for channel in channels:
                expected = [f"{channel} {number}" for number in range(LINES)]
                assert [line for line in attempt if line.startswith(channel)] == expected, (job, attempt)


@each_number
@pytest.mark.parametrize(
    ("redirection", "each", "channels"),
    [
        (">shared", "2>>stderr", ("out",)),
        (">shared 2>&1", "", ("out", "err")),
        (">>shared", "2>>stderr", ("out",)),
        (">>shared 2>&1", "", ("out", "err")),
        ("", ">>shared 2>>stderr", ("out",)),
    ],
    ids=["one file", "one file for both", "appended", "appended for both", "each appends"],
)
def test_what_completed_jobs_wrote_is_all_there(
    workers: Workers,
    application: Application,
    tmp_path: Path,
    redirection: str,
    each: str,
    channels: tuple[str, ...],
    jobs: int,
) -> None:
    (tmp_path / "shared").write_bytes(OLDER)
    statuses = run_all(workers, application, tmp_path, redirection, each, jobs)
    written = (tmp_path / "shared").read_bytes()
    if (redirection or each).startswith(">>"):
        assert written.startswith(OLDER)
        written = written[len(OLDER) :]
    check(written.decode().splitlines(), statuses, channels)


@each_number
def test_a_file_that_is_written_over_loses_only_what_is_written_over(
    workers: Workers, application: Application, tmp_path: Path, jobs: int
) -> None:
    older = b"#" * (jobs * LINES * 20)  # more than the jobs write, and nothing that they write
    (tmp_path / "shared").write_bytes(older)
    statuses = run_all(workers, application, tmp_path, "1<>shared", "2>>stderr", jobs)
    written = (tmp_path / "shared").read_bytes()
    assert len(written) == len(older)
    new = written.rstrip(b"#")
    assert b"#" not in new
    check(new.decode().splitlines(), statuses, ("out",))


@each_number
def test_with_a_file_of_its_own_every_job_is_repeated_and_succeeds(
    workers: Workers, application: Application, tmp_path: Path, jobs: int
) -> None:
    statuses = run_all(workers, application, tmp_path, "", ">out.$id 2>err.$id", jobs)
    assert set(statuses.values()) == {0}
    repeated = 0
    for job in statuses:
        lines = (tmp_path / f"out.{job}").read_text().splitlines()
        check(lines, {job: 0}, ("out",))
        assert len(lines) == LINES
        said = (tmp_path / f"err.{job}").read_text()
        attempts = attempts_of(said.splitlines())[job]
        assert said.count("running the job again") >= len(attempts) - 1
        repeated += len(attempts) > 1
    assert repeated or jobs < 100
