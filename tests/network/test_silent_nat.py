"""Jobs that say nothing for longer than the NAT between worker and client remembers a connection.

The worker is inside, the client outside.  The NAT takes up no connection in its middle, so a connection that it has
forgotten is lost.  The kernel's keep-alive must therefore come through, also while a window is closed: then the side
that has something to send probes ever more seldom, but the other side has nothing outstanding, so its keep-alive goes
on (docs/protocol.md section 4.4).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cexec.net.sockets import KEEP_IDLE
from cexec.protocol.base.limits import INITIAL_WINDOW
from tests.conftest import MakeLab, StartService
from tests.environment import ROOT, clean_environment, command
from tests.lab import Host, Lab
from tests.needs import require_tool, skip_for_want_of
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

MUCH = 8_000_000  # bytes, more than the window and all buffers between
# What Python imports first: with shorter intervals, and as on a kernel that cannot bound the pauses between its probes.
SITE = """
import cexec.net.sockets
cexec.net.sockets.KEEP_IDLE = {idle}
cexec.net.sockets.hurry = lambda connection: None
"""


@dataclass(frozen=True)
class Times:
    """Seconds: how long the NAT remembers a connection, how long a job is silent, the interval of the keep-alive."""

    remembers: int
    silent: int
    idle: int


TIMES = [
    pytest.param(Times(6, 13, 1), id="a sixth of the times"),
    pytest.param(
        Times(30, 300, KEEP_IDLE), id="the real times", marks=[pytest.mark.campaign, pytest.mark.timeout(600)]
    ),
]
each_time = pytest.mark.parametrize("times", TIMES)


def make_nat(lab: MakeLab, remembers: int) -> Lab:
    """Host 1 is inside, host 2 is its NAT, host 3 is outside; the NAT passes on what comes for the UDP port."""
    require_tool("nft")
    made = lab([(1, 2), (2, 3)])
    made.host(1).ip("route add default via 10.77.0.2")
    made.host(2).nft(
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100; }",
        "add rule ip nat out oifname eth1 masquerade",
        "add chain ip nat in { type nat hook prerouting priority -100; }",
        "add rule ip nat in iifname eth1 udp dport 3010 dnat to 10.77.0.1",
    )
    names = ("established", "unacknowledged", "max_retrans")
    settings = [("ipv4/ip_forward", 1), ("netfilter/nf_conntrack_tcp_loose", 0)]
    settings += [(f"netfilter/nf_conntrack_tcp_timeout_{name}", remembers) for name in names]
    script = " && ".join(f"echo {value} > /proc/sys/net/{name}" for name, value in settings)
    if made.host(2).run(["sh", "-c", script], capture_output=True).returncode != 0:
        skip_for_want_of("a NAT (connection tracking in a network namespace)")
    return made


def holds_back(host: Host) -> bool:
    """Returns True if the kernel of this host has bytes that a connection does not take: the window is closed."""
    table = host.run(["cat", "/proc/net/tcp"], capture_output=True, text=True).stdout
    return any(int(line.split()[4].split(":")[0], 16) for line in table.splitlines()[1:] if line.split()[3] == "01")


class Pair:
    """A worker inside and a client outside, both with this keep-alive."""

    def __init__(
        self, application: Application, service: StartService, lab: Lab, directory: Path, times: Times, program: str
    ) -> None:
        (directory / "site").mkdir()
        (directory / "site" / "sitecustomize.py").write_text(SITE.format(idle=times.idle))
        self._environment = {"PYTHONPATH": f"{directory / 'site'}:{ROOT}"}
        self._application = application
        self._client = lab.host(3)
        self.worker: Service = service("sh", "-c", program, host=lab.host(1), environment=self._environment)

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        """`cexec --retries 0 APP.pub`, once the program has started."""
        environment = clean_environment({**self._environment, "CEXEC_GROUP": "10.77.1.2"})
        argv = command("cexec", "--retries", "0", self._application.public)
        process = self._client.popen(argv, env=environment, stderr=subprocess.PIPE, **options)
        self.worker.wait_for(" started ")
        return process

    def job_process(self) -> psutil.Process:
        """The parent of the program."""
        parents: list[psutil.Process] = []

        def known() -> bool:
            """A process that the program has just started has its name for a moment."""
            programs = [one for one in self.worker.started() if one.is_running() and "sh" in one.name()]
            parents[:] = [parent for one in programs if (parent := one.parent()) is not None]
            return len(programs) == len(parents) == 1

        wait_until(known)
        return parents[0]


CONTROL = """
import socket, sys, time
silent, side, address = float(sys.argv[1]), sys.argv[2], ("10.77.1.3", 4000)
if side == "outside":
    listener = socket.create_server(address)
    print(flush=True)
    connection, _ = listener.accept()
    connection.settimeout(silent + 30)
    print(connection.recv(1).decode(), flush=True)
    print(connection.recv(1).decode(), flush=True)
