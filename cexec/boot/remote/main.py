"""The agent: carries out one request of `cboot` on a host.

Contract: `run` reads one line of JSON from standard input and writes lines `MARK JSON` to standard output, where MARK
is a word of the request that nothing else prints.  A line has `want` (the wheels are to be sent now), `ready` (the
watchdog watches, heartbeats may come), or, as the last one, `done` with the result or `failed` with a kind and a text.
All requests but `look` may change the host.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from cexec.boot.remote import placed_worker, release, watchdog
from cexec.boot.remote.place import HostPlace, RemoteError, told
from cexec.boot.remote.service import find_manager, lingers

DATA_PATIENCE = 60.0  # seconds (ours) for the next piece of a wheel
PIECE = 1 << 16  # bytes (ours)


class Agent:
    """One request and its answers."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, home: str) -> None:
        self._source = source
        self._sink = sink
        self._place = HostPlace(home)
        self._mark = ""

    def run(self) -> None:
        request = json.loads(self._source.readline())
        self._mark = request["mark"]
        actions: dict[str, Callable[[dict[str, Any]], Any]] = {
            "look": self._look,
            "hold": self._hold,
            "install": self._install,
            "start": self._start,
            "stop": self._stop,
            "remove": self._remove,
        }
        try:
            result = actions[request["do"]](request)
        except RemoteError as error:
            self._say(failed={"kind": error.kind, "text": str(error)})
        except OSError as error:
            failure = told(error)
            self._say(failed={"kind": failure.kind, "text": str(failure)})
        else:
            self._say(done=result)

    def _look(self, request: dict[str, Any]) -> dict[str, Any]:
        """Describes the host; writes nothing."""
        releases = sorted(path.name for path in self._place.releases.glob("[!.]*"))
        workers = {one.name: one.look() for one in placed_worker.all_workers(self._place)}
        return {
            "host": socket.gethostname(),
            "home": str(self._place.home),
            "free": self._place.free(),
            "manager": find_manager(),
            "lingers": lingers(),
            "releases": releases,
            "workers": {name: workers[name] for name in workers if workers[name] and name in request["workers"]},
            "names": list(workers),
            "place": self._place.exists(),
        }

    def _hold(self, request: dict[str, Any]) -> dict[str, Any]:
        name, run = request["worker"], request["run"]
        watchdog.hold(self._place, name, run, self._heartbeat, lambda: self._say(ready=True))
        return {}

    def _install(self, request: dict[str, Any]) -> dict[str, Any]:
        return release.install(self._place, request, self._read, lambda: self._say(want=True))

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        return placed_worker.PlacedWorker(self._place, request["worker"]).start(request)

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ran": placed_worker.PlacedWorker(self._place, request["worker"]).stop(request["grace"])}

    def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        for name in request["workers"]:
            watchdog.end(placed_worker.PlacedWorker(self._place, name))
        return placed_worker.remove(
            self._place, request["workers"], request["grace"], keep_programs=request["keep_programs"]
        )

    def _heartbeat(self) -> bytes:
        with patience(watchdog.SILENCE):
            return self._source.read(1)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            with patience(DATA_PATIENCE):
                piece = self._source.read(min(size - len(data), PIECE))
            if not piece:
                raise RemoteError("connection", "the connection ended in the middle of a wheel")
            data += piece
        return bytes(data)

    def _say(self, **words: Any) -> None:
        self._sink.write(f"\n{self._mark} {json.dumps(words)}\n".encode())
        self._sink.flush()


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raises `RemoteError` if the block takes longer: a network that breaks says nothing, and we may have the lock."""

    def give_up(number: int, frame: object) -> None:
        raise RemoteError("connection", f"nothing has come for {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    Agent(sys.stdin.buffer, sys.stdout.buffer, os.path.expanduser("~")).run()
