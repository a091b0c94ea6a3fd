"""A job's process, from GO to its end: descriptors, signals, trees, limits.  Real programs, a client in the test."""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from cexec.net.pump import Pump
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import ENDED, EXITED, HERE, LIMITED, PERMANENT, READER_CLOSED, SIGNALLED, Stream
from cexec.protocol.connection.options import FILE, PIPE, READS, SOCKET, WRITES
from cexec.system.process import process_tree
from cexec.system.process.resource_limits import Limits
from cexec.worker.jobs import job as worker_job
from cexec.worker.jobs import job_tree
from cexec.worker.jobs import program_streams as worker_streams
from cexec.worker.jobs.job_tree import JobTree
from cexec.worker.jobs.reports import Broken, JobFinished, JobRefused, ProgramStarted
from tests.jobs import DEADLINE, STANDARD, RefusedError, RemoteJob, lost, python, shell, written

MEBIBYTE = 1024 * 1024


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a job would be killed only after the test has failed."""
    monkeypatch.setattr(job_tree, "GRACE", 10 * DEADLINE)


def patterned(size: int) -> bytes:
    return (b"".join(number.to_bytes(4, "big") for number in range(4096)) * (size // 16384 + 1))[:size]


def test_input_output_errors_and_status() -> None:
    with shell("cat; echo oops >&2; exit 3", inputs={0: b"hello"}) as job:
        result = job.run()
        assert (result.kind, result.status, job.output(1), job.output(2)) == (EXITED, 3, b"hello", b"oops\n")
        assert [type(report) for report in job.reports()] == [ProgramStarted, JobFinished]


def test_death_by_a_signal_is_told() -> None:
    with shell("kill -9 $$") as job:
        result = job.run()
        assert (result.kind, result.status, result.exit_status) == (SIGNALLED, 9, 137)


def test_a_lost_exit_status_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it waited for."""

    def take_it_first(pid: int, options: int) -> tuple[int, int, object]:
        if os.waitpid(pid, options)[0]:
            raise ChildProcessError
        return 0, 0, None

    monkeypatch.setattr(os, "wait4", take_it_first)
    with shell("sleep 0.2") as job:
        assert lost(job) == "disconnected unexpectedly"
        broken = Broken("the program has ended, and its exit status is lost")
        assert broken in job.reports()


# descriptors


def test_the_program_has_the_descriptors_of_the_client_and_no_other() -> None:
    streams = [Stream(0, READS), Stream(1, WRITES), Stream(5, READS), Stream(7, WRITES), Stream(9, 3, SOCKET)]
    with python("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))", streams=streams) as job:
        job.run()
        assert job.output(1) == b"[0, 1, 2, 5, 7, 9]\n"  # 2 is the listing itself


@pytest.mark.parametrize("limits", [Limits(), Limits(nice=1)], ids=["spawned", "forked"])
def test_closed_standard_descriptors_are_closed_for_the_program(limits: Limits) -> None:
    script = "import os; os.write(7, repr(sorted(map(int, os.listdir('/proc/self/fd')))).encode())"
    with python(script, streams=[Stream(7, WRITES)], limits=limits) as job:
        job.run()
        assert job.output(7) == b"[0, 7]"


def test_a_duplicate_is_one_stream_and_keeps_the_order() -> None:
    streams = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1)]
    with shell("for i in 1 2 3; do echo out $i; echo err $i >&2; done", streams=streams) as job:
        job.run()
        assert job.output(1) == b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"


def test_descriptors_may_be_read_in_any_order() -> None:
    size = 5 * MEBIBYTE
    streams = [Stream(0, READS), Stream(1, WRITES), Stream(3, READS), Stream(5, READS)]
    inputs = {0: patterned(size), 3: patterned(size)[::-1], 5: patterned(size - 1)}
    with shell("cat <&5; cat; cat <&3", streams=streams, inputs=inputs) as job:
        job.run()
        assert job.output(1) == inputs[5] + inputs[0] + inputs[3]


