"""Programs that attack the worker that runs them: what they leave, what they read, and whom they kill."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from cexec.protocol.base.keys import OwnerKey
from cexec.system.storage.keyfile import read_key
from tests.conftest import StartService
from tests.needs import skip_for_want_of
from tests.service import Application, Service
from tests.waiting import comes_true, wait_until

PAST_RETRIES = ["--retries", "0"]


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """A runtime directory and a place for private directories of their own."""
    (tmp_path / "run").mkdir(0o700)
    (tmp_path / "tmp").mkdir()
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "TMPDIR": str(tmp_path / "tmp")}


def attack(application: Application, worker: Service, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a job that does not end well."""
    argv, environment = application.client(*words)
    argv[2:2] = PAST_RETRIES
    return subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def noted(path: Path, count: int = 1) -> list[psutil.Process]:
    """The processes whose numbers a program has written down."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n") and len(path.read_text().split()) >= count)
    found = []
    for pid in map(int, path.read_text().split()):
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            pass  # it has been ended already
    return found


ESCAPES = {
    "no environment": "env -i setsid sleep 600 <&- >&- 2>&- & echo $! >> $0; kill -9 $PPID; sleep 600",
    "the program ends": "env -i setsid sleep 600 <&- >&- 2>&- & echo $! >> $0; kill -9 $PPID",
    "two forks": "(env -i setsid setsid -f sh -c 'echo $$ >> $0; exec sleep 600' $0 <&- >&- 2>&-) ; kill -9 $PPID",
    "job process and supervisor": (
        "env -i setsid sleep 600 <&- >&- 2>&- & echo $! >> $0; kill -9 $(ps -o ppid= -p $PPID) $PPID"
    ),
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_what_escapes_from_its_job_process_is_ended_by_the_worker(
    escape: str, application: Application, service: StartService, tmp_path: Path
) -> None:
    """Regression: with an empty environment and a session of its own a process outlived cservice."""
    worker = service("sh", "-c", ESCAPES[escape], str(tmp_path / "notes"))
    assert attack(application, worker).returncode == 111
    assert psutil.wait_procs(noted(tmp_path / "notes"), timeout=30)[1] == []


def test_a_worker_whose_supervisor_is_killed_says_so_and_takes_all_jobs_with_it(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    worker = service("sh", "-c", f"echo $$ >> {tmp_path}/notes; exec sleep 600", options=["-j", "2"])
    clients = []
    for _ in range(2):
        argv, environment = application.client()
        argv[2:2] = PAST_RETRIES
        clients.append(subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    programs = noted(tmp_path / "notes", 2)
    worker.supervisor.kill()
    assert worker.wait() == 111
    assert worker.lines[-1] == "cservice: the process that starts the jobs was killed; start cservice again"
    assert psutil.wait_procs(programs, timeout=30)[1] == []
    assert [client.wait(30) for client in clients] == [111, 111]


def test_the_worker_answers_others_while_it_removes_what_a_killed_job_process_has_left(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    """Regression: cservice stood still until the processes had ended and the directory was removed."""
    script = (
        'test "$PEER_ATTACK" || exit 0; seq 50000 | xargs touch; env -i setsid sleep 600 <&- >&- 2>&- &'
        "kill -9 $PPID; sleep 600"
    )
    worker = service("sh", "-c", script, options=["-j", "2", "--private-dir"], environment=runtime)
    attack(application, worker, "ATTACK=1")
    (sweeper,) = [process for process in worker.job_processes() if "sleep" not in process.cmdline()]
    sweeper.suspend()  # however fast this machine is
    try:
        assert os.listdir(tmp_path / "tmp")
        for _ in range(5):
            assert application.run().returncode == 0
        assert os.listdir(tmp_path / "tmp")
    finally:
        sweeper.resume()
    assert comes_true(lambda: os.listdir(tmp_path / "tmp") == [])


# secrets


def memory_of(pid: int) -> list[bytes]:
    """All that is readable of a process's memory; only root may look."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            first, last = (int(text, 16) for text in line.split()[0].split("-"))
            if "r" not in line.split()[1] or "[v" in line:
                continue
            memory.seek(first)
            try:
                found.append(memory.read(last - first))
            except OSError:
                pass  # not there after all
    return found


def holds(pid: int, secret: bytes) -> bool:
    return any(secret in part for part in memory_of(pid))


def secrets_of(application: Application) -> dict[str, bytes]:
    """What a worker's key file makes, and the file's own digits."""
    owner = read_key(os.fspath(application.secret), (OwnerKey,))
    return {
        "digits": owner.seed.hex().encode(),
        "seed": owner.seed,
        "authority": owner.authority_seed,
        "worker": owner.worker_secret,
        "psk": owner.psk,
    }


def test_no_process_of_a_job_has_ever_had_the_keys(application: Application, service: StartService) -> None:
    """Regression: job processes were forked from a process that had the key in its memory."""
    if os.geteuid():
        skip_for_want_of("root, who may look into other processes")
    worker = service("sh", "-c", "exec sleep 600")
    argv, environment = application.client()
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)
    try:
        worker.wait_for("started")
        secrets = secrets_of(application)
        assert holds(worker.pid, secrets["psk"]) and holds(worker.pid, secrets["worker"])  # so the search can find them
        for process in (worker.supervisor, *worker.job_processes()):
            assert [name for name, secret in secrets.items() if holds(process.pid, secret)] == []
            opened = {os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
            assert str(application.secret) not in opened
    finally:
        client.kill()
        client.wait()
