"""cservice where the system is not as usual: little in /proc, full or missing directories, few descriptors, PID 1."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.needs import require_tool, skip_for_want_of
from tests.service import WAITING_DESCRIPTORS, Application, Service
from tests.waiting import PATIENCE, wait_until

CSERVICE = command("cservice")
RUN = ("sh", "-c", 'eval "$PEER_RUN"')  # what the client says
# As `unhide` and others see it, and systemd with ProcSubset=pid: processes, and nothing of the system.
PROCESSES_ONLY = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
NO_PROC = 'mount -t tmpfs tmpfs /proc && exec "$@"'
# A kernel without CONFIG_PROC_CHILDREN.
WITHOUT_CHILDREN = """
import builtins, os, runpy, sys
def hidden(function):
    def call(path, *rest, **options):
        if str(path).endswith("/children"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *rest, **options)
    return call
builtins.open, os.open, os.stat = hidden(open), hidden(os.open), hidden(os.stat)
exists = os.path.exists
os.path.exists = lambda path: not str(path).endswith("/children") and exists(path)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def in_own_mounts(script: str, *words: str) -> list[str]:
    """The words that run a command behind such a script, where its mounts are its own."""
    require_tool("unshare", "mount")
    wrapper = ["unshare", "-m", "sh", "-e", "-c", script, "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        skip_for_want_of("mount namespaces, and proc with subset=pid")
    return [*wrapper, *words]


def run(application: Application, script: str, *words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return application.run(f"RUN={script}", *words, timeout=PATIENCE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("script", [PROCESSES_ONLY, NO_PROC], ids=["processes only", "nothing"])
def test_a_worker_serves_although_proc_shows_little(application: Application, tmp_path: Path, script: str) -> None:
    """The load and the speed are found without it; the cache does not know this machine."""
    launcher = in_own_mounts(script, *CSERVICE)
    service = Service(application, RUN, environment={"XDG_CACHE_HOME": str(tmp_path)}, launcher=launcher)
    try:
        for _ in range(2):
            ended = run(application, "cat", input=b"text")
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"text", b"")
        argv = command("cps", "--json", application.public)
        wait_until(  # a census gives up after a second, in which a busy machine may have no time for the worker
            lambda: subprocess.run(argv, env=local_environment(), capture_output=True, timeout=PATIENCE).stdout
        )
    finally:
        service.close()


@pytest.mark.parametrize("shown", ["children", "parents"])
def test_a_job_is_ended_with_all_that_it_has_started(application: Application, shown: str) -> None:
    """Its processes are found by their parents where the kernel does not list children."""
    launcher = [CSERVICE[0], "-c", WITHOUT_CHILDREN, CSERVICE[1]] if shown == "parents" else None
    service = Service(application, RUN, ["--time-limit", "2.5"], launcher=launcher)
    try:
        script = "trap '' TERM; setsid sh -c 'sleep 1000; sleep 1000' & sleep 1000; sleep 1000"
        ended = run(application, script)
        assert ended.returncode == 128 + signal.SIGKILL
        assert b"ended after its time limit of 2.5 s" in ended.stderr
    finally:
        service.close()  # it finds what is left


def test_a_job_process_that_is_killed_leaves_nothing_where_children_are_not_listed(application: Application) -> None:
    launcher = [CSERVICE[0], "-c", WITHOUT_CHILDREN, CSERVICE[1]]
    killed = Service(application, RUN, launcher=launcher)
    argv = command("cexec", "--retries", "0", application.public, "RUN=setsid sleep 1000 & sleep 1000")
    with subprocess.Popen(argv, env=local_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        killed.wait_for("started")
        job = killed.busy_process()
        wait_until(lambda: len(job.children(recursive=True)) == 3)
        programs = job.children(recursive=True)
        job.kill()
        assert client.wait(PATIENCE) == 111
    wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in programs))
    killed.close()


@pytest.mark.parametrize(
    "options", ["size=4096", "size=4096,nr_inodes=1", "size=8192"], ids=["no room", "no inode", "little room"]
)
def test_a_full_runtime_directory_costs_no_job_and_no_descriptor(
    application: Application, tmp_path: Path, options: str
) -> None:
    place = tmp_path / "run"
    place.mkdir()
    script = f"""mount -t tmpfs -o mode=700,{options} tmpfs "$XDG_RUNTIME_DIR"
mkdir -m 700 "$XDG_RUNTIME_DIR/cexec" 2>/dev/null || :
if [ {options} = size=4096 ]; then head -c 4096 /dev/zero > "$XDG_RUNTIME_DIR/x" 2>/dev/null || :; fi
exec "$@" """
    launcher = in_own_mounts(script, *CSERVICE)
    service = Service(
        application,
        ("sh", "-c", 'eval "${PEER_RUN:-echo $1}"', "sh"),
        ["--private-dir", "--allow-args"],
        environment={"XDG_RUNTIME_DIR": str(place)},
        launcher=launcher,
    )
    try:
        if "nr_inodes" in options:
            service.wait_for("what a killed cservice leaves will stay")
        many = command("cmap", application.public, "--", "{}", ":::", *map(str, range(60)))
        ended = subprocess.run(many, env=local_environment(), capture_output=True, text=True, timeout=PATIENCE)
        assert (ended.returncode, sorted(map(int, ended.stdout.split())), ended.stderr) == (0, list(range(60)), "")
        assert run(application, "echo text").stdout == b"text\n"
        wait_until(lambda: all(one.num_fds() <= WAITING_DESCRIPTORS for one in _job_processes(service)))
        assert not [line for line in service.lines if "Traceback" in line or "broken" in line]
    finally:
        service.close()


def test_a_missing_directory_for_temporary_files_is_named(application: Application, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    service = Service(application, RUN, environment={"TMPDIR": str(missing)})
    try:
        reason = f"cannot make a directory in {missing} (TMPDIR): no such file or directory"
        service.wait_for(f"jobs that bring or fetch files will be refused: {reason}")
        assert run(application, "echo text").stdout == b"text\n"
        sent = command("cexec", "--send", str(application.public), str(application.public), "RUN=true")
        environment = local_environment({"CEXEC_TIMEOUT_ACCEPT": "4"})
        ended = subprocess.run(sent, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert ended.returncode == 111
        told = f"refuses the job: cannot put the job's files into a directory of its own in {missing}: no such file"
        assert told in ended.stderr
    finally:
        service.close()


def test_a_worker_whose_jobs_all_need_directories_does_not_start_without_a_place_for_them(
    application: Application, tmp_path: Path
) -> None:
    argv = command("cservice", "--private-dir", application.secret, "true")
    environment = local_environment({"TMPDIR": str(tmp_path / "missing")})
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    reason = f"cannot make a directory in {tmp_path}/missing (TMPDIR): no such file or directory"
    assert (ended.returncode, ended.stderr) == (111, f"cservice: --private-dir: {reason}\n")


def _job_processes(service: Service) -> list[psutil.Process]:
    """Those that the supervisor has forked, also behind a launcher."""
    return [child for supervisor in psutil.Process(service.pid).children() for child in supervisor.children()]


def limited(words: str, argv: Sequence[str]) -> list[str]:
    return ["sh", "-c", f'ulimit {words} && exec "$@"', "sh", *argv]


@pytest.mark.parametrize("options", [(), ("--nice", "1")], ids=["spawned", "forked"])
def test_a_worker_raises_its_limit_of_descriptors_and_gives_programs_the_usual_one(
    application: Application, options: Sequence[str]
) -> None:
    service = Service(application, RUN, options, launcher=limited("-Sn 12", CSERVICE))
    try:
        ended = run(application, "ulimit -Sn")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"12\n", b"")
        require_tool("bash")  # other shells have no descriptors of two digits
        argv = [
            "bash",
            "-c",
            'exec 20<&0; exec "$@"',
            "sh",
            *command("cexec", application.public, "RUN=cat /dev/fd/20"),
        ]
        ended = subprocess.run(argv, env=local_environment(), input=b"text", capture_output=True, timeout=PATIENCE)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"text", b"")
    finally:
        service.close()


@pytest.mark.parametrize("name", ["cservice", "cproxy", "cmap", "cexec --all"])
def test_too_few_descriptors_are_said_at_the_start(application: Application, name: str) -> None:
    argv = {
        "cservice": command("cservice", application.secret, "true"),
        "cproxy": command("cproxy", "127.0.0.1", "127.255.255.254"),
        "cmap": command("cmap", application.public, ":::", "1"),
        "cexec --all": command("cexec", "--all", application.public),
    }[name]
    ended = subprocess.run(
        limited("-n 40", argv), env=local_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    reason = "only 40 descriptors may be open, and 64 are needed; raise ulimit -n"
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (
        255 if name == "cmap" else 111,
        f"{name.partition(' ')[0]}: {reason}",
    )


def test_hold_without_a_temporary_directory_is_said_before_the_program_starts(
    application: Application, service: StartService
) -> None:
    started = service(*RUN)
    script = """for place in /tmp /var/tmp /usr/tmp; do
[ ! -d $place ] || { mount --bind $place $place && mount -o remount,bind,ro $place; }
done
cd /proc; exec "$@" """
    argv = in_own_mounts(script, *command("cexec", "--hold", application.public, "RUN=echo text"))
    environment = {name: value for name, value in local_environment().items() if name not in ("TMPDIR", "TEMP", "TMP")}
    ended = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout) == (111, b"")
    assert ended.stderr.startswith(b"cexec: cannot keep output back (--hold) in TMPDIR, /tmp or /var/tmp: ")
    assert [line for line in started.lines if "accepted" in line] == []


class Container:
    """A command that is PID 1 of a PID namespace with a /proc of its own."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str]) -> None:
        require_tool("unshare", "nsenter")
        wrapper = ["unshare", "-pf", "--mount-proc", "--kill-child"]
        if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
            skip_for_want_of("PID namespaces")
        self.process = subprocess.Popen(
            [*wrapper, *argv], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    @property
    def first(self) -> psutil.Process:
        wait_until(psutil.Process(self.process.pid).children)
        (found,) = psutil.Process(self.process.pid).children()
        return found

    def run(self, *argv: str) -> str:
        """What a stranger prints, as `docker exec` would start it."""
        entered = ["nsenter", "-t", str(self.first.pid), "-p", "-m", *argv]
        return subprocess.run(entered, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout

    def names(self) -> list[str]:
        """The processes in it, with their states."""
        return self.run("ps", "-eo", "stat=,args=").splitlines()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_worker_is_the_first_process_of_a_container(application: Application) -> None:
    """It serves, ends no stranger, collects those that have ended, and lets its job end when it is told to stop."""
    require_tool("ps")
    inside = Container(command("cservice", application.secret, *RUN), local_environment())
    try:
        assert run(application, "echo text").stdout == b"text\n"
        inside.run(
            "sh", "-c", "exec > /dev/null 2>&1; sleep 1234 & sleep 0.1 & exit 0"
        )  # both become children of the first process
        ended = run(application, "sleep 1 & echo text")
        assert ended.stdout == b"text\n"
        assert [line for line in inside.names() if "sleep 1234" in line]
        wait_until(lambda: not [line for line in inside.names() if line.startswith("Z")], explain=inside.names)
        assert not [line for line in inside.names() if line.endswith("sleep 1")]
        argv, environment = application.client("RUN=echo begun; read line; echo ended")
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, env=environment, text=True, stdin=pipe, stdout=pipe) as client:
            assert client.stdin is not None and client.stdout is not None
            assert client.stdout.readline() == "begun\n"
            inside.first.send_signal(signal.SIGTERM)
            assert inside.process.stderr is not None
            while "stopping" not in (line := inside.process.stderr.readline()):
                assert line
            assert client.communicate("line\n", timeout=PATIENCE)[0] == "ended\n"
        assert inside.process.wait(PATIENCE) == 0
    finally:
        inside.close()


@pytest.mark.parametrize("name", ["cproxy", "crat", "cexec", "cmap"])
def test_a_signal_ends_every_command_that_is_the_first_process(application: Application, name: str) -> None:
    argv = {
        "cproxy": command("cproxy", "127.0.0.1", "127.255.255.254"),
        "crat": command("crat", application.public),
        "cexec": command("cexec", application.public),
        "cmap": command("cmap", application.public, ":::", "1"),
    }[name]
    inside = Container(argv, local_environment({"CEXEC_TIMEOUT_ACCEPT": "0"}))
    try:
        wait_until(inside.first.children)
        (child,) = inside.first.children()
        wait_until(lambda: [one for one in child.net_connections("inet") if one.laddr])
        if name in ("cproxy", "crat"):  # which open their sockets first, and then see to signals
            assert inside.process.stderr is not None and inside.process.stderr.readline()
        inside.first.send_signal(signal.SIGTERM)
        assert inside.process.wait(PATIENCE) == {"cexec": 143, "cmap": 255}.get(name, 0)
    finally:
        inside.close()


def test_the_status_of_the_first_process_is_that_of_the_command(
    application: Application, service: StartService
) -> None:
    service(*RUN)
    inside = Container(command("cexec", application.public, "RUN=exit 7"), local_environment())
    assert inside.process.communicate(timeout=PATIENCE)[1] == ""
    assert inside.process.returncode == 7