def test_a_slow_reader_of_one_output_does_not_stop_another() -> None:
    script = "head -c 3000000 /dev/zero >&2 & head -c 9000000 /dev/zero; wait"
    with shell(script, held=True) as job:
        job.release(1)
        job.until(lambda: len(job.output(1)) == 9_000_000)
        assert job.output(2) == b""
        job.release(2)
        job.until(lambda: len(job.output(2)) == 3_000_000)
        assert job.run().status == 0


def test_an_unread_input_is_no_failure() -> None:
    with shell("exit 0", inputs={0: patterned(4 * MEBIBYTE)}) as job:
        assert job.run().status == 0


def test_a_descriptor_that_is_read_and_written_is_half_closed() -> None:
    size = 3 * MEBIBYTE
    script = "import socket; s = socket.socket(fileno=5); data = s.makefile('rb').read(); s.sendall(data[::-1])"
    with python(script, streams=[*STANDARD, Stream(5, 3, SOCKET)], inputs={5: patterned(size)}) as job:
        result = job.run()
        assert job.output(5) == patterned(size)[::-1]
        assert {(e.number, e.direction, e.ending) for e in result.endings if e.number == 5} == {(5, 1, 1), (5, 2, 1)}


def test_a_socketpair_is_closed_here_when_the_program_has_closed_it() -> None:
    """One descriptor for both halves: it was never closed before."""
    script = "import os, time; os.close(5); time.sleep(30)"
    with python(script, streams=[*STANDARD, Stream(5, 3, SOCKET)], inputs={5: b"x" * 100_000}) as job:
        job.until(lambda: job.started)

        def sockets() -> int:
            return sum(map(is_socket, Path(f"/proc/{job.pid}/fd").iterdir()))

        job.until(lambda: sockets() == 2)  # the connection and the parent's


def is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return False  # it has just been closed


def test_a_reader_that_leaves_gives_the_program_a_broken_pipe() -> None:
    with shell("yes; echo $? >&2") as job:
        job.until(lambda: len(job.output(1)) > 100_000)
        job.pump.close_sink(1)
        job.run()
        assert job.output(2) == b"141\n"  # 128 + SIGPIPE


LEFT = "until test -e $PEER_LEFT; do sleep 0.05; done; sleep 0.3"  # by then the worker has heard of it


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (f"echo a; {LEFT}", ENDED),
        (f"echo a; {LEFT}; echo b; sleep 0.3", ENDED),
        (f"echo a; {LEFT}; head -c 60000 /dev/zero", ENDED),
        ("echo a; trap '' PIPE; yes 2>/dev/null; true", READER_CLOSED),
    ],
)
@pytest.mark.parametrize("kind", [PIPE, SOCKET])
def test_a_program_that_cannot_have_noticed_that_its_reader_has_left_ended_its_output(
    kind: int, script: str, ending: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_streams, "PATIENCE", DEADLINE)
    left = tmp_path / "left"
    streams = [*STANDARD, Stream(5, WRITES if kind == PIPE else READS | WRITES, kind)]
    with shell(f"exec >&5 5>&-; {script}", streams=streams, environment={"LEFT": os.fsencode(left)}) as job:
        job.until(lambda: job.output(5))
        job.pump.close_sink(5)
        job.step(0.0)
        left.touch()
        result = job.run()
        told = next(e for e in result.endings if e.number == 5 and e.direction == WRITES)
        assert (result.exit_status, told.ending) == (0, ending)
        assert told.count == 2 or told.ending == READER_CLOSED


