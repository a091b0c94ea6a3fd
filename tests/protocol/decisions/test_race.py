"""The client's side of a race: when it announces, whom it waits for, when it gives up.

docs/protocol.md section 2.4.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from cexec.protocol.base.limits import IDENTITY_SIZE, QUEUED_LIFETIME
from cexec.protocol.datagrams import hello
from cexec.protocol.datagrams.hello import Hello
from cexec.protocol.decisions.race import (
    ENOUGH,
    GAVE_UP,
    LONGEST_RENEWAL,
    OPENING_INTERVAL,
    RENEW,
    RENEW_AFTER,
    SILENT,
    TRANSMIT,
    Race,
)
from tests.protocol.wires import APPLICATION, hello_of

ACCEPT = 3.0  # seconds
FIRST, SECOND = b"a" * IDENTITY_SIZE, b"b" * IDENTITY_SIZE


def said(purpose: int, instance: bytes = FIRST) -> Hello:
    return hello_of(APPLICATION.worker, purpose=purpose, instance=instance, detail="why")


def wait(race: Race, until: float = 1000.0) -> tuple[float, list[str]]:
    """Lets time pass until it gives up, or to `until`: when, and what it said meanwhile."""
    events: list[str] = []
    while GAVE_UP not in events and race.next_timeout() <= until:
        now = race.next_timeout()
        race.handle_timeout(now)
        while (event := race.next_event()) is not None:
            events.append(event)
    return (now if GAVE_UP in events else until), events


def test_announcements_go_out_ever_more_seldom_at_most_two_seconds_apart() -> None:
    """Regression: they were five seconds apart, and after a link had flapped a waiting job took as long to go on."""
    race = Race(accept_timeout=0.0, now=0.0)
    times: list[float] = []
    while len(times) < 12:
        now = race.next_timeout()
        race.handle_timeout(now)
        times += [now for event in iter(race.next_event, None) if event == TRANSMIT]
    gaps = [round(after - before, 6) for before, after in pairwise(times)]
    assert times[0] == 0.0 and gaps[0] == 0.25
    assert gaps == sorted(gaps) and gaps[-1] == 2.0


def test_the_accept_timeout_counts_anew_from_the_moment_when_a_worker_is_known_to_be_there() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    assert wait(race)[0] == ACCEPT
    race.wait_on(ACCEPT)
    assert wait(race)[0] == 2 * ACCEPT


def test_without_an_answer_it_says_that_it_is_silent_and_gives_up_after_the_accept_timeout() -> None:
    ended, events = wait(Race(accept_timeout=10.0, now=0.0))
    assert ended == 10.0
    assert events.count(SILENT) == 1


def test_time_in_which_the_client_was_stopped_does_not_count() -> None:
    """Regression: `cexec` that was stopped (Ctrl-Z) while it waited gave up at once when it went on."""
    race = Race(accept_timeout=10.0, now=0.0)
    assert wait(race, 6.0)[0] == 6.0
    race.handle_timeout(3600.0)
    assert GAVE_UP not in iter(race.next_event, None)
    assert 3600.0 < wait(race, 4000.0)[0] < 3610.0


def test_without_an_accept_timeout_it_waits_for_ever() -> None:
    race = Race(accept_timeout=0.0, now=0.0)
    _, events = wait(race, 10_000.0)
    assert GAVE_UP not in events and race.seconds_left(0.0) is None


def test_a_queued_worker_keeps_it_waiting_for_as_long_as_it_is_heard() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    for now in range(0, 100, 10):
        race.answered(said(hello.QUEUED), float(now))
        wait(race, float(now))
    assert wait(race)[0] == 90.0 + QUEUED_LIFETIME + ACCEPT


@pytest.mark.parametrize("purpose", [hello.UNREACHABLE, hello.REFUSED])
def test_a_queued_worker_that_cannot_have_the_job_after_all_is_not_waited_for(purpose: int) -> None:
    """Regression: behind a relay whose connections failed a client waited for 40 s with an accept timeout of 3 s."""
    race = Race(accept_timeout=ACCEPT, now=0.0)
    race.answered(said(hello.QUEUED), 1.0)
    race.answered(said(purpose), 10.0)
    race.answered(said(hello.QUEUED), 11.0)
    race.answered(said(purpose), 12.0)
    assert [answer.purpose for answer in race.complaints()] == [purpose] and race.queued() == []
    assert wait(race)[0] == 10.0 + ACCEPT


def test_another_workers_word_still_counts() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    race.answered(said(hello.QUEUED), 1.0)
    race.answered(said(hello.QUEUED, SECOND), 2.0)
    race.answered(said(hello.UNREACHABLE), 3.0)
    assert wait(race)[0] == 2.0 + QUEUED_LIFETIME + ACCEPT


def test_a_worker_that_never_was_queued_changes_nothing_by_what_it_cannot() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    race.answered(said(hello.UNREACHABLE), 2.0)
    assert wait(race)[0] == ACCEPT


def test_one_that_has_connected_may_be_queued_again() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    race.answered(said(hello.UNREACHABLE), 1.0)
    race.offered(said(hello.CONNECT))
    assert race.complaints() == [] and race.connected == 1
    race.answered(said(hello.QUEUED), 2.0)
    assert wait(race)[0] == 2.0 + QUEUED_LIFETIME + ACCEPT


def test_an_answer_counts_once_and_no_more_are_remembered_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    assert [race.heard_before(b"1" * 16) for _ in range(2)] == [False, True]
    monkeypatch.setattr("cexec.protocol.decisions.race.MAXIMUM_KNOWN", 1)
    race.answered(said(hello.UNREACHABLE), 1.0)
    race.answered(said(hello.QUEUED, SECOND), 1.0)
    assert list(race.answers) == [FIRST] and wait(race)[0] == ACCEPT


def test_a_client_that_waits_for_hours_still_hears_that_it_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: after 10,000 answers it heard no more, and gave up although a worker had its job."""
    monkeypatch.setattr("cexec.protocol.decisions.race.MAXIMUM_KNOWN", 2)
    race = Race(accept_timeout=ACCEPT, now=0.0)
    assert [race.heard_before(bytes([number]) * 16) for number in (1, 2, 3, 3, 2)] == [False, False, False, True, True]


