"""What is left when a job's process, cservice or both are killed, and options of cservice that bound a job.  N6."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from cexec.system.process import orphans
from tests.cgroups import control_group
from tests.conftest import StartService
from tests.needs import NOBODY, require_second_user
from tests.service import Application, Service
from tests.waiting import comes_true, wait_until

# In the background, in a session of its own, an orphan with an empty environment, and one that ignores TERM.
FAMILY = (
    "exec 3>&1 >/dev/null 2>&1\n"
    "sleep 600 3>&- & setsid sleep 600 3>&- & (env -i sh -c 'sleep 600; true' 3>&- &)\n"
    "sh -c 'trap \"\" TERM; while :; do sleep 1; done' 3>&- & sleep 0.3; echo ready >&3; exec cat >&3"
)
SECONDS = (
    20.0  # until everything must have gone, which no program of FAMILY does by itself; N6 gives 5 to an idle machine
)


class Run:
    """A client under way whose program says "ready"."""

    def __init__(self, application: Application, *options: str) -> None:
        argv, environment = application.client()
        argv[2:2] = ["--retries", "0", *options]
        self.process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def finish(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said.decode()


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """A runtime directory and a place for private directories of their own."""
    (tmp_path / "run").mkdir(0o700)
    (tmp_path / "tmp").mkdir()
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "TMPDIR": str(tmp_path / "tmp")}


def family_of(job: psutil.Process) -> list[psutil.Process]:
    """The processes of FAMILY under a job's process, once all have begun: one of them has an empty environment."""
    found: list[psutil.Process] = []

    def complete() -> bool:
        found[:] = job.children(recursive=True)
        return len(found) >= 6 and not all(map(is_marked, found))

    wait_until(complete, explain=lambda: found)
    return found


