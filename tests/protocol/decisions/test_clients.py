"""What one client can take of a worker while others wait.

The attacks, with figures before and after, are in docs/reliability.md and benchmarks/simulate_attacks.py.
"""

from __future__ import annotations

from random import Random

import pytest

from cexec.protocol.base.limits import GO_DEADLINE, MAXIMUM_WEIGHT
from cexec.protocol.decisions import clients, remembered
from cexec.protocol.decisions.bid import STALL, Bidder, Outcome
from cexec.protocol.decisions.clients import (
    BEYOND,
    DECAY,
    JOB_FORGIVES,
    MOST_TURNS,
    NOTICED,
    STALLED_EACH,
    STALLED_PAUSE,
    WASTEFUL,
    WITHIN,
    ClientAccounts,
    ClientLimits,
)
from cexec.protocol.decisions.remembered import CONNECTING, RESERVED, RUNNING, Origin
from tests.protocol.decisions.bidders import WANTED, connects, identity, run

GREEDY, MODEST = b"greedy", b"modest"
NO_LIMITS = ClientLimits(jobs=100, places=100)


def bidder(slots: int, limits: ClientLimits | None = None) -> Bidder:
    return Bidder(slots=slots, random=Random(1).random, limits=limits)


def announce(machine: Bidder, number: int, client: bytes, now: float = 0.0, weight: int = 1) -> None:
    machine.consider(identity(number), weight, 1000.0, now, origin=Origin(client))


def waste(machine: Bidder, number: int, client: bytes, now: float) -> float:
    """A slot is reserved for a client that gives no job; returns the time at which it is free again."""
    announce(machine, number, client, now)
    while not (found := connects(machine)):
        due = machine.next_timeout()
        assert due is not None
        now = max(now, due)
        machine.handle_timeout(now)
    assert found == [identity(number)]
    assert machine.reserved(identity(number), now)
    now += GO_DEADLINE
    machine.released(identity(number), now)
    machine.forget(identity(number), now)
    return now


# jobs


@pytest.mark.parametrize("limits", [None, ClientLimits(jobs=2, places=100)], ids=["by default", "--per-client jobs=2"])
def test_a_client_that_has_reached_its_jobs_goes_behind_every_other_that_waits(limits: ClientLimits | None) -> None:
    machine = bidder(4, limits)
    for number in range(100):
        announce(machine, number, GREEDY, weight=MAXIMUM_WEIGHT)
    running = connects(machine)
    assert len(running) == 4  # nobody else waits
    for who in running:
        run(machine, who, 0.0)
    announce(machine, 200, MODEST)
    machine.finished(running[0], Outcome.SUCCEEDED, 1.0, 1.0)
    assert connects(machine) == [identity(200)]


def test_limits_leave_no_slot_empty_while_anybody_waits() -> None:
    machine = bidder(8, ClientLimits(jobs=1, places=1))
    for number in range(40):
        announce(machine, number, GREEDY if number % 2 else MODEST)
    assert len(connects(machine)) == 8


def test_a_client_that_waits_a_hundred_times_has_one_share() -> None:
    machine = bidder(1, NO_LIMITS)
    for number in range(100):
        announce(machine, number, GREEDY)
    for number in range(100, 110):
        announce(machine, number, MODEST)
    turns, now = [], 0.0
    for _ in range(20):
        (who,) = connects(machine)
        turns.append(who >= identity(100))
        run(machine, who, now)
        now += 1.0
        machine.finished(who, Outcome.SUCCEEDED, 1.0, now)
    assert 8 <= sum(turns) <= 10  # one of MODEST's may be drawn after the last of the twenty


def test_places_on_the_way_to_a_slot_are_limited_while_others_wait() -> None:
    machine = bidder(4, ClientLimits(jobs=100, places=2))
    for number in range(6):
        announce(machine, number, GREEDY, weight=MAXIMUM_WEIGHT)
    first = connects(machine)
    assert len(first) == 4
    for who in first:
        assert machine.reserved(who, 0.0)
    announce(machine, 100, MODEST)
    machine.released(first[0], 0.01)
    assert connects(machine) == [identity(100)]


