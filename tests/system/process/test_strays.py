"""What becomes a child of this process although it did not start it, and how all of that is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from cexec.system.process import process, process_tree
from cexec.system.process.strays import LONGEST_PAUSE, Strays
from tests.waiting import comes_true, wait_until

# Each is left behind by a process that is killed, and writes the numbers of what then runs into the file "$1".
ATTACKS = {
    "an empty environment, and a session of its own": "env -i setsid sleep 600 & echo $! >> $1",
    "two forks": "(env -i setsid sh -c 'echo $$ >> $1; exec sleep 600' sh $1 &)",
    "all signals ignored": "trap '' TERM HUP INT USR1; setsid sleep 600 & echo $! >> $1",
    "stopped": "setsid sleep 600 & echo $! >> $1; kill -STOP $!",
    "a family": "setsid sh -c 'sleep 600 & echo $! >> $1; setsid sleep 600 & echo $! >> $1; sleep 600' sh $1 &",
}
# It is never the same process for longer than a moment, and each is in a session of its own.
COMET = """
import os, sys
while True:
    os.setsid() if os.getpid() != os.getsid(0) else None
    with open(sys.argv[1], "w") as file:
        file.write(f"{os.getpid()}\\n")
    if os.fork():
        os._exit(0)
"""


@contextmanager
def adopter() -> Iterator[set[int]]:
    """This process adopts orphans; the children of other tests count as known, and so does what a test adds."""
    process.adopt_orphans()
    known = set(process_tree.children(os.getpid()))
    yield known
    for pid in set(process_tree.children(os.getpid())) - known:
        os.kill(pid, signal.SIGKILL)


def left_behind(script: str, notes: Path, *words: str) -> None:
    """Runs a program whose parent is killed as soon as it has written where it is."""
    parent = subprocess.Popen(["sh", "-c", f"{script}\nsleep 600", "sh", str(notes), *words], start_new_session=True)
    wait_until(lambda: notes.exists() and notes.read_text().endswith("\n"))
    parent.kill()
    parent.wait()


def all_gone(strays: Strays) -> bool:
    """Drives the machine as a loop does."""
    strays.handle_timeout(monotonic())
    return strays.left == 0


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_a_dead_child_leaves_is_killed_and_reaped(attack: str, tmp_path: Path) -> None:
    with adopter() as known:
        left_behind(ATTACKS[attack], tmp_path / "notes")
        strays = Strays(lambda: known)
        strays.look(monotonic())
        assert comes_true(lambda: all_gone(strays))
        assert strays.next_timeout() is None
        assert set(process_tree.children(os.getpid())) <= known
        for pid in map(int, (tmp_path / "notes").read_text().split()):
            assert process_tree.start_time(pid) == 0


def test_a_process_that_forks_and_ends_all_the_time_is_caught(tmp_path: Path) -> None:
    with adopter() as known:
        (tmp_path / "comet").write_text(COMET)
        left_behind(f"{sys.executable} -S {tmp_path}/comet $1 &", tmp_path / "notes")
        strays = Strays(lambda: known)
        strays.look(monotonic())
        assert comes_true(lambda: all_gone(strays))
        last = (tmp_path / "notes").read_text()
        assert comes_true(lambda: set(process_tree.children(os.getpid())) <= known)
        assert (tmp_path / "notes").read_text() == last


def test_children_that_are_known_stay_whatever_session_and_group_they_have(tmp_path: Path) -> None:
    with adopter() as known:
        helpers = [subprocess.Popen(["sleep", "600"], start_new_session=new) for new in (True, False)]
        known.update(helper.pid for helper in helpers)
        # A stray in the group of a helper: what a load command leaves in the background is in its group.
        join = f"import os, sys, time; os.setpgid(0, {helpers[1].pid})"
        helpers.append(subprocess.Popen(["sleep", "600"], process_group=0))
        known.add(helpers[-1].pid)
        join = (
            f"import os, sys, time\nif os.fork(): time.sleep(600)\nos.setpgid(0, {helpers[-1].pid})\n"
            "open(sys.argv[1], 'w').write(f'{os.getpid()}\\n')\ntime.sleep(600)"
        )
        parent = subprocess.Popen([sys.executable, "-S", "-c", join, str(tmp_path / "notes")])
        wait_until(lambda: (tmp_path / "notes").exists() and (tmp_path / "notes").read_text().endswith("\n"))
        parent.kill()
        parent.wait()
        strays = Strays(lambda: known)
        strays.look(monotonic())
        assert comes_true(lambda: all_gone(strays))
        assert process_tree.start_time(int((tmp_path / "notes").read_text())) == 0
        assert [helper.poll() for helper in helpers] == [None] * 3
        for helper in helpers:
            helper.kill()
            helper.wait()


def test_looks_at_what_cannot_be_killed_become_rare_and_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user, which a program with the set-user-ID bit was."""
    with adopter() as known:
        other = subprocess.Popen(["sleep", "600"])
        monkeypatch.setattr(process_tree, "signal_all", lambda pids, number: pids)
        monkeypatch.setattr("cexec.system.process.strays.signal_group", lambda group, number: None)
        strays = Strays(lambda: known)
        now = 100.0
        strays.look(now)
        pauses = []
        for _ in range(12):
            due = strays.next_timeout()
            assert due is not None
            pauses.append(due - now)
            now = due
            strays.handle_timeout(now)
        assert strays.left == 1
        assert pauses == sorted(pauses) and pauses[-1] == pytest.approx(LONGEST_PAUSE)
        other.kill()
        other.wait()
        strays.look(now)
        assert (strays.left, strays.next_timeout()) == (0, None)
