"""Rows and values: what is written is read, pages are cut by id, and removal keeps to its times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cexec.gate.jobs.job_ids import JobIds
from cexec.gate.store import job_rows
from cexec.gate.store.database import Database
from cexec.gate.store.job_records import OVER, TRANSITIONS, JobRecord, JobState, PoolRecord, show_time
from cexec.gate.store.job_rows import Filter, Reference
from cexec.gate.store.output_files import OutputFiles
from cexec.gate.store.output_log import KeptOutput
from cexec.gate.store.retention import DAY, expire, recover

JOB = JobRecord("a", "app", "me", None, None, ("x", "ü"), JobState.QUEUED, None, None, None, None, 0, 100.0, None, None,
                None, {})  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Database]:
    opened = Database(str(tmp_path / "state"), sole=True)
    yield opened
    opened.close()


@pytest.fixture
def files(tmp_path: Path) -> OutputFiles:
    return OutputFiles(str(tmp_path / "outputs"))


def add(state: Database, *jobs: JobRecord) -> None:
    for job in jobs:
        state.write_now(partial(job_rows.insert_job, job=job))


def ended(id: str, at: float, **changes: object) -> JobRecord:
    done = replace(JOB, id=id, state=JobState.SUCCEEDED, exit_status=0, started=at - 1, ended=at)
    return replace(done, **changes)  # type: ignore[arg-type]


def test_a_job_comes_back_as_it_was(state: Database, files: OutputFiles) -> None:
    add(state, JOB)
    done = replace(JOB, state=JobState.FAILED, exit_status=3, signal="SIGTERM", reason="r", worker="w@1", attempts=2,
                   started=101.5, ended=102.5, files={"name": 1}, instance="i")  # fmt: skip
    kept = KeptOutput(files, "a", 1, 0, 3, b"abc")
    state.write_now(partial(job_rows.update_job, job=done, at=102.5, outputs=[kept]))
    assert state.read_now(partial(job_rows.find_job, job="a")) == done
    assert state.read_now(partial(job_rows.find_output, job="a", stream=1)) == (done, (0, 3, b"abc"))
    events = state.read_now(partial(job_rows.events_after, last=0, limit=10))
    assert [(one.state, one.at) for one in events] == [("queued", 100.0), ("failed", 102.5)]
    assert done.document()["ended"] == "1970-01-01T00:01:42.500Z" and done.document()["files"] == ["name"]


def test_a_pool_ends_with_its_last_job(state: Database) -> None:
    pool = PoolRecord("p", 17, "app", "me", 100.0, None)
    jobs = [replace(JOB, id=id, pool="p") for id in ("a", "b")]
    state.write_now(partial(job_rows.insert_pool, pool=pool, jobs=jobs))
    for number, (job, end) in enumerate(zip(jobs, (None, 202.0), strict=True), 201):
        done = replace(job, state=JobState.SUCCEEDED, exit_status=0, ended=float(number))
        state.write_now(partial(job_rows.update_job, job=done, at=float(number)))
        found = state.read_now(partial(job_rows.find_numbered_pool, number=17))
        assert found is not None and found[0].ended == end
    assert found is not None and found[0].state(found[1]) == "succeeded"
    assert state.read_now(job_rows.highest_number) == 17


def page(database: Database, **changes: object) -> list[str]:
    wanted = replace(Filter(None, None, None, 3), **changes)  # type: ignore[arg-type]
    return [job.id for job in database.read_now(partial(job_rows.list_jobs, wanted=wanted))]


def test_pages_are_in_order_for_each_choice(state: Database) -> None:
    add(state, *(replace(JOB, id=f"{number}", app="ab"[number % 2], state=list(JobState)[number % 3])
                 for number in range(9)))  # fmt: skip
    assert page(state) == ["8", "7", "6"]
    assert page(state, after="6") == ["5", "4", "3"]
    assert page(state, apps=frozenset("a")) == ["8", "6", "4"]
    assert page(state, apps=frozenset("ab"), after="7") == ["6", "5", "4"]
    assert page(state, state=JobState.RUNNING) == ["7", "4", "1"]
    assert page(state, state=JobState.RUNNING, apps=frozenset("a")) == ["4"]
    assert page(state, apps=frozenset()) == []


def test_pages_use_an_index(state: Database) -> None:
    """A page of a long list must not sort it."""
    for where in ("", " WHERE app='a'", " WHERE state='x'", " WHERE app='a' AND state='x' AND id<'5'"):
        query = f"EXPLAIN QUERY PLAN SELECT * FROM job{where} ORDER BY id DESC LIMIT 3"
        plan = " ".join(str(row[3]) for row in state.read_now(lambda connection, q=query: list(connection.execute(q))))  # type: ignore[misc]
        assert "TEMP B-TREE" not in plan and ("INDEX" in plan or "PRIMARY KEY" in plan or not where), plan


def test_a_key_is_its_owners(state: Database) -> None:
    state.write_now(partial(job_rows.insert_reference, owner="me", key="k", led=Reference(b"h", "a", None), at=1.0))
    assert state.read_now(partial(job_rows.find_reference, owner="me", key="k")) == Reference(b"h", "a", None)
    assert state.read_now(partial(job_rows.find_reference, owner="you", key="k")) is None


def test_outputs_go_first_and_records_much_later(state: Database, files: OutputFiles) -> None:
    pool = PoolRecord("p", 1, "app", "me", 0.0, None)
    running = replace(JOB, id="pooled-running", pool="p")
    state.write_now(partial(job_rows.insert_pool, pool=pool, jobs=[ended("pooled", 1000.0, pool="p"), running]))
    add(state, ended("old", 1000.0), ended("new", 1200.0), JOB)
    for id in ("old", "new", "pooled"):
        Path(files.segment(id, 1, 0)).write_bytes(b"x")
        state.write_now(partial(job_rows.insert_output, job=id, stream=1, began=0, size=1, data=None))
    asyncio.run(expire(state, files, 1301.0, 300.0))
    assert sorted(files.found()) == ["new", "pooled"]  # the pool has not ended
    old = state.read_now(partial(job_rows.find_job, job="old"))
    assert old is not None and old.expired == 1301.0
    assert state.read_now(partial(job_rows.find_output, job="old", stream=1))[1] is None
    asyncio.run(expire(state, files, 1250.0 + 30 * DAY, 300.0))
    left = {job for (job,) in state.read_now(lambda connection: list(connection.execute("SELECT id FROM job")))}
    assert left == {"a", "pooled-running"}
    assert state.read_now(partial(job_rows.events_after, last=0, limit=10)) == []


def test_what_a_killed_cgate_has_left(state: Database, files: OutputFiles) -> None:
    add(state, JOB, ended("done", 90.0), replace(JOB, id="ran", state=JobState.RUNNING, started=100.0))
    for name, size in (("ran.1.000000", 10), ("ran.in.0", 5), ("stranger.1.000000", 3), ("done.1.000000", 4)):
        (Path(files.directory) / name).write_bytes(b"x" * size)
    assert recover(state, files, 200.0) == 2
    found = {id: state.read_now(partial(job_rows.find_job, job=id)) for id in ("a", "done", "ran")}
    assert {id: job.state for id, job in found.items() if job} == {
        "a": JobState.INTERRUPTED, "done": JobState.SUCCEEDED, "ran": JobState.INTERRUPTED,
    }  # fmt: skip
    ran = found["ran"]
    assert ran is not None and ran.ended == 200.0 and ran.reason is not None and "was killed" in ran.reason
    assert state.read_now(partial(job_rows.find_output, job="ran", stream=1))[1] == (0, 10, None)
    assert state.read_now(partial(job_rows.find_output, job="a", stream=1))[1] == (0, 0, b"")
    assert sorted(name for names in files.found().values() for name in names) == ["done.1.000000", "ran.1.000000"]
    assert recover(state, files, 300.0) == 0


def test_ids_only_grow() -> None:
    ids = JobIds()
    made = [ids.next() for _ in range(2000)]
    assert made == sorted(set(made))
    assert all(one[14] == "7" and one[19] in "89ab" and len(one) == 36 for one in made)


def test_a_state_that_is_over_stays() -> None:
    assert TRANSITIONS.keys() == set(JobState)
    assert all(not TRANSITIONS[state] for state in OVER)
    assert show_time(None) is None