# weights


def test_no_weight_counts_for_more_than_the_worker_allows() -> None:
    machine = bidder(1, ClientLimits(jobs=100, places=100, weight=3))
    announce(machine, 0, MODEST)
    assert connects(machine) == [identity(0)]
    run(machine, identity(0), 0.0)
    turns, now, number = [], 0.0, 0
    waiting = {}
    for client in (GREEDY, MODEST):
        number += 1
        announce(machine, number, client, weight=MAXIMUM_WEIGHT if client == GREEDY else 1)
        waiting[identity(number)] = client
    busy = identity(0)
    for _ in range(200):
        now += 1.0
        machine.finished(busy, Outcome.SUCCEEDED, 1.0, now)
        (busy,) = connects(machine)
        run(machine, busy, now)
        turns.append(client := waiting.pop(busy))
        number += 1
        announce(machine, number, client, now, weight=MAXIMUM_WEIGHT if client == GREEDY else 1)
        waiting[identity(number)] = client
    assert 45 <= turns.count(MODEST) <= 55  # 3 to 1


# clients that keep places and give no jobs


def test_clients_that_never_send_go_go_behind_the_others() -> None:
    """Six of them let an honest job wait for 4 s at a worker of one slot; with a weight of 65535 for ever."""
    machine = bidder(1)
    now = waste(machine, 1, GREEDY, 0.0)
    announce(machine, 2, GREEDY, now, weight=MAXIMUM_WEIGHT)
    assert connects(machine) == [identity(2)]  # nobody else waits
    assert machine.reserved(identity(2), now)
    announce(machine, 3, GREEDY, now, weight=MAXIMUM_WEIGHT)
    announce(machine, 4, MODEST, now)
    machine.released(identity(2), now + GO_DEADLINE)
    assert connects(machine) == [identity(4)]


def test_a_client_that_waits_alone_is_served_at_once_whatever_it_has_wasted() -> None:
    """Regression: idle workers held honest clients for 43 s whose late CANCELs had kept slots reserved."""
    machine = bidder(4)
    now = 0.0
    for number in range(20):
        now = waste(machine, number, MODEST, now)
    announce(machine, 100, MODEST, now)
    assert connects(machine) == [identity(100)]


def test_jobs_and_time_make_good_what_a_client_has_wasted() -> None:
    machine = bidder(1)
    now = 0.0
    for number in range(3):
        now = waste(machine, number, MODEST, now)
    assert machine.accounts.rank(MODEST) == WASTEFUL
    for number in range(10, 13):
        announce(machine, number, MODEST, now)
        machine.handle_timeout(now)
        (who,) = connects(machine)
        run(machine, who, now)
        machine.finished(who, Outcome.SUCCEEDED, 0.1, now)
    assert machine.accounts.rank(MODEST) == WITHIN


def test_a_client_whose_job_broke_off_goes_behind_the_others_until_it_has_done_some() -> None:
    """One that resets its own jobs took half of the turns; but it is not held, because a network may have done it."""
    machine = bidder(1, NO_LIMITS)
    for number, outcome in enumerate((Outcome.BROKEN, Outcome.SUCCEEDED, Outcome.SUCCEEDED)):
        announce(machine, number, GREEDY)
        (who,) = connects(machine)
        run(machine, who, 0.0)
        machine.finished(who, outcome, 0.1, 0.0)
        assert machine.accounts.rank(GREEDY) == (WITHIN if number == 2 else WASTEFUL)


def test_the_loser_of_a_race_has_reserved_no_slot_in_vain() -> None:
    """Of three workers that confirm two are told within some milliseconds that they are not needed."""
    accounts = ClientAccounts(NO_LIMITS)
    now = 0.0
    for number in range(1000):
        accounts.enter(MODEST, identity(number), RESERVED, now)
        now += 0.05
        accounts.leave(MODEST, identity(number), RESERVED, now)
    assert accounts.rank(MODEST) == WITHIN


# time that is forgotten, and jobs that make it good

FORGOTTEN = (MOST_TURNS - NOTICED) / DECAY  # seconds from the last lost turn until a client is like all others


