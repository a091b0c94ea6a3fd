"""The drivers of the client behave alike: `cexec`, `cexec --all`, the leases of `cmap`, and the Python API.

Each test plays the worker's end of a real connection, and runs on each driver.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cexec.client.attempt import stepping
from cexec.client.attempt.signals import Signals
from cexec.client.blocking import driver as driver_of_cexec
from cexec.client.everywhere import worker_run
from cexec.client.search import trust
from cexec.client.search.trust import RevocationWatch
from cexec.errors import (
    DisconnectedError,
    InterruptedByUser,
    LocalError,
    ProtocolError,
    RefusedError,
    RevokedError,
    SilentPeerError,
    StalledError,
    WithdrawnError,
)
from cexec.net import liveness, pump
from cexec.net.pump import Pump, Trouble
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.base.limits import INITIAL_WINDOW, PING_INTERVAL
from cexec.protocol.base.revocation import RevocationList, encode_list
from cexec.protocol.connection import frames, silence
from cexec.protocol.connection.frames import EXITED, FIRST_FILE, HERE, LIMITED, PERMANENT, SIGNALLED
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.session import Event
from cexec.system.storage import revocations
from cexec.system.storage.revocations import Revocations
from tests.client.api_drivers import run_streamed, run_whole
from tests.client.drivers import DRIVERS, Outcome, Peer, Setting, exit_frame, run_blocking
from tests.fake_worker import HungUpError
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.usefixtures("process_end")

STDIN = b"input " * 1000
ALL = {**DRIVERS, "run": run_whole, "start": run_streamed}
Play = Callable[[Peer], None]
Run = Callable[..., Outcome]


@pytest.fixture(params=ALL)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(driver: str, tmp_path: Path) -> Run:
    """Runs one job with the driver; a play that fails, fails the test."""

    def run(
        play: Play,
        *,
        stdin: bytes = STDIN,
        once: bool = False,
        fetch: bool = False,
        program: bool = False,
        packed: bool = False,
        fails: int = 0,
        watch: RevocationWatch | None = None,
        progress: float = 0.0,
    ) -> Outcome:
        output = "/dev/full" if fails and driver == "blocking" else ""
        setting = Setting(tmp_path, stdin=stdin, once=once, output=output, fetch=fetch, program=program, packed=packed)
        setting.watch, setting.progress = watch, progress
        try:
            outcome = ALL[driver](setting, play, fails)
        finally:
            setting.close()
        if setting.failure is not None:
            raise setting.failure
        return outcome

    return run


def numbers(peer: Peer) -> tuple[int, int]:
    """The program's input and output."""
    assert peer.go is not None
    return peer.go.streams[0].number, peer.go.streams[1].number


def start(peer: Peer, *, once: bool = False) -> tuple[int, int]:
    peer.hear(frames.GO)
    peer.start(once=once)
    return numbers(peer)


def does_its_work(peer: Peer, *, once: bool = False) -> None:
    """Reads everything and writes it back in capitals, up to the exit frame."""
    source, sink = start(peer, once=once)
    peer.write(sink, peer.read(source).upper())
    peer.end(sink)


@pytest.mark.parametrize(
    ("kind", "number", "status"),
    [
        (EXITED, 0, 0),
        (EXITED, 3, 3),
        (EXITED, 137, 137),
        (EXITED, 255, 255),
        (SIGNALLED, 9, 137),
        (SIGNALLED, 15, 143),
        (LIMITED, 9, 137),
        (LIMITED, 24, 152),
    ],
)
def test_exit_statuses_deaths_and_limits(run: Run, kind: int, number: int, status: int) -> None:
    def play(peer: Peer) -> None:
        does_its_work(peer)
        exit_frame(peer, kind, number, "ended after its time limit" if kind == LIMITED else "")
        peer.wait_for_end()

    outcome = run(play)
    assert outcome.exit is not None
    assert (outcome.status, outcome.exit.kind, outcome.output) == (status, kind, STDIN.upper())
    assert outcome.error is None


