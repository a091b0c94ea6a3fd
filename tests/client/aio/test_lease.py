"""Many jobs in one asyncio program: leases of a worker made of the real machines."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cexec.client.aio.connection_watch import ConnectionWatch
from cexec.client.aio.lease import Lease
from cexec.client.aio.lease_job import LARGEST_AHEAD
from cexec.cmap.inputs.store import Spool
from cexec.cmap.inputs.tasks import DATA, FILE, PATH, SHARED, STDERR, STDOUT, Result, Task, TaskInput
from cexec.cmap.results.attempt_files import AttemptFiles
from cexec.cmap.run.task_job import make_job
from cexec.errors import DisconnectedError, LocalError, RefusedError, RevokedError, WithdrawnError
from cexec.net.announcer import Announcer
from cexec.net.pump import Pump
from cexec.protocol.connection.frames import Exit, Go
from cexec.system.io.fds import Source
from tests.leases import LeasingWorker
from tests.waiting import PATIENCE, until, wait_until

DEADLINE = PATIENCE  # seconds for whatever a test waits for
NOBODY = Announcer([], 0)  # complaints go to no destination


def run(what: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(what, DEADLINE))


def echo(go: Go, stdin: bytes) -> tuple[int, bytes, bytes]:
    """Exits with the number of its arguments."""
    return len(go.arguments), stdin, b" ".join(go.arguments)


def task(stdin: bytes | TaskInput = b"", *arguments: bytes, **fields: Any) -> Task:
    given = TaskInput(DATA, data=stdin) if isinstance(stdin, bytes) else stdin
    return Task(1, stdin=given, arguments=list(arguments), **fields)


class Attempt:
    """A task's job and its result."""

    def __init__(self, what: Task) -> None:
        self.files = AttemptFiles(what, "0" * 16)
        self.job = make_job(what, self.files)
        self.once: list[bool] = []

    async def on(self, lease: Lease) -> Exit:
        return await lease.run(self.job, self.once.append)

    def output(self, kind: str = STDOUT) -> bytes:
        return b"".join(self.files.outputs[kind].pieces())


async def one_after_the_other(lease: Lease, count: int) -> None:
    """Runs so many jobs, each when the worker has confirmed again."""
    for _ in range(count):
        assert await lease.offered(DEADLINE)
        attempt = Attempt(task())
        lease.give(attempt.job.go())
        await attempt.on(lease)


def test_one_connection_runs_many_jobs() -> None:
    worker = LeasingWorker(echo)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        for number in range(50):
            assert await lease.offered(DEADLINE)
            attempt = Attempt(task(b"input %d" % number, *[b"x"] * (number % 3)))
            lease.give(attempt.job.go())
            result = await attempt.on(lease)
            assert (result.exit_status, attempt.output()) == (number % 3, b"input %d" % number)
            assert attempt.output(STDERR) == b" ".join([b"x"] * (number % 3))
            assert attempt.once == [False]
        lease.release()

    run(play())
    assert worker.join() == "released"
    assert worker.jobs == 50


def test_what_a_job_says_before_it_is_run_is_not_lost() -> None:
    """Regression: a job ended while its client searched for another worker, and nobody ever heard of it."""
    worker = LeasingWorker(lambda go, stdin: (3, b"output", b""))

    async def play() -> None:
        attempt = Attempt(task(b""))
        search = Pump(worker.winner.connection, worker.winner.records, worker.winner.session)
        search.session.go(attempt.job.go())
        search.session.end(0)
        search.flush()
        lease = Lease(worker.winner, NOBODY)
        await until(lambda: worker.jobs)
        result = await attempt.on(lease)
        assert (result.exit_status, attempt.output()) == (3, b"output")
        lease.release()

    run(play())


def test_large_streams_pass_both_ways() -> None:
    data = os.urandom(7_000_001)
    worker = LeasingWorker(lambda go, stdin: (0, stdin, stdin[::-1]))

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        for _ in range(2):
            assert await lease.offered(DEADLINE)
            attempt = Attempt(task(data))
            lease.give(attempt.job.go())
            await attempt.on(lease)
            assert attempt.output() == data
            assert attempt.output(STDERR) == data[::-1]
        lease.release()

    run(play())


def test_many_leases_at_once_do_not_wait_for_one_another() -> None:
    workers = [LeasingWorker(echo) for _ in range(20)]

    async def one(worker: LeasingWorker, number: int) -> bytes:
        lease = Lease(worker.winner, NOBODY)
        for turn in range(5):
            assert await lease.offered(DEADLINE)
            attempt = Attempt(task(b"%d %d " % (number, turn) * 10_000))
            lease.give(attempt.job.go())
            await attempt.on(lease)
            assert attempt.output() == b"%d %d " % (number, turn) * 10_000
        lease.release()
        return attempt.output()

    async def play() -> None:
        await asyncio.gather(*(one(worker, number) for number, worker in enumerate(workers)))

    run(play())
    assert [worker.join() for worker in workers] == ["released"] * 20


