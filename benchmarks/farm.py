"""Servers on the hosts of a lab, each host with one of its own: workers, and an sshd with or without open connections.

Contract: `Servers.start` returns when each of them has said something; all end with the `ExitStack`.  `start_sshd` and
`open_masters` return the options of ssh that reach them.  `Unfit` says why a server cannot be used.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.common import START_PATIENCE, Unfit, Workplace, needed
from benchmarks.peers import SSHD_SCRIPT, SSHD_SETTINGS, write_ssh_files
from tests.lab import Host

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
