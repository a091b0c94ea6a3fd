"""Programs that attack the worker that runs them: what they leave, what they read, and whom they kill."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from cexec.errors import UsageError
from cexec.protocol.base.keys import OwnerKey
from cexec.system.process import job_group
from cexec.system.process.privileges import find_account
from cexec.system.storage.keyfile import read_key
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.needs import NOBODY, require_second_user, require_tool, skip_for_want_of
from tests.second_user import readable_python
from tests.service import Application, Service
from tests.waiting import PATIENCE, comes_true, wait_until

WARNING = "clients choose arguments that root runs; add --user NAME or --isolate"
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
    "two forks": (
        "(env -i setsid setsid -f sh -c 'echo $$ >> $0; exec sleep 600' $0 <&- >&- 2>&-); "
        "until test -s $0; do sleep 0.02; done; kill -9 $PPID"
    ),
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
    application: Application, service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = service("sh", "-c", f"echo $$ >> {tmp_path}/notes; exec sleep 600", options=["-j", "2"])
    clients = []
    for _ in range(2):
        argv, environment = application.client()
        argv[2:2] = PAST_RETRIES
        clients.append(subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    programs = noted(tmp_path / "notes", 2)
    supervisor = worker.supervisor.pid
    worker.supervisor.kill()
    assert worker.wait() == 111
    assert worker.lines[-1] == "cservice: the process that starts the jobs was killed; start cservice again"
    assert psutil.wait_procs(programs, timeout=30)[1] == []
    assert [client.wait(30) for client in clients] == [111, 111]
    monkeypatch.setattr(job_group, "place", None)
    job_group.claim_place()
    assert job_group.groups_of(supervisor) == []


def suspended_sweeper(worker: Service, supervisor: psutil.Process, before: set[psutil.Process]) -> psutil.Process:
    """Stops the child of the supervisor that comes and is no program, in the middle of its work."""
    deadline = time.monotonic() + PATIENCE
    listed = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")  # psutil's look is one at all processes
    while time.monotonic() < deadline:
        for pid in {int(word) for word in listed.read_text().split()} - {process.pid for process in before}:
            try:
                process = psutil.Process(pid)
                if process.cmdline() == worker.argv:
                    process.suspend()
                    return process
            except psutil.Error:
                pass  # it has ended meanwhile
    raise AssertionError("nobody sweeps")


def test_the_worker_answers_others_while_it_removes_what_a_killed_job_process_has_left(
    application: Application, service: StartService, runtime: dict[str, str], tmp_path: Path
) -> None:
    """Regression: cservice stood still until the processes had ended and the directory was removed."""
    script = (
        f'test "$PEER_ATTACK" || exit 0; seq 10000 | xargs touch; echo $PPID >> {tmp_path}/notes; '
        f"until test -e {tmp_path}/go; do sleep 0.02; done; env -i setsid sleep 600 <&- >&- 2>&- &"
        "kill -9 $PPID; sleep 600"
    )
    worker = service("sh", "-c", script, options=["-j", "2", "--private-dir"], environment=runtime)
    argv, environment = application.client("ATTACK=1")
    argv[2:2] = PAST_RETRIES
    supervisor = worker.supervisor
    with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        noted(tmp_path / "notes")
        before = set(supervisor.children())
        (tmp_path / "go").touch()
        sweeper = suspended_sweeper(worker, supervisor, before)
        assert client.wait(60) == 111
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


def test_a_worker_writes_no_core_file(application: Application) -> None:
    """It has a key in its memory; its supervisor and the processes of jobs, which have none, guard theirs otherwise."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        skip_for_want_of("core files")
    worker = Service(application, ["cat"], wrapper=["sh", "-c", 'ulimit -S -c $(ulimit -H -c); exec "$@"', "sh"])
    try:
        limits = Path(f"/proc/{worker.pid}/limits").read_text().splitlines()
        (core,) = [line for line in limits if line.startswith("Max core file size")]
        assert core.split()[4] == "0"
    finally:
        worker.close()


