"""Announcements whose source nothing proves: what they get, and that nobody who has proved itself waits for them."""

from __future__ import annotations

import pytest

from cexec.protocol.base.limits import QUEUED_INTERVAL
from cexec.protocol.decisions import remembered, unproved
from cexec.protocol.decisions.bid import STALL, Bidder, Outcome
from cexec.protocol.decisions.remembered import (
    DONE_LIFETIME,
    NOBODY,
    QUEUED_REPEATS,
    SILENT,
    RememberedAnnouncement,
)
from cexec.protocol.decisions.slots import STALLED_TRIES
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved import (
    SPARE_TRIES_BURST,
    SPARE_WORDS_BURST,
    TRIES_BURST,
    TRIES_RATE,
    WORDS_BURST,
    WORDS_RATE,
)
from tests.protocol.decisions.bidders import WANTED, bidder, events, identity, run, slots_of

HONEST = identity(1_000_000)
DOUBTED, UNPROVED, PROVED = Standing


def hear(
    machine: Bidder, who: bytes, now: float, standing: Standing = UNPROVED, *, source: str = "", proves: bool = True
) -> list[tuple[str, bytes | None]]:
    """A copy comes; by default each announcement has a source of its own."""
    machine.consider(who, 1, WANTED, now, standing=standing, source=source or who.hex(), proves=proves)
    machine.handle_timeout(now)
    return events(machine)


def occupied(slots: int = 1) -> Bidder:
    """A worker whose slots are all busy."""
    machine = bidder(slots=slots)
    for number in range(slots):
        assert hear(machine, identity(900 + number), 0.0, PROVED) == [("Connect", identity(900 + number))]
        run(machine, identity(900 + number), 0.0)
    return machine


def test_an_idle_worker_connects_at_once_and_tells_nobody_to_prove_anything() -> None:
    assert hear(bidder(), HONEST, 0.0) == [("Connect", HONEST)]


def test_without_a_place_there_is_one_question_and_nothing_more() -> None:
    machine = bidder()
    assert hear(machine, identity(1), 0.0) == [("Connect", identity(1))]
    assert hear(machine, identity(2), 0.01) == [("Prove", identity(2))]
    for copy in range(5):
        assert hear(machine, identity(2), 0.02 + 0.001 * copy) == []


def test_a_client_that_proves_itself_does_not_wait_for_connections_to_others() -> None:
    machine = bidder()
    hear(machine, identity(1), 0.0)
    assert hear(machine, HONEST, 0.001) == [("Prove", HONEST)]
    machine.proved(HONEST, 0.002)
    assert events(machine) == [("Connect", HONEST)]
    assert machine.reserved(HONEST, 0.003)


def test_a_client_that_waits_for_a_slot_is_proved_before_one_is_free() -> None:
    machine = occupied()
    assert hear(machine, HONEST, 1.0) == [("Queued", HONEST)]
    machine.proved(HONEST, 1.1)
    assert events(machine) == []
    for told_at in (1.1 + SILENT, 1.1 + SILENT + QUEUED_INTERVAL):  # and every ten seconds from now on
        machine.handle_timeout(told_at - 0.01)
        assert events(machine) == []
        machine.handle_timeout(told_at)
        assert events(machine) == [("Queued", HONEST)]
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 12.0)
    assert events(machine) == [("Connect", HONEST)]


def test_a_client_that_waits_without_a_proof_is_told_once_and_tried_with_a_later_copy() -> None:
    """Its proof, or the question, may have been lost."""
    machine = occupied()
    told = hear(machine, HONEST, 1.0)
    for second in range(2, 60):
        told += hear(machine, HONEST, float(second))
    assert told == [("Queued", HONEST)]
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 60.0)
    assert events(machine) == []
    assert hear(machine, HONEST, 61.0) == [("Connect", HONEST)]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_what_another_process_has_passed_on_gets_one_question_even_from_an_idle_worker(busy: bool) -> None:
    machine = occupied() if busy else bidder()
    assert hear(machine, HONEST, 1.0, DOUBTED) == [("Prove", HONEST)]
    for second in range(2, 30):
        assert hear(machine, HONEST, float(second), DOUBTED) == []
    machine.proved(HONEST, 30.0)
    found = events(machine)
    machine.handle_timeout(30.0 + SILENT)
    assert found + events(machine) == [("Queued" if busy else "Connect", HONEST)]


