"""WatchWorkers: who is there, who joins, who leaves, and whose figures change."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from cexec.gate.rpc.wire import cexec_pb2 as wire
from tests.gate.rpc.servers import RpcServer
from tests.service import Application, Service
from tests.waiting import wait_until

Kind = wire.WorkerChange
GOODBYE = 4.5  # seconds within which a worker that says goodbye is told: less than censuses take to miss one
LOSS = 30.0  # seconds within which a killed one is


class Watched:
    """The changes that a caller has been told, with their times."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.changes: list[tuple[float, wire.WorkerChange]] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for change in self.call:
                self.changes.append((time.monotonic(), change))
        except grpc.RpcError:
            pass

    def all(self, kind: int, name: str = "") -> list[tuple[float, wire.WorkerChange]]:
        return [one for one in list(self.changes) if one[1].kind == kind and name in ("", one[1].worker.name)]


@contextmanager
def watch(cluster: Any) -> Iterator[Watched]:
    call = cluster.WatchWorkers(wire.WatchWorkersRequest(), timeout=120)
    watched = Watched(call)
    try:
        wait_until(lambda: bool(watched.all(Kind.KIND_READY)))
        yield watched
    finally:
        call.cancel()
        watched.thread.join(10)


def test_workers_come_and_go(cluster: Any, application: Application, worker: Service) -> None:
    with watch(cluster) as seen:
        assert [change.worker.name for _, change in seen.all(Kind.KIND_PRESENT)] == ["one"]
        other = Service(application, ["cat"], ["--name", "two"])
        try:
            wait_until(lambda: bool(seen.all(Kind.KIND_JOINED, "two")))
            began = time.monotonic()
            other.process.terminate()
            wait_until(lambda: bool(seen.all(Kind.KIND_LEFT, "two")))
            assert seen.all(Kind.KIND_LEFT, "two")[0][0] - began < GOODBYE
        finally:
            other.close()
        killed = Service(application, ["cat"], ["--name", "three"])
        wait_until(lambda: bool(seen.all(Kind.KIND_JOINED, "three")))
        began = time.monotonic()
        killed.kill()
        wait_until(lambda: bool(seen.all(Kind.KIND_LEFT, "three")), LOSS)
        assert not seen.all(Kind.KIND_LEFT, "one") and not seen.all(Kind.KIND_JOINED, "one")


def test_a_busy_worker_is_a_change(cluster: Any, worker: Service) -> None:
    with watch(cluster) as seen:
        job = cluster.StartJob(wire.StartJobRequest(command="sleep 1000"), timeout=30).job
        wait_until(lambda: any(change.worker.running == 1 for _, change in seen.all(Kind.KIND_STATE, "one")))
        cluster.StopJob(wire.StopJobRequest(id=job.id), timeout=30)
        wait_until(lambda: seen.all(Kind.KIND_STATE, "one")[-1][1].worker.running == 0)


def test_a_caller_that_goes_is_forgotten(cluster: Any, server: RpcServer) -> None:
    bell = server.engine.applications["app"].changed
    with watch(cluster):
        pass
    wait_until(lambda: not bell.waiting)