def losing(now: float = 0.0) -> ClientAccounts:
    """A client has lost as many turns as are remembered."""
    accounts = ClientAccounts(NO_LIMITS)
    accounts.enter(GREEDY, identity(1), CONNECTING, now)
    accounts.turn_lost(GREEDY, 10.0 * MOST_TURNS, now)
    return accounts


def wasting(now: float) -> ClientAccounts:
    """A slot was reserved in vain, for as long as there may be, until now."""
    accounts = ClientAccounts(NO_LIMITS)
    accounts.enter(GREEDY, identity(1), RESERVED, now - GO_DEADLINE)
    accounts.leave(GREEDY, identity(1), RESERVED, now)
    return accounts


def test_a_job_makes_a_part_of_the_lost_turns_good() -> None:
    accounts = losing()
    for number in range(3):
        assert accounts.wasted(GREEDY, 0.0) == pytest.approx(max(0.0, MOST_TURNS - number * JOB_FORGIVES))
        accounts.enter(GREEDY, identity(2 + number), RUNNING, 0.0)


def test_a_slot_that_is_given_back_at_once_makes_nothing_good() -> None:
    accounts = wasting(GO_DEADLINE)
    before = accounts.wasted(GREEDY, GO_DEADLINE)
    assert before > NOTICED
    for number in range(100):
        accounts.enter(GREEDY, identity(number), RESERVED, GO_DEADLINE)
        accounts.leave(GREEDY, identity(number), RESERVED, GO_DEADLINE)
    assert accounts.wasted(GREEDY, GO_DEADLINE) == before


def test_a_client_whose_waste_is_forgotten_is_named_once_and_not_before() -> None:
    accounts = losing()
    accounts.turn_lost(GREEDY, 10.0 * MOST_TURNS, 10.0)  # meanwhile it has lost more
    assert accounts.redeemed(FORGOTTEN + 1.0) == []
    assert accounts.rank(GREEDY) == WASTEFUL
    assert accounts.redeemed(FORGOTTEN + 10.0) == []  # it ends after this moment
    assert accounts.redeemed(FORGOTTEN + 11.0) == [GREEDY]
    assert accounts.rank(GREEDY) == WITHIN
    assert accounts.redeemed(FORGOTTEN + 100.0) == []
    accounts.turn_lost(GREEDY, 10.0 * MOST_TURNS, 1000.0)
    assert accounts.redeemed(1000.0 + FORGOTTEN + 1.0) == [GREEDY]


def test_a_client_is_counted_and_ranked_at_the_same_moment() -> None:
    accounts = losing()
    assert (accounts.wasteful(1.0), accounts.rank(GREEDY)) == (1, WASTEFUL)
    assert (accounts.wasteful(FORGOTTEN + 1.0), accounts.rank(GREEDY)) == (0, WITHIN)


def test_what_an_idle_client_has_wasted_is_remembered_when_others_come() -> None:
    accounts = wasting(1000.0)
    for number in range(10):
        accounts.enter(b"other %d" % number, identity(10 + number), RUNNING, 1000.0)
    assert accounts.rank(GREEDY) == WASTEFUL


def test_a_client_whose_connections_stall_gets_no_place_for_a_moment() -> None:
    accounts = ClientAccounts(NO_LIMITS)
    assert accounts.held_until(GREEDY, 5.0) < 5.0
    for number in range(STALLED_EACH):
        assert accounts.held_until(GREEDY, 5.0) < 5.0
        accounts.enter(GREEDY, identity(number), CONNECTING, 5.0)
        accounts.stall(GREEDY)
    assert accounts.held_until(GREEDY, 5.0) == 5.0 + STALLED_PAUSE


# accounts


def test_an_idle_client_leaves_no_account() -> None:
    accounts = ClientAccounts(NO_LIMITS)
    for number in range(3 * clients.MAXIMUM_ACCOUNTS):
        client = b"%d" % number
        for state in (CONNECTING, RESERVED, RUNNING):
            accounts.enter(client, identity(number), state, 0.0)
            accounts.leave(client, identity(number), state, 0.0)
    assert len(accounts) <= 2


