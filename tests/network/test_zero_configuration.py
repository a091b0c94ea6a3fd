"""Nothing is configured and it works, on one host and several, over several interfaces; or it says what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cexec.protocol.base.limits import CONNECT_DEADLINE
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.lab import HAS_IPV6, Host, Namespace
from tests.needs import NOBODY, require_namespaces, require_second_user, require_tool
from tests.second_user import AS_NOBODY
from tests.service import Application
from tests.terminal import Terminal
from tests.waiting import wait_until

SOON = {"CEXEC_TIMEOUT_ACCEPT": "4"}
PORT = 21_401  # of clients behind a firewall; below the ports that the kernel gives to connections


@contextmanager
def at_a_terminal(application: Application, host: Host, *words: str, **settings: str) -> Iterator[Terminal]:
    """cexec as a person starts it, on one of the hosts."""
    argv = host.inside(command("cexec", application.public, *words))
    with Terminal(argv, clean_environment(settings), {0: os.devnull}) as terminal:
        yield terminal


# One host


def test_a_laptop_without_a_network_serves_itself(application: Application) -> None:
    require_namespaces()
    laptop = Namespace("a laptop")
    try:
        with laptop.popen(command("cservice", application.secret, "cat"), stderr=subprocess.PIPE, text=True) as worker:
            assert worker.stderr is not None
            assert "listening on 127.255.255.255" in worker.stderr.readline()
            ended = laptop.run(command("cexec", application.public), input=b"text", capture_output=True)
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"text", b"")
            worker.terminate()
    finally:
        laptop.close()


def test_a_machine_whose_loopback_is_down_is_told_so(application: Application) -> None:
    require_namespaces()
    machine = Namespace("a machine without anything")
    machine.ip("link set lo down")
    try:
        ended = machine.run(command("cexec", application.public), env=clean_environment(SOON), capture_output=True)
        assert (ended.returncode, ended.stdout) == (111, b"")
        assert re.search(rb"sent \d announcements to nobody; network: no interface is up; ", ended.stderr)
    finally:
        machine.close()


def test_workers_of_different_users_share_a_host(service: StartService, monkeypatch: pytest.MonkeyPatch) -> None:
    require_second_user()
    require_tool("setpriv")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        application = Application(directory)
        script = ("sh", "-c", "id -u; cat")
        first = service(*script, options=["-j", "1"], application=application)
        os.chown(application.secret, NOBODY, -1)
        monkeypatch.setattr("tests.service.command", lambda *words: [*AS_NOBODY, *command(*words)])
        others = {"HOME": name, "XDG_RUNTIME_DIR": ""}
        second = service(*script, options=["-j", "1"], application=application, environment=others)
        monkeypatch.undo()
        assert psutil.Process(second.pid).uids().effective == NOBODY
        argv, environment = application.client()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        clients = [subprocess.Popen(argv, env=environment, **pipes) for _ in range(2)]  # type: ignore[call-overload]
        assert {int(client.stdout.readline()) for client in clients} == {os.getuid(), NOBODY}  # one slot each
        assert [(client.communicate()[0], client.returncode) for client in clients] == [(b"", 0)] * 2
        first.close()
        second.close()


# Several hosts and interfaces


def test_two_hosts_find_each_other(lab: MakeLab, application: Application, service: StartService) -> None:
    one, two = lab(2).hosts
    service("sh", "-c", "echo $SERVER_ADDR $REMOTE_ADDR", host=two)
    assert application.run(host=one).stdout.decode() == f"{two.address} {one.address}\n"


@pytest.mark.skipif(not HAS_IPV6, reason="this kernel has no IPv6")
def test_two_hosts_without_ipv4_find_each_other(lab: MakeLab, application: Application, service: StartService) -> None:
    one, two = lab(2).hosts
    for host in (one, two):
        host.ip(f"address delete {host.address}/24 dev eth0")
    service("sh", "-c", "echo $SERVER_ADDR $REMOTE_ADDR", host=two)
    ended = application.run(host=one)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert re.fullmatch(r"fe80::2(%eth0)? fe80::1(%eth0)?\n", ended.stdout.decode())


def test_every_interface_is_asked(lab: MakeLab, application: Application, service: StartService) -> None:
    hosts = lab([(1, 2), (1, 3)])
    service("echo", "second", host=hosts.host(3))
    assert application.run(host=hosts.host(1)).stdout == b"second\n"


def test_a_worker_that_hears_an_announcement_by_two_ways_bids_once(
    lab: MakeLab, application: Application, service: StartService
) -> None:
    require_tool("nft")
    hosts = lab([(1, 2), (1, 2)])
    client, worker = hosts.host(1), hosts.host(2)
    client.nft(
        "add table inet count",
        "add chain inet count input { type filter hook input priority 0; }",
        "add counter inet count connections",
        "add rule inet count input tcp flags & (syn | ack) == syn counter name connections",
    )
    service("true", host=worker)
    for number in range(1, 6):
        assert application.run(host=client).returncode == 0
        listed = client.run(["nft", "list", "counters"], capture_output=True, text=True).stdout
        assert f"packets {number} " in listed


# What a person is told


def test_after_three_seconds_a_person_is_told_where_was_asked(lab: MakeLab, application: Application) -> None:
    host, _ = lab(2).hosts
    began = time.monotonic()
    with at_a_terminal(application, host) as terminal:
        terminal.wait_for(b"\n")
        assert time.monotonic() - began >= 3
        assert re.fullmatch(
            rf"cexec: no worker of {application.fingerprint} has answered; sent \d+ announcements to "
            r"10\.77\.0\.255, .*127\.255\.255\.255.*; 5\d s left\r\n",
            terminal.seen.decode(),
        )


def test_who_looks_by_multicast_dns_meanwhile_takes_nobodys_cpu(lab: MakeLab, application: Application) -> None:
    host, _ = lab(2).hosts
    with host.popen(command("cexec", application.public), stdin=subprocess.DEVNULL) as client:
        wait_until(lambda: [helper.nice() for helper in psutil.Process(client.pid).children()] == [19])
        client.terminate()


def test_a_program_that_waits_is_told_nothing_but_the_end(lab: MakeLab, application: Application) -> None:
    host, _ = lab(2).hosts
    ended = application.run(host=host, environment=SOON)
    assert ended.returncode == 111
    assert ended.stderr.count(b"\n") == 1
    assert re.search(rb"answered in 4 s; sent [2-5] announcements to 10\.77\.0\.255, ", ended.stderr), ended.stderr


def test_busy_workers_are_counted(lab: MakeLab, application: Application, service: StartService) -> None:
    one, two, three = lab(3).hosts
    for number, host in enumerate((two, three)):
        service("sh", "-c", "echo begun; cat", options=["-j", str(number + 1)], host=host)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [one.popen(command("cexec", application.public), **pipes) for _ in range(3)]
    for client in running:
        assert client.stdout is not None
        assert client.stdout.readline() == b"begun\n"
    began = time.monotonic()
    with at_a_terminal(application, one, CEXEC_TIMEOUT_ACCEPT="2") as terminal:
        terminal.wait_for(b"\n")
        assert terminal.seen == b"cexec: 2 workers, all 3 slots busy; waiting\r\n"
        assert time.monotonic() - began >= 3
        running[0].communicate()
        assert terminal.wait() == 0  # although nobody was free within the accept timeout
        assert terminal.read_all().endswith(b"begun\r\n")
    for client in running[1:]:
        client.communicate()


@pytest.mark.parametrize(("rule", "reason"), [("drop", "timed out"), ("reject with tcp reset", "connection refused")])
def test_a_firewall_on_the_client_is_told_on_both_sides(
    rule: str, reason: str, lab: MakeLab, application: Application, service: StartService
) -> None:
    require_tool("nft")
    client, worker = lab(2).hosts
    client.nft(
        "add table inet firewall",
        "add chain inet firewall input { type filter hook input priority 0; }",
        f"add rule inet firewall input tcp dport {PORT} {rule}",
    )
    busy = service("cat", options=["--name", "w1"], host=worker)
    settings = {"CEXEC_LISTEN_PORTS": str(PORT), "CEXEC_TIMEOUT_ACCEPT": f"{CONNECT_DEADLINE * 2 + 2}"}
    ended = application.run(host=client, environment=settings)
    assert (ended.returncode, ended.stdout) == (111, b"")
    where = rf"({re.escape(client.address)}|\[fe80::1\]):{PORT}"
    assert re.search(
        rf"; worker w1 heard you, but cannot connect to {where}: {reason}; does a firewall on this machine block it\?$",
        ended.stderr.decode(),
    )
    assert re.search(rf' client={where} reason="?{reason}', busy.wait_for(" unreachable "))


def test_one_way_that_is_blocked_does_not_matter_while_there_is_another(
    lab: MakeLab, application: Application, service: StartService
) -> None:
    require_tool("nft")
    hosts = lab([(1, 2), (1, 2)])
    client, worker = hosts.host(1), hosts.host(2)
    client.nft(
        "add table inet firewall",
        "add chain inet firewall input { type filter hook input priority 0; }",
        "add rule inet firewall input meta l4proto tcp iifname eth0 drop",
    )
    service("echo", "well", host=worker)
    assert application.run(host=client).stdout == b"well\n"