def test_an_answer_that_is_older_than_the_last_one_is_a_replay() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    for uptime, now in ((100, 1.0), (99, 20.0)):
        answer = said(hello.QUEUED)
        answer.uptime = uptime
        race.answered(answer, now)
    assert wait(race)[0] == 1.0 + QUEUED_LIFETIME + ACCEPT


def test_of_a_thousand_busy_workers_a_client_hears_some_at_once_and_the_others_little_by_little() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    assert sum(race.listens(0.0) for _ in range(1000)) == ENOUGH + 1
    assert sum(race.listens(0.0 + number / 1000) for number in range(1000)) == pytest.approx(
        1 / OPENING_INTERVAL, abs=1
    )


def renewals(race: Race, until: float) -> list[float]:
    """When the announcement is made anew."""
    found = []
    while (now := race.next_timeout()) <= until:
        race.handle_timeout(now)
        found += [now for event in iter(race.next_event, None) if event == RENEW]
    return found


def test_a_client_that_hears_nothing_announces_anew_ever_later_and_never_stops() -> None:
    race = Race(accept_timeout=0.0, now=0.0)
    times = renewals(race, 600.0)
    gaps = [round(after - before, 6) for before, after in pairwise(times)]
    assert RENEW_AFTER <= times[0] < RENEW_AFTER + 2.0
    assert gaps == sorted(gaps) and LONGEST_RENEWAL <= gaps[-1] < LONGEST_RENEWAL + 2.0


def test_each_word_of_a_worker_puts_the_renewal_off() -> None:
    race = Race(accept_timeout=0.0, now=0.0)
    race.answered(said(hello.QUEUED), 1.0)
    assert renewals(race, 1.0 + QUEUED_LIFETIME) == []
    race.answered(said(hello.PROVE, SECOND), 26.0)
    assert renewals(race, 26.0 + RENEW_AFTER - 0.1) == []
    assert renewals(race, 26.0 + RENEW_AFTER + 2.1) != []


def test_a_job_for_all_workers_is_never_announced_anew() -> None:
    """Each of them would take part twice."""
    assert renewals(Race(accept_timeout=0.0, now=0.0, renews=False), 600.0) == []


def test_a_worker_that_asks_for_a_proof_is_no_worker_that_waits() -> None:
    race = Race(accept_timeout=ACCEPT, now=0.0)
    race.answered(said(hello.PROVE), 1.0)
    assert race.queued() == [] and race.complaints() == []
    assert wait(race)[0] == ACCEPT
    race.answered(said(hello.QUEUED), 1.0)
    race.answered(said(hello.PROVE), 2.0)
    assert len(race.queued()) == 1