def test_accounts_are_bounded_and_those_with_jobs_stay() -> None:
    accounts = ClientAccounts(NO_LIMITS)
    for number in range(100):
        accounts.enter(b"busy %d" % number, identity(number), RUNNING, 0.0)
    for number in range(clients.MAXIMUM_ACCOUNTS + 1000):
        client = b"%d" % number
        accounts.enter(client, identity(number), RESERVED, 0.0)
        accounts.leave(client, identity(number), RESERVED, GO_DEADLINE)
    assert len(accounts) <= clients.MAXIMUM_ACCOUNTS + 1
    limited = ClientLimits(jobs=1, places=1)
    accounts.limits = limited
    assert all(accounts.rank(b"busy %d" % number) == BEYOND for number in range(100))


@pytest.mark.parametrize(
    ("state", "count", "weight", "words"),
    [
        (RUNNING, 1, 1, ""),
        (RUNNING, 2, 1, "this client has 2 jobs here, and others that wait go first (cservice --per-client jobs=N)"),
        (CONNECTING, 2, 1, "2 jobs of this client are on the way here, and others that wait go first "
         "(cservice --per-client places=N)"),
        (RUNNING, 0, 11, "its weight of 11 counts as 10 (cservice --max-weight N)"),
    ],
)  # fmt: skip
def test_a_client_that_waits_is_told_which_limit_it_has_met(state: int, count: int, weight: int, words: str) -> None:
    accounts = ClientAccounts(ClientLimits(jobs=2, places=2, weight=10))
    for number in range(count):
        accounts.enter(MODEST, identity(number), state, 0.0)
    assert accounts.reason(MODEST, weight, others=True) == words
    alone = accounts.reason(MODEST, weight, others=False)
    assert alone == (words if "weight" in words else "")


def test_a_client_that_goes_behind_the_others_is_told_why() -> None:
    machine = bidder(1)
    now = waste(machine, 1, GREEDY, 0.0)
    words = "this client had slots reserved and gave no jobs, so others that wait go first"
    assert machine.accounts.reason(GREEDY, 1, others=True) == words
    assert machine.accounts.reason(GREEDY, 1, others=False) == ""
    assert machine.accounts.wasteful(now) == 1


def test_a_client_that_announces_without_end_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: 10,000 announcements that were sent again every 5 s, and nothing of another client was remembered."""
    monkeypatch.setattr(remembered, "MAXIMUM_REMEMBERED", 50)
    machine = bidder(1)
    for number in range(60):
        announce(machine, number, GREEDY, 0.0)
    (busy,) = connects(machine)
    run(machine, busy, 0.0)
    for number in range(100, 140):
        for copy in range(60):
            announce(machine, copy, GREEDY, 1.0)
        announce(machine, number, b"client %d" % (number % 4), 1.0)
    machine.finished(busy, Outcome.SUCCEEDED, 1.0, 2.0)
    done = []
    for _ in range(20):
        (who,) = connects(machine)
        done.append(who)
        run(machine, who, 2.0)
        machine.finished(who, Outcome.SUCCEEDED, 0.1, 2.0)
    assert sum(who >= identity(100) for who in done) >= 15


def test_one_who_wastes_its_turns_goes_behind_others_at_once() -> None:
    """All its announcements that wait, with the turn that makes it wasteful."""
    machine = bidder(slots=1)
    machine.consider(identity(0), 1, WANTED, 0.0, origin=Origin(b"third"))
    machine.handle_timeout(1.0)
    assert connects(machine) == [identity(0)]
    run(machine, identity(0), 1.0)
    for number in range(1, 50):
        machine.consider(identity(number), 100, WANTED, 2.0, origin=Origin(GREEDY))
    machine.consider(identity(50), 1, WANTED, 2.0, origin=Origin(MODEST))
    machine.handle_timeout(3.0)
    machine.finished(identity(0), Outcome.SUCCEEDED, 1.0, now := 4.0)
    while machine.accounts.rank(GREEDY) != WASTEFUL:
        (drawn,) = connects(machine)
        assert drawn != identity(50)
        now += 0.9 * STALL
        machine.failed(drawn, now)
    assert connects(machine) == [identity(50)]
