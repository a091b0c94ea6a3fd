"""`cexec --all`: each worker of the roll gets the job once, or is given up after its time with a reason."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from cexec.client.everywhere.gathering import Gathering
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


def answer_of(instance: bytes, **fields: Any) -> Answer:
    """What a worker answers to the census."""
    return Answer(hello(instance, **fields), "10.0.0.3", 0.0, "")


def gathering_of(*instances: bytes, patience: float = PATIENCE) -> Gathering:
    """A gathering whose roll has these workers, and is closed."""
    made = Gathering(job(), patience, START)
    for instance in instances:
        made.join(answer_of(instance), START)
    made.close()
    return made


@pytest.fixture
def gathering() -> Gathering:
    return gathering_of(ONE, OTHER)


@pytest.fixture
def calling() -> Gathering:
    """One worker has answered, and the roll is open."""
    made = Gathering(job(), PATIENCE, START)
    made.join(answer_of(ONE), START)
    return made


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
    gathering = gathering_of(ONE, OTHER, patience=0.0)
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
    gathering = gathering_of(ONE, OTHER, patience=10 * QUEUED_LIFETIME)
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


def test_words_of_workers_outside_the_roll_keep_no_one_waiting(gathering: Gathering) -> None:
    gathering.race.answered(hello(STRANGER, purpose=QUEUED), START)
    assert gathering.race.until == dict.fromkeys((ONE, OTHER), START + PATIENCE)


def test_the_race_itself_never_gives_up(gathering: Gathering) -> None:
    now = START
    for _ in range(400):
        now = gathering.race.next_timeout()
        gathering.race.handle_timeout(now)
    events = []
    while (event := gathering.race.next_event()) is not None:
        events.append(event)
    assert now > START + 500 and set(events) == {"transmit", "silent"}


# while the roll is open


def test_no_run_is_complete_before_the_roll_is_closed(calling: Gathering) -> None:
    take(calling, ONE)
    assert not calling.complete and calling.next_timeout() == math.inf
    assert calling.status() == "waiting for answers of further workers"
    calling.join(answer_of(OTHER), START + 0.1)
    calling.close()
    assert not calling.complete
    take(calling, OTHER)
    assert calling.complete


def test_the_patience_of_a_worker_counts_from_its_own_answer(calling: Gathering) -> None:
    calling.join(answer_of(OTHER), START + 4.0)
    assert calling.given_up(START + PATIENCE) == {ONE: "did not connect"}
    assert calling.given_up(START + 4.0 + PATIENCE - 0.01) == {}
    assert calling.given_up(START + 4.0 + PATIENCE) == {OTHER: "did not connect"}


def test_a_worker_that_connects_before_its_answer_comes_gets_the_job_once(calling: Gathering) -> None:
    assert calling.wants(hello(OTHER), START + 0.01)
    take(calling, OTHER)
    calling.join(answer_of(OTHER), START + 0.02)
    assert calling.has_job(OTHER) and not calling.wants(hello(OTHER), START + 0.02)
    calling.close()
    assert not calling.wants(hello(OTHER), START + 0.2)
    take(calling, ONE)
    assert calling.complete


def test_a_worker_that_was_started_just_before_is_not_sent_away_while_its_answer_is_on_its_way(
    calling: Gathering,
) -> None:
    """Its uptime is rounded down to whole seconds, so that it seems to be younger than the announcement."""
    assert calling.wants(hello(OTHER, uptime=0), START + 0.9)
    assert not calling.wants(hello(OTHER, uptime=0), START + 1.0)
    calling.close()
    assert not calling.wants(hello(OTHER, uptime=0), START + 0.9)


def test_an_offer_that_is_taken_back_before_the_answer_comes_is_waited_for_from_the_answer_on(
    calling: Gathering,
) -> None:
    take(calling, OTHER)
    calling.took_back(SimpleNamespace(hello=hello(OTHER)), START + 1.0)  # type: ignore[arg-type]
    assert OTHER not in calling.race.until and calling.wants(hello(OTHER), START + 0.5)
    calling.join(answer_of(OTHER), START + 2.0)
    assert calling.race.until[OTHER] == START + 2.0 + PATIENCE


def test_an_offer_that_is_taken_back_after_the_answer_has_come_is_waited_for(calling: Gathering) -> None:
    take(calling, OTHER)
    calling.join(answer_of(OTHER), START + 0.5)
    calling.took_back(SimpleNamespace(hello=hello(OTHER)), START + 1.0)  # type: ignore[arg-type]
    assert calling.race.until[OTHER] == START + 1.0 + PATIENCE


def test_what_a_worker_has_said_of_the_job_before_it_joins_counts(calling: Gathering) -> None:
    calling.race.answered(hello(OTHER, purpose=REFUSED, detail="no room"), START + 0.1)
    calling.join(answer_of(OTHER), START + 0.2)
    assert calling.given_up(START + 0.2) == {OTHER: "refuses the job: no room"}
    calling.race.answered(hello(STRANGER, purpose=QUEUED), START + 0.1)
    calling.join(answer_of(STRANGER), START + 0.2)
    assert calling.race.until[STRANGER] == START + 0.2 + QUEUED_LIFETIME