def test_a_key_from_standard_input_is_no_descriptor_of_a_jobs_process(application: Application, tmp_path: Path) -> None:
    argv = ["sh", "-c", 'exec "$@" < "$0"', str(application.secret), *command("cservice", "/dev/stdin", "true")]
    with subprocess.Popen(argv, env=local_environment(), stderr=subprocess.PIPE) as worker:
        assert worker.stderr is not None and b"serving" in worker.stderr.readline()
        family = psutil.Process(worker.pid).children(recursive=True)
        for process in family:
            assert os.readlink(f"/proc/{process.pid}/fd/0") == os.devnull
        worker.terminate()
    assert family and psutil.wait_procs(family, timeout=30)[1] == []


# helpers


def test_what_a_load_command_leaves_is_ended_and_the_next_one_is_not(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    script = tmp_path / "load"
    script.write_text(f"#!/bin/sh\nenv -i setsid sleep 600 <&- >&- 2>&- &\necho $! >> {tmp_path}/notes\necho 0.5\n")
    script.chmod(0o755)
    worker = service("true", options=["--load-command", str(script)])
    assert psutil.wait_procs(noted(tmp_path / "notes", 3), timeout=30)[1] == []
    assert not [line for line in worker.lines if "load command" in line]
    assert application.run().returncode == 0


def test_children_of_the_script_that_has_become_cservice_stay(application: Application, tmp_path: Path) -> None:
    script = f'sleep 600 2>&- & echo $! > {tmp_path}/notes; exec "$@"'  # it must not keep the pipe of the log open
    wrapper = ["sh", "-c", script, "sh"]
    worker = Service(application, ["sh", "-c", "kill -9 $PPID"], wrapper=wrapper)
    (sleep,) = noted(tmp_path / "notes")
    try:
        attack(application, worker)
        worker.signal(signal.SIGTERM)
        worker.wait()
        assert sleep.is_running()
    finally:
        sleep.kill()
        worker.close()


# another user


SPY = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
out = []
place = ctypes.create_string_buffer(8)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(place), 8)
def attempt(name, act):
    try:
        act()
    except OSError as error:
        out.append(f"{name} {error.strerror}")
    else:
        out.append(f"{name} DONE")
def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def processes():
    pid = os.getppid()
    while pid > 1 and len(out) < 99:
        yield pid
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        if int(fields["Uid"].split()[0]) != os.getuid():
            return
        pid = int(fields["PPid"])
# The job's process, the supervisor, cservice; or what is named.
own = list(map(int, sys.argv[2:])) or [*processes()][:3]
for pid in own:
    for name in ("mem", "environ", "maps", "auxv", "io"):
        attempt(name, lambda: open(f"/proc/{pid}/{name}", "rb").read(name != "mem"))
    attempt("fd", lambda: os.listdir(f"/proc/{pid}/fd"))
    attempt("cwd", lambda: os.readlink(f"/proc/{pid}/cwd"))
    attempt("ptrace", lambda: libc.ptrace(16, pid, 0, 0) == -1 and call(101, 16, pid, 0, 0))
    attempt("process_vm_readv", lambda: call(310, pid, vector, 1, vector, 1, 0))
    attempt("pidfd_getfd", lambda: call(438, os.pidfd_open(pid), 3, 0))
