"""WatchWorkers: who comes, who goes, and whose figures change.

Contract: `watch_workers` writes a message for each worker that is there, READY, and then one for each change, for as
long as the caller listens.  A caller that is slow is told the figures as they are when it listens again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cexec.gate.jobs.application import LINGER
from cexec.gate.rpc.job_messages import worker_message
from cexec.gate.rpc.wire import cexec_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cexec.gate.jobs.application import GateApplication
    from cexec.python.membership import ClusterWorker

    Tell = Callable[[wire.WorkerChange], Awaitable[None]]

GATHERED = 0.1  # seconds (ours) in which changes come together: a census changes all workers


async def watch_workers(applications: list[GateApplication], tell: Tell) -> None:
    """Watches the workers of some applications until it is cancelled."""
    seen: dict[str, dict[bytes, ClusterWorker]] = {}
    for one in applications:
        seen[one.name] = dict(await one.workers())
        for instance, worker in seen[one.name].items():
            await tell(_change(wire.WorkerChange.KIND_PRESENT, one, instance, worker))
    await tell(wire.WorkerChange(kind=wire.WorkerChange.KIND_READY))
    bells = [one.changed for one in applications]
    while True:
        for one in applications:
            there = dict(await one.workers())  # this also says that somebody still wants to know
            for change in _changes(one, seen[one.name], there):
                await tell(change)
            seen[one.name] = there
        waiting = [asyncio.ensure_future(bell.wait(LINGER / 2)) for bell in bells]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        await asyncio.sleep(GATHERED)


def _changes(
    application: GateApplication, before: dict[bytes, ClusterWorker], now: dict[bytes, ClusterWorker]
) -> Iterator[wire.WorkerChange]:
    for instance, worker in before.items():
        if instance not in now:
            yield _change(wire.WorkerChange.KIND_LEFT, application, instance, worker)
    for instance, worker in now.items():
        if instance not in before:
            yield _change(wire.WorkerChange.KIND_JOINED, application, instance, worker)
        elif _figures(worker) != _figures(before[instance]):
            yield _change(wire.WorkerChange.KIND_STATE, application, instance, worker)


def _figures(worker: ClusterWorker) -> ClusterWorker:
    """Returns what counts as a change: time goes on at every worker."""
    return replace(worker, uptime=0, skew=0.0, load=round(worker.load, 2))


def _change(
    kind: wire.WorkerChange.Kind, application: GateApplication, instance: bytes, worker: ClusterWorker
) -> wire.WorkerChange:
    name = application.names().get(instance, worker.name)
    return wire.WorkerChange(kind=kind, worker=worker_message(application.name, name, worker, time.time()))