def test_a_file_that_does_not_come(run: Run, driver: str, tmp_path: Path) -> None:
    def play(peer: Peer) -> None:
        does_its_work(peer)
        peer.breaks(FIRST_FILE, "no such file or directory")
        exit_frame(peer, EXITED, 0)
        peer.wait_for_end()

    outcome = run(play, fetch=True)
    assert not (tmp_path / "fetched").exists()
    if driver == "everywhere":  # `cexec --all` fetches no files, and a worker that says so does no harm
        assert outcome.status == 0
    else:
        assert ["no such file or directory" in reason for reason in outcome.missing] == [True]


@pytest.mark.parametrize("kind", [HERE, PERMANENT])
def test_a_refusal(run: Run, kind: int) -> None:
    def play(peer: Peer) -> None:
        peer.hear(frames.GO)
        peer.refuse(kind, "no room here").wait_for_end()

    outcome = run(play)
    assert isinstance(outcome.error, RefusedError)
    assert (str(outcome.error), outcome.error.permanent) == ("no room here", kind == PERMANENT)


def test_a_withdrawal_that_crosses_the_job(run: Run) -> None:
    def play(peer: Peer) -> None:
        peer.frame(frames.WITHDRAW, b"worker is stopping").wait_for_end()

    outcome = run(play)
    assert isinstance(outcome.error, WithdrawnError)
    assert str(outcome.error) == "worker is stopping"


def test_a_worker_that_asks_for_the_program(run: Run, driver: str) -> None:
    def play(peer: Peer) -> None:
        peer.hear(frames.GO)
        peer.ask_for_program("linux-x86_64")
        if driver != "everywhere":
            assert peer.read(FIRST_FILE) == b"#!/bin/sh\n"
            peer.start()
            _, sink = numbers(peer)
            peer.write(sink, b"it ran").end(sink)
            exit_frame(peer, EXITED, 0)
        peer.wait_for_end()

    outcome = run(play, program=True)
    if driver == "everywhere":  # `cexec --all` takes no programs along
        assert isinstance(outcome.error, ProtocolError)
    else:
        assert (outcome.status, outcome.output) == (0, b"it ran")


def test_a_worker_that_asks_for_a_program_that_there_is_not(run: Run) -> None:
    def play(peer: Peer) -> None:
        peer.hear(frames.GO)
        peer.ask_for_program("linux-x86_64").wait_for_end()

    assert isinstance(run(play).error, ProtocolError)


@pytest.mark.parametrize(("hello", "started"), [(True, False), (False, True), (False, False)])
def test_once(run: Run, driver: str, hello: bool, started: bool) -> None:
    """The hello says it before GO is sent, STARTED at the latest."""

    def play(peer: Peer) -> None:
        start(peer, once=started)
        peer.close()

    outcome = run(play, once=hello)
    assert isinstance(outcome.error, DisconnectedError)
    if driver != "everywhere":  # which never repeats a job
        assert outcome.once == (hello or started)


def test_output_that_cannot_be_written(run: Run) -> None:
    def play(peer: Peer) -> None:
        _, sink = start(peer)
        peer.write(sink, b"output")
        peer.wait_for_end()

    outcome = run(play, fails=errno.ENOSPC)
    assert isinstance(outcome.error, LocalError)
    assert "no space left on device" in str(outcome.error)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("moment", ["before the job is read", "after it", "after the start", "after the output"])
def test_a_worker_that_is_killed(run: Run, how: str, moment: str) -> None:
    def play(peer: Peer) -> None:
        if moment != "before the job is read":
            peer.hear(frames.GO)
        if moment.startswith("after the"):
            peer.start()
        if moment == "after the output":
            source, sink = numbers(peer)
            peer.write(sink, peer.read(source)).end(sink)
        getattr(peer, how)()

    outcome = run(play)
    assert isinstance(outcome.error, DisconnectedError)
    assert "disconnected unexpectedly" in str(outcome.error)


