"""The end of one job's processes: its control groups are ended with it, the job process's and that of its memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from cexec.system.process import process
from cexec.worker.jobs import job_tree
from cexec.worker.jobs.job_tree import JobTree
from tests.waiting import comes_true

STUBBORN = "trap '' TERM; echo; while :; do sleep 600; done"


class ObservedGroup:
    """A control group that kills nothing, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.asked = 0

    def kill_others(self) -> None:
        self.asked += 1


def by_timeouts(tree: JobTree) -> None:
    """As a job ends: its loop goes on meanwhile."""
    tree.end(0.0)
    tree.handle_timeout(0.0)

    def looked() -> bool:
        tree.reap()
        return tree.alone

    assert comes_true(looked)


def at_once(tree: JobTree) -> None:
    """As a job process ends."""
    tree.finish()


@pytest.mark.parametrize("end", [by_timeouts, at_once])
def test_a_job_is_ended_by_the_group_of_its_process_and_by_that_of_its_memory(
    end: Callable[[JobTree], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_tree, "GRACE", 0.0)
    process.adopt_orphans()
    own, memory = ObservedGroup(), ObservedGroup()
    tree = JobTree(own)  # type: ignore[arg-type]
    tree.groups.append(memory)
    reading, writing = os.pipe()
    pid = process.spawn("/bin/sh", ["sh", "-c", STUBBORN], dict(os.environb), {1: writing})
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.readline() == b"\n"  # it ignores the signal by now
    tree.started(pid)
    end(tree)
    assert own.asked and memory.asked
