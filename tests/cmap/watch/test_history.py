"""What is remembered of a run, in bounded memory."""

from __future__ import annotations

from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.watch.history import MOST_FAILURES, MOST_SPANS, History
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
