"""`cexec --explain` between hosts: the story of a job, and the causes of a silence."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.lab import Host
from tests.needs import require_tool
from tests.service import Application
from tests.waiting import all_asleep, wait_until

IMPATIENT = {"CEXEC_TIMEOUT_ACCEPT": "0.5"}
LISTENING = "0A"  # the kernel's number for the state of a socket that waits for connections


def explained(application: Application, **options: object) -> tuple[int, bytes, list[str]]:
    """Returns status, output and the lines on stderr."""
    result = application.run("--explain", **options)  # type: ignore[arg-type]
    lines = result.stderr.decode().splitlines()
    assert not [line for line in lines if "Traceback" in line], result.stderr.decode()
    return result.returncode, result.stdout, lines


def listens(pid: int) -> bool:
    """Returns True if a process in the network of this one is ready for connections."""
    tables = (Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6"))
    return any(line.split()[3] == LISTENING for table in tables if table.exists() for line in table.open())


def datagrams_read(host: Host) -> int:
    """Returns the number of datagrams that the programs on this host have read so far."""
    lines = host.run(["cat", "/proc/net/snmp"], capture_output=True, text=True).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("InDatagrams")])


def find(lines: list[str], pattern: str) -> int:
    """Returns the number of the line with the pattern; a failure shows the lines."""
    numbers = [number for number, line in enumerate(lines) if re.search(pattern, line)]
    assert numbers, f"no {pattern!r} in:\n" + "\n".join(lines)
    return numbers[0]


def test_the_story_of_a_job_has_every_step_in_its_order(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, worker = lab(2).hosts
    service("sh", "-c", "cat; exit 3", host=worker, options=["--name", "idle"])
    status, output, lines = explained(application, input=b"hello", host=client)
    assert (status, output) == (3, b"hello")
    steps = [
        r"^explanation .*: key [0-9a-f-]+, the default group, UDP port 3010$",
        r"attempt 1, listening on TCP port \d+$",
        r"announcement 1 sent to 10\.77\.0\.255, 127\.255\.255\.255",
        r"connection from (10\.77\.0\.2|fe80::2)",
        r"worker idle at \S+ offers itself: load [\d.]+, speed [\d.]+, 0 of \d+ slots busy$",
        r"worker idle at \S+ gets the job: the first to connect and confirm, and the only one so far; GO is sent$",
        r"the program has started$",
        r"the program has ended with status 3: 5 bytes in, 5 bytes out$",
        r"^each step took: announcing [\d.]+, first connection [\d.]+, confirmation and GO [\d.]+, "
        r"start of the program [\d.]+, the program [\d.]+$",
    ]
    order = [find(lines, step) for step in steps]
    assert order == sorted(order)
    times = [float(line.split()[0]) for line in lines[1:-1]]
    assert times == sorted(times)


def test_a_worker_that_is_busy_is_told(lab: MakeLab, service: StartService, application: Application) -> None:
    client, worker = lab(2).hosts
    running = service("cat", host=worker, options=["--name", "busy", "-j", "1"])
    occupant = client.popen(
        command("cexec", application.public), env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    running.wait_for("started")
    before = datagrams_read(client)
    process = client.popen(
        command("cexec", "--explain", application.public), env=clean_environment(), stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: datagrams_read(client) > before)  # the answer
    occupant.communicate()
    _, errors = process.communicate(timeout=20)
    lines = errors.splitlines()
    queued = find(lines, r"worker busy at \S+ is busy and will offer itself later: load .*, 1 of 1 slots busy$")
    assert queued < find(lines, "worker busy at .* offers itself: ") < find(lines, "worker busy at .* gets the job: ")


def test_a_silence_is_explained_in_the_order_of_likelihood(lab: MakeLab, application: Application) -> None:
    require_tool("nft")
    (client,) = lab([(1,)]).hosts
    client.ip(
        "link add tun0 type veth peer name tun1",
        "link set tun1 addrgenmode none up",
        "address add 10.8.0.2/32 dev tun0",
        "link set tun0 addrgenmode none up",
    )
    client.drop(100, "udp dport 3010 meta pkttype broadcast", hook="output")
    client.drop(100, "tcp dport 41000-41010")
    environment = {**IMPATIENT, "CEXEC_LISTEN_PORTS": "41000:41010"}
    status, output, lines = explained(application, host=client, environment=environment)
    assert (status, output) == (111, b"")
    start = find(lines, "^likely causes on this machine, in the order to look at them:$")
    assert [cause.split(":")[0] for cause in lines[start + 1 : -1]] == [
        "  - interface tun0 (10.8.0.2) has no broadcast",
        "  - firewall",
        "  - firewall",
        "  - container",
        "  - the key",
        "  - the group",
    ]
    find(lines, "announcements, UDP to port 3010, may be stopped by the rule `.*drop` of inet lab output")
    find(lines, "connections of workers, TCP to port 410.., may be stopped by the rule `tcp dport 41000-41010 *drop`")
    find(lines, r"eth0 \(10.77.0.1, .*\) leads to a bridge inside its host")
    fingerprint = lines[0].split("key ")[1].split(",")[0]
    find(lines, f"the key: this one is {fingerprint}, ")
    assert lines[-1].startswith("cexec: no worker of ")


def test_a_firewall_of_the_client_that_workers_meet_is_named(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    require_tool("nft")
    client, worker = lab(2).hosts
    client.nft(
        "add table inet lab",
        "add chain inet lab input { type filter hook input priority 0; }",
        "add rule inet lab input meta l4proto tcp reject with icmpx type admin-prohibited",
    )
    service("cat", host=worker, options=["--name", "two"])
    status, _, lines = explained(application, host=client, environment={"CEXEC_TIMEOUT_ACCEPT": "4"})
    assert status == 111
    find(lines, r"worker two at \S+ has heard, but cannot connect to \S+: ")
    causes = lines[find(lines, "^likely causes") + 1 : -1]
    assert len(causes) == 1
    assert causes[0].startswith("  - firewall: connections of workers, TCP to port ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_loses_patience_is_told_too(lab: MakeLab, application: Application, number: signal.Signals) -> None:
    (client,) = lab([(1,)]).hosts
    argv = command("cexec", "--explain", application.public)
    process = client.popen(argv, env=clean_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: listens(process.pid))
    wait_until(lambda: all_asleep(process.pid))  # it waits; sooner it dies of the signal without a word
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -number
    find(errors.splitlines(), "  - the group: announcements went to 10.77.0.255, ")


def test_the_story_of_a_job_that_ctrl_c_has_ended(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    (host,) = lab([(1,)]).hosts
    service("sh", "-c", "echo started; exec sleep 60", host=host)
    argv = command("cexec", "--explain", application.public)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = host.popen(argv, env=clean_environment(), **pipes)
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    find(errors.splitlines(), "the program has ended with status 130: ")


def test_without_the_option_nothing_is_told(lab: MakeLab, service: StartService, application: Application) -> None:
    (host,) = lab([(1,)]).hosts
    service("cat", host=host)
    assert application.run(input=b"x", host=host).stderr == b""
