"""What a worker makes of its jobs' processes: slots, the lottery, the log and the loggers."""

from __future__ import annotations

import io
import json
from typing import Any

from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.bid_events import Connect, Forget
from cexec.system.storage.eventlog import EventLog
from cexec.worker.discovery.heard import HeardAnnouncements
from cexec.worker.jobs import jobs as worker_jobs
from cexec.worker.jobs.jobs import Jobs

NOW = 100.0
FINISHED = {
    "event": "finished", "status": 0, "sent": 0, "received": 0, "cpu": 0.1, "reason": "", "duration": 0.5,
    "ahead": False,
}  # fmt: skip


class FakeProcess:
    """A job's process that says what a test wants it to."""

    def __init__(self, number: int, weight: int = 1) -> None:
        self.identity = self.announced = number.to_bytes(16, "big")
        self.number = number
        self.weight = weight
        self.client = ("127.0.0.1", 4000 + number)
        self.started = NOW
        self.alert: Any = None
        self.waiting = self.offered = self.ended = False
        self.carries = self.taken = True
        self.ahead = 0
        self.words: list[str] = []
        self.said: list[dict[str, Any]] = []
        self.fields: dict[str, object] = {"job": number}
        self.told: dict[str, Any] = {"number": number}

    def fileno(self) -> int:
        return self.number

    def reports(self) -> list[dict[str, Any]]:
        said, self.said = self.said, []
        return said

    def begin(self, identity: bytes, job_id: bytes, attempt: int, now: float) -> None:
        self.identity, self.started = identity, now
        self.waiting = self.offered = False
        self.fields = {"job": job_id.hex(), "attempt": attempt}
        self.told = {"number": self.number, "job_id": job_id, "attempt": attempt}

    def wait(self, identity: bytes) -> None:
        self.identity, self.waiting = identity, True

    def offer(self) -> None:
        self.offered = True
        self.words.append("offer")

    def go_ahead(self) -> None:
        if not self.ahead:
            self.ahead = 2
            self.words.append("ahead")

    def ask(self) -> None:
        if self.ahead:
            self.ahead = 0
            self.words.append("ask")

    def end(self) -> None:
        self.words.append("last")

    def terminate(self) -> None:
        self.words.append("end")

    def close(self) -> None:
        self.words.append("closed")


class FakeAlerts:
    def __init__(self) -> None:
        self.ended_jobs: list[tuple[str, int | None]] = []
        self.given_jobs: list[tuple[bytes, int]] = []

    def given(self, job_id: bytes, attempt: int, identity: bytes) -> None:
        self.given_jobs.append((job_id, attempt))

    def started(self, **told: Any) -> str:
        return f"alert of {told['number']}"

    def ended(self, alert: str, now: float, *, status: int | None, duration: float, **counts: int) -> None:
        assert duration >= 0.0
        self.ended_jobs.append((alert, status))


class Scene:
    """A worker with so many slots."""

    def __init__(self, slots: int) -> None:
        self.log = io.StringIO()
        self.alerts = FakeAlerts()
        self.bidder = Bidder(slots=slots, random=lambda: 0.0)
        self.jobs = Jobs(
            program=None,  # type: ignore[arg-type]
            bidder=self.bidder,
            heard=HeardAnnouncements(),
            alerts=self.alerts,  # type: ignore[arg-type]
            log=EventLog(self.log, as_json=True),
        )

    def running(self, number: int, weight: int = 1) -> Any:
        """A process that runs its first job in a slot."""
        process: Any = FakeProcess(number, weight)
        self.bidder.consider(process.identity, weight, 60.0, NOW, targeted=True)
        self.bidder.handle_timeout(NOW)
        assert isinstance(self.bidder.next_event(), Connect)
        assert self.bidder.reserved(process.identity, NOW)
        self.bidder.started(process.identity, NOW)
        self.jobs._processes[number] = process
        self.say(process, {"event": "started", "pid": 1})
        return process

    def say(self, process: Any, *reports: dict[str, Any]) -> None:
        """What comes from a process, and all that follows."""
        process.said += [dict(report) for report in reports]
        self.jobs.hear({process.number}, NOW + 1.0)
        while (event := self.bidder.next_event()) is not None:
            if isinstance(event, Connect) and self.jobs.leased(event.identity):
                self.jobs.offer(event.identity, NOW + 1.0)
            elif isinstance(event, Forget) and self.jobs.leased(event.identity):
                self.jobs.end_lease(event.identity)
        self.jobs.tell(NOW + 1.0)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]


