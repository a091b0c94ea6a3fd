"""The process of a job that hears from its worker that another client waits for the slot, and tells its client so."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from cexec.protocol.base.limits import INITIAL_WINDOW
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import FIRST_FILE, Stream
from cexec.protocol.connection.options import FILE, READS
from cexec.worker.jobs.reports import Idle, JobFinished, ProgramStarted, Report, Taken, Word
from tests.jobs import STANDARD, RemoteJob, shell

ASKS = {"tell-wanted": "yes"}
LEASED = {"lease": "yes"}
WAITS = "trap 'exit 3' TERM; echo; while :; do sleep 0.05; done"  # until it gets the signal


def waiting(options: dict[str, str], *, script: str = WAITS, packed: bool = True, **fields: Any) -> RemoteJob:
    """A job of the second revision whose program waits for a signal."""
    return shell(script, options=options, packed=packed, **fields)


def say(job: RemoteJob, *words: Word) -> None:
    for word in words:
        job.parent.send(word.value)


def told(job: RemoteJob) -> int:
    """How often the client was told."""
    return sum(event.kind == frames.WANTED for event in job.events)


def runs(job: RemoteJob) -> None:
    """Waits until the program waits."""
    job.until(lambda: job.output(1))


def end(job: RemoteJob) -> None:
    job.session.signal(signal.SIGTERM)
    assert job.result().exit_status == 3


def reported(job: RemoteJob, kind: type[Report]) -> Any:
    """The next report, which is of this kind."""
    report = job.report()
    assert type(report) is kind
    return report


def test_a_job_that_has_asked_tells_its_client_once() -> None:
    with waiting(ASKS) as job:
        runs(job)
        say(job, Word.WANTED)
        job.until(lambda: told(job))
        say(job, Word.WANTED)
        end(job)
        assert told(job) == 1


def test_a_client_that_takes_no_notice_loses_nothing() -> None:
    data = b"input " * 500_000
    with waiting(ASKS, script=WAITS.replace("echo", "cat"), inputs={0: data}) as job:
        job.until(lambda: job.started)
        say(job, Word.WANTED)
        job.until(lambda: told(job) and len(job.output(1)) == len(data))
        end(job)
        assert (job.output(1), told(job)) == (data, 1)


@pytest.mark.parametrize(("options", "packed"), [({}, True), ({"tell-wanted": "no"}, True), (ASKS, False)])
def test_nobody_is_told_who_has_not_asked_or_cannot_be(options: dict[str, str], packed: bool) -> None:
    with waiting({**options, **LEASED}, packed=packed) as job:
        runs(job)
        say(job, Word.WANTED, Word.LAST)
        end(job)
        assert told(job) == 0
        reported(job, ProgramStarted)
        assert not reported(job, JobFinished).idle  # so the last word was heard, and the one before it


def test_a_word_that_comes_while_files_come_is_kept_until_the_program_runs() -> None:
    streams = [*STANDARD, Stream(FIRST_FILE, READS, FILE, name="in")]
    with waiting(ASKS, streams=streams, inputs={FIRST_FILE: bytes(20 * INITIAL_WINDOW)}) as job:
        job.until(lambda: job.pump.moved > INITIAL_WINDOW)
        assert not job.started
        say(job, Word.WANTED)
        job.until(lambda: told(job))
        kinds = [event.kind for event in job.events]
        assert kinds.index(frames.STARTED) < kinds.index(frames.WANTED)
        runs(job)
        end(job)


def test_a_word_about_an_earlier_job_is_not_passed_on() -> None:
    with waiting({**ASKS, **LEASED}) as job:
        runs(job)
        end(job)
        reported(job, ProgramStarted)
        if not reported(job, JobFinished).idle:
            reported(job, Idle)
        say(job, Word.WANTED, Word.OFFER)
        job.again(b"the second job 2", {0: b""})
        runs(job)
        end(job)
        assert told(job) == 0


def test_each_job_of_a_lease_hears_of_its_own_slot() -> None:
    with waiting({**ASKS, **LEASED}) as job:
        for number in range(1, 4):
            runs(job)
            say(job, Word.WANTED)
            job.until(lambda number=number: told(job) == number)  # type: ignore[misc]
            end(job)
            say(job, Word.OFFER)
            job.again(b"another job %4d" % number, {0: b""})


@pytest.mark.parametrize(("options", "packed", "hears"), [(ASKS, True, True), ({}, True, False), (ASKS, False, False)])
def test_the_worker_is_told_which_jobs_want_to_hear(options: dict[str, str], packed: bool, hears: bool) -> None:
    with waiting({**options, **LEASED}, script="exit 3", packed=packed) as job:
        job.result()
        say(job, Word.OFFER)
        job.again(b"the second job 2", {0: b""})
        job.result()
        job.let_go()
        (taken,) = [report for report in job.reports() if isinstance(report, Taken)]
        assert taken.hears == hears
