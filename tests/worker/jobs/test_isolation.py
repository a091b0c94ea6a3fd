"""Jobs in a sandbox: what an attacking program reaches there, and that everything a job may use still works."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.system.process import sandbox as sandboxes
from cexec.system.process.sandbox import find_sandbox
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.needs import require_tool, skip_for_want_of
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

PYTHON = os.path.realpath(sys.executable)  # a virtual environment may be in /tmp, which a job does not see


@pytest.fixture(autouse=True)
def _needs() -> None:
    require_tool("bwrap")
    try:
        find_sandbox(os.environ["PATH"], network=False, hidden=[])
    except UsageError as error:
        skip_for_want_of(f"a sandbox ({error})")


class Shells:
    """Workers whose clients choose a shell script; `run` gives one to the latest worker."""

    def __init__(self, application: Application, service: StartService) -> None:
        self.application = application
        self._service = service

    def start(self, *options: str) -> Service:
        return self._service("sh", "-c", 'eval "$PEER_SCRIPT"', options=["--isolate", *options])

    def run(self, script: str, *options: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv, environment = self.application.client(f"SCRIPT={script}")
        argv[2:2] = ["--retries", "0", *options]
        return subprocess.run(argv, env=environment, input=input, capture_output=True, timeout=60)


@pytest.fixture
def shells(application: Application, service: StartService) -> Shells:
    return Shells(application, service)


def test_the_first_line_says_that_jobs_are_isolated(shells: Shells) -> None:
    held = re.search(r"; jobs are held by ([^;]*); ", shells.start().lines[0])
    assert held and [word for word in held[1].split(", ") if word != "control group"] == ["process tree", "isolation"]


def test_a_job_is_otherwise_as_it_is_without(shells: Shells) -> None:
    shells.start()
    done = shells.run("cat; echo error >&2; exit 3", input=b"x" * 1_000_000)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"x" * 1_000_000, b"error\n")


@pytest.mark.parametrize("place", ["/", "/etc", "/usr", "/var/lib", "/dev/shm/..", "$HOME", "."])
def test_the_file_system_is_read_only(place: str, shells: Shells) -> None:
    shells.start()
    name = f"cexec-test-{os.urandom(4).hex()}"
    done = shells.run(f"cd {place} && echo x > {name}; echo status $?")
    assert done.stdout == b"status 2\n" or b"Read-only file system" in done.stderr or place == "/dev/shm/..", done
    assert not any(
        Path(base, name).exists() for base in ("/", "/etc", "/usr", "/var/lib", "/dev", os.path.expanduser("~"), ".")
    )


def test_no_setting_of_the_kernel_can_be_written(shells: Shells) -> None:
    """Regression: root's jobs could write core_pattern, a command that the kernel runs outside.  Nothing is written."""
    if os.geteuid() == 0:
        assert os.access("/proc/sys/kernel/core_pattern", os.W_OK)  # outside
    shells.start()
    look = "find /proc -xdev -path '/proc/[0-9]*' -prune -o -writable ! -type l -print; ls -d /proc/sys/vm/swappiness"
    done = shells.run(f"{look}; for one in /proc/sys/*; do find $one -writable ! -type l -print; done")
    assert (done.stdout, done.returncode) == (b"/proc/sys/vm/swappiness\n", 0), done.stdout.decode()


def test_of_the_kernel_is_what_is_no_process_and_can_be_written(tmp_path: Path) -> None:
    for name in ("1", "sys", "irq"):
        (tmp_path / name).mkdir()
    for name, mode in (("mtrr", 0o644), ("cpuinfo", 0o444), ("trigger", 0o200)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "self").symlink_to("1")
    wanted = [f"{tmp_path}/{name}" for name in ("irq", "mtrr", "sys", "trigger")]
    assert sandboxes.of_the_kernel(str(tmp_path)) == wanted


def test_a_remount_is_refused(shells: Shells) -> None:
    require_tool("mount")
    shells.start()
    done = shells.run(
        "mount -o remount,rw,bind / || echo refused; unshare -Ur mount -o remount,rw,bind / || echo refused"
    )
    assert done.stdout.splitlines()[-2:] == [b"refused"] * 2


def test_tmp_is_private_and_gone_afterwards(shells: Shells, tmp_path: Path) -> None:
    shells.start()
    (tmp_path / "secret").write_text("x")
    name = f"/tmp/cexec-test-{os.urandom(4).hex()}"
    done = shells.run(f"cat {tmp_path}/secret; echo y > {name} && cat {name}; ls /run /var/tmp | grep -v :")
    assert done.stdout.split() == [b"y"]
    assert not Path(name).exists()


def test_a_job_sees_and_signals_no_process_outside(shells: Shells) -> None:
    worker = shells.start()
    own = [worker.pid, worker.supervisor.pid, *(process.pid for process in worker.job_processes())]
    done = shells.run(f"ls /proc | grep -c '^[0-9]'; kill -9 {' '.join(map(str, own))}; kill -9 -1; echo alive")
    assert int(done.stdout.split()[0]) < 10
    assert worker.process.poll() is None
    assert shells.run("echo fine").stdout == b"fine\n"


def test_nothing_outlives_its_job_and_a_program_cannot_end_its_job_process(shells: Shells, tmp_path: Path) -> None:
    worker = shells.start()
    (waiting,) = worker.job_processes()
    done = shells.run("env -i setsid sleep 614 <&- >&- 2>&- & kill -9 $PPID; exit 0")
    assert done.returncode == 0
    wait_until(lambda: not worker.started())
    assert waiting.is_running()


