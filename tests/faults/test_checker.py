"""The checker of the fault campaign finds planted lies of each kind, and nothing where there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.evidence import gather
from tests.faults.records import (
    ALL,
    CAT,
    CEXEC,
    CMAP,
    EXIT,
    SUM,
    Ended,
    Left,
    Signalled,
    Start,
    Submitted,
    append,
)

DATA = b"the input of a job\n"
JOBLOG = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"


class Account:
    """An honest account of a few jobs, in a directory; each method tells of one job."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("in", "out", "logs", "runs"):
            (directory / name).mkdir()
        self.crat = directory / "crat.log"
        self.crat.touch()
        self._time = 0.0

    def job(
        self,
        name: str,
        kind: str = CAT,
        *,
        way: str = CEXEC,
        status: int = 0,
        said: int | None = None,
        pipe: bool = False,
        reads: int = -1,
    ) -> None:
        """The client got what the program gave, unless it `said` otherwise."""
        (self.directory / "in" / name).write_bytes(DATA)
        submitted = Submitted(name, way, kind, len(DATA), status, self._now(), pipe=pipe, reads=reads)
        append(self.directory, submitted)
        self.start(name)
        self.output(name, {CAT: DATA, SUM: f"{hashlib.sha256(DATA).hexdigest()}  -\n".encode(), EXIT: b""}[kind])
        append(self.directory, Ended(name, status if said is None else said, self._now()))
        self.close(f"job-{name}", status)

    def start(self, name: str, attempt: int = 1, worker: str = "w1") -> None:
        append(self.directory, Start(name, f"job-{name}", attempt, worker, self._now()))
        with (self.directory / "logs" / f"{worker}.1").open("a") as file:
            file.write(f"12:00:00 started job=job-{name} attempt={attempt}\n")

    def output(self, name: str, data: bytes) -> None:
        (self.directory / "out" / name).write_bytes(data)

    def close(self, job: str, status: int) -> None:
        self.log(event=f"1.2.3.4 completed by 5.6.7.8 for app.pub exit code {status}", job=job, status=status)

    def log(self, **event: object) -> None:
        with self.crat.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def task(self, name: str, row: int, status: int = 0) -> None:
        """A task of the run `run`, without its line in the joblog."""
        (self.directory / "in" / name).write_bytes(DATA)
        kind = EXIT if status else CAT
        append(self.directory, Submitted(name, CMAP, kind, len(DATA), status, self._now(), run="run", row=row))
        self.start(name)
        self.output(name, b"" if status else DATA)
        self.close(f"job-{name}", status)

    def joblog(self, *rows: tuple[int, int]) -> None:
        lines = [f"{row}\tw1\t0\t0\t0\t0\t{status}\t0\tcat\n" for row, status in rows]
        (self.directory / "runs" / "run.joblog").write_text(JOBLOG + "".join(lines))

    def counts(self) -> dict[str, int]:
        """What the checker found, without what it did not find."""
        return {name: count for name, count in check(gather(self.directory)).counts.items() if count}

    def _now(self) -> float:
        self._time += 1
        return self._time


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path)


def test_nothing_is_found_in_an_honest_account(account: Account) -> None:
    account.job("a")
    account.job("b", SUM)
    account.job("c", EXIT, status=7)
    account.job("failed", said=111)
    account.output("failed", b"")
    account.job("failed-into-a-pipe", said=111, pipe=True)
    account.output("failed-into-a-pipe", DATA[:5])
    account.job("closed-early", reads=4, said=141)
    account.output("closed-early", DATA[:4])
    account.job("interrupted", said=130)
    account.output("interrupted", b"")
    append(account.directory, Signalled("interrupted", 2))
    account.job("killed", said=-9)
    append(account.directory, Signalled("killed", 9))
    account.start("killed", attempt=2)  # its worker was late to learn that the client has gone
    account.job("everywhere", way=ALL)
    account.task("task", 1)
    account.task("exits", 2, status=3)
    account.joblog((1, 0), (2, 3))
    append(account.directory, Ended("run", 1, 100.0))
    append(account.directory, Start("a", "job-lost", 1, "w1", 0.0))
    account.log(event="1.2.3.4 rats out 5.6.7.8 for app.pub", job="job-lost", attempt=1)
    assert account.counts() == {}
    assert len(gather(account.directory).starts) == 13


