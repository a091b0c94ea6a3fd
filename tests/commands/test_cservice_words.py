"""The words of cservice's first line for what ends the processes of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from cexec.commands.cservice_words import containment
from cexec.system.process import job_group, process_tree
from cexec.worker.jobs.program import Program
from tests.cgroups import real_job_group
from tests.conftest import StartService

if TYPE_CHECKING:
    from cexec.system.process.sandbox import Sandbox

MARK = "; jobs are held by "


class Box:
    """What is asked of a sandbox."""

    def __init__(self, network: bool) -> None:
        self.network = network


def held_by(box: Box | None = None) -> list[str]:
    return containment(Program("/bin/true", [], {}, False, sandbox=cast("Sandbox | None", box)))


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("place", ["/a/place", None])
def test_what_holds_jobs_is_said_as_it_was_found(
    place: str | None, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_group, "place", place)
    monkeypatch.setattr(process_tree, "trees_are_seen", lambda: seen)
    first = "process tree" if seen else "process group"
    groups = [] if place is None else ["control group"]
    assert held_by() == [first, *groups]
    assert held_by(Box(network=False)) == [first, *groups, "isolation"]
    assert held_by(Box(network=True)) == [first, *groups, "isolation with the network"]


def test_the_first_line_says_that_a_control_group_holds_jobs(
    service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said where one can be made, which this process may do if the worker may."""
    monkeypatch.setattr(job_group, "place", None)
    with real_job_group():
        held = service("true").lines[0].partition(MARK)[2].partition("; ")[0]
    assert held == "process tree, control group"
