"""What is remembered of a run, in bounded memory."""

from __future__ import annotations

from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.watch.history import MOST_FAILURES, MOST_SPANS, History
from cexec.cmap.watch.statistics import statistics
from tests.cmap.watch.watching import BEGIN, attempt, counts, play, settle


def test_workers_and_their_slots() -> None:
    history = History()
    play(history, {1: ("a@x", 0, 2, ""), 2: ("a@x", 1, 3, "bad"), 3: ("b@x", 1, 5, ""), 4: ("a@x", 2.5, 4, "")})
    history.counted(counts(done=1), BEGIN + 5)
    one, other = history.ordered()
    assert [(w.name, w.succeeded, w.failed, w.busy, w.bytes_out) for w in (one, other)] == [
        ("a@x", 2, 1, 5.5, 1500), ("b@x", 1, 0, 4.0, 500),
    ]  # fmt: skip
    assert [[span.task for span in slot.spans] for slot in one.slots] == [[1, 4], [2]]
    assert one.mean == 1.75
    assert (history.succeeded, history.failed, history.left, history.rate) == (3, 1, 5, 0.8)
    assert history.seconds_left == 5 / 0.8
    assert [(failure.number, failure.reason) for failure in history.failures] == [(2, "bad")]


def test_what_runs_now() -> None:
    history = History()
    history.opened(None, BEGIN)
    history.began(running := attempt(1), BEGIN + 1)
    assert history.ordered()[0].running == 1 and history.left is None and history.seconds_left is None
    history.ended(running, AttemptEnding(How.LOST, "gone"), 0, BEGIN + 2)
    assert (history.ordered()[0].running, history.ordered()[0].lost) == (0, 1)


def test_a_pause_costs_what_does_not_run_and_the_rate_leaves_that_out() -> None:
    history = History()
    history.opened(10, BEGIN)
    running = [attempt(number) for number in (1, 2, 3)]
    for one in running:
        history.began(one, BEGIN)
    for now in (1, 2):
        history.counted(counts(paused=True), BEGIN + now)
        assert history.paused and history.idle == 0.0, "all three programs run"
    for end, one in zip((2, 8), running, strict=False):
        history.ended(one, AttemptEnding(How.SUCCEEDED), 0, BEGIN + end)
        settle(history, one, end)
    assert history.idle == 6 * 1 / 3
    history.ended(running[2], AttemptEnding(How.SUCCEEDED), 0, BEGIN + 8)
    settle(history, running[2], 8)
    history.counted(counts(paused=True), BEGIN + 1000)
    assert history.idle == 6 * 1 / 3 + 992 and history.rate == 3 / 6 and history.seconds_left == 14.0
    history.counted(counts(), BEGIN + 1001)
    history.counted(counts(), BEGIN + 1003)
    assert history.idle == 6 * 1 / 3 + 993 and history.rate == 3 / 8
    assert statistics(history)[0].endswith("; 16 min 43 s (16 min 35 s of it lost to pauses), 0.375 tasks/s")


def test_a_pause_in_which_nothing_ran_costs_all_of_its_time() -> None:
    history = History()
    history.opened(10, BEGIN)
    history.counted(counts(paused=True), BEGIN + 1)
    history.counted(counts(), BEGIN + 5)
    assert history.idle == 4.0 and not history.paused
    history.counted(counts(), BEGIN + 6)
    assert history.idle == 4.0


def test_an_attempt_that_was_never_begun() -> None:
    history = History()
    history.opened(1, BEGIN)
    history.ended(attempt(1), AttemptEnding(How.REFUSED, "no"), 0, BEGIN + 1)
    assert history.ordered()[0].turned_away == 1 and not history.ordered()[0].slots


def test_memory_is_bounded_and_what_went_wrong_stays() -> None:
    history = History()
    history.opened(5000, BEGIN)
    for number in range(5000):
        history.began(running := attempt(number), BEGIN + number)
        how = How.FAILED if number == 2500 else How.SUCCEEDED
        history.ended(running, AttemptEnding(how), 0, BEGIN + number + 1)
        settle(history, running, number + 1, "bad")
    (slot,) = history.ordered()[0].slots
    assert len(slot.spans) <= MOST_SPANS
    assert sum(span.count for span in slot.spans) == 5000
    assert [span.task for span in slot.spans if span.how is How.FAILED] == [2500]
    assert (len(history.failures), history.failed) == (MOST_FAILURES, 5000)


def test_memory_is_bounded_whatever_happens() -> None:
    history = History()
    history.opened(None, BEGIN)
    for number in range(2000):
        history.began(running := attempt(number), BEGIN + number)
        history.ended(running, AttemptEnding(How.FAILED if number % 2 else How.SUCCEEDED), 0, BEGIN + number + 1)
    (slot,) = history.ordered()[0].slots
    assert len(slot.spans) <= MOST_SPANS and sum(span.count for span in slot.spans) == 2000