@pytest.mark.parametrize("kind", [PIPE, SOCKET])
def test_a_program_that_waits_for_its_reader_to_leave_is_told(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tail -f does: it says no more until there is more to say."""
    monkeypatch.setattr(worker_streams, "PATIENCE", 0.2)
    script = "import os, select; os.write(5, b'a'); poll = select.poll(); poll.register(5, 0); print(poll.poll(15000))"
    directions = WRITES if kind == PIPE else READS | WRITES
    with python(script, streams=[*STANDARD, Stream(5, directions, kind)]) as job:
        job.until(lambda: job.output(5))
        job.pump.close_sink(5)
        assert job.run().exit_status == 0
        expected = select.POLLERR if kind == PIPE else select.POLLHUP
        assert job.output(1) == f"[(5, {expected})]\n".encode()


def test_a_reader_that_leaves_a_socketpair_breaks_it_in_this_direction_only() -> None:
    script = (
        "import os, signal; signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
        "try:\n  while True: os.write(5, bytes(10000))\n"
        "except BrokenPipeError: os.write(1, os.read(5, 10))"
    )
    with python(script, streams=[*STANDARD, Stream(5, 3, SOCKET)], inputs={5: b"still here"}) as job:
        job.until(lambda: len(job.output(5)) > 100_000)
        job.pump.close_sink(5)
        job.run()
        assert (job.output(1), job.output(2)) == (b"still here", b"")


def test_a_socketpair_may_be_left_unread() -> None:
    """Regression: its end that was closed with bytes in it was a failure of the connection to the program."""
    script = "head -c 3 <&5; echo done >&5"
    with shell(script, streams=[*STANDARD, Stream(5, 3, SOCKET)], inputs={5: b"unread"}) as job:
        assert job.run().exit_status == 0
        assert (job.output(1), job.output(5)) == (b"unr", b"done\n")


def test_the_job_lasts_until_its_outputs_are_closed() -> None:
    with shell("(sleep 0.3; echo late) & echo early") as job:
        assert job.run().status == 0
        assert sorted(job.output(1).split()) == [b"early", b"late"]


# what the client may ask for


def test_arguments_and_peer_variables() -> None:
    command = ("sh", "-c", 'echo "$1|$2|$PEER_A|$PEER_b_2"', "sh")
    environment = {"A": b"x y", "b_2": b"$(reboot)"}
    with RemoteJob(*command, allow_arguments=True, arguments=[b"; rm", b"*"], environment=environment) as job:
        job.run()
        assert job.output(1) == b"; rm|*|x y|$(reboot)\n"


def test_arguments_are_refused_unless_they_are_allowed() -> None:
    with shell("true", arguments=[b"-x"]) as job:
        with pytest.raises(RefusedError, match="--allow-args") as caught:
            job.run()
        assert caught.value.kind == PERMANENT


@pytest.mark.parametrize("name", ["A-B", "1A", "A B", "Ä", "A" * 65, "A\n"])
def test_a_peer_variable_must_have_a_plain_name(name: str) -> None:
    with shell("true", environment={name: b"1"}) as job:
        with pytest.raises(RefusedError, match="cannot be a variable's name") as caught:
            job.run()
        assert caught.value.kind == PERMANENT


def test_an_unknown_option_may_be_known_elsewhere() -> None:
    with shell("true", options={"gpu": "1"}) as job:
        with pytest.raises(RefusedError, match="option gpu is not known") as caught:
            job.run()
        assert caught.value.kind == HERE


TWICE = [*STANDARD, Stream(256, READS, FILE, name="a"), Stream(257, READS, FILE, name="a")]
UNDER_A_FILE = [*STANDARD, Stream(256, READS, FILE, name="a"), Stream(257, READS, FILE, name="a/b")]
DEEP = [*STANDARD, *(Stream(n, READS, FILE, name="a/" * 120 + str(n)) for n in range(256, 350))]


@pytest.mark.parametrize(
    "asked",
    [
        {"arguments": [b"x"]},
        {"arguments": [b"x" * 150_000], "allow_arguments": True},
        {"options": {"gpu": "1"}},
        {"streams": TWICE},
        {"streams": UNDER_A_FILE},
        {"streams": DEEP},
    ],
    ids=["arguments", "long arguments", "unknown option", "one file twice", "a file below a file", "deep names"],
)
def test_what_a_client_asks_for_in_vain_is_no_fault_of_the_worker(asked: dict[str, Any]) -> None:
    """Regression: a client that asked for the impossible slowed the worker for all others."""
    with shell("true", **asked) as job:
        with pytest.raises(RefusedError):
            job.run()
        job.pump.connection.close()
        (report,) = job.reports()
        assert isinstance(report, JobRefused) and report.unfit


def test_a_program_that_cannot_be_started_is_a_fault_of_the_worker(tmp_path: Path) -> None:
    """It could be when the worker began: the interpreter has gone since."""
    interpreter, broken = tmp_path / "interpreter", tmp_path / "broken"
    interpreter.symlink_to("/bin/sh")
    broken.write_text(f"#!{interpreter}\n")
    broken.chmod(0o755)
    with RemoteJob(str(broken)) as job:
        interpreter.unlink()
        with pytest.raises(RefusedError, match="cannot start broken"):
            job.run()
        job.pump.connection.close()
        (report,) = job.reports()
        assert isinstance(report, JobRefused) and not report.unfit


def test_an_argument_that_the_system_refuses_is_a_refusal() -> None:
    with shell("true", allow_arguments=True, arguments=[b"x" * 150_000]) as job:
        with pytest.raises(RefusedError, match="cannot start sh: argument list too long"):
            job.run()
        job.pump.connection.close()
        assert [type(report) for report in job.reports()] == [JobRefused]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no such file"), ("#!/no/such/interpreter\n", "its interpreter /no/such/interpreter is not there")],
)
def test_a_program_that_has_gone_is_a_refusal(tmp_path: Path, text: str, words: str) -> None:
    program = tmp_path / "program"
    for limits in (Limits(), Limits(nice=1)):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        with RemoteJob(str(program), limits=limits) as job:
            if text:
                program.write_text(text)
            else:
                program.unlink()
            with pytest.raises(RefusedError, match=f"cannot start program: {words}"):
                job.run()


def test_once_is_told_with_the_start() -> None:
    for once in (False, True):
        with shell("true", once=once) as job:
            job.run()
            assert [event.number for event in job.events if event.kind == frames.STARTED] == [frames.ONCE * once]


# signals


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM"])
def test_signals_reach_the_group(name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    with shell(
        f"trap 'echo got' {name}; sh -c \"trap 'echo child; exit' {name}; sleep 9 >&- 2>&- & echo x; wait\""
    ) as job:
        job.until(lambda: job.output(1) == b"x\n")
        job.session.signal(number)
        job.run()
        assert sorted(job.output(1).split()) == [b"child", b"got", b"x"]


def test_a_signal_of_another_number_is_ignored() -> None:
    with shell("sleep 0.3") as job:
        job.until(lambda: job.started)
        job.session.signal(signal.SIGKILL)
        assert job.run().status == 0


def states(pids: list[int]) -> set[str]:
    found = set()
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            found.add(file.read().rpartition(")")[2].split()[0])
    return found


def names(pids: list[int]) -> list[str]:
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]


def test_the_whole_tree_is_stopped_and_continued() -> None:
    with shell("setsid sleep 20 & trap '' TSTP; echo x; sleep 20") as job:
        job.until(lambda: job.output(1) == b"x\n" and names(job.processes()).count("sleep") == 2)
        job.session.signal(20)
        job.until(lambda: states(job.processes()) == {"T"})
        job.session.signal(18)
        job.until(lambda: states(job.processes()) == {"S"})


# the end of the tree


def test_nothing_that_the_program_starts_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Background, another session, double fork with all descriptors closed, one that ignores TERM."""
    monkeypatch.setattr(job_tree, "GRACE", 5.0)
    ignores = tmp_path / "ignores"
    script = (
        "sleep 60 >&- 2>&- <&- & setsid sleep 60 >&- 2>&- <&- & (setsid sh -c 'sleep 60 & sleep 61' >&- 2>&- <&- &)\n"
        f"sh -c 'trap \"\" TERM; : > {ignores}; sleep 60; sleep 60' >&- 2>&- <&- &\n"
        f"until test -e {ignores}; do sleep 0.05; done; echo done"
    )
    with shell(script) as job:
        assert job.run().status == 0
        assert job.processes()  # the client does not wait for what is being ended
        assert job.remains() == []
        job.wait()


@pytest.mark.usefixtures("long_grace")
def test_the_end_takes_no_grace_time_when_nothing_is_left() -> None:
    with shell("true") as job:
        job.run()
        start = time.monotonic()
        job.wait()
        assert time.monotonic() - start < DEADLINE


def test_a_client_that_goes_ends_the_tree() -> None:
    with shell(
        "setsid sh -c 'sleep 60; true' & (sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' &) ; wait"
    ) as job:
        job.until(lambda: len(job.processes()) >= 4)
        job.pump.connection.close()
        assert job.remains() == []
        assert [type(report) for report in job.reports()] == [ProgramStarted, Broken]


def test_a_worker_that_goes_ends_the_tree(capfd: pytest.CaptureFixture[str]) -> None:
    """Regression: if it had not read all that it was told, nothing but a traceback came of it."""
    with shell("setsid sleep 60 & sleep 60") as job:
        job.until(lambda: len(job.processes()) == 3)
        job.parent.close()  # without having read that the program has started
        assert job.remains() == []
        assert "disconnected" in lost(job)
        job.wait()
        assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("long_grace")
def test_a_stopped_tree_is_ended_too() -> None:
    with shell("sleep 60 & sleep 60") as job:
        # before it has become a sleep its parent may wait for just that (vfork), and is stopped only then
        job.until(lambda: names(job.processes()).count("sleep") == 2)
        job.session.signal(20)
        job.until(lambda: states(job.processes()) == {"T"})
        job.pump.connection.close()
        assert job.remains() == []  # it took the TERM


@pytest.mark.usefixtures("long_grace")
def test_a_program_may_clean_up_when_the_client_goes(tmp_path: Path) -> None:
    cleans = f"trap 'sleep 0.3; echo cleaned > {tmp_path}/note; kill -9 $!; exit' TERM"
    with shell(f"{cleans}; sleep 60 & echo x; wait") as job:
        job.until(lambda: job.output(1) == b"x\n")
        job.pump.connection.close()
        assert written(tmp_path / "note") == "cleaned"


# limits


@pytest.mark.usefixtures("long_grace")
def test_the_time_limit() -> None:
    with shell("echo begun; sleep 60", limits=Limits(time=2.5)) as job:
        result = job.run()
        assert (result.kind, result.exit_status, job.output(1)) == (LIMITED, 128 + signal.SIGTERM, b"begun\n")
        assert result.message == "ended after its time limit of 2.5 s"


def test_the_time_limit_ends_what_ignores_it_and_what_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_tree, "GRACE", 0.3)
    script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 60; sleep 60' & sleep 60; sleep 60"
    with shell(script, options={"time-limit": "2"}) as job:
        result = job.run()
        assert (result.kind, result.status) == (LIMITED, signal.SIGKILL)
        assert job.remains() == []