attempt("key", lambda: open(sys.argv[1], "rb").read(1))
attempt("setuid", lambda: os.setuid(0))
out.append(f"count {len(own)}")
out.append(f"ids {os.getresuid()} {os.getresgid()} {sorted(os.getgroups())}")
out.append(f"home {os.environ['HOME']} {os.environ.get('USER')} {os.environ.get('XDG_RUNTIME_DIR')}")
print("\n".join(out))
"""


class StartAsNobody(Protocol):
    """Starts `cservice --user nobody`, which is closed at the end of the test."""

    def __call__(
        self, *program: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Service: ...


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory that every user can reach."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    made.rmdir()


@pytest.fixture
def as_nobody(application: Application, place: Path) -> Iterator[StartAsNobody]:
    with ExitStack() as stack:
        wrapper = readable_python(place)

        def start(*program: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Service:
            all_options = ["--user", "nobody", *options]
            started = Service(application, program, all_options, environment=environment, wrapper=wrapper)
            stack.callback(started.close)
            return started

        yield start


def test_a_program_of_the_same_user_cannot_look_into_the_processes_that_run_it(
    application: Application, as_nobody: StartAsNobody
) -> None:
    """Regression: it could read the memory of all of them, and so every key."""
    as_nobody(sys.executable, "-S", "-c", SPY, str(application.secret))
    lines = spied(application)
    account = pwd.getpwnam("nobody")
    user, group = account.pw_uid, account.pw_gid
    groups = sorted(os.getgrouplist("nobody", group))
    assert lines[-1] == f"home {account.pw_dir} nobody None"
    assert lines[-2] == f"ids {(user,) * 3} {(group,) * 3} {groups}"
    assert lines[-3] == "count 3"
    assert [line for line in lines if "DONE" in line] == []
    assert len([line for line in lines if line.endswith(("ermission denied", "not permitted"))]) == 3 * 10 + 2, lines


def test_the_user_who_has_started_the_worker_can_read_the_key_file_and_nothing_else(place: Path) -> None:
    """No user has changed here, which the kernel would take for a reason to protect the memory."""
    require_tool("setpriv")
    wrapper = readable_python(place)
    own = place.with_name(f"{place.name}-own")
    own.mkdir()
    try:
        application = Application(own)
        for path in (own, application.secret):
            os.chown(path, NOBODY, NOBODY)
        wrapper += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        worker = Service(application, [sys.executable, "-S", "-c", SPY, str(application.secret)], wrapper=wrapper)
        try:
            lines = spied(application)
        finally:
            worker.close()
    finally:
        shutil.rmtree(own)
    assert lines[-3] == "count 3"
    assert [line for line in lines if "DONE" in line] == ["key DONE"]


def spied(application: Application) -> list[str]:
    done = application.run()
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_the_spy_can_look_into_an_ordinary_process_of_its_user() -> None:
    """So that its failures mean something."""
    require_second_user()
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        argv = [sys.executable, "-S", "-c", SPY, os.devnull, str(sleeper.pid)]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        sleeper.kill()
    assert {"mem", "environ", "fd", "ptrace", "key"} <= {
        line.split()[0] for line in result.stdout.splitlines() if line.endswith("DONE")
    }


def test_a_set_user_id_program_gives_a_job_no_rights(application: Application, as_nobody: StartAsNobody) -> None:
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        place.chmod(0o755)
        shutil.copy("/usr/bin/id", place / "id")
        (place / "id").chmod(0o4755)
        argv = [str(place / "id"), "-u"]
        if subprocess.run(argv, capture_output=True, user=NOBODY).stdout != b"0\n":
            skip_for_want_of("a file system that allows set-user-ID programs")
        as_nobody(*argv)
        assert application.run().stdout == b"%d\n" % NOBODY
    finally:
        shutil.rmtree(place)


def test_what_a_worker_writes_belongs_to_the_user_that_it_has_become(
    application: Application, as_nobody: StartAsNobody, runtime: dict[str, str]
) -> None:
    program = ("stat", "-c", "%U %A", ".", f"/tmp/cexec-{NOBODY}")
    as_nobody(*program, options=["--private-dir"], environment={**runtime, "TMPDIR": "/tmp"})
    assert application.run().stdout == b"nobody drwx------\n" * 2


def test_a_key_that_only_root_can_read_is_not_a_jobs(application: Application, as_nobody: StartAsNobody) -> None:
    as_nobody("cat", str(application.secret))
    done = application.run()
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_user_who_does_not_exist_is_refused(application: Application) -> None:
    reason = "only root can become another user" if os.geteuid() else "there is no such user on this machine"
    argv = command("cservice", "--user", "no-such-user", application.secret, "true")
    result = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (100, f"cservice: --user no-such-user: {reason}\n")


def test_only_root_can_become_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="only root can become another user"):
        find_account("nobody")


@pytest.mark.parametrize("options", [["--allow-args"], []], ids=["arguments", "none"])
def test_root_is_warned_of_arguments_that_clients_choose(options: list[str], service: StartService) -> None:
    require_second_user()
    worker = service("true", options=options)
    worker.signal(signal.SIGTERM)
    worker.wait()
    assert WARNING in worker.lines[1] if options else all(WARNING not in line for line in worker.lines)


def test_another_user_is_not_warned(as_nobody: StartAsNobody) -> None:
    worker = as_nobody("true", options=["--allow-args"])
    worker.signal(signal.SIGTERM)
    worker.wait()
    assert all(WARNING not in line for line in worker.lines)