def test_the_key_is_hidden(shells: Shells) -> None:
    place = Path(tempfile.mkdtemp(dir=os.path.expanduser("~")))  # not in /tmp, which is hidden anyway
    try:
        shells.application = Application(place)
        (place / "other").write_text("other")
        with_key = Service(shells.application, ["sh", "-c", 'eval "$PEER_SCRIPT"'], ["--isolate"])
        try:
            done = shells.run(f"cat {place}/other; cat {place}/app; cp {place}/app /tmp && cat /tmp/app")
            assert done.stdout == b"other", done.stderr
        finally:
            with_key.close()
    finally:
        shutil.rmtree(place)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A service of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


CONNECT = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print('connected')"


@pytest.mark.parametrize("options", [[], ["--network"]], ids=["none", "network"])
def test_there_is_no_network_unless_the_owner_gives_it(
    options: Sequence[str], shells: Shells, listener: socket.socket
) -> None:
    shells.start(*options)
    done = shells.run(f'{PYTHON} -c "{CONNECT}" {listener.getsockname()[1]}')
    assert (done.stdout == b"connected\n") == bool(options), done.stderr
    interfaces = shells.run("cat /proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(b":")[0].strip() for line in interfaces] == [b"lo"]  # tests have no other one, either


def test_abstract_sockets_of_this_machine_are_out_of_reach(shells: Shells) -> None:
    name = f"cexec-test-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        shells.start()
        script = f"import socket; socket.socket(socket.AF_UNIX).connect(chr(0) + '{name}')"
        done = shells.run(f'{PYTHON} -c "{script}"')
    assert done.returncode == 1 and b"ConnectionRefusedError" in done.stderr


# what jobs may use


def test_files_go_in_and_come_out(shells: Shells, tmp_path: Path) -> None:
    shells.start()
    (tmp_path / "in").write_bytes(b"x" * 300_000)
    done = shells.run("pwd; tr x y < in > out", "--send", f"{tmp_path}/in", "--fetch", f"out={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == b"y" * 300_000
    wait_until(lambda: not Path(done.stdout.decode().strip()).exists())


def test_a_private_directory_can_be_written(shells: Shells) -> None:
    shells.start("--private-dir")
    assert shells.run("echo x > file && cat file").stdout == b"x\n"


def test_a_program_of_the_client_runs_inside(application: Application, service: StartService, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    service("{program}", options=["--isolate", "--allow-programs", "--program-cache", str(cache)])
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho inside $$; echo x > /usr/x\n")
    platform = f"linux-{os.uname().machine}"
    argv, environment = application.client()
    argv[2:2] = ["--program", f"{platform}={program}"]
    for _ in range(2):  # sent, and from the cache
        done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        assert done.stdout.startswith(b"inside "), done.stderr
        assert int(done.stdout.split()[1]) < 10 and b"Read-only file system" in done.stderr


def test_a_signal_reaches_the_program_and_not_the_sandbox(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    """bwrap would end at once, and the program with it, without a chance to put things in order."""
    worker = service(
        "sh", "-c", "trap 'echo tidied; exit 5' TERM; echo ready; while :; do sleep 0.05; done", options=["--isolate"]
    )
    argv, environment = application.client()
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert client.stdout is not None and client.stdout.readline() == b"ready\n"
    client.terminate()
    assert client.stdout.read() == b"tidied\n"
    assert client.wait(PATIENCE) in (5, 143)
    client.stdout.close()
    worker.wait_for("status=5")


def test_a_time_limit_lets_the_program_tidy_up(application: Application, service: StartService) -> None:
    script = "trap 'echo tidied; exit 5' TERM; while :; do sleep 0.05; done"
    service("sh", "-c", script, options=["--isolate", "--time-limit", "3"])
    done = application.run()
    assert done.stdout == b"tidied\n" and b"time limit" in done.stderr


def test_what_ignores_a_time_limit_is_killed(application: Application, service: StartService) -> None:
    worker = service(
        "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done", options=["--isolate", "--time-limit", "0.5"]
    )
    assert application.run().returncode != 0
    wait_until(lambda: not worker.started())


def test_a_memory_limit_holds_inside(application: Application, service: StartService) -> None:
    script = "x = bytearray(300 << 20); print(len(x))"
    service(PYTHON, "-S", "-c", script, options=["--isolate", "--memory-limit", "100M"])
    assert application.run().returncode != 0


def test_a_program_is_called_by_the_name_that_its_owner_gives(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    """A link such as busybox has for each of its commands, also in a directory that is hidden otherwise."""
    (tmp_path / "link").symlink_to("/bin/sh")
    service(str(tmp_path / "link"), "-c", 'echo "$0"; cat /proc/$$/cmdline', options=["--isolate"])
    assert application.run().stdout.startswith(os.fsencode(tmp_path / "link"))


# refusals


def refusal(application: Application, *options: str, path: str | None = None) -> str:
    environment = local_environment({} if path is None else {"PATH": path})
    argv = command("cservice", *options, application.secret, "/bin/true")
    result = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 100
    return result.stderr


def test_without_bwrap_nothing_is_served(application: Application, tmp_path: Path) -> None:
    said = refusal(application, "--isolate", path=str(tmp_path))
    assert said == "cservice: --isolate needs bwrap; install the package bubblewrap\n"


def test_where_bwrap_does_not_work_nothing_is_served(application: Application, tmp_path: Path) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    said = refusal(application, "--isolate", path=f"{tmp_path}:{os.environ['PATH']}")
    assert said == "cservice: --isolate: bwrap does not work here: No permissions to create new namespace\n"


def test_a_network_needs_a_sandbox(application: Application) -> None:
    assert "--network needs --isolate" in refusal(application, "--network")


def test_a_file_that_its_user_cannot_read_needs_not_be_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sandboxes.Sandbox("bwrap", network=False, hidden=[str(tmp_path / "absent")])
    assert str(tmp_path / "absent") not in made.command(["/bin/true"], "/", private=False)
