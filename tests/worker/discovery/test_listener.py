"""What a worker makes of what it hears: announcements that ask for something, censuses, presences, floods."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from cexec.protocol.base.certificate import ROLE_CLIENT, Certificate, Identity
from cexec.protocol.base.keys import ClientKey, WorkerKey
from cexec.protocol.base.sodium import signing_public_key
from cexec.protocol.datagrams import datagram, hello, presence
from cexec.protocol.datagrams.announcement import CENSUS, RUN_ALL, SealedAnnouncement
from cexec.protocol.datagrams.forwarded import unwrap, wrap
from cexec.protocol.datagrams.hello import Hello, decode_answer, open_hello
from cexec.protocol.datagrams.presence import open_presence
from cexec.protocol.datagrams.proof import PROOF_SIZE, encode_proofs
from cexec.protocol.datagrams.requirements import Requirements
from cexec.protocol.decisions.bid import Bidder, Connect, Forget, Outcome, Prove, Queued
from cexec.protocol.decisions.remembered import RESERVED
from cexec.protocol.decisions.rivals import RivalWord
from cexec.protocol.decisions.unproved import ANSWERS_BURST, ANSWERS_RATE, TRIES_BURST
from cexec.system.storage.eventlog import EventLog
from cexec.system.storage.series import Series
from cexec.worker.discovery import answers as worker_answers
from cexec.worker.discovery import listener
from cexec.worker.discovery.admission import Admission
from cexec.worker.discovery.alert_sender import AlertSender
from cexec.worker.discovery.answers import Answers, Profile
from cexec.worker.discovery.listener import LONGEST_NEW, OPENED_AT_ONCE, OPENING_BURST, Listener
from cexec.worker.discovery.presence_sender import PresenceSender
from cexec.worker.discovery.served import Served
from tests.protocol.decisions.bidders import use_up_words
from tests.protocol.wires import APPLICATION, STRANGERS

CLIENT = ("10.0.0.9", 5000)
KEYS = [APPLICATION.client.mac1_key]


class FakeGroups:
    """What a worker needs of GroupSockets."""

    def __init__(self) -> None:
        self.coming: list[tuple[bytes, tuple[Any, ...], str, bool]] = []
        self.sent: list[tuple[bytes, tuple[Any, ...], str]] = []
        self.forwarded: list[tuple[bytes, str, bool]] = []  # by other processes of the host, and if it is believed
        self.passed_on: list[bytes] = []
        self.changed = False
        self.lost = 0
        self.left = False

    def receive(self, *, prefix: bytes) -> list[tuple[bytes, tuple[Any, ...], str, bool]]:
        coming, self.coming = self.coming, []
        return [one for one in coming if one[0].startswith(prefix)]

    def send_to(self, data: bytes, sockaddr: tuple[Any, ...], via: str) -> None:
        self.sent.append((data, sockaddr, via))

    def receive_forwarded(self) -> list[tuple[bytes, str, bool]]:
        forwarded, self.forwarded = self.forwarded, []
        return forwarded

    def forward(self, datagrams: list[bytes], via: str) -> None:
        self.passed_on += datagrams

    def refresh(self) -> bool:
        return self.changed

    def addresses(self) -> list[str]:
        return ["10.0.0.255"]

    def news(self) -> None:
        return None

    def drops(self) -> int:
        return self.lost

    def leave(self) -> None:
        self.left = True


class FakeAnnouncer:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> list[str]:
        self.sent.append(data)
        return ["10.0.0.255"]

    def answered(self, host: str) -> None:
        pass


class FakeLoad:
    class load:
        level = 0.25


class Station:
    """One worker's ear with all that belongs to it, and a clock."""

    def __init__(
        self, key: WorkerKey = APPLICATION.worker, attributes: dict[str, str] | None = None, revoked: bytes = b""
    ) -> None:
        """`revoked`: the public key of a certificate that is not believed any more."""
        self.now = 1000.0
        self.groups, self.announcer, self.log = FakeGroups(), FakeAnnouncer(), io.StringIO()
        self.bidder = Bidder(slots=2, random=lambda: 0.5)
        parts: dict[str, Any] = {"key": key, "groups": self.groups, "bidder": self.bidder}
        profile = Profile(host="host-1", slots=2, speed=1.5, attributes={"cpus": "4", **(attributes or {})})
        self.answers = Answers(profile=profile, load=FakeLoad(), random=lambda: 0.5, **parts)  # type: ignore[arg-type]
        announcer: Any = self.announcer
        self.presences = PresenceSender(
            key, self.answers.instance, "host-1", announcer, lambda certificate: certificate.public_key == revoked
        )
        self.alerts = AlertSender(
            key=key,
            instance=self.answers.instance,
            series=Series(None, ""),
            announcer=announcer,
            bidder=self.bidder,
        )
        log = EventLog(self.log, as_json=True)
        served = Served(key, Admission(), self.answers, self.presences, self.alerts)
        groups: Any = self.groups
        self.ear = Listener(served=[served], groups=groups, bidder=self.bidder, log=log, now=self.now)

    def hear(self, data: bytes, source: tuple[Any, ...] = CLIENT, via: str = "eth0", unicast: bool = False) -> None:
        self.groups.coming.append((data, source, via, unicast))
        self.ear.listen(self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.bidder.handle_timeout(self.now)
        self.ear.handle_timeout(self.now)

    def connects(self) -> int:
        """To how many clients it wants to connect now."""
        count = 0
        while (event := self.bidder.next_event()) is not None:
            count += isinstance(event, Connect)
        return count

    def answered(self, sealed: SealedAnnouncement) -> list[Hello]:
        """What was answered to this announcement."""
        found = []
        for data, *_ in self.groups.sent:
            parsed = datagram.parse(data, KEYS)
            assert parsed is not None and parsed.kind == datagram.ANSWER
            announced, message = decode_answer(parsed.inner)
            if announced == sealed.mac1:
                found.append(open_hello(sealed.handshake(), message, APPLICATION.client.authority_public))
        return found

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def station(monkeypatch: pytest.MonkeyPatch) -> Station:
    monkeypatch.setattr(worker_answers, "own_addresses", lambda client: {"10.0.0.1", "fd77::1"})
    return Station()


def asking(
    needs: dict[str, str] | None = None, wanted: str = "", unwanted: str = "", **more: Any
) -> SealedAnnouncement:
    requirements = Requirements(needs, wanted.split(), unwanted.split())
    return APPLICATION.announce(requirements=requirements, **more)


def sent(sealed: SealedAnnouncement, counter: int = 0) -> bytes:
    return sealed.datagram(counter, 4000, 8)


# Requirements


@pytest.mark.parametrize(
    ("sealed", "connects"),
    [
        (asking(), 1),
        (asking({"cpus": "4"}), 1),
        (asking({"cpus": "5"}), 0),
        (asking({"gpu": ""}), 0),
        (asking({"name": "honest", "host": "host-1"}), 1),
        (asking(wanted="other honest"), 1),
        (asking(wanted="host-1"), 1),
        (asking(wanted="fd77::1"), 1),
        (asking(wanted="honest@10.0.0.1"), 1),
        (asking(wanted="10.0.0.2"), 0),
        (asking(unwanted="10.0.0.1"), 0),
        (asking(unwanted="other"), 1),
    ],
)
def test_an_announcement_that_asks_for_what_is_not_here_is_not_answered(
    station: Station, sealed: SealedAnnouncement, connects: int
) -> None:
    station.hear(sent(sealed))
    assert station.connects() == connects
    station.hear(sent(sealed, 1))
    station.wait(30.0)
    assert station.groups.sent == []


@pytest.mark.parametrize(
    ("sealed", "at_once"),
    [
        (asking(), False),
        (asking(wanted="honest"), True),
        (asking(wanted="honest other"), False),  # the less loaded of the two
        (asking(kind=RUN_ALL), True),
    ],
)
def test_who_alone_is_meant_waits_for_nobody(station: Station, sealed: SealedAnnouncement, at_once: bool) -> None:
    station.bidder.competition.rival_heard(station.now)
    station.hear(sent(sealed))
    assert station.connects() == at_once
    station.wait(1.0)
    assert station.connects() == (not at_once)


def test_a_claim_that_came_first_leaves_nothing_behind(station: Station) -> None:
    sealed = APPLICATION.announce()
    station.hear(sealed.claim(2, 8))
    station.hear(sent(sealed))
    assert station.connects() == 0
    assert station.ear.heard.get(sealed.mac1) is None and station.ear.heard.done(sealed.mac1, station.now)
    assert not station.bidder.competition.alone(station.now)  # and it has been learnt from


def test_a_client_whose_certificate_has_expired_is_told_so_and_kept_in_bounds(station: Station) -> None:
    seed, known = b"\x05" * 32, APPLICATION.client
    authority = APPLICATION.owner.authority_seed
    certificate = Certificate.issue(authority, ROLE_CLIENT, "late", 1, signing_public_key(seed), None, 1000)
    late = ClientKey(known.worker_public, known.psk, known.authority_public, Identity(certificate, seed))
    for kind in (CENSUS, 1):
        sealed = SealedAnnouncement(late, job_id=b"j" * 16, attempt=1, kind=kind)
        station.hear(sent(sealed))
        station.wait(1.0)
        (answer,) = station.answered(sealed)
        assert answer.purpose == hello.REFUSED and "expired" in answer.detail
    assert station.connects() == 0
    station.wait(200.0)
    assert station.ear.heard.get(sealed.mac1) is None


def test_lines_about_clients_that_are_not_served_are_bounded(station: Station) -> None:
    """The holder of a revoked key cannot fill the disk of a worker's log."""
    late = APPLICATION.owner.issue_client("late", 7, not_after=1000)
    count = 3 * int(listener.REFUSAL_BURST)
    for number in range(count):
        sealed = SealedAnnouncement(late, job_id=number.to_bytes(16, "big"), attempt=1)
        station.hear(sent(sealed), (f"10.0.1.{number}", 5000))
        assert len(station.answered(sealed)) == 1  # the client is told all the same
    assert len(station.events()) == listener.REFUSAL_BURST
    station.wait(10.0)
    for number in range(count):
        station.hear(sent(SealedAnnouncement(late, job_id=number.to_bytes(16, "big"), attempt=2)))
    assert len(station.events()) == listener.REFUSAL_BURST + 10


# Censuses


def census(**more: Any) -> SealedAnnouncement:
    return APPLICATION.announce(**{"kind": CENSUS, **more})


def test_a_census_is_answered_once_after_a_while(station: Station) -> None:
    sealed = census()
    for counter in range(3):
        station.hear(sent(sealed, counter))
    assert station.groups.sent == [] and station.ear.next_timeout() == station.now + 0.01
    station.wait(0.01)
    station.hear(sent(sealed, 3))
    station.wait(5.0)
    (answer,) = station.answered(sealed)
    assert (answer.purpose, answer.detail, answer.attributes) == (hello.CENSUS, "ok", {"cpus": "4"})
    assert (answer.slots, answer.running, answer.load, answer.speed) == (2, 0, 0.25, 1.5)
    assert answer.clock > 1_700_000_000_000
    assert station.groups.sent[0][1:] == (CLIENT, "eth0")
    assert station.connects() == 0


def test_the_answers_of_many_are_spread(station: Station) -> None:
    station.hear(sent(census(weight=1000)))
    assert station.ear.next_timeout() == pytest.approx(station.now + 0.15)


def test_a_worker_that_is_known_does_not_answer(station: Station) -> None:
    station.hear(sent(census(known=[station.answers.instance, b"x" * 16])))
    station.hear(sent(census(requirements=Requirements({"gpu": ""}))))  # nor one that does not fit
    station.wait(1.0)
    assert station.groups.sent == []


def test_a_second_question_is_answered_by_a_second_way(station: Station) -> None:
    sealed = census(attempt=2)
    station.hear(sent(sealed))
    station.hear(sent(sealed), source=("fe80::9", 5001, 0, 2), via="eth1")
    station.wait(1.0)
    assert [via for _, _, via in station.groups.sent] == ["eth1"]


def test_two_rounds_of_one_census_get_one_answer(station: Station) -> None:
    first, second = census(weight=1000), census(weight=1000, attempt=2)
    station.hear(sent(first))
    station.wait(0.1)
    station.hear(sent(second))
    station.wait(1.0)
    assert len(station.answered(first)) == 1 and station.answered(second) == []


def test_censuses_without_end_are_bounded(station: Station) -> None:
    for number in range(150):
        station.hear(sent(census(job_id=number.to_bytes(16, "big"), weight=4000)), (f"10.0.1.{number}", 5000))
    station.wait(5.0)
    assert len(station.groups.sent) == worker_answers.MAXIMUM_CENSUSES


# What is done


def test_a_worker_takes_part_once_in_what_every_worker_is_to_run(station: Station) -> None:
    """Regression: it connected again after a minute while the announcement was repeated for a worker that was busy."""
    sealed = APPLICATION.announce(kind=RUN_ALL)
    station.hear(sent(sealed))
    assert station.connects() == 1
    assert station.bidder.reserved(sealed.mac1, station.now)
    station.bidder.started(sealed.mac1, station.now)
    station.bidder.finished(sealed.mac1, Outcome.SUCCEEDED, 1.0, station.now)
    station.ear.heard.forget(sealed.mac1, station.now)
    for counter in range(1, 100):
        station.wait(2.0)
        station.hear(sent(sealed, counter))
    assert station.connects() == 0


def test_what_a_worker_lacks_something_for_is_looked_at_again(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = asking(wanted="10.0.0.2")
    for counter in range(50):
        station.hear(sent(sealed, counter))
        station.wait(2.0)
        monkeypatch.setattr(worker_answers, "own_addresses", lambda client: {"10.0.0.2"})
    assert station.connects() == 1


# HELLO and BYE


def said(station: Station) -> list[tuple[int, int]]:
    """Purpose and sequence number of all that was sent to the group."""
    found = []
    for data in station.announcer.sent:
        parsed = datagram.parse(data, KEYS)
        assert parsed is not None and parsed.kind == datagram.PRESENCE
        told = open_presence(APPLICATION.client, parsed.inner)
        assert (told.instance, told.host) == (station.answers.instance, "host-1")
        found.append((told.purpose, told.sequence))
    return found


def test_hello_is_repeated_byte_for_byte_and_bye_ends_it(station: Station) -> None:
    station.presences.hello(station.now)
    assert station.ear.next_timeout() == station.now + 1.0
    station.wait(1.0)
    station.wait(3.0)
    station.wait(100.0)
    assert said(station) == [(presence.HELLO, 1)] * 3
    assert len(set(station.announcer.sent)) == 1
    station.ear.leave()
    assert said(station)[3:] == [(presence.BYE, 2)] * 2 and station.groups.left


def test_a_change_of_addresses_is_told_until_bye(station: Station) -> None:
    station.presences.hello(station.now)
    station.groups.changed = True
    station.wait(11.0)
    assert said(station)[-1] == (presence.HELLO, 2)
    station.ear.leave()
    station.wait(11.0)
    assert said(station)[-1] == (presence.BYE, 3)


def test_another_workers_hello_makes_it_wait_in_races_and_its_own_does_not(station: Station) -> None:
    station.presences.hello(station.now)
    station.hear(station.announcer.sent[0])
    assert station.bidder.competition.alone(station.now)
    other = Station(APPLICATION.other_worker)
    other.presences.bye()
    station.hear(other.announcer.sent[0])
    assert station.bidder.competition.alone(station.now)
    third = Station(APPLICATION.other_worker)
    third.presences.hello(third.now)
    station.hear(third.announcer.sent[0])
    assert not station.bidder.competition.alone(station.now)


def test_a_rival_that_says_bye_is_no_reason_to_rest(station: Station) -> None:
    other = Station(APPLICATION.other_worker)
    rivals, now = station.bidder.competition.rivals, station.now
    word = RivalWord(other.answers.instance, job=b"", completed=True, clock=0.0, said_at=now)
    station.bidder.competition.rival_told(word, now)
    assert rivals.rest_until(now, shortest=1.0, rest=2.0) > now + 10.0
    other.presences.bye()
    station.hear(other.announcer.sent[0])
    assert rivals.rest_until(now, shortest=1.0, rest=2.0) == now + 1.0


# The ways to a client


def test_a_copy_by_another_way_is_where_answers_go_when_the_first_way_is_dead(station: Station) -> None:
    """A relay that was restarted has another port: QUEUED must reach the client by the new one."""
    sealed = APPLICATION.announce()
    station.hear(sent(sealed), ("10.0.0.2", 5000))
    station.wait(5.0)
    station.hear(sent(sealed, 1), ("10.0.0.2", 6000))
    known = station.ear.heard.get(sealed.mac1)
    assert known is not None
    station.answers.send(known, hello.QUEUED, now=station.now)
    assert station.groups.sent[-1][1] == ("10.0.0.2", 6000)


def test_clients_with_the_default_certificate_are_told_apart_by_their_addresses(station: Station) -> None:
    origins = []
    for host in ("10.0.0.8", "10.0.0.9", "10.0.0.9"):
        sealed = APPLICATION.announce()
        station.hear(sent(sealed), (host, 5000))
        known = station.ear.heard.get(sealed.mac1)
        assert known is not None
        origins.append(known.origin.client)
    assert origins[0] != origins[1] == origins[2]


def test_a_revoked_worker_is_no_rival(station: Station) -> None:
    other = Station(APPLICATION.other_worker)
    other.presences.hello(other.now)
    informed = Station(revoked=APPLICATION.other_worker.identity.certificate.public_key)
    informed.hear(other.announcer.sent[0])
    assert informed.bidder.competition.alone(informed.now)
    station.hear(other.announcer.sent[0])
    assert not station.bidder.competition.alone(station.now)


def test_strangers_and_forgers_are_not_rivals(station: Station) -> None:
    stranger = Station(STRANGERS.worker)
    stranger.presences.hello(stranger.now)
    station.hear(stranger.announcer.sent[0])
    forged = presence.encode_presence(KEYS[0], b"x" * 300, 8)
    station.hear(forged)
    assert station.bidder.competition.alone(station.now)


# Passing on


def test_a_unicast_datagram_is_passed_on_whatever_its_key(station: Station) -> None:
    ours, theirs = sent(APPLICATION.announce()), sent(STRANGERS.announce())
    for data in (ours, theirs):
        station.hear(data, unicast=True)
        station.hear(data, unicast=False)
    assert [unwrap(data) for data in station.groups.passed_on] == [(ours, CLIENT), (theirs, CLIENT)]
    assert station.connects() == 1


@pytest.mark.parametrize("believed", [True, False])
def test_what_was_passed_on_is_answered_at_its_source_and_not_passed_on_again(believed: bool, station: Station) -> None:
    sealed = census()
    wrapped = wrap(sent(sealed), ("fe80::9", 5001, 0, 2))
    if believed:
        station.groups.forwarded = [(wrapped, "eth0", True)]
        station.ear.listen(station.now)
    station.hear(wrapped, source=("127.0.0.1", 999), unicast=True)
    station.wait(1.0)
    assert [where for _, where, _ in station.groups.sent] == [("fe80::9", 5001, 0, 2)]
    assert station.groups.passed_on == []


def test_nobody_outside_can_pass_on(station: Station) -> None:
    station.hear(wrap(sent(APPLICATION.announce()), CLIENT), source=("10.0.0.8", 999))
    assert station.connects() == 0


@pytest.mark.parametrize("over_udp", [True, False])
def test_a_local_user_makes_a_worker_answer_to_few_sources(over_udp: bool, station: Station) -> None:
    """0.1.0 connected to all 126 sources that a local user had invented, and answered each of 1,027 datagrams."""
    for number in range(1027):
        wrapped = wrap(sent(census()), ("10.0.9.9", 2000 + number))
        if over_udp:
            station.hear(wrapped, source=("127.0.0.1", 999))
        else:
            station.groups.forwarded = [(wrapped, "eth0", False)]
            station.ear.listen(station.now)
    station.wait(1.0)
    assert len(station.groups.sent) <= listener.DOUBTED_BURST


@pytest.mark.parametrize(
    "source", [("10.0.9.9", 53), ("239.1.2.3", 5000), ("255.255.255.255", 5000), ("0.0.0.0", 5000), ("ff02::1", 5000)]
)
def test_a_source_that_no_host_has_is_not_heard(source: tuple[Any, ...], station: Station) -> None:
    station.groups.forwarded = [(wrap(sent(census()), source), "eth0", True)]
    station.ear.listen(station.now)
    station.wait(1.0)
    assert station.groups.sent == []


def test_copies_of_what_is_believed_do_not_use_up_what_others_may_send(station: Station) -> None:
    """A process sends each datagram over UDP, too, for processes of version 0.1.0."""
    for number in range(20):
        data = sent(APPLICATION.announce(), number)
        station.groups.forwarded = [(wrap(data, CLIENT), "eth0", True)]
        station.ear.listen(station.now)
        station.hear(wrap(data, CLIENT), source=("127.0.0.1", 999))
        station.hear(data, unicast=True)  # and what it has passed on itself comes back
        station.hear(wrap(data, CLIENT), source=("127.0.0.1", 999))
    station.hear(wrap(sent(census()), CLIENT), source=("127.0.0.1", 999))
    station.wait(1.0)
    assert len(station.groups.sent) == 1


def test_garbage_is_not_passed_on_and_a_flood_in_bounds(station: Station) -> None:
    for garbage in (b"x" * 200, b"\xcexec\1", b"\xcexec\1" + bytes(23), b"\xcexec\1" + bytes(200)):
        station.hear(garbage, unicast=True)
    assert station.groups.passed_on == []
    data = sent(STRANGERS.announce())
    station.groups.coming = [(data, CLIENT, "eth0", True)] * 2000
    station.ear.listen(station.now)
    assert len(station.groups.passed_on) == 500
    station.wait(1.0)
    station.hear(data, unicast=True)
    assert len(station.groups.passed_on) == 501


# Floods


def test_a_flood_under_our_key_takes_its_share_of_the_cpu_and_no_more(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies and strangers' datagrams cost nothing of it."""
    clock = iter(range(10**6))
    monkeypatch.setattr(listener, "thread_time", lambda: next(clock) * 0.5)  # half a second for each
    sealed = [APPLICATION.announce(attempt=attempt) for attempt in range(1, 9)]
    for one in sealed:
        for _ in range(3):
            station.hear(sent(one))
        station.hear(sent(STRANGERS.announce()))
    known = [station.ear.heard.get(one.mac1) is not None for one in sealed]
    assert known == [True] * 4 + [False] * 4
    station.wait(10.0)
    (event,) = [event for event in station.events() if event["event"] == "dropped"]
    assert event["datagrams"] == 12
    station.hear(sent(sealed[5]))
    assert station.ear.heard.get(sealed[5].mac1) is not None


def test_the_latest_is_opened_first_when_there_is_cpu_time_for_one_again(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it was left alone, and the ones before it were opened then."""
    clock = iter(range(10**6))
    monkeypatch.setattr(listener, "thread_time", lambda: next(clock) * OPENING_BURST)  # all there is for each
    flood = [APPLICATION.announce() for _ in range(2 * OPENED_AT_ONCE)]
    latest = APPLICATION.announce()
    station.groups.coming = [(sent(one), CLIENT, "eth0", False) for one in flood]
    station.ear.listen(station.now)
    assert station.ear.heard.get(flood[-1].mac1) is not None
    station.hear(sent(latest))
    due = station.ear.next_timeout()
    assert station.now < due < station.now + 0.01 and station.ear.heard.get(latest.mac1) is None  # no loop meanwhile
    station.wait(due - station.now)
    assert station.ear.heard.get(latest.mac1) is not None
    assert sum(station.ear.heard.get(one.mac1) is not None for one in flood) == 1
    station.wait(LONGEST_NEW + 10.0)
    assert sum(station.ear.heard.get(one.mac1) is not None for one in flood) == 1
    (event,) = [event for event in station.events() if event["event"] == "dropped"]
    assert event["datagrams"] == len(flood) - 1


def test_what_comes_behind_a_flood_of_new_announcements_is_heard_before_them(station: Station) -> None:
    """Regression: a client behind 400 recorded announcements waited until each of them had been opened."""
    flood = [APPLICATION.announce() for _ in range(3 * OPENED_AT_ONCE)]
    station.groups.coming = [(sent(one), (f"10.0.1.{n}", 5000), "eth0", False) for n, one in enumerate(flood)]
    station.ear.listen(station.now)
    assert station.ear.next_timeout() <= station.now  # the rest is opened when other things have had their turn
    latest = APPLICATION.announce()
    station.hear(sent(latest))
    assert station.ear.heard.get(latest.mac1) is not None
    opened = [station.ear.heard.get(one.mac1) is not None for one in flood]
    assert sum(opened) == 2 * OPENED_AT_ONCE - 1 and not any(opened[: OPENED_AT_ONCE + 1])
    station.wait(0.0)
    station.wait(0.0)
    assert all(station.ear.heard.get(one.mac1) is not None for one in flood)
    assert station.ear.next_timeout() > station.now


def test_the_latest_gets_its_sources_next_word_although_those_before_it_are_opened_after_it(station: Station) -> None:
    """Regression: a client was opened first, and the recordings behind it, which claim its source, took its word."""
    for _ in range(2 * int(TRIES_BURST)):
        station.hear(sent(APPLICATION.announce()))  # they take what the source gets in connections
    station.wait(0.4)
    assert station.connects()
    use_up_words(station.bidder.unproved, CLIENT[0], station.now)
    station.now += 0.001
    use_up_words(station.bidder.unproved, CLIENT[0], station.now)  # the next one comes 0.02 s after the last
    recorded = [APPLICATION.announce() for _ in range(2 * OPENED_AT_ONCE)]
    client = APPLICATION.announce()
    station.groups.coming = [(sent(one), CLIENT, "eth0", False) for one in [*recorded, client]]
    station.ear.listen(station.now)
    words = []
    for _ in range(400):
        station.wait(0.001)
        while (event := station.bidder.next_event()) is not None:
            words += [event.identity] if isinstance(event, Prove | Queued) else []
        if words:
            break
    assert all(station.ear.heard.get(one.mac1) is not None for one in recorded)
    assert words == [client.mac1]


def test_of_too_many_new_announcements_the_oldest_are_left_alone(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MOST_NEW", OPENED_AT_ONCE)
    flood = [APPLICATION.announce() for _ in range(OPENED_AT_ONCE + 2)]
    station.groups.coming = [(sent(one), CLIENT, "eth0", False) for one in flood]
    station.ear.listen(station.now)
    assert [station.ear.heard.get(one.mac1) is None for one in flood] == [True] * 2 + [False] * OPENED_AT_ONCE
    station.wait(10.0)
    assert [event["datagrams"] for event in station.events() if event["event"] == "dropped"] == [2]


def test_copies_of_what_waits_to_be_opened_are_ways_to_its_client_the_first_one_first(station: Station) -> None:
    """Regression: of copies by IPv4 and by IPv6 that came in one moment, the last one was taken for the best way."""
    sealed = APPLICATION.announce()
    ways = [("10.0.0.9", 5000), ("10.0.0.8", 5000), ("10.0.0.7", 5000)]
    station.groups.coming = [(sent(sealed, number), way, "eth0", False) for number, way in enumerate(ways)]
    station.ear.listen(station.now)
    known = station.ear.heard.get(sealed.mac1)
    assert known is not None
    assert [way.origin.source for way in known.best_ways(station.now)] == ways


def test_a_worker_that_goes_opens_no_more(station: Station) -> None:
    flood = [APPLICATION.announce() for _ in range(2 * OPENED_AT_ONCE)]
    station.groups.coming = [(sent(one), CLIENT, "eth0", False) for one in flood]
    station.ear.listen(station.now)
    station.ear.leave()
    station.wait(0.0)
    assert sum(station.ear.heard.get(one.mac1) is not None for one in flood) == OPENED_AT_ONCE


@pytest.mark.parametrize("kind", [datagram.PRESENCE, datagram.ALERT, datagram.ACKNOWLEDGEMENT])
def test_a_flood_of_hearsay_takes_no_cpu_time_from_announcements(
    kind: int, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1.0 opened every acknowledgement, and alerts and presences from what announcements may take."""
    clock = iter(range(10**6))
    monkeypatch.setattr(listener, "thread_time", lambda: next(clock) * 0.1)  # a tenth of a second for each
    spent = 0
    for number in range(1000):
        inner = number.to_bytes(4, "big") + bytes(300)
        mac1 = datagram.compute_mac1(KEYS[0], kind, inner)
        before = next(clock)
        station.hear(datagram.encode(kind, mac1, inner, hops=8), source=(f"10.0.{number % 9}.9", 5000))
        spent += next(clock) - before > 1
    assert spent == 10  # for one second in all
    sealed = APPLICATION.announce()
    station.hear(sent(sealed))
    assert station.ear.heard.get(sealed.mac1) is not None
    station.wait(10.0)
    (event,) = [event for event in station.events() if event["event"] == "dropped"]
    assert event["datagrams"] == 990


def test_what_the_kernel_dropped_is_told_once_and_shown(station: Station) -> None:
    station.groups.lost = 7
    station.wait(10.0)
    station.wait(10.0)
    assert [event["datagrams"] for event in station.events()] == [7]
    sealed = census()
    station.hear(sent(sealed))
    station.wait(1.0)
    assert [answer.detail for answer in station.answered(sealed)] == ["ok, 7 datagrams dropped"]


def test_clients_that_waste_slots_are_shown(station: Station) -> None:
    accounts, client = station.bidder.accounts, b"client"
    for number in range(3):
        accounts.enter(client, bytes([number]) * 16, RESERVED, station.now)
        accounts.leave(client, bytes([number]) * 16, RESERVED, station.now + 1.0)
    sealed = census()
    station.hear(sent(sealed))
    station.wait(1.0)
    words = "ok, 1 client goes last because of slots kept without jobs"
    assert [answer.detail for answer in station.answered(sealed)] == [words]


# Proof of receiving


def purposes(station: Station, sealed: SealedAnnouncement) -> list[int]:
    return [answer.purpose for answer in station.answered(sealed)]


def follow(station: Station) -> list[str]:
    """Sends the answers that the bidder asks for, as a worker does; returns its events."""
    found = []
    while (event := station.bidder.next_event()) is not None:
        found.append(type(event).__name__)
        known = station.ear.heard.get(getattr(event, "identity", b""))
        if isinstance(event, (Prove, Queued)) and known is not None:
            purpose = hello.PROVE if isinstance(event, Prove) else hello.QUEUED
            station.answers.send(known, purpose, now=station.now)
        elif isinstance(event, Forget):
            station.ear.heard.forget(event.identity, station.now, over=event.over)
    return found


def returned(sealed: SealedAnnouncement, *proofs: bytes) -> bytes:
    return encode_proofs(APPLICATION.client.mac1_key, sealed.mac1, proofs, 8)


def fill(station: Station) -> None:
    """Two announcements take the two places."""
    for _ in range(2):
        station.hear(sent(APPLICATION.announce()))
        assert follow(station) == ["Connect"]


def test_a_client_without_a_place_is_asked_for_a_proof_and_connected_to_when_it_has_come(station: Station) -> None:
    fill(station)
    sealed = APPLICATION.announce()
    station.hear(sent(sealed))
    assert follow(station) == ["Prove"]
    (question,) = station.answered(sealed)
    assert question.purpose == hello.PROVE and len(question.proof) == PROOF_SIZE
    assert station.groups.sent[-1][1:] == (CLIENT, "eth0")
    for wrong in (b"x" * 16, question.proof[::-1]):
        station.hear(returned(sealed, wrong))
        assert follow(station) == []
    station.hear(returned(sealed, b"x" * 16, question.proof), source=("10.0.0.200", 7))  # whoever brings it
    assert follow(station) == ["Connect"]


def test_an_answer_to_a_proved_client_asks_for_nothing(station: Station) -> None:
    sealed = APPLICATION.announce()
    station.hear(sent(sealed))
    known = station.ear.heard.get(sealed.mac1)
    assert known is not None
    station.answers.send(known, hello.QUEUED, now=station.now)
    known.connected((CLIENT[0], 4000), station.now)
    station.answers.send(known, hello.QUEUED, now=station.now)
    assert [bool(answer.proof) for answer in station.answered(sealed)] == [True, False]


def test_a_proof_is_good_for_its_own_way_only(station: Station) -> None:
    fill(station)
    sealed = APPLICATION.announce()
    station.hear(sent(sealed))
    follow(station)
    (question,) = station.answered(sealed)
    station.hear(sent(sealed, 1), ("10.0.0.66", 5000))
    station.hear(returned(sealed, question.proof))
    known = station.ear.heard.get(sealed.mac1)
    assert known is not None
    assert [(way.origin.source, way.standing.name) for way in known.best_ways(station.now)] == [
        (CLIENT, "PROVED"),
        (("10.0.0.66", 5000), "UNPROVED"),
    ]


def test_what_another_process_has_passed_on_is_asked_for_a_proof_before_anybody_connects(station: Station) -> None:
    """Regression: any local user could let a worker connect to, and answer to, whom it liked."""
    sealed = APPLICATION.announce()
    for counter in range(5):
        station.hear(wrap(sent(sealed, counter), ("192.0.2.7", 5001)), source=("127.0.0.1", 999))
        station.wait(1.0)
    assert set(follow(station)) <= {"Prove"}
    assert purposes(station, sealed) == [hello.PROVE]


def test_copies_from_elsewhere_do_not_turn_the_answers_of_a_proved_client_away(station: Station) -> None:
    sealed = APPLICATION.announce()
    station.hear(sent(sealed))
    known = station.ear.heard.get(sealed.mac1)
    assert known is not None
    known.connected((CLIENT[0], 4000), station.now)
    station.wait(1.0)
    station.hear(sent(sealed, 1), (CLIENT[0], 6666))
    for number in range(10):
        station.hear(sent(sealed, 2), (f"10.0.1.{number}", 5000))
    station.answers.send(known, hello.QUEUED, now=station.now)
    assert station.groups.sent[-1][1] == CLIENT


def test_a_refusal_of_a_recorded_announcement_is_sent_once(station: Station) -> None:
    late = APPLICATION.owner.issue_client("late", 7, not_after=1000)
    sealed = SealedAnnouncement(late, job_id=b"j" * 16, attempt=1)
    for counter in range(200):
        station.hear(sent(sealed, counter), (f"10.0.1.{counter}", 5000))
        station.wait(5.0)
    assert purposes(station, sealed) == [hello.REFUSED]


def test_one_source_gets_a_bounded_number_of_refusals_and_of_answers_to_censuses(station: Station) -> None:
    """Regression: whoever had recorded a thousand of them could have each worker send a thousand at once."""
    late = APPLICATION.owner.issue_client("late", 7, not_after=1000)
    for number in range(150):
        station.hear(sent(SealedAnnouncement(late, job_id=number.to_bytes(16, "big"), attempt=1)))
    assert len(station.groups.sent) == ANSWERS_BURST
    for turn in range(2):
        for number in range(90):
            job_id = (turn * 1000 + number).to_bytes(16, "big")
            station.hear(sent(census(job_id=job_id)), ("10.0.0.66", 5000))
        station.wait(0.1)
    assert ANSWERS_BURST <= len(station.groups.sent) - ANSWERS_BURST <= ANSWERS_BURST + 0.2 * ANSWERS_RATE


@pytest.mark.parametrize("clock", [2000, 1], ids=["right", "set back"])
def test_recorded_censuses_do_not_keep_an_honest_one_from_its_answer(station: Station, clock: int) -> None:
    """Regression: each of 400 with the client's own address had an answer first, and `cexec --all` missed workers."""
    recordings = [census(job_id=number.to_bytes(16, "big"), clocks=(1000 + number, 5)) for number in range(400)]
    honest = census(job_id=b"h" * 16, clocks=(clock, 5 if clock > 1000 else 4))
    asked = answered = 0.0
    for turn, sealed in enumerate(recordings):
        station.hear(sent(sealed))
        if turn == 250:
            station.hear(sent(honest))
            asked = station.now
        station.wait(0.001)
        if not answered and station.answered(honest):
            answered = station.now
    assert len(station.answered(honest)) == 1 and 0.0 < answered - asked <= 2.0 / ANSWERS_RATE + 0.02
    assert len(station.groups.sent) <= ANSWERS_BURST + 0.5 * ANSWERS_RATE


def test_refusals_do_not_keep_a_census_from_its_answer(station: Station) -> None:
    late = APPLICATION.owner.issue_client("late", 7, not_after=1000)
    honest = census(job_id=b"h" * 16)
    for number in range(400):
        station.hear(sent(SealedAnnouncement(late, job_id=number.to_bytes(16, "big"), attempt=1)))
        if number == 300:
            station.hear(sent(honest))
        station.wait(0.001)
    assert len(station.answered(honest)) == 1


def test_a_recorded_census_is_answered_once(station: Station) -> None:
    sealed = census(attempt=9)
    for counter in range(200):
        station.hear(sent(sealed, counter), (f"10.0.1.{counter}", 5000))
        station.wait(5.0)
    assert purposes(station, sealed) == [hello.CENSUS]
