"""Starting programs, and finding and ending what they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.system.process import process, process_tree
from tests.cgroups import control_group
from tests.jobs import written
from tests.needs import skip_for_want_of
from tests.waiting import PATIENCE, wait_until

GRACE = 0.5  # seconds


@pytest.fixture(scope="module", autouse=True)
def _adopting() -> Iterator[None]:
    """As in a job's process."""
    process.adopt_orphans()
    yield
    process_tree.end_tree(0, 0.0)


def start(script: str, descriptors: Mapping[int, int] | None = None, prepare: Callable[[], None] | None = None) -> int:
    return process.spawn("/bin/sh", ["sh", "-c", script], dict(os.environb), descriptors or {}, prepare)


def output_of(script: str, prepare: Callable[[], None] | None = None) -> bytes:
    reading, writing = os.pipe()
    pid = start(script, {1: writing, 2: writing}, prepare)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return data


def nothing() -> None:
    """Makes `spawn` take the way through fork."""


both_ways = pytest.mark.parametrize("prepare", [None, nothing], ids=["spawned", "forked"])


# finding a program


def test_a_program_is_found_in_the_path_and_by_its_path(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_text("")
    program.chmod(0o755)
    assert process.resolve("p", f"/nowhere:{tmp_path}") == str(program)
    assert process.resolve(str(program), None) == str(program)


def test_what_is_no_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(UsageError, match="not executable; type: chmod"):
        process.resolve("data", str(tmp_path))
    with pytest.raises(UsageError, match="is not found in the PATH"):
        process.resolve("absent", str(tmp_path))
    with pytest.raises(UsageError, match="is not found"):
        process.resolve("./absent", str(tmp_path))


@pytest.mark.parametrize("search", ["", None])
def test_an_empty_path_is_called_so(search: str | None) -> None:
    """Regression: `PATH= cservice app cat` said that cat was not found in the PATH None, or in nothing."""
    with pytest.raises(UsageError, match="in the PATH, which is empty; give the program's"):
        process.resolve("absent", search)


# starting it


@both_ways
def test_descriptors_may_be_exchanged(prepare: Callable[[], None] | None) -> None:
    """Each target number is the other's source."""
    (r1, w1), (r2, w2) = os.pipe(), os.pipe()
    script = f"import os; os.write({w2}, b'one'); os.write({w1}, b'two')"
    pid = process.spawn(sys.executable, ["python", "-c", script], dict(os.environb), {w2: w1, w1: w2}, prepare)
    for fd in (w1, w2):
        os.close(fd)
    os.waitpid(pid, 0)
    assert (os.read(r1, 10), os.read(r2, 10)) == (b"one", b"two")
    os.close(r1)
    os.close(r2)


@both_ways
def test_it_leads_a_session_with_signals_as_a_shell_leaves_them(prepare: Callable[[], None] | None) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        text = output_of("ps -o pid=,sid=,pgid= -p $$; grep -E '^Sig(Blk|Ign):' /proc/self/status", prepare).decode()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    first, blocked, ignored = text.splitlines()
    assert len(set(first.split())) == 1
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & (1 << signal.SIGTERM - 1 | 1 << signal.SIGPIPE - 1) == 0


@both_ways
def test_a_failure_is_raised_and_leaves_nothing(prepare: Callable[[], None] | None) -> None:
    before, children = os.listdir("/proc/self/fd"), process_tree.children(os.getpid())
    with pytest.raises(FileNotFoundError):
        process.spawn("/no/such", ["x"], {}, {1: 1}, prepare)
    assert os.listdir("/proc/self/fd") == before
    assert process_tree.children(os.getpid()) == children


def test_a_preparation_that_fails_is_raised() -> None:
    def fail() -> None:
        raise PermissionError(1, "no")

    with pytest.raises(PermissionError):
        start("true", prepare=fail)


def test_descriptors_that_we_were_given_are_not_inherited() -> None:
    script = (
        "import os; from cexec.system.process import process; process.close_on_exec_from(3); "
        "os.execlp(*['ls'] * 2, {0!r})"
    )
    script = script.format("/proc/self/fd")
    reading, writing = os.pipe()
    result = subprocess.run([sys.executable, "-c", script], pass_fds=[reading], capture_output=True, timeout=20)
    assert str(reading) not in result.stdout.decode().split()[3:]
    assert len(result.stdout.split()) == 4
    os.close(reading)
    os.close(writing)


# trees


def test_the_descendants_are_found_however_they_hide(tmp_path: Path) -> None:
    pid = start(f"(setsid sh -c 'echo $$ > {tmp_path}/a; sleep 60; true' &) ; sleep 60 & echo $! > {tmp_path}/b; wait")
    hidden, plain = int(written(tmp_path / "a")), int(written(tmp_path / "b"))
    assert {pid, hidden, plain} <= set(process_tree.descendants(os.getpid()))
    process_tree.end_tree(pid, GRACE)
    assert process_tree.descendants(os.getpid()) == []


def test_what_takes_the_term_ends_at_once(tmp_path: Path) -> None:
    pid = start(f"sleep 60 & setsid sleep 60 & echo > {tmp_path}/x; wait")
    written(tmp_path / "x")
    begun = time.monotonic()
    process_tree.end_tree(pid, 100.0)
    assert time.monotonic() - begun < 50


def test_what_ignores_the_term_ends_after_the_grace_time(tmp_path: Path) -> None:
    pid = start(f"trap '' TERM; echo > {tmp_path}/x; while :; do sleep 60; done")
    written(tmp_path / "x")
    begun = time.monotonic()
    process_tree.end_tree(pid, GRACE)
    assert GRACE <= time.monotonic() - begun < GRACE + 60


def test_what_is_stopped_takes_the_term_too(tmp_path: Path) -> None:
    pid = start(f"trap 'echo ended > {tmp_path}/y; exit' TERM; echo > {tmp_path}/x; while :; do sleep 0.1; done")
    written(tmp_path / "x")
    process_tree.stop_tree()
    process_tree.end_tree(pid, PATIENCE)
    assert written(tmp_path / "y") == "ended"


def test_nothing_is_signalled_that_is_not_ours() -> None:
    """A group whose leader has been reaped may be somebody else's by now."""
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        reading, writing = os.pipe()
        parent = os.fork()
        if parent == 0:  # a process without children of its own
            process_tree.signal_program(stranger.pid, signal.SIGKILL, reaped=True)
            os._exit(0)
        os.waitpid(parent, 0)
        os.close(reading)
        os.close(writing)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.fork() or os.setsid()
    except OSError:
        time.sleep(0.001)
"""


def test_a_fork_bomb_is_ended() -> None:
    """Every process a session of its own, all ignore TERM; bounded by a control group, as only that can.

    Thirty, because each of them has as much of the CPU as the process that ends them, and other tests run beside it.
    """
    with control_group("pids", {"pids.max": "30"}) as group:

        def join() -> None:
            (group / "cgroup.procs").write_text("0")

        pid = process.spawn(sys.executable, ["python", "-S", "-c", BOMB], dict(os.environb), {}, join)
        deadline = time.monotonic() + 60
        while len(process_tree.descendants(os.getpid())) < 25:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
        process_tree.end_tree(pid, GRACE)
        assert process_tree.descendants(os.getpid()) == []
        assert GRACE <= time.monotonic() - begun < GRACE + 60


def test_processes_are_known_by_their_mark() -> None:
    mark = f"CEXEC_JOB={os.urandom(8).hex()}".encode()
    name, _, value = mark.partition(b"=")
    pid = process.spawn("/bin/sleep", ["sleep", "60"], {name: value}, {})
    wait_until(lambda: process_tree.marked(mark) == [pid])  # the kernel sets the environment after spawn has returned
    assert process_tree.marked(mark[:-1]) == []
    process_tree.signal_all([pid], signal.SIGKILL)
    os.waitpid(pid, 0)
    assert process_tree.marked(mark) == []


# Lets its environment, as /proc shows it, be so many megabytes, of which none is there: prctl(2), PR_SET_MM_MAP.
ENDLESS = """
import ctypes, struct, sys
size = int(sys.argv[1]) << 20
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
start = libc.mmap(None, size, 3, 0x4022, -1, 0)  # readable, writable, private, anonymous, without room kept for it
words = open("/proc/self/stat").read().rpartition(")")[2].split()
own = [int(words[number - 3]) for number in (26, 27, 45, 46, 47, 47, 28, 48, 49)]  # see proc(5)
fields = struct.pack("=11QQII", *own, start, start + size, 0, 0, 0xFFFFFFFF)
print(libc.prctl(35, 14, ctypes.create_string_buffer(fields, len(fields)), len(fields), 0), flush=True)
sys.stdin.read()
"""


def test_an_environment_without_end_costs_little() -> None:
    """Regression: a process that showed a terabyte let the sweep after a killed job read until the memory was full."""
    mark = f"CEXEC_JOB={os.urandom(8).hex()}".encode()
    argv = [sys.executable, "-I", "-S", "-c", ENDLESS, str(1 << 20)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        if endless.stdout.readline() != b"0\n":
            endless.kill()
            skip_for_want_of("a kernel with PR_SET_MM_MAP")
        assert process_tree.marked(mark) == []
        endless.communicate()


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    """The kernel shows it in the midst of numbers: one that looks like these would say that it has stopped."""
    program = tmp_path / ") T 1 1 1) T 1"
    program.symlink_to("/bin/cat")
    with subprocess.Popen([program], stdin=subprocess.PIPE) as child:
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        assert stat.startswith(f"{child.pid} ({program.name})")
        assert process_tree.start_time(child.pid) >= process_tree.start_time(os.getpid())
        assert not process_tree.is_stopped(child.pid)
        assert child.pid in process_tree.children(os.getpid())
        child.communicate()


def test_a_process_is_named_by_its_number_and_start() -> None:
    child = subprocess.Popen(["sleep", "60"])
    assert process_tree.start_time(child.pid) >= process_tree.start_time(os.getpid()) > 0
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_tree.start_time(child.pid) == 0  # it is only not yet reaped
    child.wait()
    assert process_tree.start_time(child.pid) == 0
