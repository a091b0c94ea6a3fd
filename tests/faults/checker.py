"""Compares what was submitted, started, committed and logged.  It knows nothing of the fault that was injected.

Contract: `check(evidence)` returns a `Verdict`, which has one list for each kind of harm.  Its items name the job and
say what is wrong; without harm all lists are empty.

| kind of harm | meaning |
|---|---|
| lost | The client never said how the job ended, or said a success whose output is not there. |
| doubled | An output holds more than one attempt, an attempt or a finished job ran again, or a task is told of twice. |
| corrupted | The output is another one than that of the program, or part of it is left although the job has failed. |
| false success | The client says a status that the program never ended with, or success although output is missing. |
| unaccounted | The program has run, and no line and no gap of the log tells of it, or the log tells something else. |
| orphans | A process or a file was left when all had ended. |
"""

from __future__ import annotations

import hashlib
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.faults.evidence import Evidence
from tests.faults.records import ALL, CAT, CEXEC, CMAP, EXIT, SUM, Ended, Start, Submitted

FAILED = 111  # the status by which a client says that cexec has failed
RUN_FAILED = (FAILED, 255)  # statuses by which cmap says that tasks are left
BY_SIGNAL = 128  # a shell's statuses for signals begin here
PYTHON_INTERRUPTED = 1  # the status of Python, if it is interrupted before cexec's first line
SHOWN = 300  # characters of what a client said
PIECE = 1 << 20  # bytes that are compared at a time


@dataclass
class Verdict:
    """The harm that was found."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    corrupted: list[str] = field(default_factory=list)
    false_success: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        return {one.name: len(getattr(self, one.name)) for one in fields(self)}

    def lines(self) -> list[str]:
        """Everything that was found, for people."""
        return [f"{one.name}: {item}" for one in fields(self) for item in getattr(self, one.name)]


def check(evidence: Evidence) -> Verdict:
    verdict = Verdict(orphans=[one.what for one in evidence.left])
    starts: dict[str, list[Start]] = defaultdict(list)
    for start in evidence.starts:
        starts[start.id].append(start)
    ended = {one.id: one for one in evidence.ended}
    sent: dict[str, set[int]] = defaultdict(set)
    for signalled in evidence.signalled:
        sent[signalled.id].add(signalled.signal)
    rows = defaultdict(list)
    for row in evidence.joblog:
        rows[row.run, row.row].append(row)
    for job in evidence.submitted:
        output = Output(job, evidence)
        if job.way == CMAP:
            _check_task(job, output, [(row.status, row.signal) for row in rows[job.run, job.row]], ended, verdict)
        elif job.id not in ended:
            verdict.lost.append(f"{job.id}: its client has not ended")
        elif job.way == ALL:
            _check_all(job, output, ended[job.id], starts[job.id], verdict)
        else:
            _check_job(job, output, ended[job.id], starts[job.id], sent[job.id], verdict)
    _check_starts(evidence, starts, ended, verdict)
    _check_log(evidence, starts, ended, verdict)
    return verdict


class Output:
    """Standard output of a job, compared with what the program writes."""

    def __init__(self, job: Submitted, evidence: Evidence) -> None:
        self.path = evidence.output(job.id)
        self._job = job
        self._input = evidence.input(job.id)

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def expected_size(self) -> int:
        return {CAT: self._job.size, SUM: 64 + len("  -\n"), EXIT: 0}[self._job.kind]

    def is_right(self, times: int = 1) -> bool:
        """It is there, whole, and repeated so many times."""
        return self.path.exists() and self.size == times * self.expected_size() and self.is_prefix(times)

    def is_prefix(self, times: int = 1) -> bool:
        """It is the beginning of what the program writes, repeated so many times."""
        if not self.size:
            return True
        if self._job.kind == CAT:
            return _is_prefix(self.path, self._input, times)
        if self._job.kind == SUM:
            digest = hashlib.sha256(self._input.read_bytes()).hexdigest()
            return (times * f"{digest}  -\n").startswith(self.path.read_text("latin-1"))
        return False


def _is_prefix(path: Path, whole: Path, times: int) -> bool:
    """Whether the file is the beginning of so many copies of the other one."""
    with path.open("rb") as file:
        for _ in range(times):
            with whole.open("rb") as copy:
                while expected := copy.read(PIECE):
                    got = file.read(len(expected))
                    if got != expected[: len(got)]:
                        return False
                    if len(got) < len(expected):
                        return True
        return not file.read(1)


def _check_job(
    job: Submitted, output: Output, ended: Ended, starts: list[Start], sent: set[int], verdict: Verdict
) -> None:
    """A job of `cexec`."""
    status = ended.status
    by_signal = {-number for number in sent} | {BY_SIGNAL + number for number in sent}
    if signal.SIGINT in sent:
        by_signal.add(PYTHON_INTERRUPTED)
    if status < 0 and status not in by_signal:
        verdict.lost.append(f"{job.id}: signal {-status} ended its client")
    elif status in by_signal or (job.reads >= 0 and output.size == min(job.reads, output.expected_size())):
        if not output.is_prefix():
            verdict.corrupted.append(f"{job.id}: the output of an interrupted client is wrong")
    elif status == FAILED:
        if output.size and not (job.pipe and output.is_prefix()):
            verdict.corrupted.append(f"{job.id}: it has failed, and {output.size} bytes of output are left")
    elif status != job.status:
        verdict.false_success.append(f"{job.id}: status {status} in place of {job.status}: {ended.said[-SHOWN:]}")
    else:
        _check_result(job, output, starts, verdict)


def _check_result(job: Submitted, output: Output, starts: list[Start], verdict: Verdict) -> None:
    """The program's status came back, so its output must be there."""
    if not starts:
        verdict.false_success.append(f"{job.id}: the program never ran")
    if output.is_right():
        return
    if not output.path.exists():
        verdict.lost.append(f"{job.id}: the output is not there")
    elif output.size > output.expected_size() and output.is_prefix(len(starts) + 1):
        verdict.doubled.append(f"{job.id}: {output.size} bytes in place of {output.expected_size()}")
    elif output.size < output.expected_size() and output.is_prefix():
        verdict.false_success.append(f"{job.id}: {output.size} of {output.expected_size()} bytes")
    else:
        verdict.corrupted.append(f"{job.id}: the output is wrong")