def test_a_client_that_does_not_take_the_output_loses_its_slot_after_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_tree, "GRACE", 0.1)
    monkeypatch.setattr(worker_job, "RELEASE_PATIENCE", 0.3)
    with shell("yes", held=True, limits=Limits(time=0.2)) as job:
        assert "disconnected" in lost(job)
        assert [type(report) for report in job.reports()] == [ProgramStarted, Broken]


def test_output_that_is_not_taken_keeps_no_slot_beyond_the_time_limit_although_the_program_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its child writes on, and ends with it; what is in the pipe then is never taken."""
    monkeypatch.setattr(job_tree, "GRACE", 0.1)
    monkeypatch.setattr(worker_job, "RELEASE_PATIENCE", 0.3)
    with shell("yes & exit 0", held=True, limits=Limits(time=0.3)) as job:
        assert "disconnected" in lost(job)
        assert [type(report) for report in job.reports()] == [ProgramStarted, Broken]


def incoming(*names: str) -> list[Stream]:
    """Standard streams, and files that the client sends."""
    return [*STANDARD, *(Stream(frames.FIRST_FILE + n, READS, FILE, name=name) for n, name in enumerate(names))]


def test_the_time_limit_counts_the_wait_for_files() -> None:
    """Regression: a client that sent its files slowly had a slot for as long as it liked."""
    for options, limits in (({"time-limit": "0.3"}, Limits()), ({}, Limits(time=0.3))):
        with shell("true", streams=incoming("never"), options=options, limits=limits, given=False) as job:
            job.session.go(job.go)
            with pytest.raises(RefusedError, match=r"its time limit of 0\.3 s passed before all its files had come"):
                job.until(lambda: job.started)
            assert isinstance(job.report(), JobRefused)


@pytest.mark.usefixtures("long_grace")
def test_files_that_come_in_time_cost_a_part_of_the_limit() -> None:
    with shell("cat in; sleep 60", streams=incoming("in"), inputs={frames.FIRST_FILE: b"x"}, limits=Limits(time=2.5),
               private=True) as job:  # fmt: skip
        result = job.run()
        assert (job.output(1), result.message) == (b"x", "ended after its time limit of 2.5 s")


def test_a_client_that_does_not_fetch_loses_its_slot_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the program had ended in time, and nothing bounded what came after it."""
    monkeypatch.setattr(job_tree, "GRACE", 0.1)
    monkeypatch.setattr(worker_job, "RELEASE_PATIENCE", 0.3)
    number = frames.FIRST_FILE
    streams = [*STANDARD, Stream(number, WRITES, FILE, name="out")]
    with shell("head -c 9000000 /dev/zero > out", streams=streams, held=True, limits=Limits(time=2.5)) as job:
        assert "disconnected" in lost(job)
        assert [type(report) for report in job.reports()] == [ProgramStarted, Broken]