def test_a_doubted_announcement_that_is_also_heard_directly_is_connected_to() -> None:
    machine = bidder()
    hear(machine, HONEST, 1.0, DOUBTED)
    assert hear(machine, HONEST, 1.1, UNPROVED) == [("Connect", HONEST)]


@pytest.mark.parametrize("count", [40, 400])
def test_a_flood_of_replays_takes_no_place_from_a_client_that_proves_itself(count: int) -> None:
    """Regression: 40 recorded announcements made an honest job wait for 15 s, 400 killed it."""
    machine = bidder()
    for number in range(count):
        hear(machine, identity(number), 0.0001 * number)
    heard_at = 0.0001 * count
    assert hear(machine, HONEST, heard_at) == [("Prove", HONEST)]
    machine.proved(HONEST, heard_at + 0.001)
    assert events(machine) == [("Connect", HONEST)]
    assert machine.reserved(HONEST, heard_at + 0.002)
    assert slots_of(machine) == (0, 1, 0)


def test_whoever_has_proved_itself_does_not_share_the_rate_of_its_source() -> None:
    """Recordings that claim the client's own address as their source use that rate up, and delay it no more."""
    machine = occupied()
    assert hear(machine, HONEST, 1.0, source="10.0.0.9") == [("Queued", HONEST)]
    machine.proved(HONEST, 1.01)
    found = []
    for number in range(20_000):  # one thousand a second
        if number % 2000 == 0:
            found += hear(machine, HONEST, 1.02 + number / 1000, PROVED, source="10.0.0.9")
        found += hear(machine, identity(number % 5000), 1.02 + number / 1000, source="10.0.0.9")
    assert found.count(("Queued", HONEST)) >= 2  # one each ten seconds
    assert len(found) - found.count(("Queued", HONEST)) <= WORDS_BURST + 21 * WORDS_RATE
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 21.1)
    assert events(machine)[0] == ("Connect", HONEST)


@pytest.mark.parametrize("after", [0.0, 1.0, DONE_LIFETIME + 1.0, 3600.0])
def test_one_recorded_announcement_gets_one_connection_and_one_datagram_in_all(after: float) -> None:
    """However often it is sent, from wherever, at whatever time, and whatever has become of the first connection."""
    machine = bidder()
    found = []
    for number in range(100):
        now = after * number
        found += hear(machine, HONEST, now, source=f"10.0.0.{number}")
        if ("Connect", HONEST) in found[-1:]:
            machine.failed(HONEST, now)
        found += [("UNREACHABLE", HONEST)] if machine.may_answer(HONEST, now) else []
        machine.handle_timeout(now + after)
        found += events(machine)
    names = [name for name, _ in found if name != "Forget"]
    assert names.count("Connect") == 1 and len(names) == 2, names


def test_a_client_whose_connection_failed_is_asked_and_then_tried_again() -> None:
    machine = bidder()
    hear(machine, HONEST, 0.0)
    machine.failed(HONEST, 3.0)
    assert hear(machine, HONEST, 10.0) == [("Prove", HONEST)]
    machine.proved(HONEST, 10.1)
    assert events(machine) == [("Connect", HONEST)]


def test_copies_that_come_fast_do_not_keep_a_busy_worker_from_asking_a_client_whose_connection_failed() -> None:
    """Regression: each copy put the question off by SILENT, so whoever sent them again every 0.25 s kept it away."""
    machine = bidder()
    assert hear(machine, HONEST, 0.0) == [("Connect", HONEST)]
    machine.failed(HONEST, 0.6)
    machine.consider(identity(1), 1, WANTED, 0.6, targeted=True)
    assert ("Connect", identity(1)) in events(machine)
    run(machine, identity(1), 0.6)
    told = [one for number in range(10) for one in hear(machine, HONEST, 1.0 + number / 4.0)]
    assert told == [("Queued", HONEST)]