Lie = Callable[[Account], None]
LIES: dict[str, tuple[str, Lie]] = {}  # about a job, by name: the kind of harm, and how it is told
TASK_LIES: dict[str, tuple[str, Lie]] = {}  # about the task x of a run of cmap


def lie(kind: str, lies: dict[str, tuple[str, Lie]] = LIES) -> Callable[[Lie], Lie]:
    def add(tell: Lie) -> Lie:
        lies[tell.__name__] = (kind, tell)
        return tell

    return add


@lie("lost")
def a_client_that_never_ended(account: Account) -> None:
    append(account.directory, Submitted("x", CEXEC, CAT, 0, 0, 1.0))


@lie("lost")
def a_client_that_crashed(account: Account) -> None:
    account.job("x", said=-11)


@lie("lost")
def a_success_whose_output_is_not_there(account: Account) -> None:
    account.job("x")
    (account.directory / "out" / "x").unlink()


@lie("doubled")
def two_outputs_in_one(account: Account) -> None:
    account.job("x")
    account.output("x", DATA + DATA)


@lie("doubled")
def an_attempt_that_ran_twice(account: Account) -> None:
    account.job("x")
    append(account.directory, Start("x", "job-x", 1, "w2", 0.0))


@lie("doubled")
def a_start_after_the_end(account: Account) -> None:
    account.job("x")
    account.start("x", attempt=2)


@lie("doubled")
def a_job_that_nobody_has_submitted(account: Account) -> None:
    account.start("x")
    account.close("job-x", 0)


@lie("corrupted")
def another_output(account: Account) -> None:
    account.job("x")
    account.output("x", DATA[:-1] + b"?")


@lie("corrupted")
def another_digest(account: Account) -> None:
    account.job("x", SUM)
    account.output("x", b"0" * 64 + b"  -\n")


@lie("corrupted")
def half_a_file_after_a_failure(account: Account) -> None:
    account.job("x", said=111)
    account.output("x", DATA[:5])


@lie("corrupted")
def other_bytes_in_a_pipe_after_a_failure(account: Account) -> None:
    account.job("x", said=111, pipe=True)
    account.output("x", b"?")


@lie("corrupted")
def other_bytes_after_a_signal(account: Account) -> None:
    account.job("x", said=130)
    account.output("x", b"?")
    append(account.directory, Signalled("x", 2))


@lie("corrupted")
def other_bytes_before_a_pipe_was_closed(account: Account) -> None:
    account.job("x", reads=1)
    account.output("x", b"?")


@lie("false_success")
def a_success_without_all_bytes(account: Account) -> None:
    account.job("x")
    account.output("x", DATA[:5])


@lie("false_success")
def a_success_in_place_of_a_failure(account: Account) -> None:
    account.job("x", EXIT, status=7, said=0)


@lie("false_success")
def a_status_that_the_program_never_had(account: Account) -> None:
    account.job("x", said=3)


@lie("false_success")
def a_status_of_a_signal_that_nobody_sent(account: Account) -> None:
    account.job("x", said=130)


@lie("false_success")
def a_success_of_a_program_that_never_ran(account: Account) -> None:
    append(account.directory, Submitted("x", CEXEC, EXIT, 0, 0, 1.0), Submitted("y", CEXEC, EXIT, 0, 3, 1.0))
    append(account.directory, Ended("x", 0, 2.0), Ended("y", 111, 2.0))
    account.output("x", b"")


