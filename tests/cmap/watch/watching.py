"""Events as a coordinator tells them, for tests of those who watch."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from cexec.client.aio.known_workers import KnownWorker
from cexec.cmap.inputs.tasks import NOTHING, Task, TaskInput
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.observer import Counts, Observer, Running

BEGIN = 1000.0  # what a monotonic clock says when a run is opened


def attempt(task: int, *, worker: str = "w@10.0.0.1", slots: int = 2, label: str = "") -> Running:
    label = label or f"input {task}"
    name, _, address = worker.partition("@")
    hello: Any = SimpleNamespace(instance=worker.encode(), name=name, slots=slots, once=False)
    return Running(task, 1, label, KnownWorker(hello, address))


def counts(**values: object) -> Counts:
    fields: dict[str, object] = {
        "total": 10, "waiting": 0, "running": 0, "succeeded": 0, "failed": 0, "done": 0, "succeeded_before": 0,
        "failed_before": 0, "leases": {}, "median": None, "paused": False,
    }  # fmt: skip
    return Counts(**{**fields, **values})  # type: ignore[arg-type]


def settle(observer: Observer, running: Running, end: float, reason: str = "") -> None:
    """The task of an attempt is over, with what it says."""
    task = Task(running.task, stdin=TaskInput(NOTHING), label=running.label)
    outcome = TaskOutcome(
        running.task, succeeded=not reason, command=str, worker=running.worker.name, runtime=1.0, exitval=bool(reason),
        reason=reason,
    )  # fmt: skip
    observer.settled(task, outcome, BEGIN + end)


def play(observer: Observer, tasks: Mapping[int, tuple[str, float, float, str]], total: int | None = 10) -> None:
    """Tasks by number: worker, when it began and ended, why it failed."""
    observer.opened(total, BEGIN)
    running = {number: attempt(number, worker=worker) for number, (worker, *_) in tasks.items()}
    times = [(begin, True, n) for n, (_, begin, _, _) in tasks.items()]
    times += [(end, False, n) for n, (_, _, end, _) in tasks.items()]
    for now, begins, number in sorted(times):
        if begins:
            observer.began(running[number], BEGIN + now)
        else:
            reason = tasks[number][3]
            ending = AttemptEnding(How.FAILED if reason else How.SUCCEEDED, reason, status=bool(reason))
            observer.ended(running[number], ending, 500, BEGIN + now)
            settle(observer, running[number], now, reason)
