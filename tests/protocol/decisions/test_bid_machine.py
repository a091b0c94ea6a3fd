"""A bidder in any order of announcements, claims, connections, jobs and time, against a model of its slots.

A slot is never given twice, and never taken from a job that holds it; what is over is never answered again while it
is known; an announcement that is not proved gets one connection and one datagram; a free slot is not left empty while
somebody waits; a job is told once that its slot is wanted, if it has asked and somebody waits; a timer that has passed
is not due again (N7).
docs/protocol.md sections 2.8 and 3, docs/placement.md.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cexec.protocol.base.host_load import Load
from cexec.protocol.base.limits import QUEUED_INTERVAL
from cexec.protocol.decisions.bid import STALL, Connect, Forget, Outcome, Prove, Queued, Wanted
from cexec.protocol.decisions.remembered import DONE_LIFETIME, Origin
from cexec.protocol.decisions.slots import STALLED_ALLOWED
from cexec.protocol.decisions.standing import Standing
from tests.protocol.decisions.bidders import WANTED, bidder, identity, slots_of, waiting_in

WHO = st.integers(0, 7).map(identity)
OLD = {identity(6), identity(7)}  # the announcements of clients of 0.1.0
WAITS, CONNECTING, RESERVED, RUNNING = "waits", "connecting", "reserved", "running"


class Bids(RuleBasedStateMachine):
    """`known`: what each announcement is doing; `over`: until when a late copy of one must be ignored."""

    @initialize(slots=st.integers(1, 3), seed=st.integers(0, 3), rivals=st.booleans())
    def begin(self, slots: int, seed: int, rivals: bool) -> None:
        self.now = 0.0
        self.slots = slots
        self.machine = bidder(slots, seed=seed)
        self.known: dict[bytes, str] = {}
        self.over: dict[bytes, float] = {}
        self.told: dict[bytes, list[float]] = {}
        self.standing: dict[bytes, Standing] = {}
        self.allowance: dict[tuple[bytes, bool], int] = {}  # what one that is unproved has had: a connection, a word
        self.left_alone: dict[bytes, float] = {}  # it has had both: whoever hears it again does not ask before then
        self.leases = 0
        self.hears: set[bytes] = set()  # jobs that want to be told that their slot is wanted, and were not yet
        self.slowed = False  # perhaps: a worker whose jobs fail leaves the next ones to its rivals for a while
        if rivals:
            self.machine.consider(identity(99), 1, WANTED, 0.0)
            self.machine.claimed(identity(99), 3, 0.0)
            self._drain()
            self.known.clear()

    def _spend(self, who: bytes, *, connection: bool) -> None:
        if self.standing.get(who, Standing.PROVED) != Standing.PROVED and who not in OLD:
            self.allowance[who, connection] = self.allowance.get((who, connection), 0) + 1
            assert self.allowance[who, connection] == 1
            assert not connection or self.standing[who] == Standing.UNPROVED

    def _stand(self, who: bytes, standing: Standing) -> None:
        if standing == Standing.PROVED != self.standing.get(who):
            self.allowance.pop((who, True), None)
            self.allowance.pop((who, False), None)
        self.standing[who] = standing

    def _drain(self, heard: bytes = b"") -> None:
        """`heard`: the announcement that is new, if one is."""
        for event in iter(self.machine.next_event, None):
            match event:
                case Connect(identity=who):
                    assert self.known.get(who) == WAITS
                    self.known[who] = CONNECTING
                    free = self.slots - self._count(RESERVED, RUNNING)
                    assert self._count(CONNECTING) <= 2 * (free + STALLED_ALLOWED)  # to proved ones, and to others
                    self._spend(who, connection=True)
                case Queued(identity=who) | Prove(identity=who):
                    assert self.known.get(who) == WAITS
                    self.told.setdefault(who, []).append(self.now)
                    self._spend(who, connection=False)
                case Wanted(identity=who):
                    assert self.known[who] == RUNNING and slots_of(self.machine)[0] == 0 and waiting_in(self.machine)
                    self.hears.remove(who)
                case Forget(identity=who, over=over):
                    assert self.known.pop(who, WAITS) not in (RESERVED, RUNNING)
                    if over and heard == who:
                        self.left_alone[who] = self.now + DONE_LIFETIME
                    elif over:
                        self.over[who] = self.now + DONE_LIFETIME

    def _count(self, *states: str) -> int:
        return sum(state in states for state in self.known.values())

    def _pick(self, number: int, *states: str) -> bytes | None:
        found = [who for who, state in self.known.items() if state in states]
        return found[number % len(found)] if found else None

    # what is heard

    @rule(who=WHO, weight=st.integers(0, 100_000), wanted=st.sampled_from([0.0, 1.0, WANTED, 1e9]),
          targeted=st.booleans(), hops=st.integers(0, 2), standing=st.sampled_from(Standing))  # fmt: skip
    def hear(self, who: bytes, weight: int, wanted: float, targeted: bool, hops: int, standing: Standing) -> None:
        new = who not in self.known
        if new and self.left_alone.get(who, -1.0) > self.now:
            return
        if new and self.over.get(who, -1.0) <= self.now:
            self.known[who] = WAITS
        if who in self.known:
            self._stand(who, standing)
        self.machine.consider(
            who, weight, wanted, self.now, extra_delay=0.1 * hops, targeted=targeted, standing=standing,
            source=str(hops), proves=who not in OLD, origin=Origin(family=who),
        )  # fmt: skip
        self._drain(who if new else b"")

    @rule(who=WHO)
    def prove(self, who: bytes) -> None:
        if who in self.known:
            self._stand(who, Standing.PROVED)
        self.machine.proved(who, self.now)
        self._drain()

    @rule(who=WHO, connected=st.integers(-1, 5000))
    def claim(self, who: bytes, connected: int) -> None:
        if who not in self.known:
            self.over[who] = max(self.over.get(who, 0.0), self.now + DONE_LIFETIME)
        self.machine.claimed(who, connected, self.now)
        self._drain()

    @rule(cpu=st.floats(0.0, 5.0))
    def load(self, cpu: float) -> None:
        self.machine.load_sampled(Load(cpu=cpu), self.now)
        self._drain()

    # what becomes of connections and jobs

    @rule(number=st.integers(0, 7))
    def confirm(self, number: int) -> None:
        who = self._pick(number, CONNECTING)
        if who is None:
            return
        free = slots_of(self.machine)[0]
        reserved = self.machine.reserved(who, self.now)
        assert reserved == (free > 0)
        self._stand(who, Standing.PROVED)
        if reserved:
            self.known[who] = RESERVED
        else:
            self.known[who] = WAITS
            self.machine.withdrawn(who, self.now)
        self._drain()

    @rule(number=st.integers(0, 7), hears=st.booleans())
    def go(self, number: int, hears: bool) -> None:
        who = self._pick(number, RESERVED)
        if who is not None:
            self.machine.started(who, self.now, hears=hears)
            if hears:
                self.hears.add(who)
            self.known[who] = RUNNING
            self._drain()

    @rule(number=st.integers(0, 7), failed=st.booleans())
    def lose(self, number: int, failed: bool) -> None:
        """A connection that cannot be made, or a confirmation that is cancelled."""
        who = self._pick(number, CONNECTING if failed else RESERVED)
        if who is not None:
            self.known[who] = WAITS
            (self.machine.failed if failed else self.machine.released)(who, self.now)
            self._drain()

    @rule(number=st.integers(0, 7), outcome=st.sampled_from(list(Outcome)), lease=st.booleans())
    def end(self, number: int, outcome: Outcome, lease: bool) -> None:
        who = self._pick(number, RUNNING)
        if who is None:
            return
        if lease:
            self.leases += 1
            following = identity(1000 + self.leases)
            self.known[following] = WAITS
            self.machine.leased(following, 1, self.now, family=following)
        del self.known[who]
        self.hears.discard(who)
        self.over[who] = self.now + DONE_LIFETIME
        self.slowed |= outcome != Outcome.SUCCEEDED
        self.machine.finished(who, outcome, 1.0, self.now)
        self._drain()

    @rule(who=WHO)
    def client_goes(self, who: bytes) -> None:
        self.machine.forget(who, self.now)
        self._drain()

    @rule(seconds=st.sampled_from([0.001, 0.01, STALL, 1.0, QUEUED_INTERVAL, 31.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(1000):
            due = self.machine.next_timeout()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.machine.handle_timeout(self.now)
            self._drain()
        else:
            raise AssertionError("a timer is due for ever")
        self.now = until
        self.machine.handle_timeout(self.now)
        self._drain()

    # always

    @invariant()
    def slots_add_up(self) -> None:
        free, reserved, running = slots_of(self.machine)
        assert (reserved, running) == (self._count(RESERVED), self._count(RUNNING))
        assert free + reserved + running == self.slots and free >= 0
        assert waiting_in(self.machine) <= self._count(WAITS)

    @invariant()
    def no_slot_is_empty_while_somebody_waits(self) -> None:
        if not self.slowed and slots_of(self.machine)[0] > self._count(CONNECTING):
            assert waiting_in(self.machine) == 0

    @invariant()
    def nobody_is_told_without_end_that_it_waits(self) -> None:
        for times in self.told.values():
            for number, time in enumerate(times):
                assert sum(time - QUEUED_INTERVAL < earlier <= time for earlier in times[: number + 1]) <= 12

    def teardown(self) -> None:
        """All that is held is given back: in the end every slot is free, and no timer is left."""
        if not hasattr(self, "machine"):
            return
        for _ in range(200):
            for who, state in list(self.known.items()):
                if state == CONNECTING:
                    self.known[who] = WAITS
                    self.machine.failed(who, self.now)
                elif state == RESERVED:
                    self.known[who] = WAITS
                    self.machine.released(who, self.now)
                elif state == RUNNING:
                    del self.known[who]
                    self.machine.finished(who, Outcome.SUCCEEDED, 1.0, self.now)
                elif who >= identity(1000):
                    self.machine.forget(who, self.now)
                self._drain()
            due = self.machine.next_timeout()
            if due is None and not self._count(CONNECTING, RESERVED, RUNNING):
                break
            if due is not None:
                self.now = max(self.now, due)
                self.machine.handle_timeout(self.now)
                self._drain()
        assert slots_of(self.machine) == (self.slots, 0, 0)
        assert (self.machine.next_timeout(), waiting_in(self.machine)) == (None, 0)


TestBids = Bids.TestCase
TestBids.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
