"""The words of a source in turn, under announcements, copies, claims and proofs in any order.

`Course.follow` compares what the bidder says with the rules of docs/protocol.md section 2.8 after each step.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from random import Random

import pytest

from cexec.protocol.decisions.bid import Connect, Forget, Prove, Queued
from cexec.protocol.decisions.boots import MAXIMUM_BOOTS
from cexec.protocol.decisions.remembered import DELAYED, READY
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved import WORDS_BURST, WORDS_RATE
from tests.protocol.decisions.bidders import WANTED, bidder, connects, identity, run
from tests.protocol.decisions.test_replay import BOOT, CLIENT, LATENCY, Wire, then

STEPS = 500
MOST_AT_ONCE = 1000  # timers at one time: more than there are announcements


class Course:
    """A bidder, what is done to it, and what it has said."""

    def __init__(self, seed: int, *, busy: bool) -> None:
        self.random = Random(seed)
        self.machine = bidder(seed=seed)
        self.now = 0.0
        self.boots = self.random.choice([1, 3, 10, 100])
        self.announced: list[tuple[bytes, str, int, int, bool]] = []
        self.told: Counter[bytes] = Counter()
        self.sources: Counter[str] = Counter()
        self.proved: set[bytes] = set()
        self.connecting: list[tuple[float, bytes]] = []
        if busy:
            self.machine.consider(identity(0), 1, WANTED, 0.0, targeted=True)
            assert connects(self.machine) == [identity(0)]
            run(self.machine, identity(0), 0.0)
        for number in range(1000, 1000 + 3 * int(WORDS_BURST)):  # uses up what the sources may have
            self._consider(identity(number), f"{number % 3}", Standing.UNPROVED, 0, 0, proves=True)

    def _consider(self, who: bytes, source: str, standing: Standing, clock: int, boot: int, *, proves: bool) -> None:
        self.machine.consider(
            who, 1, self.random.choice([0.1, WANTED]), self.now, standing=standing, source=source, proves=proves,
            clock=clock, boot=boot, new_way=self.random.random() < 0.3,
        )  # fmt: skip
        self.follow()

    def announce(self) -> None:
        """A new announcement comes or a copy of an old one, sometimes from another source."""
        random = self.random
        if random.random() < 0.6 or not self.announced:
            who = identity(10_000 + len(self.announced))
            made = (str(random.randrange(3)), random.randrange(1000), random.randrange(self.boots))
            self.announced.append((who, *made, random.random() < 0.95))
        who, source, clock, boot, proves = random.choice([self.announced[-1], random.choice(self.announced)])
        source = str(random.randrange(3)) if random.random() < 0.05 else source
        standing = Standing.PROVED if who in self.proved else random.choice([Standing.UNPROVED, Standing.DOUBTED])
        self._consider(who, source, standing, clock, boot, proves=proves)

    def step(self) -> None:
        self.pass_time(self.now + self.random.expovariate(self.random.choice([100.0, 1000.0, 5000.0])))
        what = self.random.random()
        if what < 0.9 or not self.announced:
            self.announce()
            return
        who = self.random.choice(self.announced)[0]
        if what < 0.96:
            self.machine.claimed(who, 1, self.now)
        else:
            self.proved.add(who)
            self.machine.proved(who, self.now)
        self.follow()

    def pass_time(self, until: float) -> None:
        at_once = 0
        while True:
            due = self.machine.next_timeout()
            fails = min(self.connecting, default=(inf, b""))
            then = min(inf if due is None else due, fails[0])
            if then > until:
                break
            at_once = at_once + 1 if then <= self.now else 0
            assert at_once < MOST_AT_ONCE
            self.now = max(self.now, then)
            if fails[0] <= self.now:
                self.connecting.remove(fails)
                self.machine.failed(fails[1], self.now)
            self.machine.handle_timeout(self.now)
            self.follow()
        self.now = until

    def follow(self) -> None:
        while (event := self.machine.next_event()) is not None:
            if isinstance(event, (Prove, Queued)):
                self._count(event.identity)
            elif isinstance(event, Connect):
                self.connecting.append((self.now + self.random.random(), event.identity))
            else:
                assert isinstance(event, Forget)
        for source, boots in self.machine.words.latest.items():
            assert 0 < len(boots) <= MAXIMUM_BOOTS
            for boot, latest in boots.items():
                one = self.machine.announcements.get(latest.identity)
                assert one is not None and one.telling.waits and one.state in (DELAYED, READY)
                assert (one.source, one.boot) == (source, boot) and one.standing != Standing.PROVED
                assert one.telling.due <= latest.due and latest.waits(self.now)

    def _count(self, who: bytes) -> None:
        one = self.machine.announcements.get(who)
        assert one is not None
        if one.standing != Standing.PROVED:
            self.told[who] += 1
            self.sources[one.source] += 1
            assert self.told[who] == 1 or not one.proves or who in self.proved
            assert self.sources[one.source] <= WORDS_BURST + WORDS_RATE * self.now + 1.0


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("seed", range(5))
def test_whoever_waits_for_a_word_is_there_and_nobody_waits_for_ever(seed: int, busy: bool) -> None:
    """Regression: what was claimed, or displaced, kept the next word from the other boots for 0.1 s."""
    course = Course(seed, busy=busy)
    for _ in range(STEPS):
        course.step()
    course.pass_time(course.now + 2.0 * MAXIMUM_BOOTS / WORDS_RATE)
    assert not course.machine.words.latest


def test_recordings_that_are_claimed_at_once_keep_no_turn() -> None:
    """Regression: with their claims, which are sent again, too, recordings of 5 boots delayed a client by 0.48 s."""
    wire, number, boots = Wire(1, 4.0, busy=True), 0, 5
    for number in range(400):
        wire.announce(1.0 + 0.004 * number, identity(number), (CLIENT[0], 5000), clock=then(number), boot=BOOT - 1000)

    def again(when: float, boot: int) -> None:
        nonlocal number
        number += 1
        wire.announce(when, who := identity(number), (CLIENT[0], 5000), clock=then(number), boot=boot)
        wire.at(when + 2 * LATENCY, lambda: wire.workers[0].bidder.claimed(who, 1, wire.now))

    for boot in range(boots):
        again(2.59, boot)
        for turn in range(boot):
            again(2.68 + 0.09 * turn, boot)
    wire.announce_honestly(2.6)
    wire.run()
    assert wire.asked is not None and wire.asked - 2.6 <= (boots + 1) / WORDS_RATE + 0.01
