"""When a waiting client is told something, without a bidder around it."""

from __future__ import annotations

from math import inf

import pytest

from cexec.protocol.base.limits import QUEUED_INTERVAL
from cexec.protocol.decisions import queue_words
from cexec.protocol.decisions.bid_events import Outcome, Prove
from cexec.protocol.decisions.boots import MAXIMUM_BOOTS
from cexec.protocol.decisions.queue_words import QueueWords
from cexec.protocol.decisions.remembered import NOBODY, RUNNING, RememberedAnnouncement
from cexec.protocol.decisions.slots import Slots
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved import WORDS_BURST, WORDS_RATE, Unproved
from tests.protocol.decisions.bidders import WANTED, bidder, connects, identity, run

NOW = 100.0


def words(*, full: bool) -> QueueWords:
    slots = Slots(1)
    if full:
        slots.enter(RUNNING)
    return QueueWords(slots, Unproved())


def waiting(
    number: int = 1, *, heard_at: float = NOW, source: str = "", proves: bool = True, clock: int = 0,
    boot: int = 0,
) -> RememberedAnnouncement:  # fmt: skip
    return RememberedAnnouncement(
        identity(number), 1, heard_at, heard_at + 100.0, targeted=False, origin=NOBODY, standing=Standing.UNPROVED,
        source=source, proves=proves, clock=clock, boot=boot,
    )  # fmt: skip


@pytest.mark.parametrize(("due", "asked"), [(inf, NOW), (NOW + 5.0, NOW + 5.0)])
def test_a_full_worker_asks_when_the_next_word_is_due_and_at_once_if_none_is(due: float, asked: float) -> None:
    one = waiting()
    one.telling.due = due
    words(full=True).ask(one, NOW)
    assert (one.telling.due, one.timers.bid_at) == (asked, inf)


def test_a_worker_with_a_free_slot_asks_at_once() -> None:
    one = waiting()
    one.telling.due = NOW + 5.0
    words(full=False).ask(one, NOW)
    assert one.telling.due == NOW


@pytest.mark.parametrize("later", [1.0, QUEUED_INTERVAL + 1.0])
def test_a_client_of_0_1_0_that_asks_again_is_told_again_after_the_interval(later: float) -> None:
    one = waiting(proves=False)
    one.telling.told(NOW, inf)
    words(full=True).ask_again(one, NOW + later)
    assert one.telling.due == NOW + max(later, QUEUED_INTERVAL)


def test_a_client_that_can_prove_itself_and_does_not_is_told_once() -> None:
    one = waiting()
    one.telling.told(NOW, inf)
    words(full=True).ask_again(one, NOW + 1000.0)
    assert one.telling.due == inf


@pytest.mark.parametrize(("standing", "due"), [(Standing.PROVED, inf), (Standing.UNPROVED, NOW + 5.0)])
def test_a_copy_changes_nothing_for_whoever_has_proved_itself_or_has_a_word_to_come(
    standing: Standing, due: float
) -> None:
    one = waiting()
    one.standing, one.telling.due = standing, due
    words(full=True).ask_again(one, NOW + 1.0)
    assert one.telling.due == due


# A source that has had as many words as it may


def used_up(source: str = "10.0.0.9") -> QueueWords:
    made = words(full=False)
    for number in range(1000, 1000 + int(WORDS_BURST)):
        assert made.tell(waiting(number, source=source), NOW) is not None
    return made


def test_whoever_waits_for_its_sources_next_word_or_has_had_its_own_takes_no_turn_from_others() -> None:
    """Regression: recordings that were sent over and over took all turns at a busy worker."""
    made = used_up()
    for number in range(1000):
        assert made.first(waiting(number, source="10.0.0.9"), NOW) == NOW
    newest = waiting(1, source="10.0.0.9", clock=10)
    assert made.tell(newest, NOW) is None
    assert made.first(waiting(2, source="10.0.0.9", clock=9), NOW) == inf
    assert made.first(waiting(3, source="10.0.0.9", clock=11), NOW, 0.25) == NOW + 0.25
    told = waiting(4, source="10.0.0.10")
    assert isinstance(made.tell(told, NOW), Prove)
    assert made.first(told, NOW) == inf
    assert made.first(waiting(5, source="10.0.0.10"), NOW) == NOW


