"""Relays between real hosts: a row, a chain, a ring; who gets the work; what a relay can see, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import ROOT, clean_environment, command
from tests.lab import HAS_IPV6, Host, Lab
from tests.needs import require_namespaces, require_tool
from tests.relaying import Capture, Proxy, traffic
from tests.service import Application
from tests.waiting import PATIENCE, wait_until

ROW = [(1, 2), (2, 3)]
LOOP = [(1, 11, 12), (11, 12, 3)]  # two relays between the same networks
RING = [(1, 11, 14), (11, 12), (12, 13, 3), (13, 14)]
CHAIN = [(1, 11), (11, 12), (12, 13), (13, 3)]
LEAST_OF_A_JOB = 70_000  # bytes: what a loop of two relays may send for one job
StartProxy = Callable[..., Proxy]


@pytest.fixture
def proxy(lab: MakeLab) -> Iterator[StartProxy]:
    """Starts a `cproxy` on a host, between its first network and another one of its networks."""
    with ExitStack() as stack:

        def start(host: Host, *options: str, **more: Any) -> Proxy:
            arguments = [*options, host.address, f"10.77.{host.networks[1]}.255"]
            started = Proxy(host, *more.pop("arguments", arguments), **more)
            stack.callback(started.close)
            return started

        yield start


def start_all(made: Lab, proxy: StartProxy) -> dict[int, Proxy]:
    """A relay on each host that has a foot in two networks."""
    return {host.number: proxy(host) for host in made.hosts if len(host.networks) == 2}


def on(application: Application, host: Host, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A client that runs on a host, with pipes."""
    environment = clean_environment(options.pop("environment", None))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return host.popen(command("cexec", application.public, *arguments), env=environment, **{**pipes, **options})