def test_whoever_has_answered_a_connection_has_proved_itself() -> None:
    machine = bidder(slots=1)
    hear(machine, HONEST, 0.0)
    hear(machine, identity(2), 0.0, PROVED)
    assert machine.reserved(identity(2), 0.1)
    assert not machine.reserved(HONEST, 0.1)
    machine.withdrawn(HONEST, 0.1)
    machine.released(identity(2), 0.2)
    assert events(machine) == [("Connect", HONEST)]


def test_a_client_whose_proved_way_is_gone_has_to_prove_itself_again() -> None:
    machine = occupied()
    hear(machine, HONEST, 1.0, PROVED)
    hear(machine, HONEST, 12.0, UNPROVED)  # by another way
    assert ("Queued", HONEST) not in hear(machine, HONEST, 13.0, UNPROVED)
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 14.0)
    assert events(machine) == []


@pytest.mark.parametrize("started", [False, True], ids=["reserved", "running"])
def test_copies_and_proofs_that_come_late_take_no_slot_from_a_job(started: bool) -> None:
    machine = bidder()
    hear(machine, HONEST, 0.0)
    assert machine.reserved(HONEST, 0.1)
    if started:
        machine.started(HONEST, 0.1)
    assert hear(machine, HONEST, 1.0, DOUBTED) == []
    machine.proved(HONEST, 2 * WANTED)
    assert events(machine) == [] and slots_of(machine)[0] == 0


def test_connections_that_lead_nowhere_stay_within_bounds() -> None:
    machine = bidder()
    connected = 0
    for number in range(400):
        now = number * STALL / 10
        connected += sum(name == "Connect" for name, _ in hear(machine, identity(number), now))
    assert connected == 1 + STALLED_TRIES


def test_a_connection_that_stalled_and_failed_lets_one_other_try_and_not_two() -> None:
    machine = bidder()
    assert hear(machine, identity(1), 0.0) == [("Connect", identity(1))]
    machine.handle_timeout(2 * STALL)
    machine.failed(identity(1), 3 * STALL)
    assert hear(machine, identity(2), 4 * STALL) == [("Connect", identity(2))]
    assert hear(machine, identity(3), 4 * STALL) == [("Prove", identity(3))]


def test_one_source_gets_a_bounded_number_of_connections_and_datagrams() -> None:
    machine = bidder(slots=1000)
    found = [one for number in range(1000) for one in hear(machine, identity(number), 1.0, source="10.0.0.66")]
    assert sum(name == "Connect" for name, _ in found) == TRIES_BURST
    assert sum(name == "Prove" for name, _ in found) == WORDS_BURST
    assert hear(machine, HONEST, 1.0, source="10.0.0.9") == [("Connect", HONEST)]
    later = [one for number in range(1000, 1200) for one in hear(machine, identity(number), 2.0, source="10.0.0.66")]
    assert sum(name == "Prove" for name, _ in later) == WORDS_RATE


def test_a_connection_that_its_client_has_answered_does_not_count() -> None:
    """Regression: a client of many short jobs had to prove itself for each, which took a tenth of its time."""
    machine = bidder()
    for number in range(100):
        who, now = identity(number), 1.0 + 0.01 * number
        assert hear(machine, who, now, source="10.0.0.9") == [("Connect", who)]
        run(machine, who, now)
        machine.finished(who, Outcome.SUCCEEDED, 0.01, now)
        events(machine)


def test_an_answer_gives_one_connection_back() -> None:
    machine = bidder(slots=1000)
    assert hear(machine, identity(0), 1.0, source="10.0.0.9") == [("Connect", identity(0))]
    run(machine, identity(0), 1.0)
    found = [hear(machine, identity(number), 1.0, source="10.0.0.9") for number in range(1, 20)]
    assert sum(one[0][0] == "Connect" for one in found) == TRIES_BURST


