"""Which jobs are told that another client waits for their slot, and when: docs/protocol.md section 4.4."""

from __future__ import annotations

import itertools
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.decisions.bid import Bidder, Outcome, Wanted
from cexec.protocol.decisions.bid_events import Connect
from cexec.protocol.decisions.clients import ClientAccounts, ClientLimits
from cexec.protocol.decisions.remembered import RESERVED, RUNNING, STILL_HEARD, Origin, RememberedAnnouncement
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.wanted_slots import LOOK_INTERVAL, PATIENCE, WAITED, WantedSlots
from tests.protocol.decisions.bidders import identity

POOL, OTHER, THIRD = b"pool", b"other", b"third"
FAMILY = b"a family"
SOON = WAITED + LOOK_INTERVAL  # seconds in which a job hears that its slot is wanted


class Worker:
    """A bidder whose jobs run until they are ended, and its clock."""

    def __init__(self, slots: int, *, jobs: int = 0) -> None:
        """`jobs`: the limit of each client, by default none that matters."""
        limits = ClientLimits(jobs=jobs or slots + 1, places=slots + 1)
        self.machine = Bidder(slots=slots, random=lambda: 0.0, limits=limits)
        self.now = 0.0
        self.told: list[bytes] = []
        self.ready: list[bytes] = []  # those that this worker connects to
        self._names = (identity(number) for number in itertools.count(1))

    def follow(self) -> None:
        while (event := self.machine.next_event()) is not None:
            if isinstance(event, Wanted):
                self.told.append(event.identity)
            elif isinstance(event, Connect):
                self.ready.append(event.identity)

    def run(self, client: bytes, *, hears: bool = True, family: bytes = FAMILY, weight: int = 1) -> bytes:
        """Runs a job of this client in a slot that is free."""
        who = self.wait(client, family=family, weight=weight)
        assert self.ready.pop() == who
        assert self.machine.reserved(who, self.now)
        self.machine.started(who, self.now, hears=hears)
        self.follow()
        return who

    def wait(
        self,
        client: bytes,
        *,
        family: bytes = b"another",
        weight: int = 1,
        standing: Standing = Standing.PROVED,
        wanted_for: float = 1000.0,
    ) -> bytes:
        """A client announces a job."""
        who = next(self._names)
        self.machine.consider(
            who, weight, wanted_for, self.now, origin=Origin(client, family=family), standing=standing, source="host"
        )
        self.follow()
        return who

    def lease(self, client: bytes, family: bytes = b"another", weight: int = 1) -> bytes:
        """A connected client wants another job done."""
        who = next(self._names)
        self.machine.leased(who, weight, self.now, client, family)
        self.follow()
        return who

    def end(self, who: bytes, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        self.machine.finished(who, outcome, 10.0, self.now)
        self.follow()

    def hear(self, who: bytes, client: bytes, standing: Standing = Standing.PROVED) -> None:
        """Another copy of an announcement."""
        origin = Origin(client, family=b"another")
        self.machine.consider(who, 1, 1000.0, self.now, origin=origin, standing=standing, source="host")
        self.follow()

    def pass_time(self, seconds: float) -> list[bytes]:
        """Lets time pass, with the timers that are due; returns the jobs that were told meanwhile."""
        until, before, turns = self.now + seconds, len(self.told), 0
        while (due := self.machine.next_timeout()) is not None and due <= until:
            assert (turns := turns + 1) < 1000, "a timer is due for ever"
            self.now = max(self.now, due)
            self.machine.handle_timeout(self.now)
            self.follow()
        self.now = until
        return self.told[before:]


# When


def test_a_job_is_told_once_when_another_client_has_waited_for_a_while() -> None:
    assert SOON < 1.0
    worker = Worker(1)
    job = worker.run(POOL)
    assert worker.pass_time(100.0) == []
    waiting = worker.wait(OTHER)
    assert worker.pass_time(WAITED - 0.01) == []
    assert worker.pass_time(LOOK_INTERVAL) == [job]
    worker.hear(waiting, OTHER)
    assert worker.pass_time(5.0) == []


def test_a_job_that_has_not_asked_is_not_told() -> None:
    worker = Worker(1)
    worker.run(POOL, hears=False)
    worker.wait(OTHER)
    assert worker.pass_time(5.0) == []


def test_nobody_is_told_of_a_race_that_another_worker_wins() -> None:
    worker = Worker(1)
    worker.run(POOL)
    for _ in range(50):  # a stream of them, which overlap
        first, second = worker.wait(OTHER), worker.wait(THIRD)
        assert worker.pass_time(WAITED / 2) == []
        worker.machine.claimed(first, 1, worker.now)
        assert worker.pass_time(WAITED / 3) == []
        worker.machine.claimed(second, 1, worker.now)
    worker.follow()
    assert worker.told == []


def test_while_a_slot_is_free_nobody_is_told() -> None:
    worker = Worker(2)
    worker.run(POOL)
    waiting = worker.wait(OTHER)
    assert worker.ready == [waiting]  # its connection stalls
    assert worker.pass_time(5.0) == []


def test_a_job_that_begins_while_a_client_waits_is_told_soon() -> None:
    worker = Worker(1)
    first = worker.run(POOL, hears=False)
    worker.wait(OTHER)
    worker.pass_time(3.0)
    following = worker.lease(POOL, FAMILY, weight=60_000)  # it is drawn, whatever the other one does
    worker.end(first)
    assert worker.ready.pop() == following
    assert worker.machine.reserved(following, worker.now)
    worker.machine.started(following, worker.now, hears=True)
    worker.follow()
    assert worker.pass_time(LOOK_INTERVAL) == [following]


def test_a_client_that_proves_itself_wants_a_slot_from_then_on() -> None:
    worker = Worker(1)
    job = worker.run(POOL)
    waiting = worker.wait(OTHER, standing=Standing.UNPROVED)
    for _ in range(10):
        worker.hear(waiting, OTHER, Standing.UNPROVED)
        assert worker.pass_time(1.0) == []
    worker.machine.proved(waiting, worker.now)
    worker.follow()
    worker.hear(waiting, OTHER)
    assert worker.pass_time(LOOK_INTERVAL) == [job]


@pytest.mark.parametrize("standing", [Standing.UNPROVED, Standing.DOUBTED])
@pytest.mark.parametrize("proves", [True, False], ids=["today", "0.1.0"])
def test_an_announcement_that_nobody_proves_never_causes_a_word(standing: Standing, proves: bool) -> None:
    """A stranger can send a recorded announcement again, from any address and as often as he likes."""
    worker = Worker(1)
    worker.run(POOL)
    for number in range(200):
        worker.machine.consider(
            identity(10_000 + number % 20), 1, 1000.0, worker.now, origin=Origin(b"%d" % number, family=b"f"),
            standing=standing, source=f"10.0.0.{number}", proves=proves,
        )  # fmt: skip
        worker.follow()
        assert worker.pass_time(0.1) == []


def test_a_client_whose_proof_has_lapsed_wants_no_slot() -> None:
    worker = Worker(1)
    waiting = worker.wait(OTHER)
    worker.ready.clear()
    worker.machine.failed(waiting, worker.now)
    worker.run(POOL)
    worker.hear(waiting, OTHER, Standing.UNPROVED)
    assert worker.pass_time(5.0) == []


def test_a_client_that_has_not_been_heard_for_long_wants_no_slot_but_a_lease_does() -> None:
    """A stranger has no part in this: a client that was killed says no word."""
    jobs = wanted(running("a", POOL))
    silent = announcement("b", OTHER, heard_at=0.0)
    assert choose(jobs, [silent], STILL_HEARD) == []
    lease = RememberedAnnouncement(b"c", 1, 0.0, inf, targeted=True, origin=Origin(OTHER))
    assert choose(jobs, [silent, lease], STILL_HEARD) == ["a"]


def test_a_slowed_worker_tells_its_jobs_too() -> None:
    """Regression: slowness ends when a job succeeds, and a long job held the slot of such a worker for ever."""
    worker = Worker(2)
    job = worker.run(POOL)
    worker.end(worker.run(THIRD, hears=False, family=b"third"), Outcome.REFUSED)
    slow = worker.wait(THIRD, family=b"third")
    worker.pass_time(10.0)
    assert worker.ready.pop() == slow
    assert worker.machine.reserved(slow, worker.now)
    worker.machine.started(slow, worker.now)
    assert (worker.machine.penalty > 0.0, worker.machine.slots.free) == (True, 0)
    worker.wait(OTHER)
    assert worker.pass_time(SOON) == [job]


def test_nothing_is_due_while_nobody_hears_or_nobody_waits() -> None:
    deaf, alone = Worker(1), Worker(1)
    deaf.run(POOL, hears=False)
    alone.run(POOL)
    for worker in (deaf, alone):
        worker.pass_time(1000.0)
        assert worker.machine.next_timeout() is None
    deaf.lease(OTHER)
    assert deaf.machine.next_timeout() is None
    alone.lease(OTHER)
    assert alone.machine.next_timeout() is not None
    alone.pass_time(SOON)
    assert len(alone.told) == 1
    assert alone.machine.next_timeout() is None


# Who


def announcement(
    name: str, client: bytes, family: bytes = FAMILY, *, weight: int = 1, heard_at: float = 0.0
) -> RememberedAnnouncement:
    origin = Origin(client, family=family)
    made = RememberedAnnouncement(name.encode(), weight, heard_at, 1000.0, targeted=False, origin=origin)
    made.heard_last = heard_at
    return made


running = announcement


def wanted(*jobs: RememberedAnnouncement, deaf: str = "", limits: ClientLimits | None = None) -> WantedSlots:
    """A worker on which these jobs run; those that `deaf` names have not asked."""
    accounts = ClientAccounts(limits or ClientLimits(jobs=100, places=100))
    made = WantedSlots(accounts)
    for job in jobs:
        accounts.enter(job.origin.client, job.identity, RUNNING, 0.0)
        made.began(job, hears=job.identity.decode() not in deaf)
    return made


def choose(jobs: WantedSlots, waiting: list[RememberedAnnouncement], now: float = WAITED) -> list[str]:
    return [who.decode() for who in jobs.choose(waiting, now)]


def pool(names: str, client: bytes = POOL, family: bytes = FAMILY) -> list[RememberedAnnouncement]:
    """A job for each letter."""
    return [running(name, client, family) for name in names]


def test_one_job_is_told_for_each_announcement_that_waits() -> None:
    assert choose(wanted(*pool("abcd")), [announcement("x", OTHER)]) == ["a"]
    two = [announcement("x", OTHER), announcement("y", THIRD)]
    assert choose(wanted(*pool("abcd")), two) == ["a", "b"]


def test_the_next_job_is_told_if_the_first_one_does_not_end() -> None:
    """It may be in the middle of something that takes an hour."""
    jobs, waiting = wanted(*pool("abc")), [announcement("x", OTHER)]
    assert choose(jobs, waiting, 1.0) == ["a"]
    assert choose(jobs, waiting, 1.0 + PATIENCE - 0.1) == []
    assert choose(jobs, waiting, 1.0 + PATIENCE) == ["b"]
    assert choose(jobs, waiting, 1.0 + 2 * PATIENCE) == ["c"]
    assert jobs.next_look() == inf


def test_a_job_that_ends_makes_room_for_the_one_that_waits_longest_and_the_next_is_told_for_the_other() -> None:
    jobs = wanted(*pool("abcd"))
    assert choose(jobs, [announcement("x", OTHER)], 1.0) == ["a"]
    jobs.ended(b"a")
    assert choose(jobs, [announcement("y", THIRD)], 1.5) == ["b"]


def test_a_client_is_not_told_of_its_own_announcements_of_the_same_family() -> None:
    assert choose(wanted(*pool("ab")), [announcement("x", POOL)]) == []


def test_a_client_is_told_of_its_other_programs() -> None:
    """Two programs of one person on one machine are one client."""
    assert choose(wanted(*pool("ab")), [announcement("x", POOL, b"another")]) == ["a"]
    one_each = wanted(*pool("a"), *pool("b", family=b"another"))
    assert choose(one_each, [announcement("x", POOL, b"another"), announcement("y", POOL)]) == []


def test_a_family_counts_within_its_client_only() -> None:
    assert choose(wanted(*pool("a")), [announcement("x", OTHER, FAMILY)]) == ["a"]


def test_own_announcements_before_it_do_not_hide_one_of_another_client() -> None:
    own = [announcement(f"own {number}", POOL) for number in range(1000)]
    assert choose(wanted(*pool("ab")), [*own, announcement("x", OTHER)]) == ["a"]


@pytest.mark.parametrize(("has", "told"), [(0, 2), (1, 2), (2, 1), (3, 1), (4, 0)])
def test_a_client_gets_no_more_than_its_share(has: int, told: int) -> None:
    """Four slots of the pool, so many of the other client, and as many that wait as would fill the worker."""
    jobs = wanted(*pool("abcd"), *pool("wxyz"[:has], OTHER))
    waiting = [announcement(f"waits {number}", OTHER) for number in range(8)]
    assert len(choose(jobs, waiting)) == told


def test_the_last_slot_of_an_odd_number_goes_to_and_fro() -> None:
    assert choose(wanted(*pool("ab"), *pool("x", OTHER)), [announcement("y", OTHER)]) == ["a"]
    assert choose(wanted(*pool("a"), *pool("xy", OTHER)), [announcement("y", OTHER)]) == []


@pytest.mark.parametrize(("weight", "told"), [(1, 2), (3, 3), (100, 4)])
def test_a_share_is_in_proportion_to_the_weight(weight: int, told: int) -> None:
    waiting = [announcement(f"waits {number}", OTHER, weight=weight) for number in range(8)]
    assert len(choose(wanted(*pool("abcd")), waiting)) == told


def test_a_weight_counts_as_far_as_the_owner_lets_it() -> None:
    limits = ClientLimits(jobs=100, places=100, weight=1)
    waiting = [announcement(f"waits {number}", OTHER, weight=1000) for number in range(8)]
    assert len(choose(wanted(*pool("abcd"), limits=limits), waiting)) == 2


def test_the_client_with_the_most_slots_is_told_and_of_its_jobs_the_oldest() -> None:
    jobs = wanted(*pool("a", THIRD), *pool("bcd"), *pool("e", THIRD))
    assert choose(jobs, [announcement("x", OTHER)]) == ["b"]


def test_of_two_clients_with_as_many_slots_the_one_with_the_smaller_weight_is_told() -> None:
    heavy = [running(name, THIRD, weight=3) for name in "ab"]
    assert choose(wanted(*heavy, *pool("cd")), [announcement("x", OTHER)]) == ["c"]


def test_jobs_that_have_not_asked_count_in_the_shares() -> None:
    jobs = wanted(*pool("a"), *pool("bc", OTHER), deaf="bc")
    assert choose(jobs, [announcement("x", OTHER)]) == []
    jobs = wanted(*pool("abc"), deaf="ab")
    assert choose(jobs, [announcement("x", OTHER)]) == ["c"]


def test_a_client_that_goes_behind_the_holder_wants_no_slot_of_it() -> None:
    """It has reached the limit of its jobs, and the pool would be within its own with one job less."""
    limits = ClientLimits(jobs=3, places=3)
    jobs = wanted(*pool("abc"), *pool("xyz", OTHER, b"other"), deaf="xyz", limits=limits)
    heavy = announcement("waits", OTHER, b"other", weight=100)
    assert choose(jobs, [heavy]) == []
    assert choose(wanted(*pool("abc"), *pool("xy", OTHER, b"other"), deaf="xy", limits=limits), [heavy]) == ["a"]


def test_the_holder_is_asked_for_no_more_than_its_limit_lets_the_other_have() -> None:
    """The other client has reached the limit of three; it competes as long as the pool has three left, too."""
    limits = ClientLimits(jobs=3, places=3)
    jobs = wanted(*pool("abcde"), *pool("xyz", OTHER), deaf="xyz", limits=limits)
    heavy = [announcement(f"waits {number}", OTHER, weight=100) for number in range(5)]
    assert choose(jobs, heavy) == ["a", "b"]


@pytest.mark.parametrize(
    "second",
    [
        announcement("heavy", OTHER, b"another", weight=3),
        announcement("of a third", THIRD),
        announcement("own", POOL, b"another"),
    ],
    ids=lambda one: one.identity.decode(),
)
@pytest.mark.parametrize("first", [announcement("light", OTHER, b"another"), announcement("of the pool", POOL)])
def test_one_that_waits_in_vain_does_not_stand_for_another_kind(
    first: RememberedAnnouncement, second: RememberedAnnouncement
) -> None:
    jobs = wanted(*pool("ab"), *pool("xy", OTHER), deaf="xy")
    assert choose(jobs, [first]) == []
    assert choose(jobs, [first, second], WAITED + 1.0) == ["a"]


def test_own_announcements_of_more_weight_do_not_count_either() -> None:
    assert choose(wanted(*pool("ab")), [announcement("x", POOL, weight=3)]) == []


def test_jobs_that_have_ended_count_no_more() -> None:
    jobs = wanted(*pool("ab"), *pool("x", OTHER), deaf="x")
    jobs.ended(b"a")
    assert choose(jobs, [announcement("y", OTHER)]) == []
    jobs.ended(b"b")
    assert jobs.next_look() == inf


def test_a_slot_that_is_given_back_is_for_one_of_those_that_wait() -> None:
    jobs = wanted(*pool("abcd"))
    first, second = announcement("x", OTHER), announcement("y", THIRD)
    assert choose(jobs, [first], 1.0) == ["a"]
    assert choose(jobs, [first, second], 1.5) == ["b"]
    assert choose(jobs, [first, second], 2.0) == []


def test_a_client_that_has_wasted_places_wants_no_slot() -> None:
    accounts = ClientAccounts(ClientLimits(jobs=10, places=10))
    jobs = WantedSlots(accounts)
    job = running("a", POOL)
    accounts.enter(POOL, job.identity, RUNNING, 0.0)
    jobs.began(job, hears=True)
    accounts.enter(OTHER, b"x", RESERVED, 0.0)
    accounts.leave(OTHER, b"x", RESERVED, 1.0, withdrawn=True)
    assert choose(jobs, [announcement("y", OTHER, heard_at=1.0)], 2.0) == []


@given(
    st.lists(st.tuples(st.sampled_from([POOL, OTHER, THIRD]), st.sampled_from([b"f", b"g"]), st.integers(1, 5),
                       st.booleans()), max_size=12),
    st.lists(st.tuples(st.sampled_from([POOL, OTHER, THIRD]), st.sampled_from([b"f", b"g"]), st.integers(1, 5),
                       st.floats(-10.0, 1.0)), max_size=12),
)  # fmt: skip
def test_no_job_is_told_twice_and_no_more_of_them_than_wait(
    jobs: list[tuple[bytes, bytes, int, bool]], waiting: list[tuple[bytes, bytes, int, float]]
) -> None:
    made = WantedSlots(ClientAccounts(ClientLimits(jobs=100, places=100)))
    for number, (client, family, weight, hears) in enumerate(jobs):
        made.began(running(str(number), client, family, weight=weight), hears=hears)
    those = [
        announcement(f"w{number}", client, family, weight=weight, heard_at=heard_at)
        for number, (client, family, weight, heard_at) in enumerate(waiting)
    ]
    told: list[str] = []
    now = 0.0
    while made.next_look() < inf and now < 60.0:
        found = choose(made, those, now)
        assert len(found) <= sum(one.heard_at + WAITED <= now for one in those)
        told += found
        now += PATIENCE
        for one in those:
            one.heard_last = now
    assert len(set(told)) == len(told)
    assert all(jobs[int(who)][3] for who in told)


def test_ten_thousand_that_wait_in_vain_are_looked_at_once() -> None:
    """Two of one kind want the same slots, so the second one costs no more than its kind."""
    calls = 0

    class Counting(ClientAccounts):
        def rank(self, client: bytes, fewer: int = 0) -> int:
            nonlocal calls
            calls += 1
            return super().rank(client, fewer)

    made = WantedSlots(Counting(ClientLimits(jobs=100, places=100)))
    for job in [*pool("a"), *pool("bcdef", OTHER)]:
        made.began(job, hears=job.origin.client == POOL)
    waiting = [announcement(str(number), OTHER, b"%d" % number) for number in range(10_000)]
    assert choose(made, waiting) == []
    assert calls <= 4