def test_a_client_that_takes_nothing_does_not_keep_its_process_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: one that answered PING and read nothing kept a process until it went."""
    monkeypatch.setattr(worker_job, "LONGEST_LINGER", 0.3)
    monkeypatch.setattr(Pump, "flushed", property(lambda self: False))  # its kernel takes no byte more
    with shell("true") as job:
        job.result()
        assert JobFinished in [type(report) for report in job.reports()]  # until the process has ended
        job.wait()


def test_signals_that_come_before_the_program_are_kept_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a million of them took memory, and were sent one by one."""
    told: list[int] = []
    monkeypatch.setattr(process_tree, "signal_program", lambda leader, number, reaped: told.append(number))
    monkeypatch.setattr(process_tree, "signal_tree", lambda leader, number: told.append(number))
    monkeypatch.setattr(process_tree, "stop_tree", lambda: told.append(signal.SIGTSTP))
    tree = JobTree()
    for _ in range(20_000):
        for number in (signal.SIGTSTP, signal.SIGINT, signal.SIGCONT, signal.SIGTERM):
            tree.signal(number)
    tree.signal(signal.SIGTSTP)
    assert told == []
    tree.started(1 << 22)
    assert told == [signal.SIGINT, signal.SIGTERM, signal.SIGTSTP]  # CONT has taken the stop back, and the reverse
    tree.pass_signals_on()
    assert len(told) == 3


