"""Relays for tests: a running `cproxy` whose lines can be waited for, and what goes over a host's interfaces.

Contract: `Proxy` is ended by `close()`, which raises AssertionError when it has left descriptors open or has written a
traceback.  `traffic(host)` is what a host has sent; `Capture` keeps every packet of a host, in both directions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests import forked
from tests.environment import clean_environment, command
from tests.lab import Host
from tests.waiting import PATIENCE, wait_until

STOP_DEADLINE = 30.0  # seconds from SIGTERM to the end

# Writes the length and the bytes of every packet, in both directions, until its standard input ends; then how many the
# kernel has dropped.
SNIFF = """
import select, socket, sys
ETH_P_ALL, SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 3, 33, 263, 6
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 28)
with open(sys.argv[1], "wb") as output:
    print("ready", flush=True)
    over = False
    while True:
        ready, _, _ = select.select([sniffer] if over else [sniffer, sys.stdin], [], [], 0.3 if over else None)
        if sniffer in ready:
            data = sniffer.recv(1 << 18)
            output.write(len(data).to_bytes(4, "big") + data)
        elif over:
            break
        over = over or sys.stdin in ready
print(int.from_bytes(sniffer.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)[4:], sys.byteorder))
"""


class Proxy:
    """`cproxy ARGUMENTS...` on `host`, that has said its first line."""

    def __init__(self, host: Host, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        argv, env = command("cproxy", *arguments), clean_environment(environment)
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        self.process: subprocess.Popen[str] | forked.Child
        self.process = forked.start(argv, env=env, network=host.path) or host.popen(argv, env=env, **pipes)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for(lambda line: True)
        self._descriptors = self.descriptors()

    @property
    def lines(self) -> list[str]:
        """What it has written to stderr so far."""
        with self._changed:
            return list(self._lines)

    def events(self, what: str) -> list[dict[str, str]]:
        """The fields of the log lines of one kind."""
        words = [line.split() for line in self.lines]
        return [dict(word.partition("=")[::2] for word in line[2:]) for line in words if line[1:2] == [what]]

    def wait_for(self, wanted: str | Callable[[str], bool], timeout: float = PATIENCE) -> str:
        """The first line, written already or yet to come, that contains the text or that the function is true for."""
        fits = (lambda line: wanted in line) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._lines:
                    if fits(line):
                        return line
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"cproxy has not said {wanted!r}:\n" + "\n".join(self._lines))

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return psutil.Process(self.process.pid).num_fds()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Ends it as a user would and checks that it was well."""
        try:
            if self.process.poll() is None:
                # an announcement's listener may wait 25 seconds for the last worker
                wait_until(
                    lambda: self.descriptors() <= self._descriptors + SPARE,
                    explain=lambda: f"{self.descriptors()} descriptors, {self._descriptors} at the start",
                )
                self.process.terminate()
                assert self.process.wait(STOP_DEADLINE) == 0
                self._reader.join(STOP_DEADLINE)
            assert not [line for line in self.lines if line.startswith("Traceback")], "\n".join(self.lines)
        finally:
            self.kill()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()


SPARE = 8  # descriptors: listeners of announcements whose claim was lost, which time out some time later


def traffic(host: Host) -> int:
    """Bytes that the host has sent on its networks."""
    lines = host.run(["cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout.splitlines()
    fields = {name.strip(): rest.split() for name, _, rest in (line.partition(":") for line in lines[2:])}
    return sum(int(numbers[8]) for name, numbers in fields.items() if name != "lo")


class Capture:
    """Every packet that one host sends and gets, while it is open: `packets`, once it is closed."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._file = directory / f"capture-{host.number}"
        argv = [sys.executable, "-c", SNIFF, os.fspath(self._file)]
        self._process = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.packets: list[bytes] = []

    def close(self) -> None:
        """Raises AssertionError when the kernel had to drop packets."""
        output, _ = self._process.communicate(timeout=30)
        assert int(output) == 0, f"{output} packets were not captured"
        data, start = self._file.read_bytes(), 0
        while start < len(data):
            end = start + 4 + int.from_bytes(data[start : start + 4], "big")
            self.packets.append(data[start + 4 : end])
            start = end