def test_what_nothing_proves_gets_what_the_protocol_says() -> None:
    """docs/protocol.md section 2.8, in words."""
    assert (unproved.TRIES_RATE, unproved.TRIES_BURST) == (2.0, 8.0)
    assert (unproved.WORDS_RATE, unproved.WORDS_BURST) == (50.0, 100.0)
    assert (unproved.ANSWERS_RATE, unproved.ANSWERS_BURST) == (25.0, 50.0)
    assert (1.0 / unproved.SPARE_TRIES_RATE, unproved.SPARE_TRIES_BURST) == (2.0, 4.0)
    assert (unproved.SPARE_WORDS_RATE, unproved.SPARE_WORDS_BURST) == (10.0, 20.0)


def test_connections_that_nobody_answers_count_although_others_are_answered() -> None:
    """Recordings aimed at a client's own host get no more connections there because its own jobs run."""
    machine = bidder(slots=1000)
    tried = 0
    for number in range(1000):
        now = 1.0 + 0.001 * number
        found = hear(machine, identity(number), now, source="10.0.0.9")
        if number % 10 == 0 and found == [("Connect", identity(number))]:
            run(machine, identity(number), now)
            machine.finished(identity(number), Outcome.SUCCEEDED, 0.01, now)
            events(machine)
        else:
            tried += found == [("Connect", identity(number))]
            machine.failed(identity(number), now)
    assert 0 < tried <= TRIES_BURST + 1.0 * TRIES_RATE + 1


def test_a_connection_of_a_client_that_proved_itself_gives_nothing_back() -> None:
    """Its try before has failed, and still counts."""
    machine = bidder(slots=1000)
    for number in range(int(TRIES_BURST)):
        assert hear(machine, identity(number), 1.0, source="10.0.0.9") == [("Connect", identity(number))]
        machine.failed(identity(number), 1.0)
    machine.proved(identity(0), 1.0)
    assert hear(machine, identity(0), 1.3, PROVED, source="10.0.0.9") == [("Connect", identity(0))]
    run(machine, identity(0), 1.3)
    newcomers = [hear(machine, identity(100 + number), 1.3, source="10.0.0.9") for number in range(3)]
    assert [name for ((name, _),) in newcomers] == ["Connect", "Prove", "Prove"]  # 0.3 s have filled up a part of one


def test_a_connection_counts_although_its_client_answers_by_another_way() -> None:
    """Regression: recordings that claimed a stranger's address sent more connections there than 2 a second.

    The client proved itself while the worker tried that address, was then connected to where it is, and the stranger's
    connection did not count.
    """
    machine = bidder(slots=1000)
    tried = 0
    for number in range(50):
        tried += hear(machine, identity(number), 1.0, source="10.0.0.66") == [("Connect", identity(number))]
        machine.proved(identity(number), 1.0)
        events(machine)  # of those that were not tried
        run(machine, identity(number), 1.0)
    assert tried == TRIES_BURST


def test_what_an_answer_gives_back_goes_to_the_source_that_it_was_taken_from() -> None:
    """A copy that comes while the client is connected to may claim another source."""
    machine = bidder(slots=1000)
    for number in range(int(TRIES_BURST)):
        assert hear(machine, identity(number), 1.0, source="10.0.0.9") == [("Connect", identity(number))]
        assert hear(machine, identity(number + 100), 1.0, source="10.0.0.66") == [("Connect", identity(number + 100))]
    assert hear(machine, identity(0), 1.0, source="10.0.0.66") == []
    run(machine, identity(0), 1.0)
    assert hear(machine, identity(200), 1.0, source="10.0.0.66") == [("Prove", identity(200))]
    assert hear(machine, identity(201), 1.0, source="10.0.0.9") == [("Connect", identity(201))]


