"""The datagrams that a worker hears from its group, and the reactions to them.

Contract: `Listener.listen(now)` reads the datagrams that have come, and returns False if all of them are ignored.
Announcements that this worker can serve are put to the bidder, and `heard` has the ways to answer them; censuses and
refusals are answered at once or in a while.  New announcements take the most time, so few are opened in one turn, and
only while their share of the CPU lasts, the latest first: behind a flood of recorded ones, a client would wait for all
of them.
Timers: `next_timeout`, `handle_timeout`.  docs/protocol.md sections 2 and 5.1.
"""

from __future__ import annotations

from math import inf, nextafter
from time import thread_time, time
from typing import TYPE_CHECKING

from cexec.errors import CertificateError, ProtocolError
from cexec.net.group_receiver import GroupReceiver
from cexec.net.group_sockets import REFRESH_INTERVAL
from cexec.protocol.base.source_rates import SourceRates
from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.datagrams import datagram, hello
from cexec.protocol.datagrams.announcement import CENSUS, RUN_ALL
from cexec.protocol.datagrams.opened_announcement import Claim, open_announcement, own_job_id
from cexec.protocol.datagrams.presence import HELLO
from cexec.protocol.datagrams.proof import decode_proofs
from cexec.protocol.decisions.census_turns import CensusTurns
from cexec.protocol.decisions.standing import Standing
from cexec.worker.discovery.heard import Copy, HeardAnnouncements, Known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.net.group_sockets import GroupSockets
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.presence import Presence
    from cexec.protocol.decisions.bid import Bidder
    from cexec.system.storage.eventlog import EventLog
    from cexec.worker.discovery.served import Served

HOP_DELAY = 0.1  # seconds (protocol) more for each relay between, so that near workers come first
# (ours) of one CPU that opening announcements may take for long, a Diffie-Hellman for each: the rest is for the jobs
OPENING_SHARE = 0.3
REFUSAL_RATE, REFUSAL_BURST = 1.0, 50.0  # lines a second (ours) about clients that are not served, and at once
REFUSALS_REPEATED = 2  # (ours) to a client of 0.1.0
OPENING_BURST = 2.0  # seconds (ours) of CPU time: several thousand datagrams
OPENED_AT_ONCE = 8  # announcements (ours) between two looks at what else is to be done
MOST_NEW = 2_000  # announcements (ours) that wait to be opened; the oldest is left alone, and will be sent again
MOST_COPIES = 8  # (ours) of one of them; no more ways to a client are remembered
LONGEST_NEW = 2.0  # seconds (ours) that one waits so, for which a client has sent other copies by then
HEARSAY_KINDS = (datagram.PRESENCE, datagram.ALERT, datagram.ACKNOWLEDGEMENT)
# seconds (ours) of CPU time for what others tell, a second and at once: of one host, and of all
HEARSAY_OF_ONE, HEARSAY = (0.05, 0.5), (0.1, 1.0)
DOUBTED_RATE, DOUBTED_BURST = (
    10.0,
    50.0,
)  # announcements a second (ours) of sources that may be invented; one PROVE each


class NewAnnouncement:
    """Copies of an announcement that has not been opened, in the order in which they came; `came`: the last one."""

    __slots__ = ("came", "copies")

    def __init__(self) -> None:
        self.copies: list[tuple[Datagram, Copy]] = []
        self.came = -inf