def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of them that still run after a while, or none as soon as none does."""
    return psutil.wait_procs(processes, timeout=SECONDS)[1]


def at_rest(worker: Service) -> bool:
    """Returns True if it has nothing, not even zombies, but its supervisor and perhaps a process that waits for a job.

    A client that goes while its job's background processes are being ended takes that process with it.
    """
    left = psutil.Process(worker.pid).children(recursive=True)
    return len(left) <= 2 and all(process.status() != psutil.STATUS_ZOMBIE for process in left)


def is_marked(process: psutil.Process) -> bool:
    try:
        return orphans.MARK in process.environ()
    except psutil.Error:
        return True  # it has gone


def test_what_a_killed_job_process_leaves_is_ended_and_other_jobs_are_not(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    worker = service("sh", "-c", FAMILY, options=["-j", "2", "--private-dir"], environment=runtime)
    first = Run(application)
    killed = worker.busy_process()
    family = family_of(killed)
    second = Run(application)
    killed.kill()
    worker.wait_for("the job's process was killed by signal 9")
    status, said = first.finish()
    assert (status, "disconnected unexpectedly" in said) == (111, True)
    assert gone(family) == []
    assert second.finish() == (0, "")
    assert comes_true(lambda: at_rest(worker))
    for directory in ("run/cexec", "tmp"):
        assert comes_true(lambda: os.listdir(tmp_path / directory) == [])  # noqa: B023


def test_a_killed_cservice_takes_its_jobs_with_it(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    worker = service("sh", "-c", FAMILY, options=["--private-dir"], environment=runtime)
    run = Run(application)
    family = worker.started()
    worker.signal(signal.SIGKILL)
    run.process.wait(30)  # while its input is open: the program could end well before the worker's death is noticed
    status, _ = run.finish()
    assert status == 111
    assert gone(family) == []
    for directory in ("run/cexec", "tmp"):
        assert comes_true(lambda: os.listdir(tmp_path / directory) == [])  # noqa: B023


def test_what_they_all_leave_is_swept_by_the_next_cservice(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    worker = service("sh", "-c", FAMILY, options=["--private-dir"], environment=runtime)
    run = Run(application)
    job = worker.busy_process()
    family = family_of(job)
    watching = (psutil.Process(worker.pid), worker.supervisor, job)
    for process in watching:
        process.suspend()  # so that none sees the others go
    for process in watching:
        process.kill()
    run.finish()
    left = [process for process in family if process.is_running()]
    assert left and os.listdir(tmp_path / "tmp")
    hidden = [process for process in left if not is_marked(process)]
    following = service("true", environment=runtime)
    following.wait_for("swept")
    if "control group" in worker.lines[0]:
        hidden = []
    assert gone([process for process in left if process not in hidden]) == []
    for directory in ("run/cexec", "tmp"):
        assert comes_true(lambda: os.listdir(tmp_path / directory) == [])  # noqa: B023
    for process in hidden:  # nothing tells any more whose they were: documented in cservice(1)
        process.kill()


def test_a_runtime_directory_that_is_not_ours_alone_is_told(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "run" / "cexec").mkdir(0o755)
    (tmp_path / "run" / "cexec").chmod(0o755)
    worker = service("echo", "hello", environment=runtime)
    worker.wait_for("warning")
    assert application.run().stdout == b"hello\n"


@pytest.mark.parametrize("content", ["10", "[]", "null", "[" * 100_000, "\0", '{"leader": "x", "directory": 1}'])
def test_a_record_that_cannot_be_understood_does_not_stop_cservice(
    content: str, application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "run" / "cexec").mkdir(0o700)
    (tmp_path / "run" / "cexec" / "1-x").write_text(content)
    worker = service("echo", "hello", environment=runtime)
    assert application.run().stdout == b"hello\n"
    assert not (tmp_path / "run" / "cexec" / "1-x").exists()
    assert not any("Traceback" in line for line in worker.lines)


def test_another_users_runtime_directory_cannot_make_cservice_kill_or_delete(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    """As `su` leaves XDG_RUNTIME_DIR; its owner plants records once cservice has looked at the directory."""
    require_second_user()
    (tmp_path / "run" / "cexec").mkdir(0o700)
    os.chown(tmp_path / "run", NOBODY, NOBODY)
    precious = tmp_path / "tmp" / f"{orphans.PRIVATE_PREFIX}precious"
    precious.mkdir()
    mark = f"{orphans.MARK}={os.urandom(16).hex()}"
    name, _, value = mark.partition("=")
    stranger = subprocess.Popen(["sleep", "600"], env={**os.environ, name: value})
    worker = service("sh", "-c", "echo ready; exec sleep 600", environment=runtime)
    run = Run(application)
    (tmp_path / "run" / "cexec").rename(tmp_path / "run" / "before")
    (tmp_path / "run" / "cexec").mkdir(0o700)
    record = tmp_path / "run" / "cexec" / "1-planted"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record.write_text(json.dumps({"mark": mark, "boot": boot, "directory": str(precious)}))
    for path in (record.parent, record):
        os.chown(path, NOBODY, NOBODY)
    worker.busy_process().kill()
    worker.wait_for("the job's process was killed by signal 9")
    run.finish()
    assert comes_true(lambda: at_rest(worker))
    assert stranger.poll() is None and precious.exists() and record.exists()
    stranger.kill()
    stranger.wait()


# options


def test_the_time_limit_is_said_on_both_sides(application: Application, service: StartService) -> None:
    worker = service("sh", "-c", "echo begun; sleep 60", options=["--time-limit", "2.5"])
    ended = application.run()
    assert (ended.returncode, ended.stdout) == (143, b"begun\n")
    assert ended.stderr.decode().endswith(": ended after its time limit of 2.5 s\n")
    worker.wait_for("ended after its time limit of 2.5 s")


def test_the_memory_limit_counts_all_processes_of_a_job(application: Application, service: StartService) -> None:
    with control_group("memory", {}):
        pass  # where we can make one, so can cservice
    hog = "python3 -S -c 'a = bytearray(b\"x\") * (40 << 20); import time; time.sleep(20)'"
    both = "kill -0 $one && kill -0 $two"  # each is there until the other one has its memory, too
    script = f"{hog} & one=$!; {hog} & two=$!; exec 2>/dev/null; while {both}; do sleep 0.1; done; kill $one $two; wait"
    service("sh", "-c", script, options=["--memory-limit", "60M"])
    ended = application.run(timeout=60)
    assert "the kernel at" in ended.stderr.decode() and "memory limit of 60 MiB" in ended.stderr.decode()


def test_nice_and_processor_time(application: Application, service: StartService) -> None:
    service("sh", "-c", "nice; while :; do :; done", options=["--nice", "5", "--cpu-limit", "1"])
    ended = application.run()
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGXCPU, b"5\n")
    assert "ended after its limit of 1 s of processor time" in ended.stderr.decode()


def test_a_private_directory_for_every_job(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    service("sh", "-c", "pwd; ls -A; touch left", options=["--private-dir"], environment=runtime)
    first, second = (application.run().stdout.decode().split() for _ in range(2))
    assert len(first) == len(second) == 1 and first != second
    assert first[0].startswith(str(tmp_path / "tmp"))
    wait_until(lambda: os.listdir(tmp_path / "tmp") == [])


def test_a_service_that_runs_jobs_once_is_not_asked_again(application: Application, service: StartService) -> None:
    worker = service("sh", "-c", FAMILY, options=["--once"])
    argv, environment = application.client()
    process = subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    worker.wait_for("started")
    worker.busy_process().kill()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 111 and b"not repeated, because this service must not run a job twice" in said
    assert len(worker.lines_with(" started ", 1)) == 1


def test_once_is_known_before_the_program_is_seen_to_start(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    """What the worker said last may not have arrived, so the client has to know when it gives the job away."""
    with open(tmp_path / "large", "wb") as file:
        file.truncate(3 << 30)
    worker = service("true", options=["--once"], environment=runtime)
    argv, environment = application.client()
    argv[2:2] = ["--send", str(tmp_path / "large")]
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    worker.wait_for("accepted")
    worker.busy_process().kill()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 111 and b"not repeated, because this service must not run a job twice" in said
    assert not any(" started " in line for line in worker.lines)
