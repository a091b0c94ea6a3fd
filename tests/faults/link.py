"""Cables and relays of bad quality.

Contract: `with BadCable(lab, host) as cable:` puts frame_damage.py between the host and its first network, where it
passes everything on until `set(...)` says otherwise.  `BadRelay(host)` is tamper.py on a host with two networks; it
damages nothing until `damage(...)` is called.  `Script` is any such helper.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.environment import clean_environment
from tests.lab import Host, Lab

HERE = Path(__file__).parent
SWEEP_TRIES = 3
LONGEST_SILENCE = 180.0  # seconds


class BadCable:
    """A context manager."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self._switch = lab.switch
        network = host.networks[0]
        self._port, self._bridge = f"v{network}x{host.number}", f"bridge{network}"
        self._own = f"cable{host.number}"  # a bridge that joins the host's port and one end

    def __enter__(self) -> Self:
        ends = [f"{self._own}a", f"{self._own}b"]
        argv = [sys.executable, str(HERE / "frame_damage.py"), *ends]
        self._process = self._switch.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"
        self._switch.ip(
            f"link add {self._own} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {self._own} up",
            f"link set {ends[0]} master {self._own} up",
            f"link set {ends[1]} master {self._bridge} up",
            f"link set {self._port} master {self._own}",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._switch.ip(f"link set {self._port} master {self._bridge}", f"link del {self._own}")
        self._process.communicate(timeout=20)

    def set(self, **settings: float) -> None:
        """Those of frame_damage.py; without any the cable is a good one."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(settings) + "\n")
        self._process.stdin.flush()


class Script:
    """A script of this directory on a host, which obeys orders: lines of JSON, each answered by a line."""

    def __init__(self, host: Host, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        argv = [sys.executable, str(HERE / name), *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = host.popen(argv, env=clean_environment(environment), **pipes)
        self.expect("ready")

    def order(self, **words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """The next line; a script that says nothing for too long is killed, so that no row lasts for ever."""
        assert self._process.stdout is not None
        timer = threading.Timer(LONGEST_SILENCE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert line, "the script has ended, or had nothing to say for too long"
        return str(line.rstrip("\n"))

    def expect(self, line: str) -> None:
        answer = self.answer()
        assert answer == line, answer

    def count(self, **words: object) -> int:
        """Gives the order; the number of things that were done, when they are."""
        self.order(**words)
        return int(self.answer())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class BadRelay(Script):
    """It is ended by `kill`, as a `Proxy` is."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, "tamper.py", *(f"10.77.{network}.255" for network in host.networks))

    def damage(self, what: str, direction: str, at: int) -> None:
        """Returns when it has happened."""
        self.order(what=what, direction=direction, at=at)
        self.expect("damaged")

    def sweep(self, what: str, direction: str, places: Iterable[int]) -> int:
        """Damages one connection at each place, several at the same time; how many had so many bytes."""
        ordered = list(places)
        for place in ordered:
            self.order(what=what, direction=direction, at=place, tries=SWEEP_TRIES)
        return [self.answer() for _ in ordered].count("damaged")
