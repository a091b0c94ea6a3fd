"""`cexec --all` between hosts: everybody's output and status, who is absent, who is lost."""

from __future__ import annotations

import random
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.lab import Host
from tests.needs import require_tool
from tests.service import Application, Service
from tests.waiting import PATIENCE, all_asleep, comes_true, wait_until

Crew = Callable[..., tuple[Host, list[Service]]]
NAMES = ("ann", "bob", "cid", "dan")


@pytest.fixture
def crew(lab: MakeLab, service: StartService) -> Crew:
    """Makes a client's host, and workers ann, bob and so on that run a shell script; theirs may differ, by name."""

    def make(script: str, *options: str, size: int = 4, **others: str) -> tuple[Host, list[Service]]:
        client, *hosts = lab(size + 1).hosts
        services = [
            service("sh", "-c", others.get(name, script), host=host, options=["--name", name, "-j", "1", *options])
            for name, host in zip(NAMES, hosts, strict=False)
        ]
        return client, services

    return make


def start(application: Application, host: Host, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`cexec --all ARGUMENTS... APP.pub` on a host, with pipes."""
    argv = command("cexec", "--all", *arguments, application.public)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return host.popen(argv, env=clean_environment(), text=True, **pipes)


def blocks(text: str) -> list[list[str]]:
    """Tagged lines in groups of one worker: each worker's must be together."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if not found or found[-1][0].partition(": ")[0] != line.partition(": ")[0]:
            found.append([])
        found[-1].append(line)
    return found


def test_every_worker_gets_the_same_input_and_the_largest_status_counts(crew: Crew, application: Application) -> None:
    client, _ = crew("cat; echo end; echo oops >&2", cid="cat; exit 3")
    result = application.run("--all", "--tag", input=b"one\ntwo", host=client)
    output, errors = result.stdout.decode(), result.stderr.decode()
    assert result.returncode == 3, errors
    together = {block[0].partition(":")[0]: block for block in blocks(output)}
    assert len(blocks(output)) == 4
    for name in ("ann", "bob", "dan"):
        assert together[name] == [f"{name}: one", f"{name}: twoend"]
    assert together["cid"] == ["cid: one", "cid: two"]
    assert sorted(errors.splitlines()) == ["ann: oops", "bob: oops", "cexec: worker cid: status 3", "dan: oops"]


def test_without_an_input_every_program_reads_its_end(crew: Crew, application: Application) -> None:
    """Regression: with -n a program that reads its input waited for ever."""
    client, _ = crew("cat; echo end", size=2)
    process = start(application, client, "-n", "--tag", stdin=None)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (sorted(output.splitlines()), errors) == (["ann: end", "bob: end"], "")


def test_an_input_that_was_not_opened_for_reading_is_empty(
    crew: Crew, application: Application, tmp_path: Path
) -> None:
    """Regression: nohup opens it so; `cexec --all` waited for ever, and later failed, also if no program read."""
    client, _ = crew("cat; echo end", size=1)
    with (tmp_path / "file").open("w") as unreadable:
        process = start(application, client, stdin=unreadable)
        said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, *said) == (0, "end\n", "")


def test_an_input_that_cannot_be_read_is_told(crew: Crew, application: Application) -> None:
    """Regression: the line said of the first read that the input could not be read again."""
    client, _ = crew("cat; echo end", size=1)
    with Path("/proc/self/mem").open("rb") as unreadable:
        process = start(application, client, stdin=unreadable)
        said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, *said) == (111, "", "cexec: cannot read from standard input: input/output error\n")


def test_a_system_call_that_fails_is_told_in_one_line(crew: Crew, application: Application) -> None:
    """Regression: it was a traceback, here of a file that has no offset."""
    client, _ = crew("cat; echo end", size=1)
    with Path("/proc/self/ns/net").open("rb", buffering=0) as unseekable:
        process = start(application, client, stdin=unseekable)
        said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, *said) == (111, "", "cexec: a system call failed: illegal seek\n")


