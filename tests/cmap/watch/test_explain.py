"""cmap explain: from the journal, while a coordinator runs and after it has ended or was killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.cmap.results.journal import NEW, RETRY_FAILED, Journal, TaskClaim, TaskEnd, TaskIdentity
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.watch.explain import INTERVAL, RESUME, StatusNote, explain
from cexec.errors import UsageError
from tests.cmap.watch.watching import BEGIN, counts
from tests.environment import ROOT
from tests.needs import NOBODY, require_namespaces, require_second_user

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
    claim = journal.claim(TaskIdentity(bytes([number]), number), f"cexec a.pub -- {number}")
    assert claim is not None
    return claim


def end(journal: Journal, claim: TaskClaim, number: int, reason: str = "") -> None:
    attempt = journal.begin_attempt(claim, "w@x", NOW)
    journal.end_attempt(attempt, reason, NOW + 2)
    outcome = TaskOutcome(
        number, succeeded=not reason, command=str, worker="w@x", started=NOW, runtime=2.0, reason=reason
    )
    journal.commit([TaskEnd(claim, outcome, [])])


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
        ({"paused": True}, "cmap continue lets it go on"),
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


def test_a_pause_and_its_end_are_noted_at_once(journal: Journal, path: str) -> None:
    note = StatusNote(journal, lambda: NOW)
    claimed(journal, 1)
    for paused in (False, True, False):
        note.counted(counts(paused=paused), BEGIN)
        journal.flush()
        assert ("is paused" in explain(path, 1, NOW)[1]) is paused


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
    """Regression, found while a fuzz target was written: the command ended with a traceback."""
    claimed(journal, 1)
    journal.note(status)
    journal.flush()
    assert explain(path, None, NOW)
    assert explain(path, 1, NOW)[0].startswith("task 1: ")


def test_texts_that_are_no_utf_8_are_told(journal: Journal, path: str) -> None:
    claim = journal.claim(TaskIdentity(b"k", 1), "cexec a.pub -- caf\udce9")
    assert claim is not None
    end(journal, claim, 1, "said caf\udce9")
    assert explain(path, 1, NOW)[:2] == ["task 1: cexec a.pub -- caf\udce9", "failed on w@x: said caf\udce9"]
    assert "said caf\udce9; cexec a.pub -- caf\udce9" in "".join(explain(path, None, NOW))


def test_a_task_at_a_once_worker_needs_another_option(journal: Journal, path: str) -> None:
    journal.begin_attempt(claimed(journal, 1), "w@x", NOW, once=True)
    journal.close()
    assert explain(path, 1, NOW)[1].endswith("cmap --resume --repeat-once runs it again")


def test_a_mended_input_is_counted_once(journal: Journal, path: str) -> None:
    first = journal.claim(TaskIdentity(b"k", 1, "old"), "")
    assert first is not None
    end(journal, first, 1, "exited with 1")
    journal.close()
    again = Journal(path, RETRY_FAILED, now=NOW)
    second = again.claim(TaskIdentity(b"k", 1, "new"), "")
    assert second is not None
    end(again, second, 1)
    again.close()
    assert explain(path, None, NOW)[0].startswith("1 task done, 0 failed, 0 left")


def test_a_symbolic_link_has_the_same_holder(journal: Journal, path: str, tmp_path: Path) -> None:
    stands(journal)
    (tmp_path / "link").symlink_to(path)
    assert f"cmap is process {os.getpid()}" in explain(str(tmp_path / "link"), None, NOW)[0]


def test_a_journal_of_0_1_0_is_read(tmp_path: Path) -> None:
    recorded = Path(__file__).parents[1] / "results" / "journal-0.1.0.sqlite"
    shutil.copyfile(recorded, tmp_path / "old")
    assert explain(str(tmp_path / "old"), None, NOW)[0].startswith("2 tasks done, 1 failed, 1 left")
    assert explain(str(tmp_path / "old"), 3, NOW)[1] == "failed on vm@127.0.0.1: exited with 4"
    assert explain(str(tmp_path / "old"), 4, NOW)[1] == "not over, and no cmap runs with this journal: " + RESUME


# where nothing can be written

AS_READER = """
import sys
from cexec.cmap.watch.explain import explain
print(*explain(sys.argv[1], None, 0.0), sep="\\n")
"""


def left_by(journal: Journal, *, killed: bool) -> None:
    """A journal with one task that is done."""
    end(journal, claimed(journal, 1), 1)
    journal.abandon() if killed else journal.close()


def explain_as_nobody(path: str) -> str:
    """In a child, which has all modules already: a user's Python may be where another user cannot read it."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, "\n".join(explain(path, None, NOW)).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        told = stream.read().decode()
    os.waitpid(child, 0)
    return told


@pytest.mark.parametrize("state", ["running", "killed", "closed"])
def test_a_journal_of_another_user_is_read(journal: Journal, path: str, tmp_path: Path, state: str) -> None:
    require_second_user()
    if state == "running":
        end(journal, claimed(journal, 1), 1)
    else:
        left_by(journal, killed=state == "killed")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o055 == 0o055:
            break
        directory.chmod(0o755)
    before = sorted(os.listdir(tmp_path))
    assert explain_as_nobody(path).startswith("1 task done, 0 failed")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("has_index", [True, False])
def test_a_journal_on_a_read_only_file_system_is_read(tmp_path: Path, killed: bool, has_index: bool) -> None:
    require_namespaces()
    for name in ("given", "mnt"):
        (tmp_path / name).mkdir()
    journal = Journal(str(tmp_path / "given" / "state"), NEW, now=NOW)
    left = tmp_path / "copy"
    end(journal, claimed(journal, 1), 1)
    if killed:
        shutil.copytree(tmp_path / "given", left)
    journal.close()
    if killed:
        shutil.rmtree(tmp_path / "given")
        left.rename(tmp_path / "given")
    if not has_index:
        (tmp_path / "given" / "state-shm").unlink(missing_ok=True)
    script = 'mount -t tmpfs tmpfs mnt && cp -a given/. mnt && mount -o remount,ro mnt && exec "$@"'
    reader = [sys.executable, "-c", AS_READER, "mnt/state"]
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *reader]
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 task done, 0 failed")
