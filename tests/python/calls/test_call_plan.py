"""Which call goes where: the plan with a clock of the test's own."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cexec.client.aio.pacing import CONTENDED_FOR
from cexec.pool.call_messages import CALL, SMALL
from cexec.python.calls.call import CallFuture, PoolCall
from cexec.python.calls.call_plan import (
    IDLE_WHILE_CONTENDED,
    LONGEST_TURN,
    MOST_AHEAD,
    MOST_OPENING,
    UNWANTED,
    CallPlan,
)
from cexec.python.calls.functions import SentFunction
from cexec.python.calls.planned_slots import (
    GONE,
    LEAVING,
    READY,
    STUCK,
    Close,
    Doomed,
    End,
    Open,
    PlannedSlot,
    TakeBack,
)

FUNCTION = SentFunction(1, "f", [b""], None)
QUICK, MIDDLE, SLOW = 0.0, 0.04, 10.0  # seconds that calls take; only quick ones are sent ahead


def make_call(size: int = 10) -> PoolCall:
    return PoolCall(CALL, FUNCTION, [b""], size, CallFuture(lambda call: None))


class Scene:
    """A plan, its clock, and what it has said."""

    def __init__(
        self, *, most_slots: int | None = None, retries: int = 2, idle_timeout: float = 60.0, weight: int = 1
    ) -> None:
        self.plan = CallPlan(most_slots=most_slots, retries=retries, idle_timeout=idle_timeout, weight=weight)
        self.now = 100.0
        self.events: list[Any] = []

    def follow(self, seconds: float = 0.0) -> list[Any]:
        """Lets time pass; returns what the plan says then."""
        self.now += seconds
        self.plan.follow(self.now)
        said = []
        while (event := self.plan.next_event()) is not None:
            said.append(event)
        self.events += said
        return said

    def submit(self, count: int = 1, size: int = 10) -> list[PoolCall]:
        calls = [make_call(size) for _ in range(count)]
        for call in calls:
            self.plan.submit(call)
        self.follow()
        return calls

    def opening(self) -> list[PlannedSlot]:
        return [slot for slot in self.plan.slots if slot.state not in (READY, GONE)]

    def open(self, *workers: str, took: float = 0.0) -> list[PlannedSlot]:
        slots = self.opening()[: len(workers)]
        assert len(slots) == len(workers)
        self.now += took
        for slot, worker in zip(slots, workers, strict=True):
            self.plan.holds(slot, self.now)
            self.plan.opened(slot, worker, self.now)
        self.follow()
        return slots

    def finish(self, slot: PlannedSlot, took: float = QUICK, count: int = 1) -> None:
        for _ in range(count):
            self.plan.finished(slot, next(iter(slot.sent)), took, self.now)
        self.follow()

    def said(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def learned(took: float, calls: int = 20, **options: Any) -> tuple[Scene, PlannedSlot]:
    """A slot that has run some calls, each of which took so long."""
    scene = Scene(**options)
    scene.submit(calls)
    (slot,) = scene.open("a")
    while slot.sent:
        scene.finish(slot, took)
    for spare in scene.opening():
        scene.plan.lost(spare, "", scene.now)
    scene.events.clear()
    return scene, slot


def test_there_are_as_many_slots_as_calls_up_to_a_limit() -> None:
    scene = Scene()
    scene.submit(2)
    assert len(scene.said(Open)) == 2
    scene.submit(50)
    assert len(scene.said(Open)) == MOST_OPENING
    scene.open("a", "b", "c")
    assert len(scene.said(Open)) == MOST_OPENING + 3
    limited = Scene(most_slots=2)
    limited.submit(50)
    limited.open("a")
    assert len(limited.said(Open)) == 2


def test_calls_go_to_all_slots_before_any_waits_behind_another() -> None:
    scene = Scene(most_slots=3)
    scene.submit(3)
    slots = scene.open("a", "b", "c")
    assert [len(slot.sent) for slot in slots] == [1, 1, 1]
    scene.submit(6)
    assert [len(slot.sent) for slot in slots] == [1, 1, 1]  # nobody knows yet how long they take
    scene.finish(slots[0])
    assert [len(slot.sent) for slot in slots] == [3, 3, 2]


def test_short_calls_are_sent_ahead_and_long_ones_are_not() -> None:
    scene, slot = learned(QUICK, most_slots=1)
    scene.submit(1000)
    assert MOST_AHEAD / 2 < len(slot.sent) <= MOST_AHEAD + 1
    scene, slot = learned(SLOW, most_slots=1)
    scene.submit(1000)
    assert len(slot.sent) == 1


def test_nothing_is_sent_ahead_without_retries() -> None:
    scene, slot = learned(QUICK, most_slots=1, retries=0)
    scene.submit(10)
    assert len(slot.sent) == 1


def test_a_large_call_has_its_slot_to_itself() -> None:
    scene, slot = learned(QUICK, most_slots=1)
    (large,) = scene.submit(size=SMALL + 1)
    scene.submit(5)
    assert list(slot.sent.values()) == [large]
    scene.finish(slot)
    assert len(slot.sent) == 5
    scene.submit(size=SMALL + 1)
    assert len(slot.sent) == 5


def test_calls_behind_a_long_one_run_elsewhere() -> None:
    scene, slot = learned(QUICK, most_slots=2)
    calls = scene.submit(6)
    (other,) = scene.open("b")
    while other.sent:
        scene.finish(other)
    assert scene.follow() == []
    assert scene.plan.next_timeout() == scene.now + STUCK
    taken = [event.wire_id for event in scene.follow(STUCK) if isinstance(event, TakeBack)]
    assert taken == list(slot.sent)[1:] and taken
    assert scene.follow(1.0) == []  # asked once
    for wire_id in taken:
        scene.plan.returned(slot, wire_id, scene.now)
    scene.follow()
    assert len(other.sent) == len(taken) and calls[0] in slot.sent.values()


def test_only_the_call_that_ran_is_charged_with_the_end_of_a_process() -> None:
    scene, slot = learned(QUICK, most_slots=1)
    calls = scene.submit(3)
    first = next(iter(slot.sent))
    scene.plan.died(slot, first, "killed by SIGKILL", scene.now)
    scene.follow()
    assert [call.crashes for call in calls] == [[("a", "killed by SIGKILL")], [], []]
    assert calls[0] not in slot.sent.values()  # a suspect has a slot to itself
    scene.finish(slot, count=2)
    assert list(slot.sent.values()) == [calls[0]]
    scene.submit(3)
    assert list(slot.sent.values()) == [calls[0]]


def test_the_oldest_call_is_charged_with_the_loss_of_a_slot() -> None:
    scene, slot = learned(QUICK, most_slots=1)
    calls = scene.submit(4)
    scene.plan.lost(slot, "the connection has ended", scene.now)
    scene.follow()
    assert [len(call.crashes) for call in calls] == [1, 0, 0, 0]
    assert scene.said(Open) and scene.plan.unfinished == 4
    (after,) = scene.open("a")
    assert list(after.sent.values()) == [calls[0]]
    scene.finish(after)
    assert list(after.sent.values()) == calls[1:]  # in their order


def test_a_call_that_kills_its_workers_fails_and_the_others_run() -> None:
    scene = Scene(most_slots=1, retries=2)
    killer, other = scene.submit(2)
    (slot,) = scene.open("a")
    for _ in range(3):
        assert not scene.said(Doomed)
        while next(iter(slot.sent.values())) is not killer:
            scene.finish(slot)
        scene.plan.died(slot, killer.wire_id, "exit status 1", scene.now)
        scene.follow()
    assert [event.call for event in scene.said(Doomed)] == [killer]
    assert other.crashes == []
    while slot.sent:
        scene.finish(slot)
    assert scene.plan.unfinished == 0


def test_a_call_that_began_is_never_repeated_without_retries() -> None:
    scene = Scene(most_slots=1, retries=0)
    first, second = scene.submit(2)
    (slot,) = scene.open("a")
    scene.plan.lost(slot, "gone", scene.now)
    scene.follow()
    assert [event.call for event in scene.said(Doomed)] == [first]
    (slot,) = scene.open("b")
    assert list(slot.sent.values()) == [second] and second.crashes == []


def test_a_suspect_waits_for_a_worker_where_it_was_not_lost() -> None:
    scene = Scene(most_slots=2)
    suspect, long = scene.submit(2)
    first, second = scene.open("a", "b")
    scene.plan.died(first, suspect.wire_id, "exit status 1", scene.now)
    scene.follow()
    assert not first.sent and list(second.sent.values()) == [long]
    scene.finish(second)
    assert list(second.sent.values()) == [suspect]


def test_a_suspect_runs_where_it_was_lost_if_there_is_no_other_worker() -> None:
    scene = Scene(most_slots=1)
    (suspect,) = scene.submit()
    (slot,) = scene.open("a")
    scene.plan.died(slot, suspect.wire_id, "exit status 1", scene.now)
    scene.follow()
    assert list(slot.sent.values()) == [suspect]


def test_a_dropped_call_is_forgotten_or_ended() -> None:
    scene = Scene(most_slots=1)
    running, waiting = scene.submit(2)
    (slot,) = scene.open("a")
    scene.plan.drop(waiting)
    scene.plan.drop(running)
    scene.plan.drop(running)
    scene.follow()
    assert [event for event in scene.said(End) if event.wire_id == running.wire_id] == [End(slot, running.wire_id)]
    for wire_id in list(slot.sent):
        scene.plan.ended(slot, wire_id, scene.now)
    scene.follow()
    assert scene.plan.unfinished == 0 and not scene.said(Doomed)


def test_a_dropped_call_is_not_repeated() -> None:
    scene = Scene(most_slots=1)
    (call,) = scene.submit()
    (slot,) = scene.open("a")
    scene.plan.drop(call)
    scene.plan.lost(slot, "gone", scene.now)
    scene.follow()
    assert scene.plan.unfinished == 0 and not scene.said(Doomed)


def test_a_slot_is_given_back_when_it_is_idle_for_long() -> None:
    scene, slot = learned(QUICK, most_slots=1, idle_timeout=60.0)
    assert scene.plan.next_timeout() == scene.now + 60.0
    assert scene.follow(59.0) == []
    assert scene.follow(1.0) == [Close(slot)]
    assert slot.state == GONE and scene.plan.next_timeout() == inf


def test_a_search_that_is_not_needed_is_given_up() -> None:
    scene = Scene(most_slots=2)
    scene.submit(2)
    (slot,) = scene.open("a")
    scene.finish(slot, count=len(slot.sent))
    scene.finish(slot, count=len(slot.sent))
    assert scene.follow(UNWANTED / 2) == []
    assert [type(event) for event in scene.follow(UNWANTED)] == [Close]


def test_a_wanted_slot_is_given_back_after_the_call_in_hand() -> None:
    scene, slot = learned(QUICK, most_slots=1)
    scene.submit(10)
    scene.now += 5.0
    scene.plan.wanted(slot, scene.now)
    said = scene.follow()
    assert [type(event) for event in said] == [TakeBack] * 9
    for event in said:
        scene.plan.returned(slot, event.wire_id, scene.now)
    assert scene.follow(100.0) == []  # the call in hand takes its time
    scene.plan.finished(slot, next(iter(slot.sent)), SLOW, scene.now)
    said = scene.follow()
    assert [type(event) for event in said] == [Close, Open]  # and it takes part in the next draw


def test_a_slot_is_held_as_long_as_it_was_waited_for() -> None:
    for waited, held in ((0.5, 0.5), (60.0, LONGEST_TURN)):
        scene = Scene(most_slots=1)
        scene.submit(10)
        (slot,) = scene.open("a", took=waited)
        scene.plan.wanted(slot, scene.now)
        assert scene.plan.next_timeout() == scene.now + held
        assert scene.follow(held * 0.9) == []
        scene.follow(held * 0.1 + 0.001)
        assert slot.state == LEAVING


def test_a_slot_is_held_weight_times_as_long_as_it_was_waited_for() -> None:
    scene = Scene(most_slots=1, weight=3, retries=0)
    scene.submit(20)
    waited = 1.25  # which is worth 3.75 s: a long turn, and the rest in the next one
    for waits, held in ((waited, LONGEST_TURN), (0.0, 3 * waited - LONGEST_TURN)):
        (slot,) = scene.open("a", took=waits)
        scene.plan.wanted(slot, scene.now)
        assert abs(scene.plan.next_timeout() - scene.now - held) < 1e-6
        scene.now += held
        scene.finish(slot, QUICK)
        assert slot.state == GONE
    (slot,) = scene.open("a", took=1000.0)
    for _ in range(9):
        scene.plan.wanted(slot, scene.now)
        scene.now += LONGEST_TURN
        scene.finish(slot, QUICK)
        assert slot.state == GONE
        (slot,) = scene.open("a")
    scene.plan.wanted(slot, scene.now)
    assert scene.plan.next_timeout() == scene.now  # no more is kept


def share_of_first(weights: tuple[int, int], calls: tuple[float, float], seconds: float, turn_of_other: float) -> float:
    """Returns the share that a pool has of a slot for which it competes, if each turn is drawn by weight.

    The other one is a pool, too, with calls that take so long; or, with `turn_of_other`, something with such turns.
    """
    pools = [Scene(most_slots=1, retries=0, weight=weight) for weight in weights]
    for pool in pools:
        pool.submit(10)
    held, now, draws = [0.0, 0.0], 0.0, random.Random(1)
    while now < seconds:
        (winner,) = draws.choices((0, 1), weights)
        turn = turn_of_other if winner and turn_of_other else take_a_turn(pools[winner], now, calls[winner])
        held[winner] += turn
        now += turn
    return held[0] / sum(held)


def take_a_turn(pool: Scene, now: float, took: float) -> float:
    """Gives the pool a slot that is wanted from the first moment; returns how long it is kept."""
    pool.now = max(pool.now, 100.0 + now)
    began = pool.now
    (slot,) = pool.open("a")
    pool.plan.wanted(slot, pool.now)
    while slot.state != GONE:
        if pool.plan.unfinished < 3:
            pool.submit(3)
        pool.now += took
        pool.finish(slot, took)
    return pool.now - began


@pytest.mark.parametrize(
    ("weights", "calls", "turn_of_other", "fair"),
    [
        ((1, 1), (0.2, 0.2), 0.0, 1 / 2),
        ((3, 1), (0.2, 0.2), 0.0, 3 / 4),
        ((3, 1), (0.2, 1.0), 0.0, 3 / 4),
        ((3, 1), (1.0, 0.2), 0.0, 3 / 4),
        ((2, 1), (0.2, 0.2), 0.0, 2 / 3),
        ((3, 3), (0.2, 0.2), 0.0, 1 / 2),
        ((1, 1), (0.2, 0.0), 0.2, 1 / 2),
        ((3, 1), (0.2, 0.0), 0.2, 3 / 4),
        ((1, 3), (0.2, 0.0), 0.2, 1 / 2),  # it does not know the weight of the other one: docs/python.md, "Sharing"
    ],
)
def test_shares_follow_the_weights(
    weights: tuple[int, int], calls: tuple[float, float], turn_of_other: float, fair: float
) -> None:
    assert abs(share_of_first(weights, calls, 700.0, turn_of_other) - fair) < 0.05


def test_turns_in_a_row_are_made_good() -> None:
    scene = Scene(most_slots=1)
    scene.submit(10)
    for _ in range(4):  # it wins each draw at once, and holds the slot for one call
        (slot,) = scene.open("a")
        scene.plan.wanted(slot, scene.now)
        scene.now += 0.25
        scene.finish(slot, MIDDLE)
        assert slot.state == GONE
    (slot,) = scene.open("a", took=1.5)
    scene.plan.wanted(slot, scene.now)
    assert abs(scene.plan.next_timeout() - (scene.now + 0.5 - MIDDLE / 2)) < 1e-6


def test_slots_without_calls_are_given_back_when_one_is_wanted() -> None:
    """Regression: an idle pool kept its fair share of the slots for a minute, although another client waited."""
    scene = Scene()
    scene.submit(2)
    slots = scene.open("a", "a")
    for slot in slots:
        scene.finish(slot)
    assert scene.follow(5.0) == []
    scene.plan.wanted(slots[0], scene.now)
    scene.follow(IDLE_WHILE_CONTENDED)
    assert {close.slot for close in scene.said(Close)} == set(slots)


def test_a_slot_without_calls_is_kept_for_a_moment_while_others_wait() -> None:
    scene = Scene()
    scene.submit(2)
    first, second = scene.open("a", "a")
    scene.plan.wanted(first, scene.now)
    scene.finish(second)
    assert second.state == READY and scene.plan.next_timeout() <= scene.now + IDLE_WHILE_CONTENDED
    scene.follow(IDLE_WHILE_CONTENDED / 2)
    assert second.state == READY
    scene.follow(IDLE_WHILE_CONTENDED)
    assert second.state == GONE


def test_a_pool_that_was_not_told_for_long_keeps_slots_again() -> None:
    scene = Scene()
    scene.submit(2)
    first, second = scene.open("a", "a")
    scene.plan.wanted(first, scene.now)
    scene.follow(CONTENDED_FOR)
    scene.finish(second)
    scene.follow(30.0)
    assert second.state == READY
    scene.follow(30.0)
    assert second.state == GONE


def test_a_wanted_slot_has_one_call_at_least() -> None:
    scene = Scene(most_slots=1)
    scene.submit()
    (slot,) = scene.opening()
    scene.plan.wanted(slot, scene.now)
    scene.now += 100.0
    scene.open("a")
    assert slot.sent and slot.state == READY
    scene.finish(slot)
    assert scene.said(Close) == [Close(slot)]


def test_a_slot_that_joins_later_gets_calls() -> None:
    scene = Scene()
    scene.submit(100)
    (first,) = scene.open("a")
    (later,) = scene.open("b")
    assert first.sent and later.sent


class PlanMachine(RuleBasedStateMachine):
    """Whatever happens: each call ends once, and no slot has one that another one has."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(most_slots=3, retries=1, idle_timeout=5.0)
        self.calls: list[PoolCall] = []
        self.ends: list[PoolCall] = []

    def _slot(self, index: int) -> PlannedSlot | None:
        busy = [slot for slot in self.scene.plan.held if slot.sent]
        return busy[index % len(busy)] if busy else None

    def _follow(self) -> None:
        for event in self.scene.follow():
            if isinstance(event, Doomed):
                self.ends.append(event.call)

    @rule(count=some.integers(1, 5), size=some.sampled_from([10, SMALL + 1]))
    def submit(self, count: int, size: int) -> None:
        calls = [make_call(size) for _ in range(count)]
        self.calls += calls
        for call in calls:
            self.scene.plan.submit(call)
        self._follow()

    @precondition(lambda self: self.scene.opening())
    @rule(worker=some.sampled_from("abc"))
    def open(self, worker: str) -> None:
        slot = self.scene.opening()[0]
        self.scene.plan.opened(slot, worker, self.scene.now)
        self._follow()

    @rule(index=some.integers(0, 5), took=some.sampled_from([QUICK, SLOW]))
    def finish(self, index: int, took: float) -> None:
        if slot := self._slot(index):
            call = self.scene.plan.finished(slot, next(iter(slot.sent)), took, self.scene.now)
            self.ends += [call] if call else []
        self._follow()

    @rule(index=some.integers(0, 5))
    def die(self, index: int) -> None:
        if slot := self._slot(index):
            self.scene.plan.died(slot, next(iter(slot.sent)), "died", self.scene.now)
        self._follow()

    @rule(index=some.integers(0, 5))
    def lose(self, index: int) -> None:
        if slot := self._slot(index):
            self.scene.plan.lost(slot, "lost", self.scene.now)
        self._follow()

    @rule(index=some.integers(0, 5))
    def come_back(self, index: int) -> None:
        if (slot := self._slot(index)) and len(slot.sent) > 1:
            self.scene.plan.returned(slot, list(slot.sent)[-1], self.scene.now)
        self._follow()

    @rule(index=some.integers(0, 5))
    def want(self, index: int) -> None:
        if slot := self._slot(index):
            self.scene.plan.wanted(slot, self.scene.now)
        self._follow()

    @rule(index=some.integers(0, 50))
    def drop(self, index: int) -> None:
        left = [call for call in self.calls if call not in self.ends and not call.dropped]
        if left:
            self.scene.plan.drop(left[index % len(left)])
        self._follow()

    @rule(seconds=some.sampled_from([0.01, STUCK, 1.0, 3.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.scene.now += seconds
        self._follow()

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        plan = self.scene.plan
        assert len(self.ends) == len(set(map(id, self.ends)))
        sent = [call for slot in plan.slots for call in slot.sent.values()]
        assert len(sent) == len(set(map(id, sent)))
        left = [call for call in self.calls if call not in self.ends and not call.dropped]
        assert {id(call) for call in left} <= {id(call) for call in (*sent, *plan.waiting)}
        assert all(len(slot.sent) == 1 for slot in plan.slots if slot.alone)
        assert all(len(call.crashes) <= 1 for call in left)


TestPlanMachine = PlanMachine.TestCase
TestPlanMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