def test_signals_that_come_together_are_passed_on_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a record of 29,000 stops and continues took a minute, in which no limit ended the job."""
    told: list[int] = []
    monkeypatch.setattr(process_tree, "signal_tree", lambda leader, number: told.append(number))
    monkeypatch.setattr(process_tree, "stop_tree", lambda: told.append(signal.SIGTSTP))
    tree = JobTree()
    tree.started(1 << 22)
    for _ in range(20_000):
        tree.signal(signal.SIGTSTP)
        tree.signal(signal.SIGCONT)
    tree.pass_signals_on()
    assert told == [signal.SIGCONT]


def test_a_client_that_sends_signals_without_end_does_not_outlast_the_time_limit() -> None:
    with shell("sleep 60", limits=Limits(time=0.5)) as job:
        job.until(lambda: job.started)
        began = time.monotonic()
        while job.exit is None and time.monotonic() < began + DEADLINE:
            if not job.pump.records.congested:
                for number in (signal.SIGTSTP, signal.SIGCONT) * 500:
                    job.session.signal(number)
            job.step(0.0)
        assert job.exit is not None and job.exit.kind == LIMITED


@pytest.mark.usefixtures("long_grace")
def test_a_program_that_exits_0_at_its_time_limit_has_not_succeeded(tmp_path: Path) -> None:
    with shell(f"trap ': > {tmp_path}/caught; exit 0' TERM; sleep 60 & wait", limits=Limits(time=1.5)) as job:
        assert job.run().exit_status == 128 + signal.SIGTERM
        assert (tmp_path / "caught").exists()


@pytest.mark.usefixtures("long_grace")
def test_the_stricter_time_limit_counts() -> None:
    for ours, theirs in ((0.2, "50"), (50.0, "0.2")):
        with shell("sleep 60", limits=Limits(time=ours), options={"time-limit": theirs}) as job:
            assert job.run().message == "ended after its time limit of 0.2 s"


def test_the_processor_time_limit() -> None:
    with shell("while :; do :; done", options={"cpu-limit": "1"}) as job:
        result = job.run()
        assert (result.kind, result.status) == (LIMITED, signal.SIGXCPU)
        assert result.message == "ended after its limit of 1 s of processor time"


def test_the_processor_time_limit_of_a_child_that_the_program_tells_of() -> None:
    with shell("sh -c 'while :; do :; done'; exit $?", options={"cpu-limit": "1"}) as job:
        result = job.run()
        assert (result.kind, result.status) == (LIMITED, signal.SIGXCPU)


def test_a_memory_limit_for_each_process() -> None:
    with python("bytearray(400 << 20)", limits=Limits(memory=200 << 20)) as job:
        result = job.run()
        assert (result.kind, result.status) == (EXITED, 1)
        assert b"MemoryError" in job.output(2)
        assert result.message == "it ran with a memory limit of 200 MiB for each process, which may be the reason"


def test_nice_and_the_stricter_one() -> None:
    with shell("nice; ps -o ni= -p $PPID", limits=Limits(nice=3), options={"nice": "7"}) as job:
        job.run()
        usual = b"%d" % os.nice(0)
        assert job.output(1).split() == [b"7", usual]  # the job's own process, which carries the bytes, is not slowed


@pytest.mark.parametrize("option", [{"nice": "20"}, {"nice": "-1"}, {"time-limit": "soon"}, {"memory-limit": "1e9"}])
def test_a_limit_that_is_none_is_refused(option: dict[str, str]) -> None:
    with shell("true", options=option) as job:
        with pytest.raises(RefusedError) as caught:
            job.run()
        assert caught.value.kind == PERMANENT


def test_a_forked_program_inherits_nothing_either() -> None:
    script = "import os, signal; print(sorted(map(int, os.listdir('/proc/self/fd'))), signal.getsignal(signal.SIGTERM))"
    with python(script, limits=Limits(nice=1)) as job:
        job.run()
        assert job.output(1) == b"[0, 1, 2, 3] 0\n"  # SIG_DFL