class Listener:
    """The ear of one worker."""

    def __init__(
        self,
        *,
        served: Sequence[Served],
        groups: GroupSockets,
        bidder: Bidder,
        log: EventLog,
        now: float,
    ) -> None:
        self.heard = HeardAnnouncements()
        self._served = served
        self._groups = groups
        self._bidder = bidder
        self._log = log
        self._receiver = GroupReceiver(groups, [one.key.mac1_key for one in served], now, keep_strangers=True)
        self._openings = TokenBucket(OPENING_SHARE, OPENING_BURST, now)
        self._hearsay = SourceRates(HEARSAY_OF_ONE, HEARSAY, now)
        self._refusals = TokenBucket(REFUSAL_RATE, REFUSAL_BURST, now)
        self._doubted = TokenBucket(DOUBTED_RATE, DOUBTED_BURST, now)
        self._censuses = CensusTurns(bidder.unproved)
        self._new: dict[bytes, NewAnnouncement] = {}  # by mac1, the one that came last is the last
        self._came_last = self._next_opening = -inf
        self._dropped = 0  # datagrams that were told of
        self._unopened = 0  # datagrams that were left alone to spare the CPU
        self._next_refresh = now + REFRESH_INTERVAL

    def listen(self, now: float) -> bool:
        """Reads the datagrams that have come; returns False if all of them are ignored."""
        found = self._receiver.receive(now)
        for parsed, source, via in found:
            self._hear(parsed, Copy(source, via), now)
        self._hear_new(now)
        for data, source in self._receiver.take_strangers():
            if data[datagram.KIND_AT] == datagram.ANNOUNCEMENT:
                self._tell_of_another_key(str(source[0]))
                break
        return bool(found)

    def _tell_of_another_key(self, host: str) -> None:
        """Logs it once: a client that has the wrong key file hears nothing, and nor does its user."""
        self._receiver.pass_strangers_over()
        own = " and ".join(one.key.fingerprint for one in self._served)
        self._log.event(
            "another-key",
            client=host,
            reason=f"a job was announced with another key than {own}; ckeygen --show tells a key file's",
        )

    def leave(self) -> None:
        """Tells the group that this worker goes."""
        self._new.clear()
        for one in self._served:
            one.presences.bye()
        self._groups.leave()

    def next_timeout(self) -> float:
        due = min(self._next_refresh, self._next_opening) if self._new else self._next_refresh
        due = min(due, self._censuses.next_timeout())
        for one in self._served:
            due = min(due, one.presences.next_timeout(), one.answers.next_timeout())
        return due

    def handle_timeout(self, now: float) -> None:
        self._hear_new(now)
        if now >= self._censuses.next_timeout():
            self._answer_censuses(now)
        for one in self._served:
            one.presences.handle_timeout(now)
            for mac1 in one.answers.handle_timeout(now):
                self.heard.forget(mac1, now)
        news = self._groups.news()
        if news is not None:
            self._log.event("mdns", reason=news)
        if now >= self._next_refresh:
            self._next_refresh = now + REFRESH_INTERVAL
            self.heard.expire(now)
            self._tell_drops()
            if self._groups.refresh():
                self._log.event("listening", addresses=", ".join(self._groups.addresses()))
                for one in self._served:
                    one.presences.moved(now)

    def _tell_drops(self) -> None:
        dropped = self._groups.drops() + self._unopened
        if dropped > self._dropped:
            self._log.event("dropped", datagrams=dropped - self._dropped, reason="they come too fast")
            self._dropped = dropped
            for one in self._served:
                one.answers.dropped = dropped

    def _hear(self, parsed: Datagram, copy: Copy, now: float) -> None:
        if parsed.kind == datagram.ANNOUNCEMENT:
            if parsed.doubted and not self._may_be_true(now):
                return
            if (known := self.heard.get(parsed.mac1)) is not None:
                known.hear(parsed, copy, now)
                self._consider(known, now)
                return
            if self.heard.done(parsed.mac1, now):
                return
            self._keep_new(parsed, copy, now)
        elif parsed.kind == datagram.CLAIM:
            self._hear_claim(parsed, now)
        elif parsed.kind == datagram.PROOF:
            self._hear_proofs(parsed, now)
        elif parsed.kind in HEARSAY_KINDS and not self.heard.done(parsed.mac1, now):
            self._hear_hearsay(parsed, str(copy.source[0]), now)

    def _hear_hearsay(self, parsed: Datagram, host: str, now: float) -> None:
        """Hears what nobody waits for.  A flood of it takes no CPU time from announcements."""
        if not self._hearsay.left(host, now):
            self._unopened += 1
            return
        self.heard.forget(parsed.mac1, now)  # copies need not be opened
        served = self._served[parsed.key]
        start = thread_time()
        if parsed.kind == datagram.PRESENCE:
            self._hear_presence(served.presences.hear(parsed), now)
        elif parsed.kind == datagram.ALERT:
            served.alerts.hear_alert(parsed, now)
        else:
            served.alerts.hear_acknowledgement(parsed, host)
        self._hearsay.spend(host, thread_time() - start, now)

    def _may_be_true(self, now: float) -> bool:
        """Bounds what clients can be made to suffer whose address a local user has invented."""
        if not self._doubted.left(now):
            return False
        self._doubted.spend(1.0)
        return True

    def _hear_presence(self, said: Presence | None, now: float) -> None:
        if said is not None and said.purpose == HELLO:
            self._bidder.competition.rival_heard(now)
        elif said is not None:
            self._bidder.competition.rivals.left(said.instance)

    def _hear_new(self, now: float) -> None:
        """Opens the latest announcements that wait for that, unless that has taken too much CPU time."""
        while self._new and self._new[oldest := next(iter(self._new))].came < now - LONGEST_NEW:
            self._unopened += len(self._new.pop(oldest).copies)
        for _ in range(min(len(self._new), OPENED_AT_ONCE)):
            if not self._openings.left(now):
                break
            _, new = self._new.popitem()
            self._open_new(new, now)
        self._next_opening = self._openings.due(now)

    def _keep_new(self, parsed: Datagram, copy: Copy, now: float) -> None:
        """Keeps a copy of an announcement until it is opened."""
        self._came_last = max(now, nextafter(self._came_last, inf))  # no two of them came in one moment
        new = self._new.pop(parsed.mac1, None) or NewAnnouncement()
        new.came = self._came_last
        if len(new.copies) < MOST_COPIES:
            new.copies.append((parsed, copy))
        self._new[parsed.mac1] = new
        if len(self._new) > MOST_NEW:
            self._unopened += len(self._new.pop(next(iter(self._new))).copies)

    def _open_new(self, new: NewAnnouncement, now: float) -> None:
        """Opens it with its first copy, which came by the best way; the others are more ways to its client."""
        (parsed, copy), *others = new.copies
        known = self._open(parsed, copy, now)
        if known is not None:
            self._consider(known, now, new.came)
        for parsed, copy in others:
            if (known := self.heard.get(parsed.mac1)) is not None:
                known.hear(parsed, copy, now)
                self._consider(known, now)

    def _consider(self, known: Known, now: float, came: float | None = None) -> None:
        """Puts an announcement to the bidder, or refuses it.  `came`: it is new, and has waited to be opened."""
        if known.refusal:
            self._refuse(known, now)
            return
        announcement, mac1 = known.opened.announcement, known.mac1
        if announcement.kind == CENSUS:
            return
        early = self.heard.take_claim(mac1)
        claimed = early is not None and early.proves(announcement.claim_hash)
        if early is not None and claimed:
            self._bidder.claimed(mac1, early.connected, now)
        self._bidder.consider(
            mac1,
            announcement.weight,
            announcement.wanted_for,
            now,
            extra_delay=HOP_DELAY * known.relays(now),
            # There is no race if only this worker is meant, and none if all workers are.
            targeted=announcement.kind == RUN_ALL or len(announcement.requirements.wanted) == 1,
            origin=known.origin,
            new_way=known.ways.untried(now),
            standing=known.ways.standing(now),
            source=str(known.best_ways(now)[0].origin.source[0]),
            proves=announcement.proves,
            clock=announcement.clock,
            boot=announcement.boot,
            came=came,
        )
        if claimed:
            self.heard.forget(mac1, now)

    def _refuse(self, known: Known, now: float) -> None:
        """Tells a client once that it is not served, and one of 0.1.0, which cannot ask anew, a few times."""
        if self._bidder.unproved.told_once(known.mac1):
            known.refusals += 1
            if known.opened.announcement.proves or known.refusals > REFUSALS_REPEATED:
                return
        if not self._may_say(known, now):
            return
        self._bidder.unproved.note_told(known.mac1)
        self._served[known.application].answers.send(known, hello.REFUSED, known.refusal, now=now)

    def _may_say(self, known: Known, now: float) -> bool:
        """Counts an answer to the source of an announcement, if that may have one more."""
        way = known.best_ways(now)[0]
        source = str(way.origin.source[0])
        if way.standing == Standing.PROVED:
            return True
        return not self._censuses.waits(source) and self._bidder.unproved.take_answer(source, now)

    def _open(self, parsed: Datagram, copy: Copy, now: float) -> Known | None:
        """Opens a new announcement.  Returns None if it is damaged, done with, or not for workers like this one."""
        if self.heard.done(parsed.mac1, now):
            return None
        served = self._served[parsed.key]
        start = thread_time()
        try:
            opened = open_announcement(served.key, parsed.inner)
        except ProtocolError:
            return None
        finally:
            self._openings.spend(thread_time() - start)
        if opened.announcement.kind == RUN_ALL:
            opened.announcement.job_id = own_job_id(opened.announcement.job_id, served.answers.instance)
        known = self.heard.add(parsed, opened, copy, now)
        if not served.answers.fits(known):
            self.heard.pass_over(parsed.mac1, now)
            return None
        try:
            served.admission.check(opened.announcement.certificate, time())
        except CertificateError as error:
            self.heard.refuse(known, str(error))
            if self._refusals.left(now):
                self._refusals.spend(1.0)
                self._log.event("refused", **known.fields(), reason=known.refusal)
            return known
        if opened.announcement.kind == CENSUS:
            self._ask(known, now)
        return known

    def _ask(self, known: Known, now: float) -> None:
        """Lets a census be answered when its source may have an answer, if this worker is to answer it."""
        # A question that is recorded and asked again later is not answered again.
        again = self._bidder.unproved.told_once(known.mac1)
        if again or not self._served[known.application].answers.asked(known):
            self.heard.forget(known.mac1, now)
            return
        announcement, source = known.opened.announcement, str(known.best_ways(now)[0].origin.source[0])
        for mac1 in self._censuses.ask(known.mac1, source, announcement.boot, announcement.clock, now):
            self.heard.forget(mac1, now)
        self._answer_censuses(now)

    def _answer_censuses(self, now: float) -> None:
        """Answers the censuses whose turn has come, each after a random time."""
        taken = self._censuses.take(now)
        for mac1 in taken.answered:
            known = self.heard.get(mac1)
            if known is not None and self._served[known.application].answers.take_part(known, now):
                self._bidder.unproved.note_told(mac1)
            else:
                taken.dropped.append(mac1)
        for mac1 in taken.dropped:
            self.heard.forget(mac1, now)

    def _hear_proofs(self, parsed: Datagram, now: float) -> None:
        try:
            announced, proofs = decode_proofs(parsed.inner)
        except ProtocolError:
            return
        known = self.heard.get(announced)
        if known is not None and known.prove(proofs, self._served[known.application].answers.prover, now):
            self._bidder.proved(announced, now)

    def _hear_claim(self, parsed: Datagram, now: float) -> None:
        try:
            claim = Claim.decode(parsed.inner)
        except ProtocolError:
            return
        known = self.heard.get(claim.announced)
        if known is None:
            self.heard.claim_first(claim, now)
        elif claim.proves(known.opened.announcement.claim_hash):
            self._bidder.claimed(claim.announced, claim.connected, now)
