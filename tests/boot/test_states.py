"""The table of a host's states."""

from __future__ import annotations

from typing import get_args

import pytest

from cexec.boot import states
from cexec.boot.failures import HostFailure
from cexec.boot.hosts import Host
from cexec.boot.states import TABLE, Event, HostState, Journey
from tests.boot.test_target import facts

RECORD = {"how": "detached", "version": "1"}
EVENTS: list[Event] = [
    states.VisitBegan(), states.SshConnected(""), states.Probed(facts()), states.Looked({}), states.WheelsWanted(),
    states.Gathered("1-abc", 5), states.Installed(True, ""), states.WorkerStarted(RECORD, True),
    states.CensusAnswered("a", ""),
    states.Stopping(), states.Stopped(True), states.Removing(), states.Removed(1, []), states.Planned("x", True),
    states.Missing(), states.StepFailed(HostFailure("network", "gone", True)), states.Again(),
]  # fmt: skip


def test_every_event_has_a_row() -> None:
    assert {type(event) for event in EVENTS} == set(TABLE)
    assert set(get_args(Event)) - set(TABLE) == {states.Noted}


def test_every_state_can_be_reached() -> None:
    assert {state for _, state in TABLE.values()} == set(HostState)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_taken_in_its_states_only(event: Event) -> None:
    allowed, then = TABLE[type(event)]
    for state in HostState:
        journey = Journey(Host("a"), state)
        if state in allowed:
            journey.apply(event)
            assert journey.state is then
        else:
            with pytest.raises(AssertionError):
                journey.apply(event)
            assert journey.state is state


def test_a_journey_from_nothing_to_serving_has_changed_the_host() -> None:
    journey = Journey(Host("a"))
    for event in EVENTS[:9]:
        journey.apply(event)
    assert journey.state is HostState.SERVING and journey.changed and journey.words == ""
    assert (journey.record, journey.address, journey.release, journey.tries) == (RECORD, "a", "1-abc", 1)


def test_a_second_run_changes_nothing() -> None:
    journey = Journey(Host("a"))
    for event in (*EVENTS[:4], states.WorkerStarted(RECORD, False), states.CensusAnswered("a", "")):
        journey.apply(event)
    assert journey.state is HostState.SERVING and not journey.changed


def test_notes_are_those_of_the_last_try() -> None:
    journey = Journey(Host("a"))
    for event in (states.VisitBegan(), states.SshConnected("Welcome"), states.Noted("look"), states.Noted("look")):
        journey.apply(event)
    assert journey.words == "its login shell prints 'Welcome', which is passed over; look"
    journey.apply(states.StepFailed(HostFailure("connection", "it was lost", True)))
    assert journey.words == "it was lost"
    journey.apply(states.Again())
    journey.apply(states.VisitBegan())
    assert journey.words == "" and journey.tries == 2


def test_what_is_left_is_told() -> None:
    journey = Journey(Host("a"), HostState.REMOVING)
    journey.apply(states.Removed(1, ["/a", "/b", "/c", "/d", "/e"]))
    assert journey.words == "not removed, because cboot has not put it there: /a, /b, /c and 2 more"
