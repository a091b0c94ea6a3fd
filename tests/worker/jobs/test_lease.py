"""One job after the other on one connection: the worker's process, and a client made of the real machines."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cexec.errors import DisconnectedError
from cexec.protocol.base.sodium import BoxMaker, BoxMemory
from cexec.protocol.connection.frames import ENDED, EXIT, FIRST_FILE, GO, RETURNED, WITHDRAW, Ending, Stream
from cexec.protocol.connection.options import FILE, READS, WRITES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, RUNNING
from cexec.system.io.fds import Sink, unread
from cexec.worker.jobs import lease, program_start
from cexec.worker.jobs.reports import Broken, Idle, JobFinished, JobRefused, Over, ProgramStarted, Report, Taken, Word
from tests.jobs import STANDARD, RemoteJob, lost, shell
from tests.waiting import all_asleep, wait_until

LEASED = {"lease": "yes"}


def leased(script: str, **options: Any) -> RemoteJob:
    return shell(script, options=LEASED, **options)


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def told(job: RemoteJob, *wanted: type[Report]) -> list[Any]:
    """The reports that follow, which are these."""
    found = [job.report() for _ in wanted]
    assert [type(report) for report in found] == list(wanted)
    return found


class Permits:
    """Lets programs end, one for each `give`, so that the next job can be given while one runs."""

    def __init__(self, directory: Path) -> None:
        self.wait = f"read permit < {directory}/permits"  # shell
        os.mkfifo(directory / "permits")
        self._pipe = os.open(directory / "permits", os.O_RDWR)

    def give(self) -> None:
        os.write(self._pipe, b"\n")

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def permits(tmp_path: Path) -> Iterator[Permits]:
    made = Permits(tmp_path)
    yield made
    made.close()


def test_each_job_is_like_the_first_one() -> None:
    with leased('cat; echo "$PEER_X $$" >&2; exit 3', environment={"X": b"x"}) as job:
        pids = set()
        assert job.result().exit_status == 3
        told(job, ProgramStarted, JobFinished)
        for number in range(5):
            job.parent.send(Word.OFFER.value)
            job.again(name(number), {0: b"input %d" % number * 50_000}, attempt=7)
            result = job.result()
            assert (result.exit_status, job.output(1)) == (3, b"input %d" % number * 50_000)
            peer, pid = job.output(2).split()
            assert peer == b"x"
            pids.add(pid)
            taken, _, finished = told(job, Taken, ProgramStarted, JobFinished)
            assert (taken.job_id, taken.attempt) == (name(number), 7)
            assert (finished.status, finished.idle) == (3, True)
        assert len(pids) == 5
        job.let_go()
        told(job, Over)
        assert job.reports() == []
        assert job.wait() == 0


def test_no_job_leaves_a_descriptor_open() -> None:
    with leased("sleep 0.01; head -c 1") as job:
        counts = []
        for number in range(5):
            if number:
                job.parent.send(Word.OFFER.value)
                job.again(name(number), {0: b"the input"})
            assert job.result().exit_status == 0
            told(job, *[Taken] * bool(number), ProgramStarted, JobFinished)
            counts.append(len(os.listdir(f"/proc/{job.pid}/fd")))
        assert counts == [counts[0]] * 5


def test_without_the_option_there_is_one_job() -> None:
    with shell("true") as job:
        job.result()
        assert [told(job, ProgramStarted, JobFinished)[1].idle] == [False]
        job.let_go()
        assert job.reports() == []


def test_nothing_is_offered_before_the_parent_says_so() -> None:
    with leased("true") as job:
        job.result()
        job.step(0.2)
        assert job.session.state == OFFERING
        job.parent.send(Word.OFFER.value)
        job.until(lambda: job.session.state == OFFERED)


def test_the_next_job_waits_until_nothing_of_the_last_one_is_left() -> None:
    script = "(trap 'sleep 0.3; exit' TERM; sleep 60 & wait) >/dev/null 2>&1 & sleep 0.1"
    with leased(script) as job:
        job.result()
        told(job, ProgramStarted)
        assert not told(job, JobFinished)[0].idle
        told(job, Idle)
        assert job.processes() == []
        job.parent.send(Word.OFFER.value)
        job.again(name(1))
        assert job.result().exit_status == 0


def test_each_job_has_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    streams = [*STANDARD, Stream(FIRST_FILE, READS, FILE, name="in"), Stream(FIRST_FILE + 1, WRITES, FILE, name="out")]
    with leased("pwd; ls; cat in > out", streams=streams, inputs={FIRST_FILE: b"1"}) as job:
        seen = []
        for number in range(3):
            if number:
                job.parent.send(Word.OFFER.value)
                job.again(name(number), {FIRST_FILE: b"%d" % number * 300_000})
            assert job.result().exit_status == 0
            place, files = job.output(1).split()
            assert files == b"in"
            assert len(job.output(FIRST_FILE + 1)) == (300_000 if number else 1)
            seen.append(place)
        told(job, ProgramStarted, JobFinished, Idle, *[Taken, ProgramStarted, JobFinished, Idle] * 2)
        assert len(set(seen)) == 3
        assert list(tmp_path.iterdir()) == []


def test_the_working_directory_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with leased("readlink /proc/$PPID/cwd", private=True) as job:
        job.result()
        told(job, ProgramStarted, JobFinished, Idle)
        assert os.readlink(f"/proc/{job.pid}/cwd") == os.fspath(tmp_path)


def test_a_job_does_not_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "GO_DEADLINE", 2.5)  # also of the first job
    with leased("true") as job:
        job.result()
        job.parent.send(Word.OFFER.value)
        with pytest.raises(DisconnectedError):
            job.until(lambda: False)
        assert job.session.state == OVER
        told(job, ProgramStarted, JobFinished, Over)


def test_a_lease_may_go_ahead_without_a_word_until_it_is_to_ask_again() -> None:
    with leased("true") as job:
        job.parent.send(Word.AHEAD.value)
        job.result()
        for number in range(3):
            job.again(name(number))
            assert job.result().exit_status == 0
        for kinds in ((ProgramStarted, JobFinished), *[(Taken, ProgramStarted, JobFinished)] * 3):
            assert told(job, *kinds)[-1].ahead
        job.parent.send(Word.ASK.value)
        job.again(name(4))
        assert job.result().exit_status == 0
        job.step(0.2)
        assert job.session.state == OFFERING
        assert not told(job, Taken, ProgramStarted, JobFinished)[-1].ahead
        job.parent.send(Word.OFFER.value)
        job.until(lambda: job.session.state == OFFERED)


def test_a_job_that_leaves_something_behind_is_not_followed_without_a_word() -> None:
    with leased("sleep 60 >&- 2>&- &") as job:
        job.parent.send(Word.AHEAD.value)
        job.result()
        told(job, ProgramStarted, JobFinished, Idle)
        job.step(0.2)
        assert job.session.state == OFFERING


def test_a_lease_waits_longer_than_a_client_may_take_to_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cexec.worker.jobs.job.RELEASE_PATIENCE", 0.1)
    with leased("true") as job:
        job.result()
        job.step(0.5)
        job.parent.send(Word.OFFER.value)
        job.again(name(1))
        assert job.result().exit_status == 0


def test_the_worker_wants_no_further_job() -> None:
    with leased("true") as job:
        job.result()
        job.parent.send(Word.LAST.value)
        with pytest.raises(DisconnectedError):
            job.until(lambda: False)
        assert job.session.state == OFFERING
        told(job, ProgramStarted, JobFinished, Over)


def unheard(end: socket.socket) -> int:
    """Counts what has been sent to the job's process and not been read."""
    return int.from_bytes(fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_the_worker_wants_no_further_job_while_one_runs(permits: Permits) -> None:
    with leased(f"{permits.wait}; echo done") as job:
        job.until(lambda: job.started)
        job.parent.send(Word.LAST.value)
        wait_until(lambda: not unheard(job.parent))
        permits.give()
        assert job.result().exit_status == 0
        assert job.output(1) == b"done\n"
        assert not told(job, ProgramStarted, JobFinished)[1].idle
        job.let_go()
        assert job.reports() == []


def test_the_worker_wants_no_further_job_although_it_has_confirmed() -> None:
    with leased("true") as job:
        job.result()
        job.parent.send(Word.OFFER.value)
        job.until(lambda: job.session.state == OFFERED)
        job.parent.send(Word.LAST.value)
        with pytest.raises(DisconnectedError):
            job.until(lambda: False)
        assert job.session.state == OVER


@pytest.mark.parametrize("words", [[], [Word.LAST], [Word.WITHDRAW]])
def test_a_client_whose_go_comes_too_late_is_told_that_the_slot_is_gone(words: list[Word]) -> None:
    """A client on a busy machine took this for a worker that breaks off jobs, and complained of it."""
    with shell("true", given=False) as job:
        for word in words:
            job.parent.send(word.value)
        with pytest.raises(DisconnectedError):
            job.until(lambda: False)
        reasons = {Word.LAST: "worker is stopping", Word.WITHDRAW: "another client needs the slot"}
        reason = reasons[words[0]] if words else "client did not answer in time"
        assert [(event.kind, event.text) for event in job.events] == [(WITHDRAW, reason)]
        assert job.reports() == [Over("")]


def test_an_offer_that_is_taken_back_before_it_is_made_is_another_one() -> None:
    """The word has crossed the job of the offer before."""
    with leased("true") as job:
        assert job.result().exit_status == 0
        job.parent.send(Word.WITHDRAW.value)
        job.parent.send(Word.OFFER.value)
        job.again(name(1))
        assert job.result().exit_status == 0


def test_a_job_that_has_come_is_taken_although_the_offer_is_taken_back() -> None:
    with leased("true") as job:
        job.result()
        job.parent.send(Word.OFFER.value)
        job.until(lambda: job.session.state == OFFERED)
        os.kill(job.pid, signal.SIGSTOP)
        job.again(name(1))
        job.step(0.0)
        job.parent.send(Word.WITHDRAW.value)
        os.kill(job.pid, signal.SIGCONT)
        assert job.result().exit_status == 0


def test_a_client_that_breaks_the_protocol_instead_of_giving_a_job_is_told_of() -> None:
    with shell("true", given=False) as job:
        job.session.state = RUNNING
        job.session.signal(0)
        with pytest.raises(DisconnectedError):
            job.until(lambda: False)
        (over,) = job.reports()
        assert isinstance(over, Over) and "impossible signal" in over.reason


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_client_that_goes_between_two_jobs(confirmed: bool) -> None:
    with leased("true") as job:
        job.result()
        if confirmed:
            job.parent.send(Word.OFFER.value)
            job.until(lambda: job.session.state == OFFERED)
        job.pump.connection.close()
        told(job, ProgramStarted, JobFinished, Over)
        assert job.reports() == []
        assert job.wait() == 0


def test_a_client_that_goes_during_a_later_job_ends_its_tree() -> None:
    with leased("echo; test $PEER_LAST && sleep 60 & wait", environment={"LAST": b""}) as job:
        job.result()
        job.go.environment["LAST"] = b"yes"
        job.parent.send(Word.OFFER.value)
        job.again(name(1))
        job.until(lambda: job.output(1))
        job.pump.connection.close()
        assert job.remains() == []
        assert [type(report) for report in job.reports()] == [
            ProgramStarted,
            JobFinished,
            Taken,
            ProgramStarted,
            Broken,
        ]


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_worker_that_goes_between_two_jobs(confirmed: bool) -> None:
    with leased("true") as job:
        job.result()
        if confirmed:
            job.parent.send(Word.OFFER.value)
            job.until(lambda: job.session.state == OFFERED)
        job.parent.close()
        assert "disconnected" in lost_between(job)
        assert job.wait() == 0


def lost_between(job: RemoteJob) -> str:
    job.exit = None
    return lost(job)


def test_a_refusal_ends_the_lease() -> None:
    with leased("true") as job:
        job.result()
        job.parent.send(Word.OFFER.value)
        job.go.environment["not a name"] = b""
        with pytest.raises(Exception, match="cannot be a variable's name"):
            job.again(name(1))
            job.result()
        told(job, ProgramStarted, JobFinished, Taken, JobRefused)


def test_limits_are_each_jobs_own() -> None:
    with shell('sleep "$PEER_S"', options={**LEASED, "time-limit": "4"}, environment={"S": b"1.4"}) as job:
        for number in range(3):
            if number:
                job.parent.send(Word.OFFER.value)
                job.again(name(number))
            assert job.result().exit_status == 0
        job.go.environment["S"] = b"60"
        job.parent.send(Word.OFFER.value)
        job.again(name(9))
        assert job.result().exit_status == 128 + signal.SIGTERM


def test_what_dies_with_the_process_is_found_by_the_record_of_the_job_of_that_moment(
    tmp_path: Path, permits: Permits
) -> None:
    records = tmp_path / "records"
    records.mkdir(mode=0o700)
    with leased(permits.wait, records=os.fspath(records)) as job:
        permits.give()
        job.result()
        job.parent.send(Word.OFFER.value)
        job.again(name(1))
        job.until(lambda: job.started)
        (record,) = records.iterdir()
        lines = record.read_text().splitlines()
        assert len(lines) in (4, 5)  # the boot; for each job its mark, then its program unless it has ended at once
        permits.give()
        job.result()
        job.let_go()
        job.wait()
        assert list(records.iterdir()) == []


def test_the_record_is_there_before_the_job_and_goes_with_a_client_that_gives_none(tmp_path: Path) -> None:
    with leased("true", records=os.fspath(tmp_path), given=False) as job:
        wait_until(lambda: [path for path in tmp_path.iterdir() if path.read_text().endswith("\n")])
        (record,) = tmp_path.iterdir()
        assert list(json.loads(record.read_text())) == ["boot"]
        job.session.cancel()
        job.pump.say_goodbye()
        job.wait()
        assert list(tmp_path.iterdir()) == []


def test_an_idle_lease_uses_no_processor_time() -> None:
    with leased("true") as job:
        job.result()
        told(job, ProgramStarted, JobFinished)
        wait_until(lambda: all_asleep(job.pid))
        before = used(job.pid)
        time.sleep(0.5)
        assert used(job.pid) - before <= 1


def used(pid: int) -> int:
    """Ticks of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# A job in advance


class Ahead:
    """A lease whose client gives each job while the one before it runs, and what it hears of them."""

    def __init__(self, script: str, **options: Any) -> None:
        self.job = leased(script, packed=True, **options)
        self.exits: list[tuple[int, bytes]] = []  # status and standard output of each job that has ended
        self.endings: list[Ending] = []  # of their standard inputs
        self.returned: list[str] = []
        self.began = 0
        self.output = b""

    def give(self, number: int, data: bytes = b"") -> None:
        self.job.go.job_id = name(number)
        self.job.session.go_ahead(self.job.go, {0: data})

    def until(self, condition: Callable[[], object]) -> None:
        """Steps; the outputs of a job are its own."""

        def looked() -> object:
            for event in self.job.events:
                if event.kind == RETURNED:
                    self.returned.append(event.text)
                elif event.kind == EXIT and event.exit is not None:
                    self.exits.append((event.exit.exit_status, self.output))
                    self.endings += [ending for ending in event.exit.endings if ending.number == 0]
                    self.output = b""
                elif event.kind == GO:
                    self.began += 1
            self.job.events.clear()
            return condition()

        for number in (1, 2):
            if number in self.job.pump.sinks:
                self.job.pump.sinks[number].close()
            self.job.pump.sinks[number] = Collected(self)
        self.job.pump.sinks.prepared = {number: Collected(self) for number in (1, 2)}
        self.job.until(looked)


class Collected(Sink):
    """Adds to the output of the job of this moment."""

    def __init__(self, client: Ahead) -> None:
        super().__init__(-1, shared=True)
        self._client = client

    def write(self, view: memoryview) -> int:
        self._client.output += view
        return len(view)


def test_a_job_in_advance_begins_when_the_parent_lets_it_and_not_before() -> None:
    client = Ahead('read line; echo "<$line>"; exit 4')
    with client.job as job:
        client.give(1, b"second\n")
        client.until(lambda: len(client.exits) == 1)
        job.step(0.2)
        assert (client.began, told(job, ProgramStarted, JobFinished)[1].idle) == (0, True)
        job.parent.send(Word.OFFER.value)
        client.until(lambda: len(client.exits) == 2)
        assert client.exits[1] == (4, b"<second>\n")
        taken, *_ = told(job, Taken, ProgramStarted, JobFinished)
        assert (taken.job_id, client.began) == (name(1), 1)


def test_jobs_in_advance_go_ahead_without_a_word(permits: Permits) -> None:
    client = Ahead(f"cat; {permits.wait}")
    with client.job as job:
        job.parent.send(Word.AHEAD.value)
        for number in range(1, 8):
            client.give(number, b"%d" % number)
            permits.give()
            client.until(lambda count=number: client.began == count)  # type: ignore[misc]
        permits.give()
        client.until(lambda: len(client.exits) == 8)
        assert [output for _, output in client.exits] == [b"", *(b"%d" % number for number in range(1, 8))]


@pytest.mark.parametrize("when", ["running", "waiting"])
def test_a_job_in_advance_is_returned_when_the_worker_wants_no_further_one(when: str) -> None:
    client = Ahead("sleep 0.2")
    with client.job as job:
        client.give(1)
        client.until(lambda: job.started)
        if when == "waiting":
            client.until(lambda: client.exits)
            job.step(0.1)
        job.parent.send(Word.LAST.value)
        client.until(lambda: client.returned)
        assert client.returned == ["this worker takes no further job"]
        with pytest.raises(DisconnectedError):
            client.until(lambda: False)
        assert [status for status, _ in client.exits] == [0]
        told(job, ProgramStarted, JobFinished)
        job.let_go()
        assert all(isinstance(report, Over) for report in job.reports())


def test_a_job_in_advance_is_taken_back_while_it_waits() -> None:
    client = Ahead("true")
    with client.job as job:
        client.give(1)
        client.until(lambda: client.exits)
        job.session.take_back()
        client.until(lambda: client.returned)
        client.give(2)
        job.parent.send(Word.OFFER.value)
        client.until(lambda: len(client.exits) == 2)
        assert [report.job_id for report in told(job, ProgramStarted, JobFinished, Taken)[2:]] == [name(2)]


def test_a_short_job_is_one_record_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """STARTED, two outputs with their ends, EXIT and the next CONFIRM: seven frames, where each was a record."""
    monkeypatch.setattr("cexec.worker.jobs.job.HELD_BACK", 5.0)  # as if the machine were fast
    with leased("cat >&2; echo output", packed=True) as job:
        job.parent.send(Word.AHEAD.value)
        job.result()
        job.until(lambda: job.session.state == OFFERED)
        seen: Counter[str] = Counter()

        def count(owner: type, name: str, what: str) -> None:
            called = getattr(owner, name)

            def counting(*arguments: Any) -> Any:
                result = called(*arguments)
                seen[what] += result is not None or what != "frames heard"
                return result

            monkeypatch.setattr(owner, name, counting)

        records = type(job.pump.records)
        count(type(job.pump.records.cipher), "seal", "records said")
        count(BoxMaker, "make", "records said")
        count(BoxMemory, "seal", "records said")
        count(BoxMemory, "open", "records heard")
        count(records, "send_frame", "frames said")
        count(records, "send_data", "frames said")
        count(records, "next_event", "frames heard")
        job.pump.hold_back()
        job.again(name(1), {0: b"input"})
        for _ in range(2):
            job.step(0.0)
        job.pump.let_go()
        job.result()
        job.until(lambda: job.session.state == OFFERED)
        assert seen == {"records said": 1, "frames said": 3, "records heard": 1, "frames heard": 7}


def test_the_end_of_a_job_and_the_beginning_of_one_in_advance_are_one_record(
    monkeypatch: pytest.MonkeyPatch, permits: Permits
) -> None:
    monkeypatch.setattr("cexec.worker.jobs.job.HELD_BACK", 5.0)  # as if the machine were fast
    client = Ahead(permits.wait)
    with client.job as job:
        job.parent.send(Word.AHEAD.value)
        client.give(1)
        opened: list[int] = []
        take = BoxMemory.open

        def counted(memory: BoxMemory, *arguments: int) -> int:
            opened.append(len(client.exits))
            return take(memory, *arguments)

        monkeypatch.setattr(BoxMemory, "open", counted)
        permits.give()
        client.until(lambda: client.exits)
        assert (client.began, opened) == (1, [0])
        permits.give()
        client.until(lambda: len(client.exits) == 2)
        assert (client.began, opened) == (1, [0, 1])


def test_the_input_of_a_job_in_advance_is_there_before_its_program(
    monkeypatch: pytest.MonkeyPatch, permits: Permits
) -> None:
    waiting: list[int] = []  # bytes in the pipe when the program is about to be started, in the job process

    def spawn(*arguments: Any) -> int:
        waiting.append(unread(arguments[3][0]))
        assert waiting[1:] == [5] * (len(waiting) - 1)  # the first job was not given in advance
        return program_start.spawn(*arguments)

    monkeypatch.setattr("cexec.worker.jobs.job.spawn", spawn)
    client = Ahead(f"head -c 2; {permits.wait}")
    with client.job as job:
        job.parent.send(Word.AHEAD.value)
        counts = []
        for number in range(1, 5):
            client.give(number, b"input")
            permits.give()
            client.until(lambda count=number: client.began == count)  # type: ignore[misc]
            counts.append(len(os.listdir(f"/proc/{job.pid}/fd")))
        permits.give()
        client.until(lambda: len(client.exits) == 5)
        assert client.exits[1:] == [(0, b"in")] * 4
        assert [(one.ending, one.count) for one in client.endings[1:]] == [(ENDED, 2)] * 4
        job.until(lambda: len(os.listdir(f"/proc/{job.pid}/fd")) <= min(counts))