def test_an_answer_to_a_connection_that_counts_for_nobody_gives_nothing_back() -> None:
    """Regression: it gave back what the failed connection before it had counted for."""
    allowances = unproved.Unproved()
    one, another = (
        RememberedAnnouncement(
            identity(number), 1, 1.0, WANTED, targeted=False, origin=NOBODY, standing=UNPROVED, source="10.0.0.9"
        )
        for number in range(2)
    )
    for _ in range(int(TRIES_BURST) + 1):
        allowances.tried(one, 1.0)
    allowances.answered(one)
    assert not allowances.may_try(another, 1.0)


def test_the_sources_that_are_told_apart_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproved, "MAXIMUM_SOURCES", 10)
    sources = unproved.Sources(1.0, 1.0)
    for number in range(100):
        assert sources.left(str(number), 0.0)
        sources.spend(str(number))
    assert not sources.left("99", 0.0) and sources.left("0", 0.0)
    sources.give_back("1")  # which has been forgotten
    sources.give_back("99")
    assert sources.left("99", 0.0)


def test_those_that_have_had_nothing_take_no_room_from_those_that_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproved, "MAXIMUM_SPENT", 10)
    allowances = unproved.Unproved()
    allowances.note_told(identity(0))
    for number in range(1, 100):
        allowances.heard(identity(number))
    allowances.note_told(identity(100))
    assert allowances.told_once(identity(0))


# Clients and relays of 0.1.0


def test_a_client_of_0_1_0_is_told_queued_and_gets_a_slot_without_a_proof() -> None:
    machine = occupied()
    found = hear(machine, HONEST, 1.0, proves=False)
    for second in range(2, 40):
        found += hear(machine, HONEST, float(second), proves=False)
    assert {name for name, _ in found} == {"Queued"} and 4 <= len(found) <= 4 + QUEUED_REPEATS
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 40.0)
    assert events(machine) == [("Connect", HONEST)]


def test_an_announcement_of_0_1_0_gets_no_further_word_unless_it_comes_again() -> None:
    """A recorded one may say that it is wanted for an hour: it is sent once and would be answered 360 times."""
    machine = occupied()
    machine.consider(HONEST, 1, 3600.0, 1.0, standing=UNPROVED, source="10.0.0.66", proves=False)
    words = [name for name, _ in events(machine)]
    while (due := machine.next_timeout()) is not None and due < 3600.0:
        machine.handle_timeout(due)
        words += [name for name, _ in events(machine)]
    assert words == ["Queued"]


def test_a_client_of_0_1_0_whose_connections_fail_is_tried_again_out_of_the_quota() -> None:
    machine = bidder()
    tries = 0
    for second in range(200):
        for name, _ in hear(machine, HONEST, float(second), proves=False):
            if name == "Connect":
                tries += 1
                machine.failed(HONEST, float(second))
    assert 10 < tries < 110


def test_clients_of_0_1_0_are_served_beside_those_that_have_proved_themselves() -> None:
    machine = occupied()
    hear(machine, HONEST, 1.0, proves=False)
    for number in range(5):
        hear(machine, identity(number), 1.0, PROVED)
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 2.0)
    connects = [who for name, who in events(machine) if name == "Connect"]
    assert len(connects) == 2 and HONEST in connects


def test_the_quota_of_0_1_0_is_one_for_all() -> None:
    """Recorded announcements of such clients are worth no more, however many there are."""
    machine = occupied()
    words = 0
    for second in range(1, 21):
        for number in range(400):
            words += sum(name == "Queued" for name, _ in hear(machine, identity(number), float(second), proves=False))
    assert 400 + SPARE_WORDS_BURST <= words <= 400 + SPARE_WORDS_BURST + 20 * unproved.SPARE_WORDS_RATE
    for number in range(400):
        machine.claimed(identity(number), 1, 21.0)
    events(machine)
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 100.0)
    tries = 0
    for second in range(100, 120):
        for name, who in hear(machine, HONEST, float(second), proves=False, source=str(second)):
            if name == "Connect" and who is not None:
                tries += 1
                machine.failed(who, float(second))
    assert tries <= 1 + SPARE_TRIES_BURST + 20 * unproved.SPARE_TRIES_RATE