else:
    connection = socket.create_connection(address)
    connection.send(b"1")
    time.sleep(silent)  # the time that the NAT is given
    connection.send(b"2")
    time.sleep(3)  # the kernel sends it again meanwhile
"""


def test_the_nat_of_these_tests_forgets_a_connection_without_keep_alive(lab: MakeLab) -> None:
    nat = make_nat(lab, 2)
    argv = [sys.executable, "-S", "-c", CONTROL, "4"]
    with nat.host(3).popen([*argv, "outside"], stdout=subprocess.PIPE, text=True) as outside:
        assert outside.stdout is not None and outside.stdout.readline() == "\n"
        nat.host(1).run([*argv, "inside"])
        outside.kill()
        assert outside.stdout.read() == "1\n"


@each_time
def test_a_job_that_says_nothing_survives(
    application: Application, service: StartService, lab: MakeLab, tmp_path: Path, times: Times
) -> None:
    program = f"read line; sleep {times.silent}; echo $line"
    pair = Pair(application, service, make_nat(lab, times.remembers), tmp_path, times, program)
    process = pair.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, errors = process.communicate(b"a line\n", timeout=times.silent + PATIENCE)
    assert (process.returncode, output) == (0, b"a line\n"), errors


@each_time
def test_a_client_that_is_stopped_with_its_window_closed_survives(
    application: Application, service: StartService, lab: MakeLab, tmp_path: Path, times: Times
) -> None:
    nat = make_nat(lab, times.remembers)
    stopped = tmp_path / "stopped"
    program = f"read line; echo $line; until test -e {stopped}; do sleep 0.05; done; head -c {MUCH} /dev/zero"
    pair = Pair(application, service, nat, tmp_path, times, program)
    with (tmp_path / "output").open("wb") as output:
        process = pair.start(stdin=subprocess.PIPE, stdout=output)
        assert process.stdin is not None
        process.stdin.write(b"begin\n")
        process.stdin.flush()
        while not (tmp_path / "output").stat().st_size:
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        stopped.touch()
        time.sleep(times.silent)
        assert holds_back(nat.host(1))
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, (tmp_path / "output").stat().st_size) == (0, len(b"begin\n") + MUCH), errors


@each_time
def test_a_worker_that_is_stopped_with_its_window_closed_survives(
    application: Application, service: StartService, lab: MakeLab, tmp_path: Path, times: Times
) -> None:
    nat = make_nat(lab, times.remembers)
    pair = Pair(application, service, nat, tmp_path, times, "wc -c")
    process = pair.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    # The supervisor as well: it ends a job process that somebody has stopped.
    stopped = [pair.worker.supervisor, pair.job_process()]
    for one in stopped:
        one.suspend()
    assert process.stdin is not None
    try:
        process.stdin.write(bytes(INITIAL_WINDOW // 2))  # closes the window of the connection, not that of the stream
        time.sleep(times.silent)
        assert holds_back(nat.host(3))
    finally:
        for one in reversed(stopped):
            one.resume()
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output.strip()) == (0, b"%d" % (INITIAL_WINDOW // 2)), errors