@pytest.mark.parametrize("first", [1, 2])
def test_the_announcement_that_was_heard_last_gets_its_sources_next_word(first: int) -> None:
    """Whatever order their bids are due in."""
    made = used_up()
    both = {number: waiting(number, heard_at=NOW + number / 1000, source="10.0.0.9") for number in (1, 2)}
    for number in (first, 3 - first):
        assert made.tell(both[number], NOW) is None
    old, new = both[1].telling.due, both[2].telling.due
    assert NOW < new <= NOW + 1.0 / WORDS_RATE + 0.001
    assert old == (new if first == 1 else inf)
    if first == 1:
        assert made.tell(both[1], old) is None and both[1].telling.due == inf
    assert isinstance(made.tell(both[2], new), Prove)
    made.ask_again(both[1], NOW + 1.0)  # a copy of it has come
    assert isinstance(made.tell(both[1], NOW + 1.0), Prove)


def test_another_source_and_an_announcement_that_has_had_its_word_wait_for_nothing() -> None:
    made = used_up()
    assert isinstance(made.tell(waiting(1, source="10.0.0.8"), NOW), Prove)
    told = waiting(1000, source="10.0.0.9")
    assert made.tell(told, NOW) is None and told.telling.due == inf


@pytest.mark.parametrize("first", [1, 2])
def test_the_announcement_that_was_made_last_gets_its_sources_next_word_whenever_it_came(first: int) -> None:
    """Recordings are older by the client's own clock, and may be sent before it or behind it."""
    made = used_up()
    both = {
        number: waiting(number, heard_at=NOW - number / 1000, source="10.0.0.9", clock=10 * number)
        for number in (1, 2)
    }  # fmt: skip
    for number in (first, 3 - first):
        assert made.tell(both[number], NOW) is None
    assert isinstance(made.tell(both[2], both[2].telling.due), Prove)


def test_an_older_announcement_that_comes_when_the_word_is_due_does_not_get_it() -> None:
    made, one = used_up(), waiting(1, source="10.0.0.9", clock=10)
    assert made.tell(one, NOW) is None
    old = waiting(2, heard_at=one.telling.due, source="10.0.0.9", clock=9)
    assert made.tell(old, one.telling.due) is None and old.telling.due == inf
    assert isinstance(made.tell(one, one.telling.due), Prove)
    made.ask_again(old, NOW + 1.0)
    assert isinstance(made.tell(old, NOW + 1.0), Prove)


def test_an_announcement_that_is_forgotten_keeps_its_sources_next_word_from_older_ones_for_a_moment_only() -> None:
    made, gone = used_up(), waiting(1, source="10.0.0.9", clock=10)
    assert made.tell(gone, NOW) is None
    old = waiting(2, source="10.0.0.9", clock=9)
    assert made.tell(old, gone.telling.due + queue_words.LATE / 2) is None
    assert isinstance(made.tell(old, gone.telling.due + queue_words.LATE), Prove)


def test_if_another_one_took_the_word_the_latest_gets_the_one_after_that() -> None:
    made, one = used_up(), waiting(1, source="10.0.0.9")
    assert made.tell(one, NOW) is None
    due = one.telling.due
    assert made.tell(waiting(2, heard_at=due, source="10.0.0.9"), due) is not None
    assert made.tell(one, due) is None
    assert due < one.telling.due < NOW + 3.0 / WORDS_RATE
    assert isinstance(made.tell(one, one.telling.due), Prove)


def test_a_client_that_has_proved_itself_and_loses_its_way_is_asked_again() -> None:
    """Whoever waits for its source's next word by then."""
    made, one = used_up(), waiting(1, source="10.0.0.9")
    assert made.tell(one, NOW) is None
    one.standing = Standing.PROVED
    assert made.tell(one, NOW) is not None
    assert made.tell(waiting(2, heard_at=NOW + 0.001, source="10.0.0.9"), NOW) is None
    one.standing = Standing.UNPROVED
    assert isinstance(made.tell(one, NOW + 1.0), Prove)


