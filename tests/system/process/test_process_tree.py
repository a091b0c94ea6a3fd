"""The end of a process tree in steps: TERM, the grace time, the control groups, and then each process that is found.

The way through all of it, with trees of every kind, is in test_process.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cexec.system.process import job_group, process, process_tree
from cexec.system.process.job_group import JobGroup
from cexec.system.process.process_tree import TreeEnd
from tests.cgroups import real_job_group
from tests.waiting import PATIENCE, comes_true

GRACE = 100.0  # seconds of a clock that the test sets
# It cannot be found, so only its group can end it: it has a session of its own, and there is no /proc.
HIDDEN = """
import os, sys
from cexec.system.process import process, process_tree
from cexec.system.process.job_group import JobGroup
process_tree.PROC = "/nowhere"
process.adopt_orphans()
group = JobGroup(sys.argv[1])
assert group.join() and not process_tree.trees_are_seen()
reading, writing = os.pipe()
script = "setsid sh -c 'echo; exec sleep 600' & sleep 600"
leader = process.spawn("/bin/sh", ["sh", "-c", script], dict(os.environb), {1: writing})
os.read(reading, 1)
process_tree.end_tree(leader, 0.1, groups=[group])
print(process_tree.reap())
"""


class ObservedGroup:
    """A control group that kills nothing, and notes in `steps` that it was asked to."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self._name = name
        self._steps = steps

    def kill_others(self) -> None:
        self._steps.append(self._name)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in this order: "list" for the processes that are found; groups add their names."""
    made: list[str] = []

    def kill_tree(leader: int) -> None:
        made.append("list")
        original(leader)

    original = process_tree.kill_tree
    monkeypatch.setattr(process_tree, "kill_tree", kill_tree)
    return made


@pytest.fixture
def stubborn() -> Iterator[int]:
    """A process below this one that does not take the TERM."""
    process.adopt_orphans()
    reading, writing = os.pipe()
    script = "trap '' TERM; echo; while :; do sleep 600; done"
    pid = process.spawn("/bin/sh", ["sh", "-c", script], dict(os.environb), {1: writing})
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.readline() == b"\n"  # it ignores the signal by now
    yield pid
    process_tree.end_tree(pid, 0.0)


@pytest.fixture
def real_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobGroup]:
    monkeypatch.setattr(job_group, "place", None)
    with real_job_group() as made:
        yield made


def test_groups_are_killed_after_the_grace_time_and_before_the_processes_that_are_found(
    stubborn: int, steps: list[str]
) -> None:
    """All groups of the job, and again at each look: what is in no group may have put a process into one meanwhile."""
    ending = TreeEnd(stubborn, GRACE, 0.0, groups=[ObservedGroup("job", steps), ObservedGroup("memory", steps)])
    ending.handle_timeout(GRACE - 1)
    assert steps == []  # it has its time to take the TERM
    ending.handle_timeout(GRACE)
    assert steps == ["job", "memory", "list"]
    ending.handle_timeout(ending.next_timeout())
    assert steps == ["job", "memory", "list"] * 2
    assert comes_true(lambda: process_tree.start_time(stubborn) == 0)


def test_who_waits_for_the_end_of_a_tree_has_its_groups_killed(stubborn: int, steps: list[str]) -> None:
    process_tree.end_tree(stubborn, 0.0, groups=[ObservedGroup("job", steps)])
    assert steps[:2] == ["job", "list"]


def test_a_tree_that_has_taken_the_term_needs_no_group(steps: list[str]) -> None:
    process.adopt_orphans()
    pid = process.spawn("/bin/sleep", ["sleep", "600"], dict(os.environb), {})
    process_tree.end_tree(pid, GRACE, groups=[ObservedGroup("job", steps)])
    assert steps == []


def test_what_no_list_shows_is_killed_with_its_group(real_group: JobGroup) -> None:
    """Without the group it would run on, and the job's process would give up after half a minute."""
    argv = [sys.executable, "-c", HIDDEN, real_group.path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        try:
            said, complaint = job.communicate(timeout=PATIENCE)
        finally:
            job.send_signal(signal.SIGKILL)
            real_group.kill()
    assert (said, complaint) == ("False\n", "")
