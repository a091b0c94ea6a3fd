"""Measures one command on 20 hosts: `cexec --all` beside clush and pdsh over ssh.

    make bench BENCH=benchmarks/bench_everywhere.py

The hosts are network namespaces of this machine on one bridge, each with a worker and an sshd of its own; the command
is `true`, started from one more host.  All of them share this machine's CPUs, as do the twenty servers' handshakes.
clush and pdsh come from Debian's packages clustershell and pdsh; what is missing is reported and left out.  clush runs
as it is, and with a connection to each host that is open already (ControlMaster).
Goal: cexec is at least 5 times as fast as clush.
Environment: BENCH_ROUNDS (5), BENCH_HOSTS (20).
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import (
    START_PATIENCE,
    Case,
    Unfit,
    Workplace,
    goal,
    interleaved,
    needed,
    rounds,
    skipped,
    table,
    timed,
)
from benchmarks.peers import SSHD_SCRIPT, SSHD_SETTINGS, write_ssh_files
from tests.lab import Host, Lab

HOSTS = int(os.environ.get("BENCH_HOSTS", 20))
CEXEC, CLUSH, PDSH = "cexec --all", "clush over ssh", "pdsh over ssh"
OPEN = "clush, connections open"
LEAST = 5.0  # times
GROUP = "10.77.0.255"
PORT = 22
SSH_OPTIONS = ("IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


class Servers:
    """One process on each host, which is ended with the others."""

    def __init__(self, stack: ExitStack, hosts: Sequence[Host], place: Workplace, name: str) -> None:
        self._place = place
        self._hosts = hosts
        self._name = name
        self._processes: list[subprocess.Popen[bytes]] = []
        stack.callback(self._end)

    def start(self, argv: Sequence[str], says: str) -> None:
        """Starts it everywhere, and waits until each of them has said something."""
        logs = [self._place.directory / f"{self._name}-{host.number}" for host in self._hosts]
        for host, log in zip(self._hosts, logs, strict=True):
            with log.open("wb") as file:
                environment = {**self._place.environment, "CEXEC_GROUP": GROUP}
                process = host.popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            self._processes.append(process)
        deadline = time.monotonic() + 3 * START_PATIENCE
        for log in logs:
            while says not in log.read_text(errors="replace"):
                if time.monotonic() > deadline:
                    raise Unfit(f"{self._name} did not start: {log.read_text(errors='replace')[-300:]}")
                time.sleep(0.05)

    def _end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()


def start_sshd(servers: Servers, place: Workplace) -> list[str]:
    """Starts sshd on all hosts; returns the options of ssh, without names of hosts."""
    sshd = needed("sshd")
    write_ssh_files(place.directory)
    settings = SSHD_SETTINGS.replace("ListenAddress 127.0.0.1\n", "").format(port=PORT, directory=place.directory)
    (place.directory / "sshd_config").write_text(f"{settings}MaxStartups 100\n")
    script = SSHD_SCRIPT.format(directory=shlex.quote(str(place.directory)), sshd=sshd)
    servers.start([needed("unshare"), "-m", "sh", "-c", script], "Server listening")
    options = [word for option in SSH_OPTIONS for word in ("-o", option)]
    return ["-F", "none", "-i", str(place.directory / "user_key"), *options]


def open_masters(stack: ExitStack, client: Host, hosts: Sequence[Host], place: Workplace, ssh: list[str]) -> list[str]:
    """Opens a connection to each host; returns the options of ssh that use it."""
    path = place.directory / "master-%h"
    user = pwd.getpwuid(os.getuid()).pw_name
    for host in hosts:
        argv = [needed("ssh"), *ssh, "-o", f"ControlPath={path}", "-M", "-N", f"{user}@{host.address}"]
        master = client.popen(argv, env=place.environment, stdin=subprocess.DEVNULL)
        stack.callback(master.wait)
        stack.callback(master.terminate)
    deadline = time.monotonic() + 3 * START_PATIENCE
    while any(not (place.directory / f"master-{host.address}").exists() for host in hosts):
        if time.monotonic() > deadline:
            raise Unfit("the connections of ssh were not opened")
        time.sleep(0.05)
    return [*ssh, "-o", f"ControlPath={path}"]


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: make bench")
    with Workplace() as place, Lab(HOSTS + 1) as lab, ExitStack() as stack:
        client, *hosts = lab.hosts
        environment = {**place.environment, "CEXEC_GROUP": GROUP}
        options = ["-j", "64", "--speed", "1"]
        services = Servers(stack, hosts, place, "cservice")
        services.start(place.command("cservice", *options, place.secret, "true"), "cservice: serving")
        everybody = f"10.77.0.[{hosts[0].number}-{hosts[-1].number}]"
        user = pwd.getpwuid(os.getuid()).pw_name

        def case(argv: Sequence[str], **changes: str) -> Case:
            return lambda: timed(client.inside(argv), {**environment, **changes}).seconds

        cases = {CEXEC: case(place.command("cexec", "--all", place.public))}
        try:
            ssh = start_sshd(Servers(stack, hosts, place, "sshd"), place)
            for name, program in ((CLUSH, "clush"), (PDSH, "pdsh"), (OPEN, "clush")):
                try:
                    path = needed(program)
                    if name == PDSH:
                        argv = [path, "-R", "ssh", "-S", "-f", str(HOSTS), "-l", user, "-w", everybody, "true"]
                        cases[name] = case(argv, PDSH_SSH_ARGS_APPEND=shlex.join(ssh))
                        continue
                    words = open_masters(stack, client, hosts, place, ssh) if name == OPEN else ssh
                    argv = [
                        path,
                        "-S",
                        "-q",
                        "-l",
                        user,
                        "-o",
                        shlex.join(words).replace("%", "%%"),
                        "-w",
                        everybody,
                        "true",
                    ]
                    cases[name] = case(argv)
                except Unfit as reason:
                    skipped(name, str(reason))
        except Unfit as reason:
            skipped("ssh", str(reason))
        found = interleaved(cases, rounds(5))
    rows = {name: f"{value * 1000:6.0f} ms" for name, value in found.items()}
    table(f"true on {HOSTS} hosts, start to exit, medians", rows)
    if {CEXEC, CLUSH} <= found.keys():
        goal("issue 14", "cexec --all, times clush", found[CLUSH] / found[CEXEC], LEAST, at_least=True)


if __name__ == "__main__":
    main()