def test_an_output_that_breaks_at_the_worker(run: Run) -> None:
    def play(peer: Peer) -> None:
        _, sink = start(peer)
        peer.frame(frames.BROKEN, b"input/output error", sink).wait_for_end()

    outcome = run(play)
    assert isinstance(outcome.error, DisconnectedError)
    assert str(outcome.error).endswith("of the program: input/output error")


FOLLOWING: dict[str, tuple[list[bytes], bytes]] = {
    "nothing": ([], b""),
    "withdraw": ([frames.frame(frames.CONFIRM), frames.frame(frames.WITHDRAW, b"too late")], b""),
    "a frame out of place": ([frames.frame(frames.STARTED, b"\0")], b""),
    "another exit frame": ([frames.frame(frames.EXIT, bytes(40))], b""),
    "garbage": ([], b"\xff" * 100),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("following", FOLLOWING)
def test_a_complete_result_is_kept_whatever_follows_it(run: Run, following: str, packed: bool) -> None:
    more, raw = FOLLOWING[following]

    def play(peer: Peer) -> None:
        does_its_work(peer)
        peer.exit_and(*more, status=3, raw=raw)
        peer.wait_for_end()

    outcome = run(play, packed=packed)
    assert (outcome.status, outcome.output) == (3, STDIN.upper())


def test_a_fault_that_comes_together_with_the_start_is_noticed_at_once(run: Run) -> None:
    """Regression: `--all` and `cmap` looked again only when the session wanted to be asked, after up to a minute."""

    def play(peer: Peer) -> None:
        peer.hear(frames.GO)
        peer.start_and(b"\xff" * 100).wait_for_end()  # the connection stays open

    begun = time.monotonic()
    outcome = run(play)
    assert isinstance(outcome.error, ProtocolError)
    assert time.monotonic() - begun < PING_INTERVAL / 2


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes fifteen seconds a third of a second."""
    monkeypatch.setattr(silence, "LONGEST_SILENCE", 0.3)
    monkeypatch.setattr(silence, "LOOK_INTERVAL", 0.1)


def test_a_worker_that_is_revoked_while_the_job_runs_is_hung_up_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "WATCH_INTERVAL", 0.1)
    monkeypatch.setattr(revocations, "LOOK_INTERVAL", 0.0)
    owner = OwnerKey(b"s" * 32)
    certificate = owner.issue_worker("box", 7).identity.certificate
    path = tmp_path / "app.revoked"
    listed = Revocations(os.fspath(path), owner.authority_public, directory=os.fspath(tmp_path / "state"))

    def play(peer: Peer) -> None:
        start(peer)
        text = encode_list(
            RevocationList(owner.authority_public, owner.fingerprint, 1, {7: "box"}), owner.authority_seed
        )
        path.write_text(text)
        peer.wait_for_end()

    outcome = run(play, watch=RevocationWatch(refreshed(listed), certificate))
    assert isinstance(outcome.error, RevokedError)
    assert str(outcome.error) == "certificate of box (serial 7) has been revoked"


def refreshed(listed: Revocations) -> Callable[[float], Revocations]:
    """Returns what finds the verdicts of a list as they are at a time."""

    def find(now: float) -> Revocations:
        listed.refresh(now)
        return listed

    return find


def test_a_list_that_is_damaged_while_the_job_runs_ends_no_job(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "WATCH_INTERVAL", 0.01)
    monkeypatch.setattr(revocations, "LOOK_INTERVAL", 0.0)
    owner = OwnerKey(b"s" * 32)
    path = tmp_path / "app.revoked"
    listed = Revocations(os.fspath(path), owner.authority_public, directory=os.fspath(tmp_path / "state"))

    def play(peer: Peer) -> None:
        does_its_work(peer)
        path.write_text("half of a li")
        wait_until(lambda: listed.problem != "")
        exit_frame(peer, EXITED, 3)
        peer.wait_for_end()

    outcome = run(play, watch=RevocationWatch(refreshed(listed), owner.issue_worker("box", 7).identity.certificate))
    assert outcome.status == 3


def test_a_host_that_vanishes_with_bytes_outstanding(
    run: Run, short_silence: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: only `cexec` asked the kernel; `--all` and `cmap` waited for as long as a peer may be silent."""
    begun = time.monotonic()
    monkeypatch.setattr(liveness, "unacknowledged", lambda connection: (True, time.monotonic() - begun))

    def play(peer: Peer) -> None:
        start(peer)
        peer.wait_for_end()

    outcome = run(play)
    assert isinstance(outcome.error, SilentPeerError)
    assert "has not answered for" in str(outcome.error)


def test_a_host_that_vanishes_after_a_quiet_time(
    run: Run, short_silence: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a quiet connection asks for no further one; the next bytes do."""
    looks: list[float] = []
    written: list[float] = []

    def kernel(connection: object) -> tuple[bool, float]:
        looks.append(time.monotonic())
        return (True, looks[-1] - written[0]) if written else (False, 0.0)

    monkeypatch.setattr(liveness, "unacknowledged", kernel)

    def play(peer: Peer) -> None:
        _, sink = start(peer)
        wait_until(lambda: looks)
        time.sleep(0.5)  # quiet for longer than a dead host is waited for
        written.append(time.monotonic())
        peer.write(sink, b"some output")
        peer.wait_for_end()

    outcome = run(play)
    assert isinstance(outcome.error, SilentPeerError)
    assert looks[-1] - written[0] < PING_INTERVAL / 2


def test_a_silent_worker_whose_machine_answers_is_not_given_up(
    run: Run, short_silence: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def answers(connection: object) -> tuple[bool, float]:
        looks.append(time.monotonic())
        return True, 0.0  # bytes are under way, and the last acknowledgement has just come

    monkeypatch.setattr(liveness, "unacknowledged", answers)

    def play(peer: Peer) -> None:
        source, sink = start(peer)
        deadline = time.monotonic() + 20
        while len(looks) < 10:  # three times as long as a dead one is waited for
            assert time.monotonic() < deadline, "nobody has asked the kernel"
            time.sleep(0.01)
        peer.write(sink, peer.read(source)).end(sink)
        exit_frame(peer, EXITED, 0)
        peer.wait_for_end()

    assert run(play).status == 0


@pytest.mark.parametrize("moment", ["before a step", "behind a step"])
def test_what_came_while_the_client_was_stopped_is_read_before_anything_is_judged(
    run: Run, short_silence: None, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Regression: the kernel was asked about the worker's machine while its exit frame waited to be read."""
    looks: list[float] = []
    stopping, stopped, sent = threading.Event(), threading.Event(), threading.Event()
    asleep = [0.0]
    step = Pump.step

    def clock() -> float:
        return time.monotonic() + asleep[0]

    def kernel(connection: object) -> tuple[bool, float]:
        looks.append(clock())
        return True, asleep[0]  # the machine has acknowledged something last before the client was stopped

    def stopped_step(pump: Pump, timeout: float | None = None) -> list[Event | Trouble]:
        found = step(pump, timeout) if moment == "behind a step" else None
        if stopping.is_set():
            stopped.set()
            assert sent.wait(PATIENCE)
            stopping.clear()
            asleep[0] = 10_000.0
        return step(pump, timeout) if found is None else found

    buffer = Records.receive_buffer
    monkeypatch.setattr(pump, "RECEIVE_TURNS", 1)
    monkeypatch.setattr(Records, "receive_buffer", lambda records: buffer(records)[:1000])  # one step is not enough
    monkeypatch.setattr(liveness, "unacknowledged", kernel)
    monkeypatch.setattr(Pump, "step", stopped_step)
    for module in (stepping, pump, driver_of_cexec, worker_run):
        monkeypatch.setattr(module, "monotonic", clock)

    def play(peer: Peer) -> None:
        _, sink = start(peer)
        wait_until(lambda: looks)
        stopping.set()
        assert stopped.wait(PATIENCE)
        peer.write(sink, bytes(10_000)).end(sink)
        exit_frame(peer, EXITED, 3)
        sent.set()
        peer.wait_for_end()

    outcome = run(play)
    assert (outcome.status, len(outcome.output)) == (3, 10_000)


def test_input_that_is_not_read_costs_no_cpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: `cexec --all` kept a CPU busy when a little credit was left, less than a record takes."""
    steps = [0]
    step = Pump.step

    def counted(pump: Pump, timeout: float | None = None) -> list[Event | Trouble]:
        steps[0] += 1
        return step(pump, timeout)

    monkeypatch.setattr(Pump, "step", counted)

    def play(peer: Peer) -> None:
        _, sink = start(peer)

        def rests() -> bool:
            before = steps[0]
            time.sleep(1.0)  # this is the time that is measured
            return steps[0] - before < 20

        wait_until(rests, 10.0)  # once the window is full
        peer.end(sink)
        exit_frame(peer, EXITED, 0)
        peer.wait_for_end()

    assert run(play, stdin=b"x" * (4 * INITIAL_WINDOW + 12345)).status == 0


# workers that stand still


def stands_still(peer: Peer) -> None:
    """Takes the job and the input, writes a little, and then does nothing."""
    with suppress(HungUpError, ConnectionError):  # if it was too slow even for that
        source, sink = start(peer)
        peer.read(source)
        peer.write(sink, b"a little")
        peer.wait_for_end()


def test_a_worker_that_makes_no_progress_is_given_up_where_the_client_asks_for_that(run: Run) -> None:
    """Regression: a worker that answers PING and does nothing else kept a job for ever."""
    outcome = run(stands_still, progress=0.5)
    assert isinstance(outcome.error, StalledError)
    assert str(outcome.error) == "no byte came or went for 0.5 s (--progress-timeout)"


def test_a_worker_that_makes_progress_is_not_given_up(run: Run) -> None:
    def works(peer: Peer) -> None:
        source, sink = start(peer)
        data = peer.read(source)
        for _ in range(8):
            threading.Event().wait(0.4)  # the time that the program takes
            peer.write(sink, data)
        peer.end(sink).exit()

    outcome = run(works, progress=2.5)
    assert (outcome.error, outcome.output) == (None, STDIN * 8)


LONGEST_END = 2.0  # seconds from the second signal to the end of cexec, whatever its worker does


class Waits:
    """The seconds that drivers wait in vain, from a moment on: a clock that only waiting moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts = threading.Event()
        self.seconds = 0.0
        step = Pump.step

        def counting(one: Pump, timeout: float | None) -> list[Event | Trouble]:
            counts = self.counts.is_set()
            found = step(one, timeout)
            if counts and not one.ready:
                self.seconds += float("inf") if timeout is None else timeout
            return found

        monkeypatch.setattr(Pump, "step", counting)


def insists(peer: Peer, waits: Waits, number: int) -> None:
    """Somebody sends the signal twice, and the worker passes the first one on to a program that ignores it."""
    source, _ = start(peer)
    peer.read(source)  # the client gives it when it knows that the program has started
    os.kill(os.getpid(), number)
    peer.hear(frames.SIGNAL)
    waits.counts.set()
    os.kill(os.getpid(), number)
    try:
        while True:
            peer.next_event()  # which answers pings
    except (HungUpError, ConnectionResetError):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=lambda one: one.name)
def test_the_second_signal_ends_cexec_within_two_seconds_while_its_worker_answers_pings_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    waits = Waits(monkeypatch)
    signals = Signals()
    signals.start()
    setting = Setting(tmp_path, stdin=b"", once=False, output="", fetch=False, program=False, packed=False)
    try:
        outcome = run_blocking(setting, lambda peer: insists(peer, waits, number), 0, signals)
    finally:
        signals.close()
        setting.close()
    assert isinstance(outcome.error, InterruptedByUser) and outcome.error.number == number
    assert waits.seconds < LONGEST_END
    assert setting.failure is None
