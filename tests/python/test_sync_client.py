"""What only a blocking client has: threads, fork, Ctrl-C and the end of the interpreter."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cexec.errors import JobCancelledError, UsageError
from cexec.python.sync_client import Client
from tests.environment import local_environment
from tests.service import Application, Service
from tests.waiting import wait_until


def script(key: Path, body: str) -> subprocess.Popen[str]:
    """Starts a Python program that has a `client`."""
    code = f"import cexec, os, signal, sys, threading, time\nclient = cexec.Client({os.fspath(key)!r})\n{body}"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code],  # fork and threads, since 3.12
        env=local_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_many_threads_share_a_client(key: Path) -> None:
    with Client(key) as client, ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda number: client.run(b"%d" % number, args=["cat"]).stdout, range(100)))
    assert results == [b"%d" % number for number in range(100)]


def test_a_conversation_with_a_program(key: Path) -> None:
    with Client(key) as client:
        with client.start(args=["cat; cat <&3 >&4; echo bad >&2; exit 3"], inputs={3: None}, outputs=(4,)) as job:
            job.begun()
            job.stdin.write(b"hello")
            assert job.stdout.readexactly(5) == b"hello"
            job.stdin.close()
            job.write_to(3).write([b"a", b"b"])
            job.write_to(3).close()
            assert b"".join(job.read_from(4)) == b"ab"
            assert (job.stdout.read(), job.stderr.read()) == (b"", b"bad\n")
            assert (job.wait().returncode, job.returncode, job.worker != "") == (3, 3, True)
        result = client.start(args=["cat"]).communicate(b"all")
        assert (result.stdout, result.returncode) == (b"all", 0)
        with client.start(args=["trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"]) as job:
            assert job.stdout.read(6) == b"ready\n"
            job.send_signal(signal.SIGTERM)
            assert job.wait().returncode == 5


def test_leaving_the_block_ends_the_job_there(key: Path, worker: tuple[Application, Service]) -> None:
    with Client(key) as client:
        with client.start(args=["sleep 1234"]) as job:
            job.begun()
        with pytest.raises(JobCancelledError, match="has been cancelled"):
            job.wait()
        wait_until(lambda: not worker[1].started())


def test_closing_the_client_ends_what_other_threads_wait_for(key: Path, worker: tuple[Application, Service]) -> None:
    client = Client(key)
    client.run(args=["true"])
    errors: list[BaseException] = []

    def work() -> None:
        try:
            client.run(args=["sleep 1234"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]  # more than there are slots
    for thread in threads:
        thread.start()
    wait_until(lambda: len(worker[1].started()) >= 4)
    client.close()
    client.close()
    for thread in threads:
        thread.join(60)
    assert [type(error) for error in errors] == [JobCancelledError] * 6
    wait_until(lambda: not worker[1].started())
    for use in (lambda: client.run(), lambda: client.start(), lambda: client.map([]), client.workers):
        with pytest.raises(UsageError, match="has been closed"):
            use()
    with pytest.raises(UsageError, match="has been closed"):
        next(client.watch())


def test_a_client_in_a_child_after_fork_says_what_to_do_and_its_parent_goes_on(key: Path) -> None:
    body = """
job = client.start(args=["cat"])
job.begun()
pid = os.fork()
if not pid:
    for use in (lambda: client.run(), lambda: job.wait(), client.workers, lambda: client.map([])):
        try:
            use()
        except cexec.UsageError as error:
            print(error, flush=True)
    client.close()
    os._exit(0)
os.waitpid(pid, 0)
print(job.communicate(b"still there").stdout)
client.close()
"""
    process = script(key, body)
    out, err = process.communicate(timeout=60)
    told = "this client was made before fork: make another one in the child process\n"
    assert (out, err) == (4 * told + "b'still there'\n", "")


def test_a_child_does_not_keep_the_jobs_of_a_parent_that_has_died(
    key: Path, worker: tuple[Application, Service], tmp_path: Path
) -> None:
    body = """
job = client.start(args=["sleep 1234"])
job.begun()
if not os.fork():
    time.sleep(1000)
print("ready", flush=True)
time.sleep(1000)
"""
    process = script(key, body)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert worker[1].started()
        process.kill()
        try:
            wait_until(lambda: not worker[1].started())
        finally:
            for child in children:
                os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize(
    "call",
    [
        "client.run(args=['sleep 1234'])",
        "list(client.map([b''] * 9, args=['sleep 1234']))",
        "client.start(args=['sleep 1234']).wait()",
    ],
)
def test_an_interrupt_ends_the_call_and_its_job(key: Path, worker: tuple[Application, Service], call: str) -> None:
    body = f"""
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(client.run(args=["echo goes on"]).stdout, flush=True)
"""
    process = script(key, body)
    wait_until(lambda: worker[1].started())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted\nb'goes on\\n'\n", "")
    wait_until(lambda: not worker[1].started())


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "raise SystemExit(0)"])
def test_nothing_is_left_when_the_interpreter_ends(key: Path, worker: tuple[Application, Service], end: str) -> None:
    body = f"""
job = client.start(args=["sleep 1234"])
job.begun()
threading.Thread(target=lambda: client.run(args=["sleep 1234"]), daemon=True).start()
results = client.map([b""] * 9, args=["sleep 1234"])
other = cexec.Client({os.fspath(key)!r})
other.run(args=["true"])
{end}
"""
    process = script(key, body)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    wait_until(lambda: not worker[1].started())


def test_a_client_that_nobody_has_any_more_ends_with_its_thread(key: Path) -> None:
    client = Client(key)
    job = client.start(args=["cat"])
    names = [thread.name for thread in threading.enumerate()]
    assert f"cexec {key}" in names
    del client
    assert job.communicate(b"its job keeps it").stdout == b"its job keeps it"
    del job
    gc.collect()
    wait_until(lambda: f"cexec {key}" not in [thread.name for thread in threading.enumerate()])
