"""What people and programs see of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cexec.boot import states
from cexec.boot.boot_settings import Action
from cexec.boot.failures import HostFailure
from cexec.boot.host_table import BootProgress, describe, facts, failed, summary, table
from cexec.boot.hosts import Host
from cexec.boot.states import HostState, Journey
from cexec.system.terminal import Terminal
from tests.boot.test_target import facts as host_facts
from tests.screen import Screen

RECORD = {"how": "detached", "version": "0.1.0", "release": "0.1.0-abc", "serial": 7}


def serving(name: str, *, changed: bool = True) -> Journey:
    return Journey(
        Host(name, name=name), HostState.SERVING, host_facts(), record=RECORD, address="10.0.0.1", changed=changed
    )


def broken(name: str, *, temporary: bool = False) -> Journey:
    failure = HostFailure("refused", "nobody listens there: \x1b[2J", temporary)
    return Journey(Host(name, name=name), HostState.FAILED, failure=failure)


@pytest.fixture
def nowhere(tmp_path: Path) -> Terminal:
    return Terminal(-1, {})


def test_a_table_has_the_failed_hosts_last_and_no_empty_column(nowhere: Terminal) -> None:
    assert table([broken("b"), serving("a")], nowhere) == [
        "HOST  STATE    PYTHON  VERSION  RUNS      ADDRESS   NOTE",
        "a     serving  3.11.2  0.1.0    detached  10.0.0.1",
        "b     failed                                        refused: nobody listens there: \\x1b[2J",
    ]
    assert table([serving("a")], nowhere)[0].split()[-1] == "ADDRESS"


def test_a_host_is_one_object_of_json() -> None:
    found = json.loads(json.dumps(facts(broken("b", temporary=True))))
    assert found["host"] == "b" and found["failure"] == "refused" and found["temporary"] and found["state"] == "failed"
    assert facts(serving("a")) | {"words": ""} == {
        "host": "a", "name": "a", "state": "serving", "changed": True, "failure": None, "temporary": False, "words": "",
        "python": "3.11.2", "version": "0.1.0", "release": "0.1.0-abc", "runs": "detached", "serial": 7,
        "address": "10.0.0.1", "tries": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("journeys", "action", "words"),
    [
        ([serving("a"), serving("b")], Action.SERVE, "all 2 hosts serve"),
        ([serving("a", changed=False)], Action.SERVE, "the host serves, nothing was changed"),
        ([serving("a"), broken("b"), broken("c")], Action.SERVE, "1 of 3 hosts serve; failed: refused 2"),
        ([serving("a", changed=False)], Action.STATUS, "the host serves"),
        ([Journey(Host("a"), HostState.STOPPED, changed=True)], Action.STOP, "the host has stopped"),
        ([Journey(Host("a"), HostState.ABSENT)] * 2, Action.STOP, "all 2 hosts have stopped, nothing was changed"),
        ([Journey(Host("a"), HostState.REMOVED, changed=True)] * 2, Action.REMOVE, "all 2 hosts are clean"),
        ([Journey(Host("a"), HostState.ABSENT)], Action.STATUS, "0 of 1 host serves"),
        ([Journey(Host("a"), HostState.PLANNED)], Action.PLAN, "the host was looked at"),
    ],
)
def test_the_end_is_one_line(journeys: list[Journey], action: Action, words: str) -> None:
    assert summary(journeys, action) == words


def test_a_host_that_is_not_as_asked_counts_as_failed() -> None:
    absent = Journey(Host("a"), HostState.ABSENT)
    assert failed([absent], Action.STATUS) == [absent] and failed([absent], Action.STOP) == []


def test_without_a_terminal_each_result_is_told_once(nowhere: Terminal) -> None:
    said: list[str] = []
    journeys = [Journey(Host("a"))]
    progress = BootProgress(journeys, Action.SERVE, nowhere, said.append)
    failure = states.StepFailed(HostFailure("network", "no way", True))
    for event in (states.VisitBegan(), failure, states.Again(), states.VisitBegan(), failure):
        journeys[0].apply(event)
        progress.changed(journeys[0])
    assert said == ["a: network: no way (may work later)"]
    progress.close()


@pytest.mark.parametrize("columns", [80, 30])
def test_a_terminal_shows_a_line_for_each_host_that_is_not_done_and_a_bar(columns: int) -> None:
    with Screen(columns, 8) as screen:
        journeys = [Journey(Host(f"node{number}")) for number in range(1, 11)]
        progress = BootProgress(journeys, Action.SERVE, Terminal(screen.theirs, {"TERM": "xterm"}), pytest.fail)
        for journey in journeys[:3]:
            journey.apply(states.VisitBegan())
            progress.changed(journey)
        journeys[0].apply(states.StepFailed(HostFailure("network", "there is no way to it: \x1b[2J" + "x" * 90, True)))
        progress.changed(journeys[0])
        shown = screen.lines()
        assert shown[0].startswith("node1  network: there is no") and len(shown[0]) < columns
        assert shown[1] == "node2  connecting"
        assert shown[-2] == "and 5 more" and shown[-1].endswith("] 0 of 10 done, 1 failed")
        for journey in journeys:
            journey.state = HostState.SERVING
            journey.changed = True
        progress.changed(journeys[9])
        assert [line.strip("[#] ") for line in screen.lines()] == ["10 of 10 done"]
        progress.close()
        assert screen.lines() == []


def test_a_second_run_says_that_nothing_was_changed() -> None:
    assert describe(serving("a", changed=False), Action.SERVE) == "serving already, nothing was changed"
    assert describe(serving("a"), Action.SERVE) == "serving now"
    assert describe(serving("a", changed=False), Action.STATUS) == "serving"
