"""Commands where the system has no room for another process or thread: `ulimit -u`, pids.max of a container."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.environment import command, local_environment
from tests.needs import require_module
from tests.service import Application, Service
from tests.waiting import PATIENCE

ADVICE = "see ulimit -u, and pids.max of the control group"
pytestmark = pytest.mark.usefixtures("_own_directory")

AS_USUAL = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# What Python does where clone(2) fails for a thread, and for a process after so many; then the script in argv[1].
NO_THREADS = f"""
import threading
def start(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
{AS_USUAL}"""
FEW_PROCESSES = f"""
import errno, os, sys
fork, left = os.fork, int(sys.argv.pop(1))
def few():
    global left
    left -= 1
    if left < 0:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = few
{AS_USUAL}"""
NO_TEMPORARY_FILES = f"""
import tempfile
tempfile._candidate_tempdir_list = lambda: ["/proc/no such directory"]
{AS_USUAL}"""


@pytest.fixture
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(
    script: str, argv: Sequence[str | Path], input: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    python, *words = map(str, argv)
    return subprocess.run(
        [python, "-c", script, *words],
        input=input,
        env=local_environment(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_cmap_does_without_threads(cluster: Cluster) -> None:
    """Regression: all tasks were done, and then it ended with a traceback and 1, "one task has failed"."""
    words = ("--state", "journal", "--stdout", "{}.out", "--validate", "cat stdout", "--", "{}", ":::", "a", "b")
    ended = run(NO_THREADS, cluster.argv(*words))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(path.name for path in Path().glob("*.out")) == ["a.out", "b.out"]


def test_cmap_says_that_it_cannot_read_blocks_without_a_thread(cluster: Cluster) -> None:
    ended = run(NO_THREADS, cluster.argv("--pipe"), input="a\n")
    assert (ended.returncode, ended.stdout) == (255, "")
    assert ended.stderr == f"cmap: no more threads can be started here; {ADVICE}\n"


def test_cgate_says_that_it_cannot_start_its_threads(application: Application, tmp_path: Path) -> None:
    """Regression: it was a traceback."""
    require_module("uvicorn")
    state = tmp_path / "gate.sqlite"
    ended = run(NO_THREADS, command("cgate", "--state", state, "--http", "127.0.0.1:0", application.public))
    assert (ended.returncode, ended.stdout) == (111, "")
    assert ended.stderr == f"cgate: no more threads can be started here; {ADVICE}\n"


def test_cservice_says_that_it_cannot_start_a_process(application: Application) -> None:
    """Regression: it said that it could not write to standard output."""
    python, *words = command("cservice", application.secret, "cat")
    ended = run(FEW_PROCESSES, [python, "0", *words])
    assert (ended.returncode, ended.stdout) == (111, "")
    assert ended.stderr == f"cservice: a system call failed: resource temporarily unavailable; {ADVICE}\n"


def test_a_client_hears_that_a_worker_has_no_room_for_a_process(application: Application) -> None:
    """Regression: it was asked if cservice was running at all."""
    python, launcher = command("cservice")
    service = Service(application, ("cat",), ["--name", "full"], launcher=[python, "-c", FEW_PROCESSES, "1", launcher])
    try:
        ended = run(AS_USUAL, command("cexec", application.public), CEXEC_TIMEOUT_ACCEPT="4")
        assert (ended.returncode, ended.stdout) == (111, "")
        reason = "it has no room for another process: resource temporarily unavailable"
        assert ended.stderr.endswith(f"could take the job in 4 s; worker full refuses: {reason}\n")
    finally:
        service.close()


def test_cboot_says_that_it_has_no_room_for_packages(application: Application) -> None:
    """Regression: it said that it could not write to standard output."""
    ended = run(NO_TEMPORARY_FILES, command("cboot", "--status", "--ssh", "true", "-w", "a", application.secret))
    assert (ended.returncode, ended.stdout) == (111, "")
    assert ended.stderr.startswith("cboot: cannot keep packages for the hosts in TMPDIR, /tmp or /var/tmp: no usable")


def test_cmap_says_that_it_has_no_room_for_results_to_be_validated(cluster: Cluster) -> None:
    """Regression: it was an internal error."""
    ended = run(NO_TEMPORARY_FILES, cluster.argv("--validate", "cat stdout", ":::", "a"))
    assert (ended.returncode, ended.stdout) == (255, "")
    assert ended.stderr.startswith("cmap: cannot keep ") and "TMPDIR says where else there is room" in ended.stderr
