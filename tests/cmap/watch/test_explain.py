"""cmap explain: from the journal, while a coordinator runs and after it has ended or was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.cmap.results.journal import NEW, Journal, TaskClaim
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.watch.explain import INTERVAL, StatusNote, explain
from cexec.errors import UsageError
from tests.cmap.watch.watching import BEGIN, counts

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a state?")


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    journal = Journal(path, NEW, now=NOW)
    yield journal
    if os.path.exists(f"{path}-lock"):
        journal.close()


def claimed(journal: Journal, number: int) -> TaskClaim:
    claim = journal.claim(bytes([number]), number, f"cexec a.pub -- {number}")
    assert claim is not None
    return claim


def end(journal: Journal, claim: TaskClaim, number: int, reason: str = "") -> None:
    attempt = journal.begin_attempt(claim, "w@x", NOW)
    journal.end_attempt(attempt, reason, NOW + 2)
    outcome = TaskOutcome(
        number, succeeded=not reason, command=str, worker="w@x", started=NOW, runtime=2.0, reason=reason
    )
    journal.commit(claim, outcome, [])


def stands(journal: Journal, **values: object) -> None:
    """What a coordinator has noted last."""
    note = StatusNote(journal, lambda: NOW)
    note.counted(counts(**values), BEGIN)
    journal.flush()


def test_tasks_that_are_over(journal: Journal, path: str) -> None:
    end(journal, claimed(journal, 1), 1)
    end(journal, claimed(journal, 2), 2, "exited with 3")
    stands(journal, total=2, waiting=0, leases={"w@x": 1})
    assert explain(path, 1, NOW)[:2] == ["task 1: cexec a.pub -- 1", "done by w@x in 2.00 s"]
    one = explain(path, 2, NOW)
    assert one[1] == "failed on w@x: exited with 3" and one[2].endswith("w@x: 2.00 s, exited with 3")
    everything = explain(path, None, NOW)
    assert everything[0].startswith("1 task done, 1 failed, 0 running, 0 waiting; cmap is process")
    assert everything[1:] == ["task 2 failed on w@x: exited with 3; cexec a.pub -- 2"]


def test_a_task_that_runs_and_one_that_is_to_be_tried_again(journal: Journal, path: str) -> None:
    running, again = claimed(journal, 1), claimed(journal, 2)
    journal.begin_attempt(running, "w@x", NOW)
    journal.end_attempt(journal.begin_attempt(again, "v@x", NOW), "disconnected", NOW + 1)
    stands(journal, total=5, leases={"w@x": 1})
    assert explain(path, 1, NOW + 3)[1] == "runs on w@x"
    assert explain(path, 1, NOW + 3)[2].endswith("running for 3.00 s")
    assert explain(path, 2, NOW)[1] == "waits to be tried again, rather not on v@x: disconnected"
    everything = explain(path, None, NOW)
    assert "1 running, 4 waiting" in everything[0] and everything[2].startswith("task 1 runs on w@x since")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"paused": True}, "SIGUSR2"),
        ({"leases": {}}, "no worker has answered"),
        ({"leases": {"w@x": 2, "v@x": 1}}, "on 3 leases of 2 workers"),
    ],
)
def test_why_a_task_waits_that_was_not_begun(
    journal: Journal, path: str, status: dict[str, object], words: str
) -> None:
    claimed(journal, 1)
    stands(journal, total=9, **status)
    assert words in explain(path, 1, NOW)[1] and words in explain(path, 8, NOW)[0]


def test_after_the_end(journal: Journal, path: str) -> None:
    begun = claimed(journal, 1)
    journal.begin_attempt(begun, "w@x", NOW)
    stands(journal, total=3, waiting=2)
    journal.close()
    assert explain(path, 1, NOW)[1].endswith("cmap --resume goes on with it")
    assert explain(path, 1, NOW)[2].endswith("cut off")
    assert "3 left; no cmap runs with this journal" in explain(path, None, NOW)[0]
    assert "--resume" in explain(path, 3, NOW)[0]


def test_the_last_note_is_that_of_the_end(journal: Journal, path: str) -> None:
    note = StatusNote(journal, lambda: NOW)
    note.counted(counts(waiting=9), BEGIN)
    note.counted(counts(waiting=0, total=1), BEGIN + INTERVAL / 2)
    note.closed(0, BEGIN + INTERVAL / 2)
    end(journal, claimed(journal, 1), 1)
    journal.close()
    assert len(explain(path, None, NOW)) == 1


def test_a_holder_that_was_killed_is_none(journal: Journal, path: str) -> None:
    claimed(journal, 1)
    stands(journal)
    Path(f"{path}-lock").write_text(f"process {2**22 + 1} on {os.uname().nodename}\n")
    assert "no cmap runs" in explain(path, None, NOW)[0]


def test_what_is_not_there(journal: Journal, path: str, tmp_path: Path) -> None:
    stands(journal, total=3)
    with pytest.raises(UsageError, match="1 to 3"):
        explain(path, 4, NOW)
    with pytest.raises(UsageError, match="no journal"):
        explain(str(tmp_path / "none"), None, NOW)


@pytest.mark.parametrize(
    "status",
    ["{", "[]", "5", '"text"', '{"total": "many", "leases": {}, "paused": "yes"}', '{"leases": 2}', "[" * 100_000],
)
def test_a_damaged_note_of_a_run_explains_nothing_and_stops_nothing(journal: Journal, path: str, status: str) -> None:
    """Regression, found by fuzzing: the command ended with a traceback."""
    claimed(journal, 1)
    journal.note(status)
    journal.flush()
    assert explain(path, None, NOW)
    assert explain(path, 1, NOW)[0].startswith("task 1: ")