def test_files_go_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sent.dat").write_bytes(b"sent" * 100_000)
    Path("in").write_bytes(b"standard input")
    worker = LeasingWorker(echo)
    what = task(
        stdin=TaskInput(PATH, path="in"),
        sends=[("sent.dat", "sent.dat")],
        texts=[("run.ini", b"x = 1\n")],
        results=[Result(FILE, "picture", "p.png"), Result(STDOUT, "out")],
    )

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(what)
        assert attempt.job.options == {"fetch-on-failure": "no"}
        lease.give(attempt.job.go())
        await attempt.on(lease)
        assert attempt.output("p.png") == b"content of p.png"
        assert attempt.output() == b"standard input"
        assert not attempt.job.missing
        attempt.files.discard()
        lease.release()

    run(play())
    worker.join()
    assert worker.files == {"sent.dat": b"sent" * 100_000, "run.ini": b"x = 1\n"}
    assert sorted(os.listdir()) == ["in", "sent.dat"]


def test_what_all_tasks_read_is_read_by_each_from_its_beginning() -> None:
    spool = Spool()
    spool.append(b"shared" * 500_000)
    workers = [LeasingWorker(echo) for _ in range(3)]

    async def one(worker: LeasingWorker) -> bytes:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task(stdin=TaskInput(SHARED, spool=spool)))
        lease.give(attempt.job.go())
        await attempt.on(lease)
        lease.release()
        return attempt.output()

    async def play() -> list[bytes]:
        return await asyncio.gather(*map(one, workers))

    assert run(play()) == [b"shared" * 500_000] * 3


def test_a_worker_that_does_not_confirm_again_is_not_waited_for_long() -> None:
    worker = LeasingWorker(echo, again=0)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task())
        lease.give(attempt.job.go())
        await attempt.on(lease)
        assert not await lease.offered(0.05)
        lease.release()

    run(play())
    assert worker.join() == "released"


def test_a_worker_may_confirm_again_later() -> None:
    worker = LeasingWorker(echo, pause=0.1)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        await one_after_the_other(lease, 2)
        lease.release()

    run(play())
    worker.join()


class Watch:
    """Stands for the list of revocations, at which the client looks when it is `due`."""

    def __init__(self) -> None:
        self.due = 0.0  # of monotonic(): long ago
        self.revoked = False
        self.looks = 0

    def next_timeout(self) -> float:
        return self.due

    def look(self, now: float) -> None:
        if now >= self.due:
            self.looks += 1
            self.due = now + DEADLINE
            if self.revoked:
                raise RevokedError("certificate of box (serial 7) has been revoked")


def watched(worker: LeasingWorker) -> Watch:
    watch = worker.winner.watch = Watch()
    return watch


