"""What the process of a job remembers of its worker's words, and what the worker remembers of them."""

from __future__ import annotations

import pytest

from cexec.worker.jobs.carrier import Orders
from cexec.worker.jobs.process_states import Credit
from cexec.worker.jobs.reports import JOBS_AHEAD, Word


def orders(*words: Word) -> Orders:
    result = Orders()
    for word in words:
        result.follow(word)
    return result


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), Orders()),
        ((Word.OFFER,), Orders(may_offer=True)),
        ((Word.LAST,), Orders(last=True)),
        ((Word.AHEAD,), Orders(ahead=JOBS_AHEAD)),
        ((Word.AHEAD, Word.ASK), Orders()),
        ((Word.ASK, Word.AHEAD, Word.OFFER), Orders(may_offer=True, ahead=JOBS_AHEAD)),
        ((Word.LAST, Word.OFFER), Orders(may_offer=True, last=True)),
        ((Word.WANTED, Word.AHEAD), Orders(wanted=True, ahead=JOBS_AHEAD)),
    ],
)
def test_each_word_is_remembered_until_it_matters(words: tuple[Word, ...], wanted: Orders) -> None:
    assert orders(*words) == wanted


def test_as_many_jobs_go_ahead_as_were_allowed() -> None:
    given = orders(Word.AHEAD)
    assert [given.take_ahead() for _ in range(JOBS_AHEAD + 1)] == [True] * JOBS_AHEAD + [False]


def test_no_job_goes_ahead_after_the_last_one() -> None:
    assert not orders(Word.AHEAD, Word.LAST).take_ahead()


def test_the_worker_never_believes_that_more_is_left_than_the_process_has() -> None:
    """An AHEAD sets the count on both sides, and each job lowers both."""
    given, credit = orders(Word.AHEAD), Credit()
    credit.grant()
    for _ in range(JOBS_AHEAD):
        assert given.take_ahead()
        credit.spend()
    assert (credit.left, credit.granted, credit.low()) == (0, True, True)
    credit.spend()  # a report that crossed an ASK
    assert credit.left == 0
    credit.revoke()
    assert (credit.left, credit.granted) == (0, False)


def test_credit_is_renewed_when_half_of_it_is_used() -> None:
    credit = Credit()
    assert credit.low()
    credit.grant()
    spent = 0
    while not credit.low():
        credit.spend()
        spent += 1
    assert spent == JOBS_AHEAD // 2
