"""What PCCI's clients are told, field by field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cexec.gate.pcci.command_words import LONGEST, CommandError, split_command
from cexec.gate.pcci.views import show_job, show_pool, show_worker
from cexec.gate.store.job_records import JobRecord, JobState, PoolRecord
from cexec.gate.store.pcci_rows import PcciPool

POOL = PoolRecord("p", 1_634_423_005_857, "pcci", "ci", 1_634_423_005.857, None)
KNOWN = PcciPool(POOL.number, 'sh -c "echo  hi"', {"uuid": "node1"})
RUNNING = JobRecord(
    "j", "pcci", "ci", "p", "uuid", ("sh", "-c", "echo  hi"), JobState.RUNNING, None, None, None, "node1@10.0.0.1", 1,
    POOL.submitted, POOL.submitted + 0.1, None, None, {},
)  # fmt: skip
DONE = replace(RUNNING, state=JobState.SUCCEEDED, exit_status=0, ended=POOL.submitted + 1.5)


def test_a_job_that_runs() -> None:
    assert show_job(POOL, RUNNING, KNOWN, b"", b"") == {
        "code": "JOB",
        "pool": "1634423005857",
        "cmd": 'sh -c "echo  hi"',
        "pid": None,
        "result": None,
        "status": None,
        "worker_id": "node1",
        "time_to_calc": None,
    }
    assert show_job(POOL, replace(RUNNING, state=JobState.QUEUED), KNOWN, b"", b"")["status"] is None


def test_the_result_grows_without_line_ends_and_has_the_errors_behind_it() -> None:
    begin = "hé\nllo\r\n".encode()
    assert show_job(POOL, RUNNING, KNOWN, begin[:2], b"")["result"] == "h"  # the rest of the letter has not come
    assert show_job(POOL, RUNNING, KNOWN, begin, b"")["result"] == "héllo"
    assert show_job(POOL, RUNNING, KNOWN, begin, b"oh\nno\n")["result"] == "héllooh\nno\n"
    assert show_job(POOL, DONE, KNOWN, b"\xff\xc3", b"")["result"] == "��"


def test_a_job_that_has_ended() -> None:
    shown = show_job(POOL, DONE, KNOWN, b"", b"")
    assert (shown["status"], shown["result"], shown["time_to_calc"], shown["pid"]) == (0, "", 1500, None)


@pytest.mark.parametrize(
    ("ending", "status", "result"),
    [
        ({"state": JobState.FAILED, "exit_status": 3}, 3, "out"),
        ({"state": JobState.FAILED, "signal": "SIGKILL"}, 137, "out"),
        ({"state": JobState.FAILED, "signal": "signal 40"}, 1, "out"),
        ({"state": JobState.FAILED, "reason": "the worker was lost"}, 1, "out the worker was lost"),
        ({"state": JobState.CANCELLED, "reason": "the job was cancelled by ci"}, 1, "out the job was cancelled by ci"),
        ({"state": JobState.INTERRUPTED}, 1, "out"),
    ],
)
def test_every_ending_has_a_status(ending: dict[str, object], status: int, result: str) -> None:
    job = replace(RUNNING, ended=POOL.submitted + 1, **ending)  # type: ignore[arg-type]
    shown = show_job(POOL, job, KNOWN, b"out\n", b"")
    assert (shown["status"], shown["result"]) == (status, result)


def test_a_pool() -> None:
    running = show_pool(POOL, [show_job(POOL, DONE, KNOWN, b"", b""), show_job(POOL, RUNNING, KNOWN, b"", b"")])
    assert (running["id"], running["status"], running["cached_at"]) == (1634423005857, None, None)
    assert list(running) == ["id", "status", "jobs", "cached_at"]
    over = replace(POOL, ended=POOL.submitted + 2)
    jobs = [show_job(POOL, DONE, KNOWN, b"", b"")] * 2
    assert show_pool(over, jobs) == {"id": 1634423005857, "status": 0, "jobs": jobs, "cached_at": 1634423007857}
    failed = replace(DONE, state=JobState.FAILED, exit_status=7)
    assert show_pool(over, [show_job(POOL, one, KNOWN, b"", b"") for one in (DONE, failed)])["status"] == 1


def test_a_pool_that_was_started_otherwise() -> None:
    shown = show_job(POOL, DONE, None, b"", b"")
    assert (shown["cmd"], shown["worker_id"]) == ("sh -c 'echo  hi'", "node1")
    assert show_job(POOL, replace(DONE, worker=None), None, b"", b"")["worker_id"] is None


def test_a_worker() -> None:
    shown = show_worker("node1", "10.0.0.1", 7000)
    assert shown == {"id": "node1", "socket": {"_peername": {"address": "10.0.0.1", "port": 7000}}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ls", ("ls",)),
        (" ping  -c 1 host ", ("ping", "-c", "1", "host")),
        ("bash -c \"exec free -m | awk 'NR==2 {printf $3*100/$2}'\"",
         ("bash", "-c", "exec free -m | awk 'NR==2 {printf $3*100/$2}'")),
        ("echo $HOME `id` $(id) *; rm -rf / > x && y | z",
         ("echo", "$HOME", "`id`", "$(id)", "*;", "rm", "-rf", "/", ">", "x", "&&", "y", "|", "z")),
        ("echo '' \"a b\" c\\ d # no comment", ("echo", "", "a b", "c d", "#", "no", "comment")),
        ("a\nb", ("a", "b")),
        ("-i id", ("--", "-i", "id")),
    ],
)  # fmt: skip
def test_a_command_is_split_and_nothing_else(text: str, words: tuple[str, ...]) -> None:
    assert split_command(text) == words


@pytest.mark.parametrize(
    "text", [None, "", "  ", "''x'", '"', "a\\", 5, ["ls"], {"cmd": "ls"}, "a\0b", "x" * (LONGEST + 1)]
)
def test_what_is_no_command(text: object) -> None:
    with pytest.raises(CommandError):
        split_command(text)