# Memory


def test_one_that_is_still_heard_is_never_forgotten_while_its_job_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: as many replays as fit into the table made a worker forget the clients that waited for it."""
    monkeypatch.setattr(remembered, "MOST_UNPROVED", 100)
    machine = occupied()
    waiting = [identity(5000), identity(5001), identity(5002)]
    number = 0
    for second in range(1, 60):
        for who, standing, proves in zip(waiting, (PROVED, UNPROVED, UNPROVED), (True, True, False), strict=True):
            for copy in (0.0, 0.25):
                assert ("Forget", who) not in hear(machine, who, second + copy, standing, proves=proves)
        for _ in range(200):
            number += 1
            forgotten = {who for name, who in hear(machine, identity(number), second + 0.5) if name == "Forget"}
            assert not forgotten & set(waiting)
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 60.0)
    assert ("Connect", waiting[0]) in events(machine)


def test_unproved_announcements_take_no_room_from_proved_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAXIMUM_REMEMBERED", 3)
    monkeypatch.setattr(remembered, "MOST_UNPROVED", 5)
    machine = occupied()
    hear(machine, identity(1), 1.0, PROVED)
    hear(machine, identity(2), 1.0, PROVED)
    forgotten = []
    for number in range(10, 100):  # also long after the proved ones were heard
        forgotten += [who for name, who in hear(machine, identity(number), number / 10.0) if name == "Forget"]
    assert len(set(forgotten)) == 85 and not {identity(1), identity(2)} & set(forgotten)
    assert ("Forget", identity(1)) in hear(machine, identity(3), 10.0, PROVED)


def test_a_holder_who_announces_from_invented_addresses_keeps_no_honest_client_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: 10,000 invented clients filled the room, and new ones had to wait until those were not heard."""
    monkeypatch.setattr(remembered, "MAXIMUM_REMEMBERED", 1000)
    monkeypatch.setattr(remembered, "MOST_UNPROVED", 500)
    machine = occupied()
    copies = [2.0, 2.25, 2.7, 3.4, 4.6]  # as a client sends them
    told = 0.0
    for step in range(1, 5000):  # a thousand a second
        now = step / 1000.0
        source = f"10.0.{step % 250}.{step // 250}"
        found = hear(machine, identity(10_000 + step), now, source=source)
        while copies and now >= copies[0]:
            copies.pop(0)
            found += hear(machine, HONEST, now, PROVED if told else UNPROVED, source="10.1.0.1")
        if not told and ("Queued", HONEST) in found:
            told = now
            machine.proved(HONEST, now)
    assert 2.0 <= told < 4.0
    machine.finished(identity(900), Outcome.SUCCEEDED, 1.0, 10.0)
    assert ("Connect", HONEST) in events(machine)


def test_allowances_are_remembered_for_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproved, "MAXIMUM_SPENT", 10)
    allowances = unproved.Unproved()
    for number in range(10):
        allowances.note_told(identity(number))
    allowances.heard(identity(0))
    allowances.note_told(identity(10))
    assert allowances.told_once(identity(0)) and not allowances.told_once(identity(1))


def test_clients_of_0_1_0_share_as_many_further_connections_as_there_are() -> None:
    """Beyond the first of each."""
    made = unproved.Unproved()
    clients = [
        RememberedAnnouncement(
            identity(number), 1, 0.0, WANTED, targeted=False, origin=NOBODY, standing=UNPROVED,
            source=f"10.0.0.{number}", proves=False,
        )
        for number in range(2)
    ]  # fmt: skip
    for number in range(2 + int(SPARE_TRIES_BURST)):
        assert made.may_try(clients[number % 2], 0.0)
        made.tried(clients[number % 2], 0.0)
    assert not made.may_try(clients[0], 0.0) and not made.may_try(clients[1], 0.0)