def taken(number: int) -> dict[str, Any]:
    return {"event": "taken", "job": f"{number:032x}", "attempt": 1}


def test_a_lease_gets_its_slot_again_when_nobody_else_waits() -> None:
    scene = Scene(1)
    process = scene.running(1)
    for turn in range(3):
        scene.say(process, {**FINISHED, "idle": True})
        assert process.words == ["offer"] * (turn + 1)
        assert (scene.bidder.running, scene.bidder.free) == (0, 0)
        scene.say(process, taken(turn), {"event": "started", "pid": 1})
        assert (scene.bidder.running, scene.jobs.running) == (1, 1)
    assert scene.alerts.ended_jobs == [("alert of 1", 0)] * 3
    assert scene.alerts.given_jobs == [(bytes(15) + bytes([turn]), 1) for turn in range(3)]
    assert scene.events() == ["started", *["finished", "accepted", "started"] * 3]


def test_a_lease_that_is_not_drawn_waits_without_a_slot() -> None:
    scene = Scene(1)
    first = scene.running(1)
    scene.bidder.consider(b"x" * 16, 60000, 60.0, NOW, targeted=True)
    scene.bidder.handle_timeout(NOW)
    scene.say(first, {**FINISHED, "idle": True})
    assert first.words == []
    assert scene.jobs.leased(first.identity)
    assert scene.bidder.waiting == 1


def test_a_lease_that_becomes_idle_later_joins_then() -> None:
    scene = Scene(1)
    process = scene.running(1)
    scene.say(process, {**FINISHED, "idle": False})
    assert (process.words, scene.bidder.free) == ([], 1)
    scene.say(process, {"event": "idle"})
    assert (process.words, scene.bidder.free) == (["offer"], 0)


def test_a_client_that_lets_go_frees_the_slot() -> None:
    for gone in ([{"event": "over", "reason": "", "duration": 0.5, "ahead": False}], []):
        scene = Scene(1)
        process = scene.running(1)
        scene.say(process, {**FINISHED, "idle": True})
        process.ended = not gone
        scene.say(process, *gone)
        assert (scene.bidder.free, scene.bidder.waiting) == (1, 0)
        assert not scene.jobs.leased(process.identity)
        assert scene.alerts.ended_jobs == [("alert of 1", 0)]


def test_a_process_that_dies_in_a_later_job_closes_that_one() -> None:
    scene = Scene(1)
    process = scene.running(1)
    scene.say(process, {**FINISHED, "idle": True})
    process.ended = True
    scene.say(process, taken(2), {"event": "started", "pid": 1}, {"event": "broken", "reason": "it was killed"})
    assert scene.alerts.ended_jobs == [("alert of 1", 0), ("alert of 1", None)]
    assert scene.bidder.free == 1
    assert len(scene.jobs) == 0
    assert scene.events()[-3:] == ["accepted", "started", "broken"]


def test_leases_that_wait_are_bounded_and_the_longest_waiting_goes() -> None:
    scene = Scene(1)
    processes = []
    for number in range(1, worker_jobs.MAXIMUM_WAITING + 4):
        process: Any = FakeProcess(number)
        processes.append(process)
        scene.jobs._processes[number] = process
        scene.say(process, {"event": "idle"})
    assert [process.words for process in processes[:4]] == [["offer"], ["last"], ["last"], []]
    assert scene.bidder.waiting == worker_jobs.MAXIMUM_WAITING


def test_a_worker_that_stops_offers_nothing_more() -> None:
    scene = Scene(2)
    busy, waiting = scene.running(1), scene.running(2)
    scene.say(waiting, {**FINISHED, "idle": True})
    scene.jobs.stop()
    assert (busy.words, waiting.words) == (["last"], ["offer", "last"])
    scene.say(busy, {**FINISHED, "idle": True})
    assert busy.words == ["last", "last"]
    assert not scene.jobs.leased(busy.identity)
    assert scene.alerts.ended_jobs == [("alert of 2", 0), ("alert of 1", 0)]