def test_sources_without_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was forgotten is told when it is heard again."""
    monkeypatch.setattr(queue_words, "MAXIMUM_SOURCES", 1)
    made = used_up()
    for number in range(2000, 2000 + int(WORDS_BURST)):
        made.tell(waiting(number, source="10.0.0.8"), NOW)
    ones = [waiting(1, source="10.0.0.9"), waiting(2, source="10.0.0.8")]
    assert [made.tell(one, NOW) for one in ones] == [None, None]
    assert [made.tell(one, NOW + 1.0) is None for one in ones] == [True, False]
    assert ones[0].telling.due == inf


def next_word(made: QueueWords, *waiting: RememberedAnnouncement) -> int | None:
    """Which of these gets the next word of their source, all of which are looked at when it is due."""
    now = min(one.telling.due for one in waiting)
    told = [number for number, one in enumerate(waiting) if one.telling.due <= now and made.tell(one, now)]
    assert len(told) <= 1
    return told[0] if told else None


def test_announcements_of_several_boots_get_the_words_of_their_source_in_turn() -> None:
    """Their clocks cannot be compared, so the latest one is not the newest one."""
    made = used_up()
    old = [waiting(number, source="10.0.0.9", clock=1000 + number, boot=1) for number in range(5)]
    new = waiting(9, source="10.0.0.9", clock=1, boot=2)
    for one in (*old, new):
        assert made.tell(one, NOW) is None
    order = [next_word(made, *old, new), next_word(made, *old, new)]
    assert order == [4, 5]  # the newest of the first boot, then that of the other
    for one in old[:2]:
        made.ask_again(one, one.heard_at + 1.0)
    assert isinstance(made.tell(old[1], NOW + 1.0), Prove)


def test_a_boot_whose_announcements_come_again_and_again_has_one_turn() -> None:
    made = used_up()
    new = waiting(1, source="10.0.0.9", boot=2)
    first = waiting(2, source="10.0.0.9", clock=1, boot=1)
    assert made.tell(first, NOW) is None and made.tell(new, NOW) is None
    due = first.telling.due
    assert isinstance(made.tell(first, due), Prove)
    assert made.tell(new, due) is None
    due = new.telling.due
    for number in (3, 4):
        later = waiting(number, source="10.0.0.9", clock=number, boot=1)
        assert made.tell(later, due) is None  # there is a word, which is for the other boot
    assert isinstance(made.tell(new, due), Prove)
    assert isinstance(made.tell(later, later.telling.due), Prove)


def test_a_new_announcement_takes_the_turn_of_its_own_boot_only() -> None:
    """Regression: one that came as the word was due did not end the turn, and the other boot waited for three more."""
    made = used_up()
    first, other = waiting(1, source="10.0.0.9", clock=1, boot=1), waiting(2, source="10.0.0.9", boot=2)
    assert made.tell(first, NOW) is None and made.tell(other, NOW) is None
    due = first.telling.due
    assert isinstance(made.tell(waiting(3, source="10.0.0.9", clock=2, boot=1), due), Prove)
    assert made.tell(other, due) is None and made.tell(first, due) is None
    assert isinstance(made.tell(other, other.telling.due), Prove)
    assert made.tell(first, first.telling.due) is None
    assert isinstance(made.tell(first, first.telling.due), Prove)


def test_the_boots_of_a_source_that_are_remembered_are_bounded() -> None:
    made = used_up()
    many = [waiting(number, source="10.0.0.9", boot=number) for number in range(MAXIMUM_BOOTS + 1)]
    for one in many:
        assert made.tell(one, NOW) is None
    assert many[-2].telling.due != inf and many[-1].telling.due == inf
    late = many[0].telling.due + queue_words.LATE + 1.0  # all of them have been forgotten
    again = waiting(500, source="10.0.0.9", boot=500)
    assert isinstance(made.tell(again, late), Prove)


def test_announcements_that_wait_for_their_turn_are_seldom_looked_at() -> None:
    """Regression: each was looked at for each word, and 5,000 recordings of 78 sources took 0.45 s of the CPU."""
    made, looks = used_up(), 0
    left = [waiting(number, source="10.0.0.9", boot=number) for number in range(MAXIMUM_BOOTS)]
    for one in left:
        assert made.tell(one, NOW) is None
    while left:
        now = min(one.telling.due for one in left)
        for one in [one for one in left if one.telling.due <= now]:
            looks += 1
            if made.tell(one, now) is not None:
                left.remove(one)
    assert now <= NOW + MAXIMUM_BOOTS / WORDS_RATE + 0.01
    assert looks <= 10 * MAXIMUM_BOOTS


def test_whoever_leaves_ends_the_turn_of_its_boot_and_of_no_other() -> None:
    made = used_up()
    first, other = waiting(1, source="10.0.0.9", clock=1, boot=1), waiting(2, source="10.0.0.9", boot=2)
    newer = waiting(3, source="10.0.0.9", clock=2, boot=1)
    assert [made.tell(one, NOW) for one in (first, other, newer)] == [None, None, None]
    made.leave(first)  # another one has its turn
    assert made.tell(other, newer.telling.due) is None
    made.leave(newer)
    assert isinstance(made.tell(other, other.telling.due), Prove)
    made.leave(other)
    assert not any(one.telling.waits for one in (first, other, newer))


def test_whoever_has_had_its_word_leaves_nothing() -> None:
    made, one = used_up(), waiting(1, source="10.0.0.9", boot=1)
    assert made.tell(one, NOW) is None and list(made.latest) == ["10.0.0.9"]
    assert isinstance(made.tell(one, one.telling.due), Prove)
    assert made.latest == {}


def test_an_announcement_that_comes_from_another_host_waits_there() -> None:
    """Regression: it kept its place at the source that it had left, from others for a moment, and from itself there."""
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, NOW, targeted=True)
    run(machine, connects(machine)[0], NOW)
    old, new = "10.0.0.9", "10.0.0.8"
    for source in (old, new):
        for number in range(1000, 1000 + int(WORDS_BURST)):
            machine.words.tell(waiting(number + 1000 * (source == new), source=source), NOW)
    machine.consider(identity(2), 1, WANTED, NOW, standing=Standing.UNPROVED, source=old, boot=7)
    assert list(machine.words.latest) == [old]
    machine.consider(identity(2), 1, WANTED, NOW, standing=Standing.UNPROVED, source=new, boot=7)
    machine.handle_timeout(NOW)
    assert list(machine.words.latest) == [new]


def test_a_boot_that_has_a_place_keeps_it_where_all_are_taken() -> None:
    made = used_up()
    for number in range(MAXIMUM_BOOTS):
        assert made.tell(waiting(number, source="10.0.0.9", clock=1000, boot=number), NOW) is None
    later = waiting(500, source="10.0.0.9", clock=1, heard_at=NOW + 1.0, boot=3)
    made.latest["10.0.0.9"][3].newness = (0, NOW)
    assert made.tell(later, NOW) is None
    assert later.telling.due != inf and len(made.latest["10.0.0.9"]) == MAXIMUM_BOOTS


@pytest.mark.parametrize("end", ["proved", "connected", "claimed", "forgotten"])
def test_whoever_needs_no_word_any_more_leaves_nothing(end: str) -> None:
    """Regression: its boot kept its place for a tenth of a second, and others waited for that."""
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, NOW, targeted=True)
    run(machine, connects(machine)[0], NOW)
    for number in range(1000, 1000 + int(WORDS_BURST)):
        machine.words.tell(waiting(number, source="10.0.0.9"), NOW)
    machine.consider(identity(2), 1, WANTED, NOW, standing=Standing.UNPROVED, source="10.0.0.9", boot=7)
    assert list(machine.words.latest) == ["10.0.0.9"]
    if end == "proved":
        machine.proved(identity(2), NOW)
    elif end == "connected":
        machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, NOW)
        machine.consider(identity(2), 1, WANTED, NOW, standing=Standing.UNPROVED, source="10.0.0.9", boot=7)
        machine.handle_timeout(NOW)
        assert connects(machine) == [identity(2)]
    elif end == "claimed":
        machine.claimed(identity(2), 1, NOW)
    else:
        machine.forget(identity(2), NOW)
    assert machine.words.latest == {}