@lie("unaccounted")
def a_run_that_no_logger_heard_of(account: Account) -> None:
    append(account.directory, Start("a", "job-2", 1, "w1", 0.0))


@lie("unaccounted")
def a_run_that_only_a_worker_tells_of(account: Account) -> None:
    with (account.directory / "logs" / "w1.2").open("w") as file:
        file.write("12:00:00 started job=job-2 attempt=1\n")


@lie("unaccounted")
def another_status_in_the_log(account: Account) -> None:
    account.job("x", EXIT, status=7)
    account.crat.write_text(account.crat.read_text().replace('"status": 7', '"status": 0'))


@lie("orphans")
def a_process_that_is_left(account: Account) -> None:
    append(account.directory, Left("process 1"))


@lie("doubled")
def all_with_the_output_of_one_worker_twice(account: Account) -> None:
    account.job("x", way=ALL)
    account.output("x", DATA + DATA)


@lie("false_success")
def all_without_the_output_of_one_worker(account: Account) -> None:
    account.job("x", way=ALL)
    account.start("x", worker="w2")


@lie("corrupted")
def all_with_half_an_output(account: Account) -> None:
    account.job("x", way=ALL)
    account.output("x", DATA + DATA[:5])


@lie("lost", TASK_LIES)
def a_task_that_is_in_no_joblog(account: Account) -> None:
    account.joblog()


@lie("lost", TASK_LIES)
def a_result_that_is_not_there(account: Account) -> None:
    (account.directory / "out" / "x").unlink()


@lie("doubled", TASK_LIES)
def a_task_that_is_told_of_twice(account: Account) -> None:
    account.joblog((1, 0), (1, 0))


@lie("corrupted", TASK_LIES)
def half_a_result(account: Account) -> None:
    account.output("x", DATA[:5])


@lie("false_success", TASK_LIES)
def a_failed_task_in_a_run_that_succeeded(account: Account) -> None:
    account.joblog((1, 3))


@lie("lost", TASK_LIES)
def a_run_that_never_ended(account: Account) -> None:
    (account.directory / "ended").unlink()


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_a_job_is_found(account: Account, name: str) -> None:
    kind, tell = LIES[name]
    account.job("a")
    assert account.counts() == {}
    tell(account)
    assert account.counts() == {kind: 1}


@pytest.mark.parametrize("name", TASK_LIES)
def test_a_lie_about_a_task_is_found(account: Account, name: str) -> None:
    kind, tell = TASK_LIES[name]
    account.task("x", 1)
    account.joblog((1, 0))
    append(account.directory, Ended("run", 0, 100.0))
    assert account.counts() == {}
    tell(account)
    assert account.counts() == {kind: 1}


def test_a_gap_accounts_for_as_many_jobs_as_it_has_alerts(account: Account) -> None:
    for name in "ab":
        account.job(name)
    account.crat.write_text("")
    assert account.counts() == {"unaccounted": 2}
    account.log(event="gap: 1 alert of w1 did not arrive", worker="w1@127.0.0.1", first=3, last=3)
    assert account.counts() == {"unaccounted": 1}
    account.log(event="gap: 1 alert of w1 did not arrive", worker="w1@127.0.0.1", first=4, last=4)
    assert account.counts() == {}


def test_a_gap_of_another_worker_accounts_for_no_job(account: Account) -> None:
    """Regression: a row did not wait for the gap of one worker, because there was one of another."""
    account.job("a")
    account.crat.write_text("")
    account.log(event="gap: 1 alert of w2 did not arrive", worker="w2@127.0.0.1", first=3, last=3)
    assert account.counts() == {"unaccounted": 1} and gather(account.directory).unaccounted


def test_a_gap_of_strangers_accounts_for_no_job(account: Account) -> None:
    account.job("a")
    account.crat.write_text("")
    account.log(
        event="gap: alerts, 9 of unknown keys were not written: they come too fast", alerts=9, by="unknown keys"
    )
    assert account.counts() == {"unaccounted": 1}
