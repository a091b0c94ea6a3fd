"""What the process of a job remembers of its worker's words, and what the worker remembers of them."""

from __future__ import annotations

from unittest import mock

import pytest

from cexec.worker.jobs.carrier import Carrier, Orders
from cexec.worker.jobs.process_states import Credit
from cexec.worker.jobs.reports import JOBS_AHEAD, Idle, Word


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


@pytest.mark.parametrize("held", [True, False])
def test_the_worker_can_read_a_report_before_the_client_gets_what_it_is_about(held: bool) -> None:
    """Regression: a job process that was killed in between left the client a success, and the log a lost job (N8)."""
    both, report = mock.Mock(), Idle()
    both.parent.fileno.return_value = 0
    with mock.patch("cexec.worker.jobs.carrier.Wakeup"), mock.patch("cexec.worker.jobs.carrier.Liveness"):
        carrier = Carrier(both.pump, both.parent)
    both.reset_mock()
    carrier.send_behind(report, held=held)
    assert both.mock_calls == [
        mock.call.parent.note(report),
        mock.call.pump.hold_back() if held else mock.call.pump.let_go(),
        mock.call.pump.flush(),
        mock.call.parent.wake_for(report),
    ]