def test_a_job_passes_with_all_that_belongs_to_it(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    relay = proxy(made.host(2))
    worker = service("sh", "-c", "cat; echo to stderr >&2; exit 42", host=made.host(3))
    data = bytes(range(256)) * 4096
    result = application.run(input=data, host=made.host(1))
    assert (result.returncode, result.stdout, result.stderr) == (42, data, b"to stderr\n")
    assert "client=10.77.1.2:" in worker.wait_for("accepted")
    relay.wait_for("forwarded")
    (line,) = relay.events("forwarded")
    assert line["client"].startswith("10.77.0.1:") and line["worker"].startswith("10.77.1.3:")
    assert int(line["to_worker"]) > len(data) and int(line["to_client"]) > len(data) and "ended" not in line


def test_an_idle_relay_keeps_nothing_of_its_jobs(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    """Regression: up to 32 pipes were kept for the next jobs.  A socket to pass datagrams on comes with the first."""
    made = lab(ROW)
    relay = proxy(made.host(2))
    service("cat", host=made.host(3))
    idle = relay.descriptors() + 1
    for _ in range(3):
        assert application.run(input=bytes(1_000_000), host=made.host(1)).stdout == bytes(1_000_000)
    wait_until(lambda: relay.descriptors() <= idle, explain=lambda: f"{relay.descriptors()} descriptors, {idle} idle")


def test_a_job_passes_in_the_other_direction(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    proxy(made.host(2))
    service("cat", host=made.host(1))
    assert application.run(input=b"back", host=made.host(3)).stdout == b"back"


@pytest.mark.parametrize("networks", [CHAIN, LOOP, RING], ids=["chain of three", "two in parallel", "ring of four"])
def test_a_job_passes_several_relays_in_both_directions_and_loops_send_little(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, networks: list[tuple[int, ...]]
) -> None:
    made = lab(networks)
    relays = start_all(made, proxy)
    service("cat", host=made.host(3))
    before = {number: traffic(made.host(number)) for number in relays}
    assert application.run(input=b"there", host=made.host(1)).stdout == b"there"
    time.sleep(2)  # the time in which something that still goes round would send much
    sent = {number: traffic(made.host(number)) - before[number] for number in relays}
    assert 1000 < sum(sent.values()) < LEAST_OF_A_JOB, sent
    service("tr", "a-z", "A-Z", host=made.host(1))
    assert application.run("--on", made.host(1).address, input=b"back", host=made.host(3)).stdout == b"BACK"


@pytest.mark.campaign
@pytest.mark.parametrize("networks", [LOOP, RING], ids=["two in parallel", "ring of four"])
def test_a_job_that_waits_a_minute_costs_little_in_a_loop(
    application: Application, lab: MakeLab, proxy: StartProxy, networks: list[tuple[int, ...]]
) -> None:
    made = lab(networks)
    relays = start_all(made, proxy)
    before = sum(traffic(made.host(number)) for number in relays)
    assert application.run(host=made.host(1), timeout=90).returncode == 111
    assert 5000 < sum(traffic(made.host(number)) for number in relays) - before < LEAST_OF_A_JOB


def test_messages_name_the_worker_and_not_the_relay_alone(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    proxy(made.host(2))
    worker = service("sleep", "60", options=["--name", "far-away"], host=made.host(3))
    with on(application, made.host(1), "--retries", "0") as client:
        worker.wait_for("started")
        worker.kill()
        _, errors = client.communicate(timeout=20)
    assert client.returncode == 111
    assert b"far-away" in errors and b"10.77.0.2" in errors


def test_answers_without_a_connection_find_their_way_through_a_chain(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    """QUEUED keeps a client waiting beyond its accept timeout, so it has come if the client still waits."""
    made = lab(CHAIN)
    start_all(made, proxy)
    worker = service("sleep", "4", options=["-j", "1"], host=made.host(3))
    patience = {"CEXEC_TIMEOUT_ACCEPT": "2"}
    with on(application, made.host(1)) as first:
        worker.wait_for("started")
        started = time.monotonic()
        second = application.run(host=made.host(1), environment=patience)
        assert second.returncode == 0, second.stderr
        assert time.monotonic() - started > 2  # the accept timeout
        assert first.communicate(timeout=PATIENCE) == (b"", b"")


def test_a_census_finds_the_workers_behind_relays(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(CHAIN)
    start_all(made, proxy)
    service("cat", options=["--name", "three-relays-away"], host=made.host(3))
    service("cat", options=["--name", "here"], host=made.host(1))
    listed = made.host(1).run(command("cps", application.public), env=clean_environment(), capture_output=True)
    assert listed.returncode == 0, listed.stderr
    assert b"three-relays-away" in listed.stdout and b"here" in listed.stdout


def test_near_workers_get_the_work_while_they_are_free_and_far_ones_when_they_are_not(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    proxy(made.host(2))
    idle = ["--speed", "1", "--load-command", "echo 0"]  # they share the CPUs, so what is measured there says nothing
    for name, slots, host in (("near", "2", made.host(1)), ("far", "4", made.host(3))):
        service("sh", "-c", f"echo {name}; cat", options=["-j", slots, *idle], host=host)
    application.run_many(made.host(1), 5, 1)  # so that they know that they are two
    one_by_one = [application.run(host=made.host(1)).stdout for _ in range(8)]
    assert one_by_one.count(b"near\n") > 4  # 0.1 s ahead is little on a busy machine
    with ExitStack() as stack:
        at_once = [stack.enter_context(on(application, made.host(1))) for _ in range(6)]
        # Each keeps its slot until all have one, however long that takes.
        names = [client.stdout.readline() for client in at_once if client.stdout is not None]
        assert sorted(names) == [b"far\n"] * 4 + [b"near\n"] * 2
        assert [client.communicate(timeout=30)[0] for client in at_once] == [b""] * 6


def test_with_a_hop_delay_what_is_taken_near_is_not_announced_far(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, tmp_path: Path
) -> None:
    made = lab(ROW)
    proxy(made.host(2), "--hop-delay", "1.5")
    service("cat", host=made.host(1))
    capture = Capture(made.host(3), tmp_path)
    assert application.run(input=b"x", host=made.host(1)).returncode == 0
    time.sleep(2)  # the time in which the relay would announce it
    capture.close()
    assert not [packet for packet in capture.packets if b"\xcexec\x01\x01" in packet or b"\xcexec\x01\x02" in packet]


def test_with_a_hop_delay_a_job_that_nobody_near_takes_comes_later(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    proxy(made.host(2), "--hop-delay", "1.5")
    service("cat", host=made.host(3))
    started = time.monotonic()
    assert application.run(input=b"x", host=made.host(1)).stdout == b"x"
    assert time.monotonic() - started > 1.5


def test_only_one_application_passes_where_a_key_is_given(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, tmp_path: Path
) -> None:
    made = lab(ROW)
    subprocess.run(command("ckeygen", "--relay", application.secret), check=True, capture_output=True)
    proxy(made.host(2), "--only", f"{application.secret}.relay")
    other = Application(tmp_path, "other")
    service("cat", host=made.host(3))
    service("cat", application=other, host=made.host(3))
    assert application.run(input=b"mine", host=made.host(1)).stdout == b"mine"
    patience = {"CEXEC_TIMEOUT_ACCEPT": "3"}
    assert other.run(input=b"not mine", host=made.host(1), environment=patience).returncode == 111


def test_a_client_may_name_the_relay_as_its_group(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    """Where broadcasts do not pass, as in containers; what is on the relay's own host hears of it too."""
    made = lab(ROW)
    proxy(made.host(2))
    far = service("echo", "far", host=made.host(3))
    group = {"CEXEC_GROUP": "10.77.0.2"}
    assert application.run(host=made.host(1), environment=group).stdout == b"far\n"
    far.signal(15)
    far.wait()
    service("echo", "on the relay", host=made.host(2))
    assert application.run(host=made.host(1), environment=group).stdout == b"on the relay\n"


def test_one_host_may_be_a_target(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab([(1, 2), (2, 3, 4)])
    proxy(made.host(2), arguments=["10.77.0.2", "10.77.1.4"])
    service("echo", "3", host=made.host(3))
    service("echo", "4", host=made.host(4))
    assert {application.run(host=made.host(1)).stdout for _ in range(4)} == {b"4\n"}


def test_without_a_target_all_other_networks_are_joined(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab([(1, 2), (2, 3), (2, 4)])
    relay = proxy(made.host(2), arguments=["eth0:10.77.0.2"])
    assert "10.77.1.255" in relay.lines[0] and "10.77.2.255" in relay.lines[0]
    for number in (3, 4):
        worker = service("echo", str(number), host=made.host(number))
        assert application.run(host=made.host(1)).stdout == b"%d\n" % number
        worker.signal(15)
        worker.wait()


@pytest.mark.skipif(not HAS_IPV6, reason="for want of IPv6")
def test_networks_without_ipv4_are_joined(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    for host in made.hosts:
        host.ip(*(f"address del {host.address_on(network)}/24 dev eth{network}" for network in host.networks))
    relay = proxy(made.host(2), arguments=["fd77:0::2"])
    worker = service("cat", host=made.host(3))
    assert application.run(input=b"six", host=made.host(1)).stdout == b"six"
    assert "client=" in worker.wait_for("accepted")
    assert "client=[f" in relay.wait_for("forwarded")


def test_a_client_on_the_loopback_is_not_relayed_unless_that_is_asked_for(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    first = proxy(made.host(2))
    service("cat", host=made.host(3))
    local = {"CEXEC_GROUP": "127.255.255.255", "CEXEC_TIMEOUT_ACCEPT": "2"}
    assert application.run(host=made.host(2), environment=local).returncode == 111
    first.close()
    proxy(made.host(2), arguments=["127.0.0.1", "10.77.1.255"])
    assert application.run(input=b"out", host=made.host(2), environment=local).stdout == b"out"


def test_a_logger_behind_a_relay_hears_of_every_job_and_acknowledges(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, tmp_path: Path
) -> None:
    made = lab(ROW)
    proxy(made.host(2))
    service("sh", "-c", "exit 7", options=["--name", "far-away"], host=made.host(3))
    log = tmp_path / "log"
    logger = made.host(1).popen(command("crat", "--output", log, application.public), stderr=subprocess.PIPE)
    try:
        assert logger.stderr is not None and b"logging" in logger.stderr.readline()
        assert [application.run(host=made.host(1)).returncode for _ in range(3)] == [7, 7, 7]
        wait_until(lambda: log.read_text().count("completed by") == 3)
        # The first time an acknowledgement may be late.
        assert not all(sends_alerts_again(made.host(3), tmp_path) for _ in range(2))
    finally:
        logger.terminate()
        logger.communicate(timeout=PATIENCE)
    assert log.read_text().count("far-away") >= 3 and log.read_text().count("exit code 7") == 3


def sends_alerts_again(host: Host, directory: Path) -> bool:
    """As a worker without an acknowledgement does within a few seconds."""
    capture = Capture(host, directory)
    time.sleep(4)  # these seconds
    capture.close()
    return any(b"\xcexec\x01\x05" in packet for packet in capture.packets)


def test_nothing_that_is_secret_can_be_seen_on_the_relay(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, tmp_path: Path
) -> None:
    """A capture on the relay, in both directions, of a job that is full of markers: 1 MiB of them."""
    require_tool("unshare", "hostname")
    made = lab(ROW)
    proxy(made.host(2))
    marks = [b"M4rk%012d" % number for number in range(65_536)]
    data, [argument, variable, file_name, worker_host, client_host] = b"".join(marks), [
        f"m4rk-of-{what}" for what in ("argument", "variable", "file", "worker", "client")
    ]  # fmt: skip
    script = 'cat; echo "$0 $PEER_MARK" >&2; cat m4rk-of-file >&3'
    service("sh", "-c", script, options=["--allow-args"], host=renamed(made.host(3), worker_host))
    (tmp_path / file_name).write_bytes(data)
    capture = Capture(made.host(2), tmp_path)
    client = renamed(made.host(1), client_host).popen(
        [
            "sh", "-c", 'exec "$@" 3>"$OUTPUT"', "sh",
            *command("cexec", "--send", file_name, application.public, f"MARK={variable}", "--", argument),
        ],
        env=clean_environment({"OUTPUT": str(tmp_path / "output")}),
        cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    output, errors = client.communicate(data, timeout=60)
    made.host(1).run([sys.executable, "-c", IN_THE_CLEAR], check=True)
    capture.close()
    assert (client.returncode, output) == (0, data), errors
    assert argument.encode() in errors and variable.encode() in errors
    assert (tmp_path / "output").read_bytes() == data
    everything = b"".join(capture.packets)
    assert len(everything) > 2 * 4 * len(data)  # in and out of the relay, there and back, and the file
    assert b"\xcexec\x01\x01" in everything and b"seen by a capture" in everything
    secrets = [*marks[:: len(marks) // 500], b"M4rk0000", b"m4rk-of-", b"M4RK-OF-", b"default", b"/bin/sh"]
    assert not [mark for mark in secrets if mark in everything]


IN_THE_CLEAR = """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"seen by a capture", ("10.77.0.2", 4000))
"""


class Renamed:
    """A host whose processes see another host name."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._host, attribute)

    def popen(self, argv: list[Any], **options: Any) -> subprocess.Popen[Any]:
        rename = ["unshare", "-u", "sh", "-c", 'hostname "$0" && exec "$@"', self._name]
        return self._host.popen([*rename, *argv], **options)


def renamed(host: Host, name: str) -> Host:
    """The same host, as `Renamed` makes it."""
    return cast(Host, Renamed(host, name))


def test_an_idle_relay_uses_no_cpu_even_with_a_job_that_waits(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    relay = proxy(made.host(2))
    service("cat", host=made.host(3))
    with on(application, made.host(1)) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"x")
        client.stdin.flush()
        assert client.stdout.read(1) == b"x"
        process = psutil.Process(relay.process.pid)

        def rests() -> bool:
            before = sum(process.cpu_times()[:2])
            time.sleep(3)  # the time of which it must use one tick at most
            return sum(process.cpu_times()[:2]) - before <= 0.01

        wait_until(rests)  # once the HELLOs are over
        client.communicate(timeout=PATIENCE)


def test_a_relay_that_is_told_to_stop_lets_its_jobs_finish(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    relay = proxy(made.host(2))
    worker = service("cat", host=made.host(3))
    with on(application, made.host(1)) as client:
        worker.wait_for("started")
        relay.process.terminate()
        relay.wait_for("stopping jobs=1")
        patience = {"CEXEC_TIMEOUT_ACCEPT": "2"}
        assert application.run(host=made.host(1), environment=patience).returncode == 111
        output, errors = client.communicate(b"to the end", timeout=PATIENCE)
    assert (client.returncode, output, errors) == (0, b"to the end", b"")
    assert relay.process.wait(PATIENCE) == 0
    relay.wait_for("forwarded")


def test_a_relay_that_is_told_twice_ends_its_jobs(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    relay = proxy(made.host(2))
    worker = service("cat", host=made.host(3))
    with on(application, made.host(1), "--retries", "0") as client:
        worker.wait_for("started")
        relay.process.terminate()
        relay.wait_for("stopping")
        relay.process.terminate()
        assert relay.process.wait(PATIENCE) == 0
        _, errors = client.communicate(timeout=20)
    assert client.returncode == 111 and errors
    relay.wait_for("forwarded")
    assert relay.events("forwarded")[0]["ended"]


def test_two_relays_at_the_ends_of_a_link_without_broadcast_join_the_networks_behind_them(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    """As over a VPN: each has the other one's address."""
    made = lab([(1, 2), (2, 3), (3, 4)])
    here = proxy(made.host(2), arguments=["10.77.0.2", "10.77.1.3"])
    proxy(made.host(3), arguments=["10.77.1.3", "10.77.2.255"], environment={"CEXEC_GROUP": "10.77.1.2"})
    assert "10.77.1.3" in here.lines[0]
    service("echo", "there", host=made.host(4))
    assert application.run(host=made.host(1)).stdout == b"there\n"
    service("echo", "here", options=["--name", "near-one"], host=made.host(1))
    assert application.run("--on", "near-one", host=made.host(4)).stdout == b"here\n"


def test_a_target_may_be_a_name_and_the_near_group_multicast_dns(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    targets = {"arguments": ["10.77.0.2", "localhost,10.77.1.3"], "environment": {"CEXEC_GROUP": "mdns"}}
    proxy(made.host(2), **targets)
    service("echo", "found", host=made.host(3))
    group = {"CEXEC_GROUP": "mdns", "CEXEC_TIMEOUT_ACCEPT": "20"}
    assert application.run(host=made.host(1), environment=group).stdout == b"found\n"


def test_a_network_that_comes_later_is_joined_too(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab([(1, 2), (2, 3), (2, 4)])
    made.host(2).link(False, 2)
    relay = proxy(made.host(2), arguments=["10.77.0.2"])
    assert "10.77.2.255" not in relay.lines[0]
    made.host(2).link(True, 2)
    assert "10.77.2.255" in relay.wait_for("listening")
    service("echo", "late", host=made.host(4))
    assert application.run(host=made.host(1)).stdout == b"late\n"


def test_a_job_for_all_workers_reaches_those_on_both_sides(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(LOOP)
    start_all(made, proxy)
    for number in (1, 3):
        service("echo", str(number), host=made.host(number))
    service("echo", "3 too", host=made.host(3))
    result = application.run("--all", host=made.host(1))
    assert (result.returncode, sorted(result.stdout.splitlines())) == (0, [b"1", b"3", b"3 too"]), result.stderr


def test_a_client_on_the_relays_own_host_finds_workers_by_it(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    proxy(made.host(2))
    worker = service("echo", "far", host=made.host(3))
    near = {"CEXEC_GROUP": "10.77.0.255"}  # with the default group it is on both sides itself
    assert application.run(host=made.host(2), environment=near).stdout == b"far\n"
    assert application.run(host=made.host(2)).stdout == b"far\n"
    assert len(worker.lines_with(" started ", 2)) == 2


@pytest.mark.parametrize("count", [12, pytest.param(150, marks=[pytest.mark.campaign, pytest.mark.timeout(300)])])
def test_many_jobs_at_once_pass(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, count: int
) -> None:
    made = lab(ROW)
    relay = proxy(made.host(2))
    service("cat", options=["-j", str(count)], host=made.host(3))
    clients = [on(application, made.host(1)) for _ in range(count)]
    results = [client.communicate(b"%d" % number, timeout=100)[0] for number, client in enumerate(clients)]
    assert results == [b"%d" % number for number in range(count)]
    wait_until(lambda: len(relay.events("forwarded")) >= count)  # one that was withdrawn after GO counts too


@pytest.mark.campaign
@pytest.mark.timeout(400)
def test_one_relay_leaves_at_least_60_percent_of_the_direct_throughput() -> None:
    require_namespaces()
    argv = [sys.executable, str(ROOT / "benchmarks" / "bench_relay.py"), "--size", "128", "--rounds", "3"]
    result = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