def test_an_output_for_which_there_is_no_room_says_where_that_was(
    crew: Crew, application: Application, tmp_path: Path
) -> None:
    """Regression: neither the directory was named nor what chooses it."""
    client, _ = crew("head -c 3000000 /dev/zero", size=1)
    script = f"ulimit -f 64; exec {shlex.join(command('cexec', '--all', '-n', application.public))}"
    environment = clean_environment({"TMPDIR": str(tmp_path)})
    process = client.popen(["sh", "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (111, b"")
    assert errors.startswith(b"cexec: cannot keep the output of worker ann@")
    advice = "file too large; TMPDIR says where else there is room"
    assert errors.endswith(f" in {tmp_path}: {advice}\n".encode())


def test_a_line_of_ours_that_nobody_takes_ends_no_program(crew: Crew, application: Application) -> None:
    """Regression: with 2> /dev/full the line about bob ended ann's program, and the status was 111."""
    client, _ = crew("sleep 0.5; echo end", bob="exit 3", size=2)
    with Path("/dev/full").open("w") as full:
        process = start(application, client, stdin=subprocess.DEVNULL, stderr=full)
        output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (3, "end\n")


def test_output_comes_in_the_order_of_finishing(crew: Crew, application: Application, tmp_path: Path) -> None:
    ann, bob = (f"until test -e {tmp_path}/{name}; do sleep 0.05; done" for name in ("ann", "bob"))
    client, _ = crew("cat", ann=f"echo 3; {ann}; echo slow", bob=f"{bob}; echo 2", cid="echo 1")
    process = start(application, client, "--on", "ann,bob,cid", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    for line, name in (("1\n", "bob"), ("2\n", "ann")):
        assert process.stdout.readline() == line
        (tmp_path / name).touch()
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (0, "3\nslow\n", "")


def test_a_worker_that_is_killed_is_named_and_the_others_finish(crew: Crew, application: Application) -> None:
    client, services = crew("echo begin; cat; echo done", size=3)
    process = start(application, client, "--tag")
    for one in services:
        one.wait_for("started")
    services[1].kill()
    output, errors = process.communicate("x\n", timeout=30)
    assert process.returncode == 111
    assert {block[0].partition(":")[0] for block in blocks(output)} == {"ann", "cid"}
    lines = errors.splitlines()
    assert any(line.startswith("cexec: worker bob at ") and "did not finish: disconnected" in line for line in lines)
    assert lines[-1] == "cexec: 1 of 3 workers did not finish: bob"


def test_partial_output_is_kept_when_asked_for(crew: Crew, application: Application, tmp_path: Path) -> None:
    said = tmp_path / "said"
    client, services = crew(f"echo begin; echo said >&2; touch {said}; exec sleep 60", size=1)
    process = start(application, client, "--keep-partial", stdin=subprocess.DEVNULL)
    wait_until(said.exists)
    wait_until(lambda: all_asleep(process.pid, *services[0].pids()))  # so it has arrived
    services[0].kill()
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors.splitlines()[0]) == (111, "begin\n", "said")


def test_who_is_absent_is_named_and_nothing_is_started(crew: Crew, application: Application) -> None:
    client, services = crew("cat", size=4)
    result = application.run("--all", "--expect", "5", host=client)
    assert (result.returncode, result.stdout) == (111, b"")
    assert result.stderr.decode() == (
        "cexec: expected 5 workers, but 4 answered (present: ann, bob, cid, dan); nothing has been started\n"
    )
    result = application.run("--all", "--on", "bob,eve,10.77.0.2,10.77.0.99", host=client)
    assert (result.returncode, result.stdout) == (111, b"")
    assert result.stderr == b"cexec: absent: eve, 10.77.0.99 (present: ann, bob); nothing has been started\n"
    assert not [line for one in services for line in one.lines if "accepted" in line]
    assert application.run("--all", "--expect", "4", input=b"x", host=client).stdout == b"xxxx"


def test_only_those_that_fit_take_part(lab: MakeLab, service: StartService, application: Application) -> None:
    client, *hosts = lab(4).hosts
    for name, host in zip(NAMES, hosts, strict=False):
        labels = ["--label", "gpu=1"] if name != "bob" else []
        service("cat", host=host, options=["--name", name, *labels])
    for arguments, expected in (
        (["--on", "ann,bob"], {"ann", "bob"}),
        (["--not", "cid"], {"ann", "bob"}),
        (["--need", "gpu"], {"ann", "cid"}),
    ):
        result = application.run("--all", "--tag", *arguments, input=b"x", host=client)
        assert result.returncode == 0, result.stderr
        assert {line.partition(":")[0] for line in result.stdout.decode().splitlines()} == expected
    result = application.run("--all", "--need", "tpu", host=client)
    assert result.returncode == 111
    assert b"fits: 3 workers exist; ann, bob, cid: has no tpu" in result.stderr


def test_limits_are_for_all(crew: Crew, application: Application) -> None:
    client, _ = crew("sleep 30", ann="echo quick", size=2)
    result = application.run("--all", "--tag", "--time-limit", "3", host=client)
    assert (result.returncode, result.stdout) == (128 + signal.SIGTERM, b"ann: quick\n"), result.stderr
    assert b"cexec: worker bob: ended after its time limit of 3 s" in result.stderr


def test_workers_that_are_busy_are_waited_for(crew: Crew, application: Application) -> None:
    client, services = crew("cat", size=2)
    argv = command("cexec", "--on", "ann", application.public)
    occupant = client.popen(argv, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    services[0].wait_for("started")
    process = start(application, client, "--tag")
    assert process.stdin is not None
    process.stdin.write("hello\n")
    process.stdin.close()
    process.stdin = None
    services[1].wait_for("finished")
    time.sleep(1)  # the time in which it would end if it did not wait
    assert process.poll() is None
    occupant.communicate()
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "bob: hello\nann: hello\n", "")


def test_a_worker_that_cannot_connect_is_named(crew: Crew, application: Application) -> None:
    require_tool("nft")
    client, _ = crew("cat", size=2)
    client.nft(
        "add table inet lab",
        "add chain inet lab input { type filter hook input priority 0; }",
        "add rule inet lab input ip saddr 10.77.0.3 meta l4proto tcp drop",
        "add rule inet lab input ip6 saddr { fe80::3, fd77::3 } meta l4proto tcp drop",
    )
    result = application.run(
        "--all", "--tag", input=b"x", host=client, environment={"CEXEC_TIMEOUT_ACCEPT": "4"}, timeout=40
    )
    assert (result.returncode, result.stdout) == (111, b"ann: x\n")
    assert b"worker bob at " in result.stderr and b"did not finish: heard, but cannot connect to" in result.stderr


def test_a_large_input_and_much_output(crew: Crew, application: Application, tmp_path: Path) -> None:
    client, _ = crew("cat", size=3)
    data = random.Random(7).randbytes(20_000_000)
    path = tmp_path / "input"
    path.write_bytes(data)
    cexec = " ".join(command("cexec", "--all", application.public))
    for script in (f"cat {path} | {cexec}", f"{cexec} < {path}"):
        result = client.run(["sh", "-c", script], env=clean_environment(), capture_output=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert result.stdout == data * 3


def test_a_program_that_reads_nothing_keeps_no_other_waiting(
    crew: Crew, application: Application, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    bob = f"until test -e {done}; do sleep 0.05; done; echo none"
    client, _ = crew(f"cat | wc -c; touch {done}", bob=bob, size=2)
    result = application.run("--all", "--tag", input=bytes(5_000_000), host=client)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == [b"ann: 5000000", b"bob: none"]


def test_signals_reach_all(crew: Crew, application: Application, tmp_path: Path) -> None:
    traps = f"trap 'touch {tmp_path}/heard.$$' CONT; trap 'echo got it; exit 7' TERM"
    client, _ = crew(f"{traps}; echo ready; sleep 60 & while kill -0 $!; do wait; done", size=2)
    process = start(application, client, "--tag", stdin=subprocess.DEVNULL)

    def heard() -> bool:
        """Before the client knows that the programs have begun, TERM would end it; CONT does nothing then."""
        process.send_signal(signal.SIGCONT)
        return len(list(tmp_path.glob("heard.*"))) == 2

    wait_until(heard)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 7
    assert sorted(output.splitlines()) == ["ann: got it", "ann: ready", "bob: got it", "bob: ready"]


def test_a_reader_that_goes_ends_all(crew: Crew, application: Application, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    # ann speaks when bob's job runs: a client that ends sooner leaves bob without a job to break.
    ann = f"until test -e {begun}; do sleep 0.05; done; echo early"
    client, services = crew(f"touch {begun}; exec sleep 60", ann=ann, size=2)
    process = start(application, client, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=30)
    assert process.returncode == 141
    services[1].wait_for("broken")


def test_loggers_hear_of_every_worker(crew: Crew, application: Application, tmp_path: Path) -> None:
    client, _ = crew("cat; exit 2", size=3)
    path = tmp_path / "log"
    argv = command("crat", "--output", path, application.public)
    logger = client.popen(argv, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    assert logger.stderr is not None and "logging" in logger.stderr.readline()
    assert application.run("--all", input=b"x", host=client).returncode == 2
    comes_true(lambda: path.read_text().count("completed by") >= 3)
    logger.terminate()
    logger.communicate(timeout=PATIENCE)
    lines = path.read_text()
    assert lines.count("completed by") == 3 and lines.count("exit code 2") == 3, lines
