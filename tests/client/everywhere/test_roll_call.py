"""`cexec --all`: each worker of the roll gets the job once, or is given up after its time with a reason."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from cexec.client.everywhere.roll_call import Gathering, RollRace
from cexec.protocol.base.limits import QUEUED_LIFETIME
from cexec.protocol.datagrams.hello import QUEUED, REFUSED, UNREACHABLE, Hello
from cexec.protocol.decisions.census import Answer
from tests.protocol.wires import APPLICATION, hello_of, job

START = 100.0  # seconds, on a clock that only the test moves
PATIENCE = 10.0  # seconds
ONE, OTHER, STRANGER = (bytes([number]) * 16 for number in (1, 2, 3))
KEYS = {ONE: APPLICATION.worker, OTHER: APPLICATION.other_worker}


def hello(instance: bytes, **fields: Any) -> Hello:
    return hello_of(KEYS.get(instance, APPLICATION.worker), instance=instance, **fields)


ROLL = {instance: Answer(hello(instance), "10.0.0.3", 0.0, "") for instance in KEYS}


@pytest.fixture
def gathering() -> Gathering:
    return Gathering(ROLL, job(), PATIENCE, START)


def take(gathering: Gathering, instance: bytes) -> None:
    gathering.took(SimpleNamespace(hello=hello(instance)))  # type: ignore[arg-type]


# the workers that are wanted


def test_each_worker_of_the_roll_gets_the_job_once(gathering: Gathering) -> None:
    assert gathering.wants(hello(ONE), START) and gathering.wants(hello(OTHER), START)
    assert gathering.job_for(hello(ONE), "10.0.0.3").encode() == job().encode()
    take(gathering, ONE)
    assert not gathering.wants(hello(ONE), START)
    assert gathering.wants(hello(OTHER), START)
    assert not gathering.complete
    take(gathering, OTHER)
    assert gathering.complete and gathering.next_timeout() == math.inf


def test_a_worker_that_missed_the_census_is_wanted_once_and_one_that_came_later_is_not(gathering: Gathering) -> None:
    now = START + 5.0
    assert gathering.wants(hello(STRANGER, uptime=5), now)
    assert not gathering.wants(hello(STRANGER, uptime=4), now)
    take(gathering, STRANGER)
    assert not gathering.wants(hello(STRANGER, uptime=5), now)


def test_a_worker_that_takes_its_offer_back_is_waited_for_again(gathering: Gathering) -> None:
    """Regression: it was told as a worker that did not finish, and complained about."""
    take(gathering, ONE)
    take(gathering, OTHER)
    gathering.took_back(SimpleNamespace(hello=hello(ONE)), START + 5.0)  # type: ignore[arg-type]
    assert not gathering.complete and gathering.wants(hello(ONE), START + 5.0)
    assert gathering.given_up(START + 5.0 + PATIENCE - 0.01) == {}
    assert gathering.given_up(START + 5.0 + PATIENCE) == {ONE: "did not connect"}
    take(gathering, STRANGER)
    gathering.took_back(SimpleNamespace(hello=hello(STRANGER)), START)  # type: ignore[arg-type]
    assert gathering.complete  # nobody has promised that it comes again


def test_time_in_which_the_client_was_stopped_does_not_count(gathering: Gathering) -> None:
    gathering.race.handle_timeout(START)
    gathering.race.handle_timeout(START + 3600.0)
    assert gathering.given_up(START + 3600.0) == {}
    assert START + 3600.0 < gathering.next_timeout() <= START + 3600.0 + PATIENCE


def test_a_worker_that_was_given_up_is_not_wanted_any_more(gathering: Gathering) -> None:
    gathering.given_up(START + PATIENCE)
    assert not gathering.wants(hello(ONE), START + PATIENCE)


def test_the_status_names_the_workers_that_are_waited_for(gathering: Gathering) -> None:
    assert gathering.status() == "waiting for honest, other"
    take(gathering, ONE)
    assert gathering.status() == "waiting for other"


# the time that each worker has


def test_silent_workers_are_given_up_after_the_patience_and_told_once(gathering: Gathering) -> None:
    assert gathering.next_timeout() == START + PATIENCE
    assert gathering.given_up(START + PATIENCE - 0.01) == {}
    assert gathering.given_up(START + PATIENCE) == {ONE: "did not connect", OTHER: "did not connect"}
    assert gathering.given_up(START + PATIENCE) == {}
    assert gathering.complete


def test_a_worker_that_has_the_job_is_not_given_up(gathering: Gathering) -> None:
    take(gathering, ONE)
    assert gathering.given_up(START + PATIENCE) == {OTHER: "did not connect"}


def test_without_a_limit_a_silent_worker_is_waited_for_for_ever() -> None:
    gathering = Gathering(ROLL, job(), 0.0, START)
    assert gathering.next_timeout() == math.inf
    assert gathering.given_up(START + 1e9) == {}


def test_a_worker_that_refuses_is_given_up_at_once(gathering: Gathering) -> None:
    gathering.race.answered(hello(ONE, purpose=REFUSED, detail="no room"), START + 1)
    assert gathering.next_timeout() == START + 1
    assert gathering.given_up(START + 1) == {ONE: "refuses the job: no room"}
    assert not gathering.complete


def test_a_busy_worker_is_waited_for_as_long_as_it_says_so(gathering: Gathering) -> None:
    gathering.race.answered(hello(ONE, purpose=QUEUED), START + 9)
    assert gathering.given_up(START + PATIENCE) == {OTHER: "did not connect"}
    gathering.race.answered(hello(ONE, purpose=QUEUED), START + 30)
    assert gathering.given_up(START + 30 + QUEUED_LIFETIME - 0.01) == {}
    assert gathering.given_up(START + 30 + QUEUED_LIFETIME) == {ONE: "was busy, and is not heard any more"}


def test_being_busy_never_shortens_the_patience() -> None:
    gathering = Gathering(ROLL, job(), 10 * QUEUED_LIFETIME, START)
    gathering.race.answered(hello(ONE, purpose=QUEUED), START)
    assert gathering.given_up(START + 10 * QUEUED_LIFETIME - 0.01) == {}


def test_a_worker_that_cannot_connect_has_the_patience_from_then_on(gathering: Gathering) -> None:
    gathering.race.answered(hello(ONE, purpose=QUEUED), START)
    gathering.race.answered(hello(ONE, purpose=UNREACHABLE, detail="10.0.0.9:4000: timed out"), START + 1)
    assert gathering.given_up(START + 1 + PATIENCE - 0.01) == {OTHER: "did not connect"}
    reason = "heard, but cannot connect to 10.0.0.9:4000: timed out; does a firewall on this machine block it?"
    assert gathering.given_up(START + 1 + PATIENCE) == {ONE: reason}


def test_a_later_word_of_being_busy_does_not_outweigh_that_it_cannot_connect(gathering: Gathering) -> None:
    gathering.race.answered(hello(ONE, purpose=UNREACHABLE, detail="10.0.0.9:4000: timed out"), START + 1)
    gathering.race.answered(hello(ONE, purpose=QUEUED), START + 2)
    assert ONE in gathering.given_up(START + PATIENCE)


def test_words_of_workers_outside_the_roll_keep_no_one_waiting() -> None:
    race = RollRace(ROLL, PATIENCE, START)
    race.answered(hello(STRANGER, purpose=QUEUED), START)
    assert race.until == dict.fromkeys(ROLL, START + PATIENCE)


def test_the_race_itself_never_gives_up(gathering: Gathering) -> None:
    now = START
    for _ in range(400):
        now = gathering.race.next_timeout()
        gathering.race.handle_timeout(now)
    events = []
    while (event := gathering.race.next_event()) is not None:
        events.append(event)
    assert now > START + 500 and set(events) == {"transmit", "silent"}