def test_where_nobody_waits_a_lease_goes_on_without_being_drawn_and_keeps_its_slot() -> None:
    scene = Scene(1)
    process = scene.running(1)
    scene.jobs.arrange()
    assert process.words == ["ahead"]
    for turn in range(3):
        scene.say(process, {**FINISHED, "idle": True, "ahead": True}, taken(turn), {"event": "started", "pid": 1})
        assert (scene.bidder.running, scene.bidder.free, scene.bidder.waiting) == (1, 0, 0)
    assert "offer" not in process.words
    assert scene.alerts.ended_jobs == [("alert of 1", 0)] * 3


def test_a_lease_that_went_ahead_lets_another_one_in_after_that_job() -> None:
    """Somebody came while what the lease told was under way: it keeps the slot for the job that it has offered."""
    scene = Scene(1)
    process = scene.running(1)
    scene.jobs.arrange()
    other = b"x" * 16
    scene.bidder.consider(other, 60000, 60.0, NOW, targeted=True)
    scene.bidder.handle_timeout(NOW)
    scene.jobs.arrange()
    assert process.words == ["ahead", "ask"]
    scene.say(process, {**FINISHED, "idle": True, "ahead": True}, taken(2), {"event": "started", "pid": 1})
    assert (scene.bidder.running, scene.bidder.waiting) == (1, 1)
    scene.jobs.arrange()
    assert process.words == ["ahead", "ask"]
    scene.say(process, {**FINISHED, "idle": True})
    assert scene.jobs.leased(process.identity)
    assert not process.offered  # the other one has been drawn


def test_a_lease_that_went_ahead_and_gets_no_job_frees_the_slot() -> None:
    scene = Scene(1)
    process = scene.running(1)
    scene.say(process, {**FINISHED, "idle": True, "ahead": True}, {"event": "over", "reason": ""})
    assert (scene.bidder.free, scene.bidder.waiting) == (1, 0)
    assert not scene.jobs.leased(process.identity)


def test_a_worker_that_stops_lets_a_job_end_that_was_offered_ahead() -> None:
    scene = Scene(1)
    process = scene.running(1)
    scene.jobs.stop()
    scene.say(process, {**FINISHED, "idle": True, "ahead": True}, taken(2), {"event": "started", "pid": 1})
    assert (process.words, scene.bidder.running) == (["last", "last"], 1)
    scene.say(process, {**FINISHED, "idle": False})
    assert scene.bidder.free == 1


def test_what_leases_tell_that_need_no_answer_is_read_together() -> None:
    scene = Scene(2)
    process, other = scene.running(1), scene.running(2)
    process.ahead = 2
    assert set(scene.jobs.filenos(NOW)) == {1, 2}
    scene.jobs.hear({1}, NOW)
    assert set(scene.jobs.filenos(NOW)) == {2}
    due = scene.jobs.next_timeout(NOW)
    assert due is not None and NOW < due <= NOW + worker_jobs.READ_TOGETHER
    assert set(scene.jobs.filenos(due)) == {1, 2}
    assert scene.jobs.next_timeout(due) is None
    scene.jobs.hear({2}, due)
    assert set(scene.jobs.filenos(due)) == {1, 2}  # the other one needs answers
    assert other.ahead == 0


def test_a_process_that_lets_go_late_does_not_take_the_slot_of_another_with_the_same_announcement() -> None:
    """The announcement was answered again meanwhile, by another process; its `taken` then ended cservice."""
    scene = Scene(2)
    first: Any = FakeProcess(1)
    scene.bidder.consider(first.identity, 1, 60.0, NOW, targeted=True)
    scene.bidder.handle_timeout(NOW)
    assert isinstance(scene.bidder.next_event(), Connect)
    assert scene.bidder.reserved(first.identity, NOW)
    first.waiting = first.offered = True
    first.taken = False
    scene.jobs._processes[1] = scene.jobs._leases[first.identity] = first
    identity = first.identity
    scene.say(first, {"event": "over", "reason": ""})
    scene.bidder.consider(identity, 1, 60.0, NOW + 5.0, targeted=True)
    scene.bidder.handle_timeout(NOW + 5.0)
    assert isinstance(scene.bidder.next_event(), Connect)
    assert scene.bidder.reserved(identity, NOW + 5.0)
    second: Any = FakeProcess(2)
    second.identity, second.waiting, second.offered = identity, True, True
    scene.jobs._processes[2] = scene.jobs._leases[identity] = second
    scene.say(first, {"event": "free"})
    assert scene.bidder.reserved_count == 1
    scene.say(second, taken(2), {"event": "started", "pid": 1})
    assert scene.bidder.running == 1