def test_a_look_at_the_revocations_that_is_due_between_two_jobs_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was put off to the next job that ran long enough, and each job until then looked in vain."""
    worker = LeasingWorker(echo)
    watch = watched(worker)
    looks = 0

    class Counting(ConnectionWatch):
        def __init__(self, connection: Any, step: Any, look: Callable[[], None], due: float) -> None:
            def counted() -> None:
                nonlocal looks
                looks += 1
                look()

            super().__init__(connection, step, counted, due)

    monkeypatch.setattr("cexec.client.aio.lease.ConnectionWatch", Counting)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        await until(lambda: watch.looks)
        await one_after_the_other(lease, 20)
        lease.release()

    run(play())
    assert (watch.looks, looks) == (1, 1)
    worker.join()


def test_a_look_at_the_revocations_with_which_a_job_ends_is_made_too() -> None:
    """Regression: each short job of a busy worker ended with the look that was due, which was made again and again."""
    worker = LeasingWorker(echo)
    watch = watched(worker)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        await until(lambda: watch.looks)
        assert await lease.offered(DEADLINE)
        attempt = Attempt(task())
        lease.give(attempt.job.go())
        running = asyncio.ensure_future(attempt.on(lease))
        await asyncio.sleep(0)

        def ended() -> bool:
            watch.due, before = 0.0, watch.looks
            over = lease.conclude(attempt.job)
            assert watch.looks == before + 1
            return over

        wait_until(ended)  # the loop hears nothing of it
        await running
        lease.release()

    run(play())
    worker.join()


def test_a_worker_that_is_found_revoked_between_two_jobs_gets_no_further_one() -> None:
    worker = LeasingWorker(echo)
    watch = watched(worker)
    watch.revoked = True

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        await until(lambda: lease.over)
        attempt = Attempt(task())
        lease.give(attempt.job.go())
        with pytest.raises(WithdrawnError, match=r"^certificate of box \(serial 7\) has been revoked$"):
            await attempt.on(lease)
        lease.close()

    run(play())
    assert worker.jobs == 0


def test_a_refusal_says_why_and_nothing_was_read() -> None:
    worker = LeasingWorker(echo, refuse="no memory")

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task(b"input"))
        lease.give(attempt.job.go())
        with pytest.raises(RefusedError, match="no memory") as caught:
            await attempt.on(lease)
        assert not caught.value.permanent
        assert attempt.once == []
        lease.close()

    run(play())


def test_an_exit_frame_that_has_come_is_read_before_a_job_is_given_up() -> None:
    """Regression: `cmap` that was stopped for longer than --timeout threw the result away unread."""
    runs, go_on = threading.Event(), threading.Event()

    def waits(go: Go, stdin: bytes) -> tuple[int, bytes, bytes]:
        runs.set()
        return (3 if go_on.wait(DEADLINE) else 0), b"output", b""

    worker = LeasingWorker(waits, again=0)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task())
        lease.give(attempt.job.go())
        running = asyncio.create_task(attempt.on(lease))
        await until(runs.is_set)
        assert not lease.conclude(attempt.job)
        go_on.set()
        wait_until(lambda: lease.conclude(attempt.job))  # from now on the loop stands still
        assert (await running).exit_status == 3
        assert attempt.output() == b"output"
        assert not lease.conclude(attempt.job)  # there is no job any more
        lease.close()

    run(play())


def test_a_service_that_is_once_is_known_when_the_job_begins() -> None:
    worker = LeasingWorker(echo, once=True)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task())
        lease.give(attempt.job.go())
        await attempt.on(lease)
        assert attempt.once == [True]
        lease.release()

    run(play())


def test_a_worker_that_vanishes_is_told() -> None:
    worker = LeasingWorker(lambda go, stdin: _vanish(worker))

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task())
        lease.give(attempt.job.go())
        with pytest.raises(DisconnectedError):
            await attempt.on(lease)
        lease.close()

    run(play())


def _vanish(worker: LeasingWorker) -> tuple[int, bytes, bytes]:
    worker.vanish()
    return 0, b"", b""


def test_signals_reach_the_program_and_hanging_up_ends_it() -> None:
    worker = LeasingWorker(echo)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task())
        attempt.job.sources[0] = Silent(-1)
        lease.give(attempt.job.go())
        running = asyncio.create_task(attempt.on(lease))
        await until(lambda: attempt.once)
        lease.signal(15, attempt.job)
        await until(lambda: worker.signals)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        lease.close()

    run(play())
    assert worker.signals == [15]
    assert "disconnected" in worker.join()


def test_a_full_disk_ends_the_job_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = LeasingWorker(echo)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempt = Attempt(task(b"data"))

        def full(data: object) -> None:
            raise LocalError("cannot write out: no space left on device")

        monkeypatch.setattr(attempt.files.outputs[STDOUT], "append", full)
        lease.give(attempt.job.go())
        with pytest.raises(LocalError, match="cannot write out"):
            await attempt.on(lease)
        lease.close()

    run(play())
    worker.join()


def test_an_input_that_cannot_be_read_is_told_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for stdin, sends in (("/nonexistent", []), (str(tmp_path / "a"), [("b", "/nonexistent")]), ("/dev/null", [])):
        what = task(stdin=TaskInput(PATH, path=stdin), sends=sends)
        with pytest.raises(LocalError, match="cannot read /"):
            make_job(what, AttemptFiles(what, "0" * 16))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_comes_is_heard_as_it_comes() -> None:
    what = task()
    heard: list[bytes] = []
    files = AttemptFiles(what, "0" * 16)
    job = make_job(what, files, {STDOUT: heard.append})
    assert job.sinks[1].write(memoryview(b"line\n")) == 5
    assert (heard, b"".join(files.outputs[STDOUT].pieces())) == ([b"line\n"], b"line\n")


class Silent(Source):
    """An input without bytes and without an end."""

    def read_into(self, view: memoryview) -> None:
        return None

    def close(self) -> None:
        pass


# Jobs in advance


def give(lease: Lease, attempt: Attempt) -> None:
    if not lease.has(attempt.job):
        assert lease.give_ahead(attempt.job, 1)


async def in_advance(lease: Lease, count: int, patience: float = DEADLINE) -> list[Attempt]:
    """Runs so many jobs, each given while the one before it runs."""
    attempts = [Attempt(task(stdin=b"%d" % number)) for number in range(count)]
    lease.give(attempts[0].job.go())
    for number, attempt in enumerate(attempts):
        following = attempts[number + 1 :][:1]

        def beside(following: list[Attempt] = following) -> None:
            if following and not lease.has(following[0].job):
                assert lease.give_ahead(following[0].job, 1)

        await lease.run(attempt.job, attempt.once.append, beside=beside, patience=patience)
        if following and not lease.has(following[0].job):
            assert await lease.offered(DEADLINE)
            lease.give(following[0].job.go())
    return attempts


def test_jobs_in_advance_have_their_own_inputs_and_outputs() -> None:
    worker = LeasingWorker(echo, packed=True)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        attempts = await in_advance(lease, 300)
        assert [attempt.output() for attempt in attempts] == [b"%d" % number for number in range(300)]
        assert all(attempt.once == [False] for attempt in attempts)
        lease.release()

    run(play())
    assert worker.join() == "released"


def test_a_job_whose_turn_does_not_come_is_taken_back_and_the_lease_goes_on() -> None:
    worker = LeasingWorker(echo, packed=True, pause=2.0)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        first, second = Attempt(task(stdin=b"first")), Attempt(task(stdin=b"second"))
        lease.give(first.job.go())
        await lease.run(first.job, first.once.append, beside=partial(give, lease, second))
        with pytest.raises(WithdrawnError):
            await lease.run(second.job, second.once.append, patience=0.01)
        assert not second.once and await lease.offered(DEADLINE)
        third = Attempt(task(stdin=b"third"))
        lease.give(third.job.go())
        await third.on(lease)
        assert third.output() == b"third"
        lease.release()

    run(play())
    worker.join()


@pytest.mark.parametrize(("once", "packed"), [(True, True), (False, False)])
def test_no_job_is_given_in_advance_to_a_service_that_is_once_or_to_one_of_the_first_revision(
    once: bool, packed: bool
) -> None:
    worker = LeasingWorker(echo, packed=packed, once=once)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        first = Attempt(task())
        lease.give(first.job.go())
        asked: list[bool] = []
        await lease.run(first.job, first.once.append, beside=lambda: asked.append(True))
        assert not lease.may_give_ahead and not asked
        assert not lease.give_ahead(Attempt(task()).job, 1)
        lease.release()

    run(play())


def test_an_input_that_is_not_in_memory_is_not_given_in_advance() -> None:
    worker = LeasingWorker(echo, packed=True)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        first, long, silent = Attempt(task()), Attempt(task(stdin=bytes(LARGEST_AHEAD + 1))), Attempt(task())
        silent.job.sources[0] = Silent(-1)
        lease.give(first.job.go())
        given: list[bool] = []

        def beside() -> None:
            given.extend(lease.give_ahead(attempt.job, 1) for attempt in (long, silent))

        await lease.run(first.job, first.once.append, beside=beside)
        assert given and not any(given)
        lease.release()

    run(play())


def test_a_worker_that_is_lost_loses_the_job_behind_too_and_says_nothing_of_it() -> None:
    worker = LeasingWorker(lambda go, stdin: _vanish(worker), packed=True)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        first, second = Attempt(task()), Attempt(task())
        lease.give(first.job.go())
        with pytest.raises(DisconnectedError):
            await lease.run(first.job, first.once.append, beside=partial(give, lease, second))
        assert lease.has(second.job) and not lease.was_returned(second.job) and not second.once
        with pytest.raises(DisconnectedError):
            await lease.run(second.job, second.once.append)
        lease.close()

    run(play())


def test_a_signal_for_a_job_that_has_ended_does_not_reach_the_one_behind_it() -> None:
    worker = LeasingWorker(echo, packed=True)

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        first, second = Attempt(task()), Attempt(task(stdin=b"x"))
        lease.give(first.job.go())
        await lease.run(first.job, first.once.append, beside=partial(give, lease, second))
        lease.signal(15, first.job)
        await lease.run(second.job, second.once.append)
        lease.release()

    run(play())
    assert worker.join() == "released" and worker.signals == []


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("hooked", [True, False])
def test_a_lease_says_that_another_client_waits_for_the_slot_once_for_each_job_that_asks(
    asks: bool, hooked: bool
) -> None:
    worker = LeasingWorker(echo, packed=True, wanted=True)
    heard: list[int] = []

    async def play() -> None:
        lease = Lease(worker.winner, NOBODY)
        for number in range(3):
            if hooked:
                lease.on_wanted = partial(heard.append, number)
            assert await lease.offered(DEADLINE)
            attempt = Attempt(task(b"input %d" % number))
            lease.give(attempt.job.go(tell_wanted=asks))
            await attempt.on(lease)
            assert attempt.output() == b"input %d" % number  # it changes nothing
        lease.release()

    run(play())
    assert worker.join() == "released"
    assert heard == ([0, 1, 2] if asks and hooked else [])
