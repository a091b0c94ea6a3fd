"""A run from its first search to its last result, with workers that are no processes and a clock that jumps."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cexec.client.aio.known_workers import FORGET_AFTER
from cexec.client.aio.lease_job import LeaseJob
from cexec.client.aio.pacing import CONTENDED_SEARCHES, FIRST_SEARCHES, IDLE_PATIENCE
from cexec.client.attempt.repetition import MAXIMUM_REFUSALS, MAXIMUM_WITHDRAWALS
from cexec.cmap.inputs.tasks import Task
from cexec.cmap.results import saver
from cexec.cmap.results.outcome import ENDED_BY_US, TaskOutcome
from cexec.cmap.results.saver import MOST_WAITING
from cexec.cmap.run.coordinator import TICK, Coordinator
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.lease_service import HOLD, PERMANENT_PATIENCE
from cexec.cmap.run.observer import Counts, Observer, Running
from cexec.cmap.run.policy import Rate, TimeLimit, parse_halt, parse_placement
from cexec.cmap.run_options import CRASH_LIMIT, Options
from cexec.cmap.setup import Setup
from cexec.errors import CexecError, DisconnectedError, LocalError, NoWorkerError, RefusedError, WithdrawnError
from cexec.protocol.connection.frames import Exit, Go
from cexec.protocol.connection.program_offer import NONE_FITS
from tests.cmap.fakes import (
    BEGIN,
    FakeLease,
    Workers,
    clock,
    exited,
    in_virtual_time,
    instantly,
    names,
    read_input,
    stop_clock_for,
    terms,
)

TERM, KILL = 15, 9
Between = Callable[["Run", Coordinator], Coroutine[Any, Any, None]]


class Run(Observer):
    """One run of some tasks; afterwards it knows all that an observer hears."""

    def __init__(self, workers: Workers, tasks: int = 6, *, accept_timeout: float = 60.0, **options: Any) -> None:
        self.workers = workers
        self.ended_how: list[tuple[int, How]] = []
        self.reasons: list[str] = []
        self.outcomes: dict[int, TaskOutcome] = {}
        self.begun: list[tuple[float, int]] = []
        self.leases_at_once: list[int] = []
        self.told: list[str] = []
        self.took = 0.0
        self._tasks = tasks
        self._accept_timeout = accept_timeout
        self._options = Options(array=[range(1, tasks + 1)], **options)

    def __call__(self, between: Between | None = None) -> int:
        """Runs it, and `between` beside it; returns the exit status."""
        return in_virtual_time(self._run(between))

    async def _run(self, between: Between | None) -> int:
        setup = Setup(
            self._options, application="app.pub", key="app.pub", fingerprint="f",
            arguments=[], inputs=[], stdin=io.BytesIO()
        )  # fmt: skip
        setup.open()
        parts = setup.parts(terms(self._accept_timeout), [self], self.told.append)
        parts.find_worker, parts.clock = self.workers.find_worker, clock
        self.coordinator = Coordinator(parts)
        beside = asyncio.create_task(between(self, self.coordinator)) if between is not None else None
        try:
            status = await self.coordinator.run()
            if beside is not None:
                await beside
            return status
        finally:
            self.took = clock() - BEGIN
            setup.end_validators()
            setup.close()

    def began(self, running: Running, now: float) -> None:
        self.begun.append((now - BEGIN, running.task))

    def ended(self, running: Running, ending: AttemptEnding, bytes_out: int, now: float) -> None:
        self.ended_how.append((running.task, ending.how))
        self.reasons.append(ending.reason)

    def settled(self, task: Task, outcome: TaskOutcome, now: float) -> None:
        assert task.number not in self.outcomes
        self.outcomes[task.number] = outcome

    def counted(self, counts: Counts, now: float) -> None:
        self.leases_at_once.append(sum(counts.leases.values()))


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_lease_runs_one_task_after_another() -> None:
    run = Run(Workers(instantly), 40)
    assert run() == 0
    assert sorted(run.outcomes) == list(range(1, 41)) and all(o.succeeded for o in run.outcomes.values())
    assert len(run.workers.leases) == 4  # two workers with two slots each
    assert {lease.ended for lease in run.workers.leases} == {"released"}
    assert sum(lease.jobs for lease in run.workers.leases) == 40
    assert run.took < 40 * 0.1 / 4 + TICK


def test_when_more_tasks_end_in_one_moment_than_may_wait_for_the_disk_no_lease_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: leases that found no room were given up, and their workers searched for again."""

    async def on_a_slow_disk(save: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(HOLD / 20)  # in the time of this test, unlike a thread
        return save(*arguments)

    monkeypatch.setattr(saver, "in_thread", on_a_slow_disk)
    slots = 2 * MOST_WAITING
    arrived = 0
    all_are_there = asyncio.Event()

    async def together(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        nonlocal arrived
        arrived += 1
        if arrived == slots:
            all_are_there.set()
        await all_are_there.wait()
        return await instantly(lease, job, go)

    run = Run(Workers(together, "a", slots=slots), 2 * slots)
    assert run() == 0
    assert len(run.workers.leases) == slots and len(run.outcomes) == 2 * slots


def test_no_more_leases_than_a_worker_may_run_tasks() -> None:
    run = Run(Workers(instantly, slots=8), 20, jobs=parse_placement("2"))
    assert run() == 0
    assert max(run.leases_at_once) <= 4 and names(run.workers.leases) == {"a", "b"}


def test_when_nobody_answers_the_run_ends() -> None:
    run = Run(Workers(instantly, names=""), accept_timeout=7.0)
    with pytest.raises(NoWorkerError, match=r"^no worker answered$"):
        run()
    assert run.took == pytest.approx(7.0, abs=0.2)
    assert run.workers.searches == FIRST_SEARCHES


def test_when_no_worker_is_left_that_is_told_with_what_is_not_done() -> None:
    async def vanishing(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if sum(lease.jobs for lease in run.workers.leases) > 2:
            lease.worker.answers = False
            raise DisconnectedError("gone")
        return exited()

    run = Run(Workers(vanishing, "a", slots=1), 5, accept_timeout=3.0)
    with pytest.raises(NoWorkerError, match=r"^no worker answered; 3 tasks not done$"):
        run()
    assert sorted(run.outcomes) == [1, 2]


def test_a_task_whose_worker_is_lost_runs_on_another_and_the_loss_is_complained_about() -> None:
    async def one_vanishes(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if lease.hello.name == "a":
            lease.worker.answers = False
            raise DisconnectedError("gone")
        return await instantly(lease, job, go)

    run = Run(Workers(one_vanishes, slots=1), 3)
    assert run() == 0
    lost = [lease for lease in run.workers.leases if lease.hello.name == "a"]
    assert [(lease.ended, lease.complaints) for lease in lost] == [("closed", ["gone"])]
    assert [how for _, how in run.ended_how].count(How.LOST) == 1
    assert all(outcome.worker.startswith("b@") for outcome in run.outcomes.values())


def test_the_last_poison_task_ends_soon_although_workers_rest_that_were_blamed() -> None:
    """Regression: two workers were blamed in turn for each loss, rested for each other's sake, and it took 44 s."""

    async def thirteenth_kills(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(0.2)
        if read_input(job) == b"13\n":
            raise DisconnectedError("gone")
        return exited()

    workers = Workers(thirteenth_kills, slots=4)
    workers.rest = 24.0
    run = Run(workers, 13)
    assert run() == 1
    assert [number for number, outcome in run.outcomes.items() if not outcome.succeeded] == [13]
    assert len([how for _, how in run.ended_how if how is How.LOST]) >= CRASH_LIMIT
    assert sum(lease.blamed for lease in workers.leases) == 1
    assert run.took < 10.0


def test_a_worker_that_is_not_met_for_long_is_forgotten_so_that_no_task_waits_for_it() -> None:
    async def only_a_stays(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if lease.hello.name == "b":
            lease.worker.answers = False
            return exited()
        await asyncio.sleep(3.0)
        return exited(3)

    run = Run(Workers(only_a_stays, slots=1), 2, retries=2)
    assert run() == 1
    *_, (again, task) = run.begun  # rather on b than on a, where it has failed, but b is not there any more
    assert task == 1 and FORGET_AFTER <= again < FORGET_AFTER + 2 * TICK


@pytest.mark.parametrize("permanent", [True, False])
def test_workers_that_can_run_none_of_the_tasks_are_told_and_end_the_run(permanent: bool) -> None:
    async def unfit(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        raise RefusedError("no arguments here" if permanent else f"{NONE_FITS} x", permanent=permanent)

    workers = Workers(unfit)
    workers.begins = False
    run = Run(workers, accept_timeout=9.0)
    with pytest.raises(NoWorkerError, match=r"^no worker of abcd fits: a@10.0.0.1: .*; 6 tasks not done$"):
        run()
    assert run.took == pytest.approx(PERMANENT_PATIENCE if permanent else 9.0, abs=TICK + 0.1)
    assert sorted(line.partition(":")[0] for line in run.told) == [
        f"worker {name}@10.0.0.1 gets no task" for name in "ab"
    ]
    assert {how for _, how in run.ended_how} == {How.UNFIT} and not run.outcomes


def test_a_refusal_sends_the_task_elsewhere() -> None:
    async def a_refuses(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if lease.hello.name == "a":
            raise RefusedError("no memory", permanent=False)
        return exited()

    run = Run(Workers(a_refuses), 4)
    assert run() == 0
    assert {outcome.worker for outcome in run.outcomes.values()} == {"b@10.0.0.1"}
    assert "refused: no memory" in run.reasons


def test_a_task_that_takes_too_long_gets_each_signal_and_then_loses_the_connection() -> None:
    async def deaf(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(1000.0)
        return exited()

    run = Run(Workers(deaf, "a", slots=1), 1, timeout=TimeLimit(10.0), term_seq=[(TERM, 0.5), (TERM, 0.2), (KILL, 0.1)])
    assert run() == 1
    (lease,) = run.workers.leases
    times = [time - BEGIN for time, _ in lease.signals]
    assert [number for _, number in lease.signals] == [TERM, TERM, KILL]
    assert times == pytest.approx([10.0, 10.5, 10.7], abs=0.1)
    assert lease.ended == "closed" and run.took == pytest.approx(10.8, abs=0.1)
    outcome = run.outcomes[1]
    assert (outcome.reason, outcome.exitval, outcome.signal) == ("ran into its time limit of 10 s", ENDED_BY_US, 0)
    assert run.ended_how == [(1, How.FAILED)]


@pytest.mark.parametrize("late", [False, True])
def test_a_result_that_has_come_is_not_thrown_away_while_it_is_validated(late: bool) -> None:
    """Regression: the time of --validate counted for --timeout, and a success that was late was cancelled in it."""

    async def succeeds(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if late:
            await lease.signalled.wait()
        return exited()

    run = Run(Workers(succeeds, "a", slots=1), 1, timeout=TimeLimit(5.0), validate="sleep 0.5")
    assert run() == 0
    assert run.outcomes[1].succeeded and run.took > 10.0
    assert [number for _, number in run.workers.leases[0].signals][:1] == ([TERM] if late else [])


def test_a_validation_is_ended_by_the_user() -> None:
    async def stop(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(5.0)
        coordinator.stop(end_running=True)

    run = Run(Workers(instantly, "a", slots=1), 1, validate="sleep 600")
    assert run(stop) == 0
    assert run.ended_how == [(1, How.CANCELLED)] and not run.outcomes


def test_time_limits_are_judged_after_what_came_while_cmap_was_stopped_was_read() -> None:
    """Regression: a task that had ended in time "ran into its time limit", because the clock was looked at first."""

    async def fails_after_five_seconds(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(5.0)
        return exited(3)

    async def stop(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(3.0)
        stop_clock_for(100.0)

    run = Run(Workers(fails_after_five_seconds, "a", slots=1), 1, timeout=TimeLimit(10.0))
    assert run(stop) == 1
    assert run.outcomes[1].reason == "exited with 3" and not run.workers.leases[0].signals


def test_a_withdrawn_offer_costs_its_task_nothing_and_nobody_complains() -> None:
    """Regression: an offer that cmap answered too late, because it had been stopped, counted as a refusal."""

    async def withdraws_often(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if run.workers.searches < 3 * MAXIMUM_REFUSALS:
            raise WithdrawnError("client did not answer in time")
        return exited()

    workers = Workers(withdraws_often, "a", slots=1, once=True)
    workers.begins = False
    run = Run(workers, 1)
    assert run() == 0
    assert [lease.complaints for lease in workers.leases] == [[]] * len(workers.leases)
    assert {how for _, how in run.ended_how} == {How.WITHDRAWN, How.SUCCEEDED}
    assert run.reasons[0] == "the worker took its offer back: client did not answer in time"


def test_offers_that_are_withdrawn_for_ever_end_the_task() -> None:
    async def withdraws(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        raise WithdrawnError("no")

    workers = Workers(withdraws, "a", slots=1)
    workers.begins = False
    run = Run(workers, 1)
    assert run() == 1
    assert run.outcomes[1].reason == f"the worker took its offer back: no; {MAXIMUM_WITHDRAWALS} offers were taken back"


def test_a_program_that_listens_is_not_hung_up_on() -> None:
    async def listening(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await lease.signalled.wait()
        return exited(143)

    run = Run(Workers(listening, "a", slots=1), 1, timeout=TimeLimit(10.0))
    assert run() == 1
    (lease,) = run.workers.leases
    assert [number for _, number in lease.signals] == [TERM] and lease.ended == "released"
    assert run.outcomes[1].exitval == ENDED_BY_US


def test_a_success_that_comes_too_late_is_a_success_with_its_own_exit_value() -> None:
    """Regression: the joblog said -1, as of a task that was ended."""

    async def late(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await lease.signalled.wait()
        return exited(0)

    run = Run(Workers(late, "a", slots=1), 1, timeout=TimeLimit(10.0))
    assert run() == 0
    assert (run.outcomes[1].succeeded, run.outcomes[1].exitval, run.outcomes[1].signal) == (True, 0, 0)


def test_halting_now_cancels_what_runs_and_settles_nothing_else() -> None:
    async def one_fails(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(1.0 if len(run.begun) == 1 else 1000.0)
        return exited(7)

    run = Run(Workers(one_fails), 8, halt=parse_halt("now,fail=1"))
    assert run() == 7
    assert list(run.outcomes) == [1]
    assert sorted(how.value for _, how in run.ended_how) == ["cancelled"] * 3 + ["failed"]
    assert {lease.ended for lease in run.workers.leases} == {"closed", "released"}
    assert run.coordinator.attempts.not_done == "7 tasks not done"


def test_the_user_ends_what_runs() -> None:
    async def long(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(1000.0)
        return exited()

    async def stop(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(5.0)
        coordinator.stop(end_running=False)
        await asyncio.sleep(5.0)
        assert len(coordinator.attempts.running) == 4 and not run.ended_how
        coordinator.stop(end_running=True)

    run = Run(Workers(long), 9)
    assert run(stop) == 0
    assert [how for _, how in run.ended_how] == [How.CANCELLED] * 4 and set(run.reasons) == {"ended by the user"}
    assert run.took < 12.0 and not run.outcomes


def test_a_worker_that_is_lost_before_it_can_be_told_costs_the_task_nothing() -> None:
    workers = Workers(instantly, "a", slots=1)
    chosen: list[Go] = []
    find = workers.find_worker

    async def lose_the_first(terms: Any, choose: Callable[[Any, str], Go]) -> Any:
        if not chosen:
            chosen.append(choose(workers.workers[0].hello, "10.0.0.1"))
        return await find(terms, choose)

    workers.find_worker = lose_the_first  # type: ignore[method-assign]
    run = Run(workers, 2)
    assert run() == 0
    assert run.ended_how[0] == (1, How.WITHDRAWN) and len(run.begun) == 2
    assert run.reasons[0] == "the worker was lost before the task began"


def test_a_search_that_fails_after_a_worker_was_lost_before_it_could_be_told_ends_the_run() -> None:
    """Regression: the attempt that the lost worker was to have was never ended, and cmap waited for it for ever."""
    workers = Workers(instantly, names="a")
    find = workers.find_worker

    async def loses(terms: Any, choose: Callable[[Any, str], Go]) -> Any:
        worker = workers.workers[0]
        if worker.answers:
            choose(worker.hello, worker.address)  # the connection breaks before the job is sent, and nobody else comes
            worker.answers = False
        return await find(terms, choose)

    workers.find_worker = loses  # type: ignore[method-assign]
    run = Run(workers, 1, accept_timeout=5.0)
    with pytest.raises(NoWorkerError, match=r"^no worker answered; 1 task not done$"):
        run()


def test_a_rate_keeps_leases_that_need_not_wait_for_long() -> None:
    run = Run(Workers(instantly, "a", slots=1), 5, rate=Rate(1, HOLD / 2))
    assert run() == 0
    begun = [time for time, _ in run.begun]
    assert all(later - sooner >= HOLD / 2 - 0.001 for sooner, later in pairwise(begun))
    assert len(run.workers.leases) == 1
    slow = Run(Workers(instantly, "a", slots=1), 3, rate=Rate(1, 60.0))
    assert slow() == 0
    assert len(slow.workers.leases) == 3 and slow.took == pytest.approx(120.0, abs=2 * TICK)


def test_leases_are_given_back_where_others_want_the_workers_too() -> None:
    workers = Workers(instantly, "a", slots=1)
    workers.confirms_after = 2 * IDLE_PATIENCE
    run = Run(workers, 4)
    assert run() == 0
    assert [lease.jobs for lease in workers.leases] == [1] * 4
    assert workers.searches >= CONTENDED_SEARCHES


def test_what_cannot_be_read_or_written_here_ends_the_run() -> None:
    async def full(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(1.0)
        raise LocalError("cannot write stream 1 of a job: no space left on device")

    run = Run(Workers(full), stdout="{}.out")
    with pytest.raises(LocalError, match="no space left"):
        run()
    assert run.took < 1.0 + TICK and {lease.ended for lease in run.workers.leases} == {"closed"}
    assert not list(Path().iterdir())  # what the attempts wrote is gone


def test_an_error_of_our_own_ends_the_run_and_is_told() -> None:
    async def broken(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        raise ZeroDivisionError

    with pytest.raises(CexecError, match=r"^internal error: ZeroDivisionError\(\)$"):
        Run(Workers(broken))()


def test_speculation_takes_the_faster_attempt_and_cancels_the_other() -> None:
    async def b_is_slow(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(1000.0 if lease.hello.name == "b" else 1.0)
        return exited()

    run = Run(Workers(b_is_slow, slots=1), 5, speculate=True)
    assert run() == 0
    assert run.took < 20.0 and len(run.outcomes) == 5
    assert [how for _, how in run.ended_how].count(How.CANCELLED) == 1
    assert {outcome.worker for outcome in run.outcomes.values()} == {"a@10.0.0.1"}


def test_a_service_with_once_that_is_lost_is_not_asked_again() -> None:
    async def lost(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        raise DisconnectedError("gone")

    run = Run(Workers(lost, once=True), 1, retries=5)
    assert run() == 1
    assert len(run.begun) == 1 and "must not run a task twice" in run.outcomes[1].reason
