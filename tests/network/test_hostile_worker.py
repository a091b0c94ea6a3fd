"""A worker that dies or lies: the client gives the job to another, or fails; it never takes a lie for a success.

Every peer here has the application's key and a certificate; what strangers can do is in tests/protocol/test_attacks.py.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable

import pytest

from cexec.protocol.base.limits import FRAME_LENGTH, INITIAL_WINDOW, MAXIMUM_DATA, MAXIMUM_FRAME, RECORD_HEADER
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import ENDED, EXITED, READER_CLOSED, Ending, Exit
from cexec.protocol.connection.options import READS, WRITES
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.fake_worker import LOOPBACK, SLOW, Connection, FakeWorker, HungUpError, serve
from tests.screen import Screen
from tests.service import Application

Play = Callable[[Connection], None]
OUTPUT = b"the whole output"


def run(
    application: Application, *arguments: str, input: bytes = b"input", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return application.run(*arguments, input=input, environment={**LOOPBACK, **environment})


# deaths and lies: each play does everything right up to one step


def dies_after_confirming(connection: Connection) -> None:
    connection.shake().confirm().close()


def drops_after_go(connection: Connection) -> None:
    connection.take().close()


def resets_after_go(connection: Connection) -> None:
    connection.take().reset()


def drops_after_starting(connection: Connection) -> None:
    connection.take().start().close()


def drops_in_the_input(connection: Connection) -> None:
    connection.take().start().read(size=1)
    connection.close()


def drops_in_the_middle_of_a_record(connection: Connection) -> None:
    connection.take().start().read()  # what is left unread would make a reset of the end
    connection.raw((1000).to_bytes(RECORD_HEADER, "big") + bytes(10)).close()


def drops_before_the_exit_frame(connection: Connection) -> None:
    connection.take().start().read()
    connection.end(1, 2).close()


def ends_with_fewer_bytes_than_it_counts(connection: Connection) -> None:
    connection.take().start().frame(frames.END, (len(OUTPUT)).to_bytes(8, "big"), 1)
    connection.wait_for_end()


def lying_exit(*endings: Ending) -> Play:
    """All is done right but for the exit frame, which says this."""

    def play(connection: Connection) -> None:
        connection.take().start()
        connection.read()
        connection.end(1, 2)
        connection.frame(frames.EXIT, Exit(kind=EXITED, status=0, endings=list(endings)).encode())
        connection.wait_for_end()

    return play


OUT, ERR, IN = Ending(1, WRITES, ENDED, 0), Ending(2, WRITES, ENDED, 0), Ending(0, READS, ENDED, 5)


def exits_before_the_output_has_ended(connection: Connection) -> None:
    connection.take().start().frame(frames.EXIT, Exit(kind=EXITED, status=0, endings=[OUT, ERR, IN]).encode())
    connection.wait_for_end()


def exits_without_having_started(connection: Connection) -> None:
    connection.take().frame(frames.EXIT, Exit(kind=EXITED, status=0, endings=[OUT, ERR, IN]).encode())
    connection.wait_for_end()


def sends_data_before_it_has_started(connection: Connection) -> None:
    connection.take().frame(frames.DATA, b"early", 1)
    connection.wait_for_end()


def sends_data_on_an_unknown_stream(connection: Connection) -> None:
    connection.take().start().frame(frames.DATA, b"data", 77)
    connection.wait_for_end()


def sends_data_on_an_input(connection: Connection) -> None:
    connection.take().start().frame(frames.DATA, b"data", 0)
    connection.wait_for_end()


def sends_data_after_the_end(connection: Connection) -> None:
    connection.take().start().end(1).frame(frames.DATA, b"more", 1)
    connection.wait_for_end()


def sends_an_unknown_frame(connection: Connection) -> None:
    connection.take().start().frame(99)
    connection.wait_for_end()


def sends_a_frame_that_only_clients_send(connection: Connection) -> None:
    connection.take().start().frame(frames.SIGNAL, b"\x0f")
    connection.wait_for_end()


def says_unasked_that_the_slot_is_wanted(connection: Connection) -> None:
    connection.take().start().frame(frames.WANTED)
    connection.wait_for_end()


def says_so_before_it_has_started(connection: Connection) -> None:
    connection.take().frame(frames.WANTED)
    connection.wait_for_end()


def sends_an_oversized_record(connection: Connection) -> None:
    connection.take().start().raw((FRAME_LENGTH + MAXIMUM_FRAME + 33).to_bytes(RECORD_HEADER, "big"))
    connection.wait_for_end()


def sends_a_huge_record(connection: Connection) -> None:
    connection.take().start().raw(b"\xff" * RECORD_HEADER)
    connection.wait_for_end()


def sends_noise(connection: Connection) -> None:
    connection.take().start().raw((100).to_bytes(RECORD_HEADER, "big") + os.urandom(100))
    connection.wait_for_end()


def breaks_the_output_off(connection: Connection) -> None:
    connection.take().start().frame(frames.BROKEN, b"the disk is gone", 1)
    connection.wait_for_end()


FAILURES: dict[Play, str] = {
    dies_after_confirming: "disconnected unexpectedly",
    drops_after_go: "disconnected unexpectedly",
    resets_after_go: "disconnected unexpectedly",
    drops_after_starting: "disconnected unexpectedly",
    drops_in_the_input: "disconnected unexpectedly",
    drops_in_the_middle_of_a_record: "disconnected unexpectedly in the middle of a record",
    drops_before_the_exit_frame: "disconnected unexpectedly",
    ends_with_fewer_bytes_than_it_counts: "stream ended twice, or without all its bytes",
    lying_exit(Ending(1, WRITES, ENDED, 3), ERR, IN): "stream 1 was cut short",
    lying_exit(Ending(1, WRITES, READER_CLOSED, 0), ERR, IN): "stream 1 was cut short",
    lying_exit(OUT, ERR, Ending(0, READS, ENDED, 6)): "stream 0 was not read as it was written",
    lying_exit(OUT, ERR): "exit frame does not name every stream once",
    lying_exit(OUT, OUT, IN): "exit frame does not name every stream once",
    exits_before_the_output_has_ended: "stream 1 was cut short",
    exits_without_having_started: "worker sent a frame that has no place here",
    sends_data_before_it_has_started: "worker sent output before it had started the program",
    sends_data_on_an_unknown_stream: "data on a stream that does not exist",
    sends_data_on_an_input: "data on a stream that does not exist",
    sends_data_after_the_end: "peer sent data after the end of its stream",
    sends_an_unknown_frame: "frame has an unknown type",
    sends_a_frame_that_only_clients_send: "worker sent a frame that has no place here",
    says_unasked_that_the_slot_is_wanted: "worker said that a slot is wanted, and was not asked",
    says_so_before_it_has_started: "worker sent a frame that has no place here",
    sends_an_oversized_record: "record has an impossible length",
    sends_a_huge_record: "record has an impossible length",
    sends_noise: "record didn't verify",
    breaks_the_output_off: "lost standard output of the program: the disk is gone",
}
each_failure = pytest.mark.parametrize(
    ("play", "reason"), FAILURES.items(), ids=lambda value: getattr(value, "__name__", "")
)


@each_failure
def test_a_worker_that_fails_is_named_with_what_it_did(application: Application, play: Play, reason: str) -> None:
    with FakeWorker(application, play, attempts=1):
        result = run(application, "--retries", "0")
    said = result.stderr.decode().replace(": connection reset by peer", "")  # as the case may be
    assert said == (f"cexec: worker fake at 127.0.0.1 failed: {reason}; not repeated, because --retries is 0\n")
    assert (result.returncode, result.stdout) == (111, b"")


@pytest.mark.parametrize("play", [drops_after_go, drops_before_the_exit_frame, lying_exit(OUT, ERR)])
def test_the_job_of_a_worker_that_fails_is_done_by_another(
    application: Application, service: StartService, play: Play
) -> None:
    service("sh", "-c", "cat; echo $CEXEC_ATTEMPT", environment=SLOW)
    with FakeWorker(application, play, attempts=1):
        result = run(application)
    assert (result.returncode, result.stdout) == (0, b"input2\n"), result.stderr
    assert result.stderr.decode().count("\n") == 1
    assert "; running the job again\n" in result.stderr.decode()


def test_input_that_is_given_again_is_given_to_its_end_although_output_has_left_already(
    application: Application, service: StartService
) -> None:
    """Regression: when the second attempt wrote into a pipe its input was forgotten before it had all of it."""
    input = os.urandom(5_000_000)

    def play(connection: Connection) -> None:
        connection.take().start().read(size=4_000_000)
        connection.close()

    service("sh", "-c", "echo header; cat", environment=SLOW)
    with FakeWorker(application, play, attempts=1):
        result = run(application, input=input)
    assert result.returncode == 0, result.stderr
    assert result.stdout == b"header\n" + input


def test_a_job_is_given_up_after_as_many_repetitions_as_were_asked_for(application: Application) -> None:
    with FakeWorker(application, drops_after_go) as fake:
        result = run(application)
    assert fake.played == 3
    assert result.returncode == 111
    lines = result.stderr.decode().splitlines()
    assert [line.endswith("; running the job again") for line in lines] == [True, True, False]
    assert lines[-1].endswith("; not repeated, because 3 attempts are enough (--retries)")


def test_a_worker_that_sends_more_than_its_credit_fails(application: Application) -> None:
    overdone = threading.Event()

    def play(connection: Connection) -> None:
        connection.take().start()
        try:
            for _ in range(20 * INITIAL_WINDOW // MAXIMUM_DATA):  # nobody reads what the client writes
                connection.frame(frames.DATA, bytes(MAXIMUM_DATA), 1)
        except OSError:
            pass  # the client has noticed
        overdone.set()
        connection.wait_for_end()

    argv, environment = application.client("--retries", "0", environment=LOOPBACK)
    with FakeWorker(application, play, attempts=1):
        client = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert overdone.wait(20)
        _, said = client.communicate(timeout=20)
    assert b"failed: peer sent more than its credit; " in said
    assert client.returncode == 111


def test_a_service_that_runs_a_job_once_is_not_asked_twice(application: Application) -> None:
    def play(connection: Connection) -> None:
        connection.take().start(once=True).close()

    with FakeWorker(application, play) as fake:
        result = run(application)
    assert fake.played == 1
    assert result.returncode == 111
    assert b"; not repeated, because this service must not run a job twice (cservice --once)\n" in result.stderr


def takes(connection: Connection, *, once: bool = False) -> bool:
    """True if the client gives it a job; cmap announces more often than it has tasks."""
    try:
        connection.take(once=once)
    except (HungUpError, ConnectionError):
        return False
    return True


def run_cmap(application: Application, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    argv = command("cmap", application.public, *arguments)
    return subprocess.run(argv, env=local_environment(LOOPBACK), capture_output=True, timeout=60)


@pytest.mark.parametrize("drop", ["close", "reset"])
def test_a_job_that_a_service_with_once_was_given_is_not_given_again(application: Application, drop: str) -> None:
    """Regression: cmap heard only from STARTED that a job must run once, and gave it to another worker."""

    given: list[Connection] = []

    def play(connection: Connection) -> None:
        if takes(connection, once=True):
            given.append(connection)
            getattr(connection, drop)()

    for client in (run, run_cmap):
        given.clear()
        with FakeWorker(application, play):
            result = client(application, *((":::", "x") if client is run_cmap else ()))
        assert len(given) == 1, client
        assert result.returncode != 0
        assert b"must not run a " in result.stderr


CONFIRM, WITHDRAW = frames.frame(frames.CONFIRM), frames.frame(frames.WITHDRAW, b"client did not answer in time")
AFTER_EXIT: dict[str, tuple[list[bytes], bytes]] = {
    "withdraw": ([CONFIRM, WITHDRAW], b""),
    "a frame that has no place there": ([frames.frame(frames.STARTED, b"\0")], b""),
    "a frame of an unknown type": ([b"\xff\0\0\0"], b""),
    "a second exit frame": ([frames.frame(frames.EXIT, bytes(40))], b""),
    "bytes that are no record": ([], b"\xff" * 100),
    "a record that was tampered with": ([], (100).to_bytes(RECORD_HEADER, "big") + bytes(100)),
    "half a record": ([], b"\0"),
}


@pytest.mark.parametrize("name", AFTER_EXIT)
def test_nothing_after_an_exit_frame_takes_a_result_away(application: Application, name: str) -> None:
    """Regression: EXIT, CONFIRM and WITHDRAW that were read together made cmap report a failure."""
    following, raw = AFTER_EXIT[name]

    given: list[Connection] = []

    def play(connection: Connection) -> None:
        if takes(connection):
            given.append(connection)
            connection.start().read()
            connection.write(1, OUTPUT).end(1, 2).exit_and(*following, raw=raw)
            connection.wait_for_end()

    for client in (run, run_cmap):
        given.clear()
        with FakeWorker(application, play):
            result = client(application, *((":::", "x") if client is run_cmap else ()))
        assert (result.returncode, result.stdout, result.stderr) == (0, OUTPUT, b""), client
        assert len(given) == 1


def test_a_worker_that_cannot_start_the_program_is_no_failure_of_the_job(
    application: Application, service: StartService
) -> None:
    def play(connection: Connection) -> None:
        connection.take().refuse(frames.HERE, "no such file")

    service("cat", environment=SLOW)
    with FakeWorker(application, play, attempts=1):
        result = run(application, "--retries", "0")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"input", b"")


def test_a_refusal_for_all_workers_is_final(application: Application) -> None:
    def play(connection: Connection) -> None:
        connection.take().refuse(frames.PERMANENT, "not here and not there")

    with FakeWorker(application, play) as fake:
        result = run(application)
    assert (result.returncode, fake.played) == (111, 1)
    assert result.stderr == b"cexec: worker fake at 127.0.0.1 refuses the job: not here and not there\n"


def test_of_two_workers_that_confirm_in_the_same_millisecond_one_gets_the_job(application: Application) -> None:
    together = threading.Barrier(2)
    chosen: list[str] = []

    def play(connection: Connection) -> None:
        connection.shake()
        together.wait(20)
        connection.confirm()
        try:
            connection.hear(frames.GO)
        except (HungUpError, ConnectionError):  # a CANCEL may be lost in the reset
            chosen.append("cancelled")
            return
        chosen.append("got the job")
        connection.start()
        connection.read()
        connection.end(1, 2).exit(3).wait_for_end()

    for _ in range(5):
        chosen.clear()
        together.reset()
        with (
            FakeWorker(application, play, name="one", attempts=1),
            FakeWorker(application, play, name="other", attempts=1),
        ):
            result = run(application)
        assert (result.returncode, result.stderr) == (3, b"")
        assert sorted(chosen) == ["cancelled", "got the job"]


def test_the_fake_worker_serves_when_it_does_nothing_wrong(application: Application) -> None:
    with FakeWorker(application, serve):
        result = run(application)
    assert (result.returncode, result.stdout, result.stderr) == (3, b"INPUT", b"")


# Terminals


@pytest.mark.parametrize("gives", [True, False])
@pytest.mark.parametrize("at_terminal", [True, False])
def test_a_terminal_is_asked_for_only_by_a_client_at_one_that_was_offered_it(
    application: Application, gives: bool, at_terminal: bool
) -> None:
    """A worker that only says that its program wants a terminal has no effect on anybody else."""
    asked: list[dict[str, str]] = []

    def suggests(connection: Connection) -> None:
        connection.shake(gives_terminal=gives, suggests_terminal=True).confirm()
        go = connection.hear(frames.GO).go
        assert go is not None
        asked.append(go.options)
        connection.refuse(frames.PERMANENT, "enough")

    with FakeWorker(application, suggests):
        if at_terminal:
            argv, environment = application.client(environment=LOOPBACK)
            with Screen() as screen:
                before = screen.modes()
                assert screen.end(screen.run(argv, environment)) == 111
                assert screen.modes() == before
        else:
            assert run(application).returncode == 111
    assert ["terminal" in options for options in asked] == [gives and at_terminal] * len(asked) and asked


def test_a_worker_that_gives_no_terminal_gets_no_job_that_needs_one(application: Application) -> None:
    """Its attributes say so, and its offer does not."""
    heard: list[int] = []

    def lies(connection: Connection) -> None:
        try:
            heard.append(connection.shake().confirm().next_event().kind)
        except (HungUpError, ConnectionError):  # a reset, if it had not read that we confirm
            heard.append(-1)

    with FakeWorker(application, lies):
        done = run(application, "-t", CEXEC_TIMEOUT_ACCEPT="3")
    assert done.returncode == 111 and set(heard) == {-1}