def _check_all(job: Submitted, output: Output, ended: Ended, starts: list[Start], verdict: Verdict) -> None:
    """A job of `cexec --all`: each worker's output is there completely and once."""
    workers = {start.worker for start in starts}
    done = output.size // max(output.expected_size(), 1)
    if ended.status not in (0, FAILED):
        verdict.false_success.append(f"{job.id}: status {ended.status}: {ended.said[-SHOWN:]}")
    elif not output.is_right(done):
        verdict.corrupted.append(f"{job.id}: the outputs of all workers are wrong")
    elif done > len(workers) or len(starts) > len(workers):
        verdict.doubled.append(f"{job.id}: {done} outputs and {len(starts)} starts of {len(workers)} workers")
    elif ended.status == 0 and (done < len(workers) or not workers):
        verdict.false_success.append(f"{job.id}: {done} outputs of {len(workers)} workers")


def _check_task(
    job: Submitted, output: Output, rows: list[tuple[int, int]], ended: dict[str, Ended], verdict: Verdict
) -> None:
    """A task of `cmap`: its result is there completely and once, or not at all."""
    run = ended.get(job.run)
    if run is None:
        verdict.lost.append(f"{job.id}: the run of cmap has not ended")
        return
    if len(rows) > 1:
        verdict.doubled.append(f"{job.id}: it is in the joblog {len(rows)} times")
    if output.path.exists() and not output.is_right():
        verdict.corrupted.append(f"{job.id}: the result is not the whole output, {output.size} bytes")
    elif not rows:
        if run.status not in RUN_FAILED:
            verdict.lost.append(f"{job.id}: the run has ended with status {run.status} without it: {run.said[-SHOWN:]}")
    elif rows[0] == (0, 0) and job.status:
        verdict.false_success.append(f"{job.id}: the joblog says 0 in place of {job.status}")
    elif rows[0] == (job.status, 0) and job.status == 0 and not output.path.exists():
        verdict.lost.append(f"{job.id}: the result is not there")
    elif rows[0] != (job.status, 0) and run.status == 0:
        verdict.false_success.append(f"{job.id}: the run has succeeded and its task has not")


def _check_starts(
    evidence: Evidence, starts: dict[str, list[Start]], ended: dict[str, Ended], verdict: Verdict
) -> None:
    """No attempt runs twice, and nothing runs for a client that has ended.

    A client that was killed may have given its job a moment before: its worker learns later that nobody waits for it.
    """
    killed = {one.id for one in evidence.signalled if one.signal == signal.SIGKILL}
    ways = {job.id: job.way for job in evidence.submitted}
    attempts = Counter((s.id, s.job, s.attempt, s.worker if ways.get(s.id) == ALL else "") for s in evidence.starts)
    for (name, _, attempt, _), count in attempts.items():
        if count > 1:
            verdict.doubled.append(f"{name}: attempt {attempt} ran {count} times")
    for name, found in starts.items():
        if name not in ways:
            verdict.doubled.append(f"{name}: nobody has submitted it")
        elif (
            ways[name] == CEXEC
            and name in ended.keys() - killed
            and any(start.time > ended[name].time for start in found)
        ):
            verdict.doubled.append(f"{name}: the program was started after its client had ended")


def _check_log(evidence: Evidence, starts: dict[str, list[Start]], ended: dict[str, Ended], verdict: Verdict) -> None:
    """Each job that was started is in the log or stands in a gap, and a closing line tells what the client got."""
    closed = {closing.job: closing for closing in evidence.closings}
    for job, worker in evidence.unaccounted:
        verdict.unaccounted.append(f"job {job}, started at {worker}, is in no line of the log")
    for one in evidence.submitted:
        if one.way != CEXEC or one.id not in ended or ended[one.id].status != one.status:
            continue
        for job in {start.job for start in starts[one.id]} & closed.keys():
            if closed[job].status != one.status:
                verdict.unaccounted.append(f"{one.id}: status {one.status} is logged as {closed[job].status}")
