"""The processes that carry a worker's connections: one after the other, and nothing of one for the next."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cexec.worker.jobs.process_states import TRANSITIONS, State
from cexec.worker.jobs.reports import (
    Broken,
    Free,
    Idle,
    JobFinished,
    JobRefused,
    Over,
    ProgramStarted,
    Report,
    Starting,
    Stored,
    Taken,
    encode,
)
from tests.service import Application, Service, Shell
from tests.waiting import PATIENCE, comes_true
from tests.worker.jobs.scene import CLEAN_END, NOW, Actor, Scene, finished, taken


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, ["-j", "2"])
    yield shell
    shell.close()


def carriers(service: Service) -> list[psutil.Process]:
    return service.job_processes()


def idle(service: Service) -> bool:
    """Whether all jobs have ended, and one process waits for the next."""
    found = carriers(service)
    return len(found) == 1 and not found[0].children()


def test_one_process_carries_job_after_job_and_keeps_nothing_of_them(shell: Shell) -> None:
    (waiting,) = carriers(shell.service)
    descriptors = waiting.num_fds()
    for number in range(20):
        told = ["SECRET=x"] if number == 3 else []
        done = shell.run("echo $PPID $PEER_SECRET; cat", *told, input=b"y" * number)
        assert done.stdout == b"%d%s\n" % (waiting.pid, b" x" if told else b"") + b"y" * number
        assert comes_true(lambda: idle(shell.service) and waiting.num_fds() == descriptors)
    assert comes_true(lambda: idle(shell.service))
    assert carriers(shell.service) == [waiting]
    assert waiting.num_fds() == descriptors
    assert waiting.memory_full_info().uss < 8 << 20


def test_jobs_of_all_kinds_leave_no_descriptor_in_the_process_that_goes_on(shell: Shell, tmp_path: Path) -> None:
    (waiting,) = carriers(shell.service)
    descriptors, directory = waiting.num_fds(), waiting.cwd()
    (tmp_path / "in").write_bytes(b"x" * 100_000)

    def run(script: str, *arguments: str, input: bytes = b"") -> int:
        """One job, of which nothing is left when the next one comes, so that the same process carries that."""
        status = shell.run(script, *arguments, input=input).returncode
        assert comes_true(lambda: idle(shell.service) and waiting.num_fds() == descriptors), shell.service.lines
        return status

    assert run("cat in > out", "--send", f"{tmp_path}/in", "--fetch", f"out={tmp_path}/out") == 0
    assert (tmp_path / "out").stat().st_size == 100_000
    assert run("exit 3", input=b"unread" * 100_000) == 3
    assert run("kill -9 $$") == 137
    assert run("exec >&- 2>&-; cat", input=b"x" * 1_000_000) != 111
    assert run("true", "BAD-NAME=x") == 100
    assert run("yes", "--time-limit", "0.2") != 0
    assert run("cat <&5", "--time-limit", "9") != 111
    assert run("sleep 60 >&- 2>&- & exit 0") == 0
    assert carriers(shell.service) == [waiting], shell.service.lines
    assert waiting.cwd() == directory


def test_a_job_that_could_not_be_started_leaves_no_descriptor_to_the_next_one(shell: Shell, tmp_path: Path) -> None:
    """What had been opened for it stayed open in the process that went on."""
    (tmp_path / "in").write_bytes(b"x")
    (first,) = carriers(shell.service)
    conflict = ("--send", f"{tmp_path}/in=a", "--send", f"{tmp_path}/in=a/b")
    assert shell.run("true", *conflict).returncode != 0
    assert comes_true(lambda: not first.is_running())
    assert shell.run("true").returncode == 0
    assert comes_true(lambda: idle(shell.service))


def test_jobs_at_the_same_time_have_processes_of_their_own_and_one_is_kept(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    writing = os.open(gate, os.O_RDWR)  # so that neither reader finds the end when the other one has gone
    argv, environment = shell.client(f"echo $PPID; read line < {gate}")
    running = [subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in "ab"]
    parents = {client.stdout.readline() for client in running if client.stdout is not None}
    assert len(parents) == 2
    os.write(writing, b"a\nb\n")
    assert [client.wait(PATIENCE) for client in running] == [0, 0]
    os.close(writing)
    for client in running:
        client.communicate()
    assert comes_true(lambda: idle(shell.service))


def test_after_a_job_that_broke_off_the_next_one_has_a_fresh_process(shell: Shell) -> None:
    (first,) = carriers(shell.service)
    argv, environment = shell.client("sleep 60")
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shell.service.wait_for("started")
    client.kill()
    client.wait()
    assert comes_true(lambda: not first.is_running())
    assert shell.run("echo $PPID").stdout.strip() not in (b"", b"%d" % first.pid)


def test_what_a_process_said_is_heard_although_it_left_a_word_unread() -> None:
    """Regression: a job whose client was lost had no closing line, where its process had just been told to go ahead."""
    with Scene(slots=1) as scene:
        actor = scene.running(1)
        scene.jobs.stop()  # says LAST, which is not read
        actor.notes.write(encode(Broken("x")))
        scene.die(actor, CLEAN_END)
        assert scene.events() == ["accepted", "started", "broken"]
        assert (actor.process.state, len(scene.jobs)) == (State.GONE, 0)


REPORTS: dict[type[Report], Report] = {
    Taken: taken(3), Starting: Starting(), ProgramStarted: ProgramStarted(1), JobRefused: JobRefused("x", False),
    JobFinished: finished(), Broken: Broken("x"), Idle: Idle(), Over: Over(""), Free: Free(), Stored: Stored(1),
}  # fmt: skip
BEGUN: list[Report] = [taken(1), Starting(), ProgramStarted(1)]
WAYS: dict[State, list[list[Report]]] = {  # from a connection that has just been given; one list for each `say`
    State.OFFERED: [],
    State.TAKEN: [[taken(1)]],
    State.STARTING: [[taken(1), Starting()]],
    State.RUNNING: [BEGUN],
    State.ENDED: [[*BEGUN, finished()]],
    State.WAITING: [[*BEGUN, finished(idle=True)]],
    State.DISMISSED: [BEGUN, [finished(idle=True)]],
    State.BROKEN: [[*BEGUN, Broken("x")]],
    State.SPARE: [[*BEGUN, finished(), Free()]],
}


def in_state(scene: Scene, state: State) -> Actor:
    """A process in this state."""
    actor = scene.connected(1)
    if state is State.WAITING:  # another client has the better chance to be drawn
        scene.bidder.consider(b"x" * 16, 60000, 60.0, NOW, targeted=True)
        scene.bidder.handle_timeout(NOW)
    for number, reports in enumerate(WAYS[state]):
        if state is State.DISMISSED and number:
            scene.jobs.stop()
        scene.say(actor, *reports)
    assert actor.process.state is state
    return actor


def test_the_table_of_states_is_complete() -> None:
    assert set(TRANSITIONS) == set(State) == {*WAYS, State.GONE}
    assert set(REPORTS) == {kind for moves in TRANSITIONS.values() for kind in moves if isinstance(kind, type)}


@pytest.mark.parametrize("kind", REPORTS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("state", WAYS, ids=lambda state: state.name)
def test_a_report_moves_as_the_table_says_or_costs_its_own_process_only(state: State, kind: type[Report]) -> None:
    with Scene(slots=2) as scene:
        other, actor = scene.running(2), in_state(scene, state)
        allowed = TRANSITIONS[state].get(kind)
        scene.say(actor, REPORTS[kind])
        if allowed is None:
            assert wait_for_end(scene, actor)
            (broken,) = [line for line in scene.lines() if "it sent" in line.get("reason", "")]
            assert broken["reason"] == f"the job's process was ended: it sent {kind.name!r} while it was {state.value}"
            assert (broken["event"], len(scene.jobs)) == ("broken", 1)
        elif state is not State.ENDED or kind is not Idle:  # a lease that is idle is drawn at once
            assert actor.process.state is allowed
        scene.say(other, finished())
        assert scene.events()[-1] == "finished"
        for one in scene.actors:
            if one.process.state is not State.GONE:
                scene.die(one)
        assert (len(scene.jobs), scene.bidder.slots.running, scene.bidder.slots.reserved) == (0, 0, 0)


def wait_for_end(scene: Scene, actor: Actor) -> bool:
    """Returns True if a process was killed, and is gone then."""
    assert actor.killed
    scene.die(actor)
    return actor.process.state is State.GONE


def test_a_job_exists_as_long_as_the_client_waits_for_it() -> None:
    with Scene(slots=1) as scene:
        actor = scene.connected(1)
        assert actor.process.job is None and actor.process.ticket
        scene.say(actor, taken(7))
        job = actor.process.job
        assert job is not None and not actor.process.ticket
        assert (job.told.job_id, job.identity, job.alert) == ((7).to_bytes(16, "big"), (1).to_bytes(16, "big"), None)
        scene.say(actor, Starting(), ProgramStarted(1))
        assert job.alert is not None
        scene.say(actor, finished())
        assert actor.process.job is None and actor.process.connection is not None
        scene.say(actor, Free())
        assert actor.process.connection is None


def test_a_process_that_died_while_it_waited_is_replaced(shell: Shell) -> None:
    (waiting,) = carriers(shell.service)
    waiting.kill()
    assert shell.run("echo fine").stdout == b"fine\n"


def test_a_killed_cservice_leaves_no_process_that_waits(tmp_path: Path) -> None:
    service = Service(Application(tmp_path), ["true"])
    try:
        (waiting,) = carriers(service)
        service.process.kill()
        assert psutil.wait_procs([waiting], timeout=PATIENCE)[1] == []
    finally:
        service.kill()
