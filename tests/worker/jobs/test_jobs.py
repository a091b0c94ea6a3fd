"""What a worker makes of its jobs' processes: slots, the lottery, the log and the loggers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from cexec.protocol.decisions.remembered import Origin
from cexec.worker.jobs import jobs as worker_jobs
from cexec.worker.jobs.lingering import MAXIMUM_LINGERING
from cexec.worker.jobs.process_states import State
from cexec.worker.jobs.report_looks import READ_TOGETHER
from cexec.worker.jobs.reports import (
    Broken,
    Free,
    Idle,
    JobRefused,
    Over,
    ProgramStarted,
    Report,
    Starting,
    Stored,
    Word,
    encode,
)
from tests.worker.jobs.scene import CLEAN_END, NOW, SOON, Actor, Scene, finished, taken

MakeScene = Callable[[int], Scene]
OTHER = b"x" * 16  # the announcement of another client
HEAVY = 60000  # a weight that is drawn first


@pytest.fixture
def make_scene() -> Iterator[MakeScene]:
    scenes: list[Scene] = []

    def make(slots: int) -> Scene:
        scenes.append(Scene(slots))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.__exit__()


def announce_other(scene: Scene) -> None:
    """Another client waits for a slot."""
    scene.bidder.consider(OTHER, HEAVY, 60.0, NOW, targeted=True)
    scene.bidder.handle_timeout(NOW)


def waits(scene: Scene, actor: Actor) -> bool:
    """Returns True if its lease takes part in the lottery, or has a slot for its next job."""
    return scene.jobs.leased(actor.process.ticket)


# processes


def test_a_process_for_which_there_was_no_room_is_told_of_with_its_reason(make_scene: MakeScene) -> None:
    """Regression: "no room for another process: broken pipe", if the supervisor had closed its end meanwhile."""
    scene, told = make_scene(1), []
    scene.supervisor.full = "resource temporarily unavailable"
    scene.jobs.tell_no_room = lambda known, what, now: told.append(what)
    scene.connected(1)
    assert told == ["another process: resource temporarily unavailable"]
    assert (scene.events(), scene.bidder.slots.free, len(scene.jobs)) == (["failed"], 1, 0)


# leases


def test_a_lease_gets_its_slot_again_when_nobody_else_waits(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    for turn in range(3):
        scene.say(actor, finished(idle=True))
        assert actor.words == [Word.OFFER] * (turn + 1)
        assert (scene.bidder.slots.running, scene.bidder.slots.free) == (0, 0)
        scene.say(actor, taken(turn), Starting(), ProgramStarted(1))
        assert (scene.bidder.slots.running, scene.jobs.running) == (1, 1)
    assert scene.alerts.ended_jobs == [("alert of 127.0.0.1", 0)] * 3
    assert scene.alerts.given_jobs == [(bytes(15) + bytes([number]), 1) for number in (1, 0, 1, 2)]
    assert scene.events() == ["accepted", "started", *["finished", "accepted", "started"] * 3]


def test_a_lease_that_is_not_drawn_waits_without_a_slot(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    first = scene.running(1)
    announce_other(scene)
    scene.say(first, finished(idle=True))
    assert first.words == []
    assert (first.process.state, waits(scene, first)) == (State.WAITING, True)
    assert scene.bidder.waiting == 1


def test_a_lease_that_becomes_idle_later_joins_then(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.say(actor, finished())
    assert (actor.words, scene.bidder.slots.free) == ([], 1)
    scene.say(actor, Idle())
    assert (actor.words, scene.bidder.slots.free) == ([Word.OFFER], 0)


@pytest.mark.parametrize("ends", [False, True])
def test_a_client_that_lets_go_frees_the_slot(make_scene: MakeScene, ends: bool) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.say(actor, finished(idle=True))
    ticket = actor.process.ticket
    if ends:
        scene.die(actor, CLEAN_END)
        scene.hear(actor)
    else:
        scene.say(actor, Over(""))
    assert (scene.bidder.slots.free, scene.bidder.waiting) == (1, 0)
    assert not scene.jobs.leased(ticket)
    assert scene.alerts.ended_jobs == [("alert of 127.0.0.1", 0)]
    assert scene.events() == ["accepted", "started", "finished"]


@pytest.mark.parametrize(
    "ending",
    [(Over("", True),), (Free(True),), (Over("", False), Free(False)), (Over("it sent nonsense", False),)],
    ids=["lets go of a lease", "lets go", "is lost", "breaks the protocol"],
)
def test_a_result_is_acknowledged_when_its_client_lets_go(make_scene: MakeScene, ending: tuple[Report, ...]) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    leased = isinstance(ending[0], Over)
    scene.say(actor, finished(idle=leased), *ending)
    acknowledged = ending[0].released  # type: ignore[union-attr]
    assert scene.alerts.acknowledged_jobs == scene.alerts.given_jobs[: int(acknowledged)]
    scene.bidder.complained((1).to_bytes(16, "big"), NOW + 1.0)
    assert (scene.bidder.penalty == 0.0) == acknowledged


def test_a_client_that_gives_the_next_job_has_acknowledged_the_last_one(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.say(actor, finished(idle=True))
    assert scene.alerts.acknowledged_jobs == []
    scene.say(actor, taken(2))
    assert scene.alerts.acknowledged_jobs == scene.alerts.given_jobs[:1]
    assert len(scene.alerts.given_jobs) == 2


def test_a_client_that_breaks_the_protocol_between_two_jobs_is_logged(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.say(actor, finished(idle=True), Over("it sent nonsense"))
    (line,) = [line for line in scene.lines() if line["event"] == "lost"]
    assert (line["client"], line["reason"]) == ("127.0.0.1:4000", "it sent nonsense")
    assert scene.bidder.slots.free == 1


def announce_many(scene: Scene, count: int) -> None:
    """So many clients wait for a slot."""
    for number in range(count):
        origin = Origin(b"client %d" % number)
        scene.bidder.consider(bytes([100 + number]) * 16, HEAVY, 60.0, NOW, targeted=True, origin=origin)
        scene.bidder.handle_timeout(NOW)


def test_leases_that_wait_are_bounded_and_the_longest_waiting_goes(make_scene: MakeScene) -> None:
    count = worker_jobs.MAXIMUM_WAITING + 3
    scene = make_scene(count)
    actors = [scene.running(number) for number in range(1, count + 1)]
    announce_many(scene, count - 1)  # only one slot is left for all of them
    for actor in actors:
        scene.say(actor, finished(idle=True))
    dismissed = [actor for actor in actors if actor.process.state is State.DISMISSED]
    waiting = [actor for actor in actors if actor.process.state is State.WAITING]
    assert len(waiting) <= worker_jobs.MAXIMUM_WAITING
    assert len(dismissed) == count - len(waiting) - sum(actor.process.state is State.OFFERED for actor in actors)
    assert dismissed == actors[: len(dismissed)] and dismissed
    assert all(actor.words == [Word.LAST] for actor in dismissed)
    scene.say(dismissed[0], Over(""), Free())
    assert dismissed[0].process.state is State.SPARE


def test_of_leases_that_wait_one_of_the_client_with_the_most_goes(make_scene: MakeScene) -> None:
    count = worker_jobs.MAXIMUM_WAITING
    scene = make_scene(count + 1)
    modest = scene.running(1)
    greedy = [scene.connected(number, host=99) for number in range(2, count + 2)]
    for number, actor in enumerate(greedy, 2):
        scene.say(actor, taken(number), Starting(), ProgramStarted(1))
    announce_many(scene, count + 1)
    for actor in (modest, *greedy):
        scene.say(actor, finished(idle=True))
    assert modest.process.state is State.WAITING
    assert [actor.process.state for actor in greedy] == [State.DISMISSED] + [State.WAITING] * (count - 1)


# files


def test_a_client_with_too_many_bytes_of_files_is_told_to_send_no_more(make_scene: MakeScene) -> None:
    """All its jobs count together, and another client's do not."""
    scene = make_scene(4)
    scene.jobs = scene.make_jobs(most_files=100)
    first, second, other = scene.connected(1, host=7), scene.connected(2, host=7), scene.connected(3, host=8)
    for number, actor in enumerate((first, second, other), 1):
        scene.say(actor, taken(number), Stored(60))
    assert [actor.words for actor in (first, second, other)] == [[], [Word.FULL], []]
    scene.say(first, Starting(), ProgramStarted(1), finished(), Stored(0))
    third = scene.connected(4, host=7)
    scene.say(second, JobRefused("full", True), Free())
    scene.say(third, taken(4), Stored(60))
    assert third.words == []


