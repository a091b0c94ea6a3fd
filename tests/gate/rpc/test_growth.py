"""Thousands of calls leave nothing behind in the server."""

from __future__ import annotations

import gc
import sys
from typing import Any

import grpc
import psutil
import pytest

from cexec.gate.rpc.wire import cexec_pb2 as wire
from tests.gate.rpc.servers import RpcServer
from tests.waiting import wait_until

CALLS = [pytest.param(100, id="100"), pytest.param(10_000, id="10000", marks=pytest.mark.campaign)]
ROOM = 12_000_000  # bytes of memory: what the first calls of a process take, such as threads and caches


def calls(cluster: Any, count: int) -> None:
    for number in range(count):
        if number % 10 == 0:
            job = cluster.StartJob(wire.StartJobRequest(command="true")).job
            cluster.GetJob(wire.GetJobRequest(id=job.id, wait={"seconds": 60}))
        elif number % 10 == 1:
            list(cluster.Exec(iter([wire.ExecRequest(start=wire.StartJobRequest(command="echo x"))])))
        elif number % 10 == 2:
            with pytest.raises(grpc.RpcError):
                cluster.GetJob(wire.GetJobRequest(id="absent"))
        elif number % 10 == 3:
            call = cluster.WatchWorkers(wire.WatchWorkersRequest())
            next(call)
            call.cancel()
        else:
            cluster.ListJobs(wire.ListJobsRequest(page_size=1))


@pytest.mark.parametrize("count", CALLS)
@pytest.mark.timeout(600)
def test_calls_leave_nothing(cluster: Any, server: RpcServer, count: int) -> None:
    process = psutil.Process()
    calls(cluster, min(count, 200))
    gc.collect()
    memory, descriptors, objects = process.memory_info().rss, process.num_fds(), sys.getallocatedblocks()
    calls(cluster, count)
    wait_until(lambda: not server.engine.live)
    gc.collect()
    assert process.num_fds() <= descriptors + 5
    assert process.memory_info().rss - memory < ROOM
    assert sys.getallocatedblocks() - objects < 20_000 + 2 * count  # the events that the feed keeps, and no more