def test_the_files_of_a_process_that_died_do_not_count(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    scene.jobs = scene.make_jobs(most_files=100)
    first = scene.connected(1, host=7)
    scene.say(first, taken(1), Stored(100))
    scene.die(first)
    second = scene.connected(2, host=7)
    scene.say(second, taken(2), Stored(100))
    assert second.words == []


def test_where_nobody_waits_a_lease_goes_on_without_being_drawn_and_keeps_its_slot(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.jobs.arrange()
    assert actor.words == []  # perhaps it has one job only
    scene.say(actor, finished(idle=True))
    scene.say(actor, taken(2), Starting(), ProgramStarted(1))
    scene.jobs.arrange()
    assert actor.words == [Word.OFFER, Word.AHEAD]
    for turn in range(3):
        scene.say(actor, finished(ahead=True), taken(turn), Starting(), ProgramStarted(1))
        assert (scene.bidder.slots.running, scene.bidder.slots.free, scene.bidder.waiting) == (1, 0, 0)
    assert actor.words.count(Word.OFFER) == 1
    assert scene.alerts.ended_jobs == [("alert of 127.0.0.1", 0)] * 4


def test_a_lease_that_goes_ahead_is_told_so_again_in_time(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.say(actor, finished(idle=True))
    scene.say(actor, taken(2), Starting(), ProgramStarted(1))
    for turn in range(2 * 16):
        scene.jobs.arrange()
        assert actor.process.ahead > 0
        scene.say(actor, finished(ahead=True), taken(turn), Starting(), ProgramStarted(1))
    assert 3 <= actor.words.count(Word.AHEAD) <= 6


def ahead(scene: Scene, number: int) -> Actor:
    """A lease whose second job runs, and that may go ahead."""
    actor = scene.running(number)
    scene.say(actor, finished(idle=True))
    scene.say(actor, taken(100 + number), Starting(), ProgramStarted(1))
    scene.jobs.arrange()
    assert actor.words == [Word.OFFER, Word.AHEAD]
    return actor


def test_a_lease_that_went_ahead_lets_another_one_in_after_that_job(make_scene: MakeScene) -> None:
    """Somebody came while what the lease told was under way: it keeps the slot for the job that it has offered."""
    scene = make_scene(1)
    actor = ahead(scene, 1)
    announce_other(scene)
    scene.jobs.arrange()
    assert actor.words[2:] == [Word.ASK]
    scene.say(actor, finished(ahead=True), taken(2), Starting(), ProgramStarted(1))
    assert (scene.bidder.slots.running, scene.bidder.waiting) == (1, 1)
    scene.jobs.arrange()
    assert actor.words[2:] == [Word.ASK]
    scene.say(actor, finished(idle=True))
    assert waits(scene, actor)
    assert actor.process.state is State.WAITING  # the other one has been drawn


def test_a_lease_that_went_ahead_and_gets_no_job_frees_the_slot(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = ahead(scene, 1)
    scene.say(actor, finished(ahead=True))
    ticket = actor.process.ticket
    scene.say(actor, Over(""))
    assert (scene.bidder.slots.free, scene.bidder.waiting) == (1, 0)
    assert not scene.jobs.leased(ticket)


def test_what_leases_note_that_needs_no_answer_is_read_together(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = ahead(scene, 1)
    assert (actor.process.watched, scene.jobs.next_timeout()) == (False, None)
    scene.say(actor, finished(ahead=True))
    due = scene.jobs.next_timeout()
    assert actor.process.watched and due is not None and due <= NOW + 1.0 + READ_TOGETHER
    actor.notes.write(encode(taken(2)))  # nobody is woken
    scene.jobs.hear(set(), due - READ_TOGETHER / 2)
    assert scene.events()[-1] == "finished"
    scene.jobs.hear(set(), due)
    assert (scene.events()[-1], actor.process.watched) == ("accepted", True)
    assert scene.jobs.next_timeout() == due + READ_TOGETHER


def test_a_lease_that_notes_nothing_is_looked_at_twice_more_and_then_wakes_its_worker(make_scene: MakeScene) -> None:
    """What it noted while it was told that its worker looks is found: the second look comes after it has been told."""
    scene = make_scene(1)
    actor = ahead(scene, 1)
    scene.say(actor, finished(ahead=True))
    looks = [scene.jobs.next_timeout() or 0.0]
    scene.jobs.hear(set(), looks[0])
    assert not actor.process.watched
    actor.notes.write(encode(taken(2)))
    looks.append(scene.jobs.next_timeout() or 0.0)
    scene.jobs.hear(set(), looks[1])
    assert (scene.events()[-1], actor.process.watched) == ("accepted", True)
    for _ in range(2):
        scene.jobs.hear(set(), scene.jobs.next_timeout() or 0.0)
    assert (actor.process.watched, scene.jobs.next_timeout()) == (False, None)
    scene.say(actor, Starting(), ProgramStarted(1))
    assert scene.events()[-1] == "started"


# slots that are wanted


def later(scene: Scene, seconds: float) -> None:
    """Lets time pass for the bidder."""
    scene.bidder.handle_timeout(NOW + seconds)
    scene.follow_bids()


def announce_again(scene: Scene) -> None:
    """Another client waits for a slot, and is heard."""
    origin = Origin(b"other", family=b"another")
    scene.bidder.consider(OTHER, 1, 60.0, NOW, targeted=True, origin=origin)
    scene.bidder.handle_timeout(NOW)


def test_a_job_that_has_asked_is_told_that_its_slot_is_wanted(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    deaf, hears = scene.running(1), scene.running(2, hears=True)
    announce_again(scene)
    later(scene, 0.1)
    assert hears.words == []
    later(scene, 2.0)
    later(scene, 4.0)
    assert (deaf.words, hears.words) == ([], [Word.WANTED])


def test_nothing_is_sent_to_jobs_that_have_not_asked(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    actors = [scene.running(1), scene.running(2)]
    announce_again(scene)
    later(scene, 10.0)
    assert [actor.words for actor in actors] == [[], []]


@pytest.mark.parametrize("reports", [[], [Starting()]], ids=["preparing", "starting"])
def test_a_job_hears_it_before_its_program_runs_too(make_scene: MakeScene, reports: list[Report]) -> None:
    """Its process keeps the word until then."""
    scene = make_scene(1)
    actor = scene.connected(1)
    scene.say(actor, taken(1, hears=True), *reports)
    announce_again(scene)
    later(scene, 2.0)
    assert actor.words == [Word.WANTED]


def test_the_next_job_of_a_lease_asks_for_itself(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1, hears=True)
    scene.say(actor, finished(idle=True), taken(2), Starting(), ProgramStarted(1))
    announce_again(scene)
    later(scene, 2.0)
    assert Word.WANTED not in actor.words


@pytest.mark.parametrize(("number", "told"), [(2, []), (2 + (1 << 120), [Word.WANTED])], ids=["same", "another"])
def test_a_lease_that_waits_has_the_family_of_its_announcement(
    make_scene: MakeScene, number: int, told: list[Word]
) -> None:
    """So the jobs of one program do not hear of its own leases; another program of the same client is heard of."""
    scene = make_scene(2)
    holds, waiting = scene.connected(1, host=9), scene.connected(number, host=9)
    scene.say(holds, taken(1, hears=True), Starting(), ProgramStarted(1))
    scene.say(waiting, taken(2), Starting(), ProgramStarted(1))
    announce_other(scene)
    scene.say(waiting, finished(idle=True))
    assert scene.bidder.reserved(OTHER, SOON)  # it was drawn
    scene.bidder.started(OTHER, SOON)
    assert (waiting.process.state, scene.bidder.slots.free) == (State.WAITING, 0)
    later(scene, 5.0)
    assert holds.words == told


# jobs that end in another way


@pytest.mark.parametrize(("unfit", "slowed"), [(False, True), (True, False)])
def test_a_refusal_counts_against_the_worker_unless_all_would_refuse(
    make_scene: MakeScene, unfit: bool, slowed: bool
) -> None:
    scene = make_scene(1)
    actor = scene.connected(1)
    scene.say(actor, taken(1), JobRefused("no such program", unfit))
    assert (scene.bidder.penalty > 0, scene.bidder.slots.free) == (slowed, 1)
    assert scene.events() == ["accepted", "refused"]
    scene.say(actor, Free())
    assert actor.process.state is State.SPARE


def test_a_job_that_breaks_off_keeps_its_slot_until_its_process_has_ended(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.say(actor, Broken("client gave up"))
    assert (actor.process.state, scene.bidder.slots.free) == (State.BROKEN, 0)
    scene.die(actor, CLEAN_END)
    assert (scene.bidder.slots.free, len(scene.jobs)) == (1, 0)
    assert scene.alerts.ended_jobs == [("alert of 127.0.0.1", None)]
    assert scene.events() == ["accepted", "started", "broken"]


def test_a_process_that_dies_in_a_later_job_closes_that_one(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = scene.running(1)
    scene.say(actor, finished(idle=True))
    scene.say(actor, taken(2), Starting(), ProgramStarted(1))
    scene.die(actor)
    assert scene.alerts.ended_jobs == [("alert of 127.0.0.1", 0), ("alert of 127.0.0.1", None)]
    assert scene.bidder.slots.free == 1
    assert len(scene.jobs) == 0
    line = scene.lines()[-1]
    assert (line["event"], line["job"]) == ("broken", f"{2:032x}")
    assert line["reason"] == f"the job's process was killed by signal {signal.SIGKILL:d}"


@pytest.mark.parametrize("before", [[], [finished(idle=True)], [finished()]], ids=["first", "lease", "ended"])
def test_a_process_that_dies_without_a_job_frees_its_slot(make_scene: MakeScene, before: list[Report]) -> None:
    """Only if it had not had a job there is something to explain: its client never heard of it again."""
    scene = make_scene(1)
    actor = scene.connected(1)
    if before:
        scene.say(actor, taken(1), Starting(), ProgramStarted(1), *before)
    scene.die(actor)
    assert (scene.bidder.slots.free, len(scene.jobs)) == (1, 0)
    assert ("broken" in scene.events()) == (not before)


def test_a_process_that_lets_go_late_does_not_take_the_slot_of_another_with_the_same_announcement(
    make_scene: MakeScene,
) -> None:
    """The announcement was answered again meanwhile, by another process; its `Taken` then ended cservice."""
    scene = make_scene(2)
    first = scene.connected(1)
    scene.say(first, Over(""))
    second = scene.connected(1, NOW + 5.0)
    assert second is not first
    scene.say(first, Free())
    assert scene.bidder.slots.reserved == 1
    scene.say(second, taken(2), Starting(), ProgramStarted(1))
    assert scene.bidder.slots.running == 1


# processes


def test_a_process_that_is_free_carries_the_next_connection(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    first, second = scene.running(1), scene.running(2)
    scene.say(first, finished(), Free())
    scene.say(second, finished(), Free())
    assert (second.words, second.told_to_end) == ([], True)  # one that waits is enough
    scene.connected(3)
    assert (len(scene.actors), first.process.state) == (2, State.OFFERED)


# the end of the worker


def test_a_worker_that_stops_offers_nothing_more(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    busy, waiting = scene.running(1), scene.running(2)
    scene.say(waiting, finished(idle=True))
    scene.jobs.stop()
    assert (busy.words, waiting.words) == ([Word.LAST], [Word.OFFER, Word.LAST])
    scene.say(busy, finished(idle=True))
    assert busy.words == [Word.LAST, Word.LAST]
    assert not waits(scene, busy)
    assert scene.alerts.ended_jobs == [("alert of 127.0.0.2", 0), ("alert of 127.0.0.1", 0)]


def test_a_worker_that_stops_lets_a_job_end_that_was_offered_ahead(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    actor = ahead(scene, 1)
    scene.jobs.stop()
    scene.say(actor, finished(ahead=True), taken(2), Starting(), ProgramStarted(1))
    assert (actor.words[2:], scene.bidder.slots.running) == ([Word.LAST, Word.LAST], 1)
    scene.say(actor, finished())
    assert scene.bidder.slots.free == 1


# clients that are revoked


def test_revoked_clients_lose_their_jobs_and_others_of_the_application_do_not(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    first, second = scene.running(1), scene.running(2)
    scene.jobs.expel(1, lambda certificate: True)  # of another application
    assert (first.hears_the_end(), second.hears_the_end()) == (False, False)
    addresses = iter([True, False])
    scene.jobs.expel(0, lambda certificate: next(addresses))
    assert (first.hears_the_end(), second.hears_the_end()) == (True, False)
    (line,) = [line for line in scene.lines() if line["event"] == "revoked"]
    assert (line["name"], line["serial"], line["client"]) == ("default", 1, "127.0.0.1:4000")


def test_a_list_that_cannot_be_trusted_makes_the_jobs_that_run_the_last_ones(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    running, idle = scene.running(1), scene.running(2)
    scene.say(idle, finished(idle=True))
    scene.jobs.end_leases(1)
    assert Word.LAST not in running.words + idle.words
    scene.jobs.end_leases(0)
    assert running.words[-1] is idle.words[-1] is Word.LAST
    assert not running.hears_the_end()


def test_an_alert_goes_to_the_application_of_its_job(make_scene: MakeScene) -> None:
    scene = make_scene(2)
    scene.application = 1
    actor = scene.running(1)
    scene.application = 0
    other = scene.running(2)
    scene.say(actor, finished())
    scene.die(other, CLEAN_END)
    assert [alerts.ended_jobs for alerts in (scene.alerts, scene.other_alerts)] == [
        [("alert of 127.0.0.2", None)], [("alert of 127.0.0.1", 0)],
    ]  # fmt: skip


def test_processes_whose_clients_do_not_let_go_are_bounded(make_scene: MakeScene) -> None:
    """Regression: a client that never sent RELEASE made a process stay for 30 seconds, for each of its jobs."""
    most = MAXIMUM_LINGERING
    scene = make_scene(1)
    honest = scene.running(2)
    scene.say(honest, finished())
    for number in range(100, 100 + most + 10):
        actor = scene.connected(number, host=1)
        scene.say(actor, taken(1), Starting(), ProgramStarted(1), finished())
    slow = scene.actors[1:]
    assert [actor.words for actor in slow] == [[]] * len(slow)
    ended = [actor for actor in slow if actor.told_to_end]
    assert ended == slow[:11]
    assert not honest.told_to_end  # it is the client with the most that loses
    for actor in ended:
        scene.die(actor, CLEAN_END)
    assert len(scene.jobs) == most
    assert "broken" not in scene.events()


def test_a_process_that_is_free_again_does_not_count_among_those(make_scene: MakeScene) -> None:
    scene = make_scene(1)
    for number in range(100, 100 + 2 * MAXIMUM_LINGERING):
        actor = scene.connected(number, host=1)
        lease: list[Report] = [Idle(), Over("")] if number % 2 else []
        scene.say(actor, taken(1), Starting(), ProgramStarted(1), finished(), *lease, Free())
        assert actor.process.state is State.SPARE
        scene.die(actor, CLEAN_END)
