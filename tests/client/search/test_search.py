"""The announcing phase: one search with a fake announcer and listener, real handshakes, and a clock of the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cexec.client.search.choice import Choice, Notices, OneJob
from cexec.client.search.reception import PATIENCE, UNTRIED, Winner
from cexec.client.search.search import Search
from cexec.errors import CexecError, LocalError, NoWorkerError
from cexec.net import interfaces
from cexec.protocol.base.certificate import ROLE_WORKER, Certificate, Identity
from cexec.protocol.base.keys import WorkerKey
from cexec.protocol.base.limits import (
    CONNECT_DEADLINE,
    DEFAULT_IDLE_TIMEOUT,
    MAXIMUM_UNAUTHENTICATED,
    QUEUED_INTERVAL,
    QUEUED_LIFETIME,
)
from cexec.protocol.base.sodium import signing_public_key
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Go
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.datagrams.hello import PROVE, QUEUED, REFUSED, UNREACHABLE, Hello, encode_answer, seal_hello
from cexec.protocol.datagrams.opened_announcement import Claim
from cexec.protocol.datagrams.proof import decode_proofs
from cexec.protocol.datagrams.requirements import PROOF, Requirements, instance_name
from cexec.protocol.decisions.race import RENEW_AFTER, Race
from tests.client.search.callers import Caller
from tests.protocol.wires import APPLICATION, hello_of, job

if TYPE_CHECKING:
    from cexec.net.groups import Sockaddr
    from cexec.protocol.datagrams.datagram import Datagram

START = 100.0  # seconds, on a clock that only the test moves
ACCEPT_TIMEOUT = 10.0  # seconds
PORT = 41234
LISTENER = -7  # stands for the descriptor of the listener
INSTANCES = [bytes([number]) * 16 for number in range(1, 10)]


class FakeAnnouncer:
    """The part of an `Announcer` that a search uses.  `sent` holds its datagrams, `coming` those that arrive next."""

    def __init__(self, *, loopback: bool) -> None:
        self.loopback = loopback
        self.failures: dict[str, str] = {}
        self.hopeless = ""
        self.reached = ["10.0.0.255"]
        self.sent: list[bytes] = []
        self.coming: list[tuple[bytes, Sockaddr]] = []
        self.browses = 0

    def send(self, data: bytes) -> list[str]:
        self.sent.append(data)
        return self.reached

    def receive(self) -> list[tuple[bytes, Sockaddr]]:
        coming, self.coming = self.coming, []
        return coming

    def filenos(self) -> list[int]:
        return []

    def send_parting(self, data: bytes) -> None:
        self.sent.append(data)

    def browse(self) -> None:
        self.browses += 1

    def answered(self, host: str) -> None:
        pass


class FakeListener:
    """The part of a `TcpListener` that a search uses.  `callers` wait to be accepted."""

    def __init__(self) -> None:
        self.port = PORT
        self.callers: list[Caller] = []
        self.full = False
        self.closed = False

    def accept(self) -> tuple[object, Sockaddr] | None:
        if self.full:
            raise LocalError("cannot accept a connection: too many open files; raise ulimit -n")
        return (self.callers.pop(0).connection, ("10.0.0.3", 999)) if self.callers else None

    def filenos(self) -> list[int]:
        return [LISTENER]

    def close(self) -> None:
        self.closed = True


class Setting:
    """A search and what surrounds it.  `now` is its clock."""

    def __init__(
        self,
        choice: Choice | None = None,
        *,
        loopback: bool = True,
        accept_timeout: float = ACCEPT_TIMEOUT,
        patience: float = 0.0,
    ) -> None:
        self.now = START
        self.passed_on: list[tuple[Datagram, Sockaddr, float]] = []
        self.announcer = FakeAnnouncer(loopback=loopback)
        self.listener = FakeListener()
        self.sealed: SealedAnnouncement = APPLICATION.announce()
        self.complaints: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.warned: list[str] = []
        self.callers: list[Caller] = []
        self.search = Search(
            APPLICATION.client,
            self.sealed,
            self.announcer,  # type: ignore[arg-type]
            self.listener,  # type: ignore[arg-type]
            choice or OneJob(lambda offer: job()),
            Race(accept_timeout=accept_timeout, now=START),
            idle_timeout=DEFAULT_IDLE_TIMEOUT,
            notices=Notices(
                complain=lambda address, text: self.complaints.append((address, text)),
                tell=self.told.append,
                warn=self.warned.append,
            ),
            patience=patience,
            pass_on=lambda *heard: self.passed_on.append(heard),
        )

    def call(self, instance: bytes = INSTANCES[0], **options: object) -> Caller:
        """Lets a worker connect."""
        caller = Caller(self.sealed, instance, **options)  # type: ignore[arg-type]
        self.callers.append(caller)
        self.listener.callers.append(caller)
        return caller

    def step(self, later: float = 0.0) -> Winner | None:
        """Makes one step, `later` seconds later, as if every descriptor were ready."""
        self.now += later
        return self.search.step(set(self.search.filenos(self.now)), self.now)

    def wait(self, seconds: float) -> None:
        """Steps whenever the search asks for it, until so many seconds have passed."""
        end = self.now + seconds
        for _ in range(10_000):
            due = self.search.next_timeout(self.now)
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self.search.step(set(), self.now)
        raise AssertionError("the search asks for steps that do nothing")

    def answer(self, purpose: int, instance: bytes = INSTANCES[0], **fields: object) -> None:
        """Lets a worker answer by datagram."""
        opened = APPLICATION.hear(self.sealed)
        hello = hello_of(APPLICATION.worker, purpose=purpose, instance=instance, **fields)
        message = seal_hello(opened.handshake(), APPLICATION.worker.identity, hello)
        data = encode_answer(APPLICATION.client.mac1_key, self.sealed.mac1, message, 1)
        self.announcer.coming.append((data, ("10.0.0.3", 3010)))

    def kinds(self) -> list[int]:
        """Returns the kinds of the datagrams that were sent."""
        parsed = [datagram.parse(data, [APPLICATION.client.mac1_key]) for data in self.announcer.sent]
        return [one.kind for one in parsed if one is not None]

    def close(self) -> None:
        self.search.close()
        for caller in self.callers:
            caller.close()


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    made.search.start(made.now)
    yield made
    made.close()


def proved(setting: Setting, instance: bytes, **options: object) -> Caller:
    """Lets a worker connect and prove itself."""
    caller = setting.call(instance, **options).prove()
    setting.step()
    assert setting.step() is None
    return caller


# announcing


def test_the_first_announcement_is_sent_at_once_and_repeated(setting: Setting) -> None:
    assert setting.kinds() == [datagram.ANNOUNCEMENT]
    parsed = datagram.parse(setting.announcer.sent[0], [APPLICATION.client.mac1_key])
    assert parsed is not None and parsed.reply_port == PORT
    due = setting.search.next_timeout(setting.now)
    assert START < due < START + 1
    setting.step(due - START - 0.01)
    assert len(setting.announcer.sent) == 1
    setting.step(0.01)
    assert setting.kinds() == [datagram.ANNOUNCEMENT] * 2


@pytest.mark.parametrize(("loopback", "network", "browses"), [(False, True, 1), (False, False, 0), (True, True, 0)])
def test_workers_are_looked_for_by_mdns_after_a_second_on_real_networks(
    loopback: bool, network: bool, browses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interfaces, "has_network", lambda: network)
    setting = Setting(loopback=loopback)
    setting.search.start(setting.now)
    setting.wait(0.99)
    assert setting.announcer.browses == 0
    setting.wait(5.0)
    assert setting.announcer.browses == browses
    setting.close()


def test_it_does_not_look_further_once_a_worker_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "has_network", lambda: True)
    setting = Setting(loopback=False)
    setting.search.start(setting.now)
    setting.answer(QUEUED)
    setting.step()
    setting.wait(5.0)
    assert setting.announcer.browses == 0
    setting.close()


def test_a_group_of_names_that_do_not_exist_is_given_up_at_once() -> None:
    setting = Setting()
    setting.announcer.reached, setting.announcer.hopeless = [], "nohost: no such name"
    with pytest.raises(NoWorkerError, match=r"no entry of the group .* can be used; nohost: no such name"):
        setting.search.start(setting.now)
    setting.close()


def test_where_nothing_can_be_sent_it_warns_once_after_a_second() -> None:
    setting = Setting()
    setting.announcer.reached, setting.announcer.failures = [], {"10.0.0.255": "network is unreachable"}
    setting.search.start(setting.now)
    assert setting.warned == []
    setting.wait(8.0)
    (warning,) = setting.warned
    assert "to nobody; 10.0.0.255: network is unreachable; " in warning
    setting.close()


# a worker gets the job


def test_the_first_worker_that_confirms_gets_the_job(setting: Setting) -> None:
    caller = proved(setting, INSTANCES[0])
    caller.confirm()
    winner = setting.step()
    assert winner is not None
    assert (winner.hello.instance, winner.address) == (INSTANCES[0], "10.0.0.3")
    assert caller.heard() == [frames.GO]
    assert setting.complaints == []


def test_a_confirmation_that_came_while_the_client_was_stopped_is_read_before_its_deadline_is_judged(
    setting: Setting,
) -> None:
    caller = proved(setting, INSTANCES[0])
    caller.confirm()
    caller.arrived()
    setting.now += CONNECT_DEADLINE + 1
    winner = setting.search.step(set(), setting.now)  # what was ready was asked before the stop
    assert winner is not None and winner.hello.instance == INSTANCES[0]


def test_the_others_are_cancelled_and_a_claim_is_sent(setting: Setting) -> None:
    slow, quick = proved(setting, INSTANCES[0]), proved(setting, INSTANCES[1])
    stranger = setting.call(INSTANCES[2])
    setting.step()
    quick.confirm()
    winner = setting.step()
    assert winner is not None and winner.hello.instance == INSTANCES[1]
    setting.search.tell_others()
    assert setting.kinds()[-1] == datagram.CLAIM
    parsed = datagram.parse(setting.announcer.sent[-1], [APPLICATION.client.mac1_key])
    assert parsed is not None
    claim = Claim.decode(parsed.inner)
    assert (claim.announced, claim.connected) == (setting.sealed.mac1, 2)
    assert claim.proves(setting.sealed.announcement.claim_hash)
    assert slow.accept_flight().heard() == [frames.CANCEL]
    setting.search.close()
    assert slow.hung_up and stranger.hung_up
    assert quick.heard() == [frames.GO]  # the winner's connection lives on
    winner.connection.close()


class Picky(OneJob):
    """A choice that does not want the first instance."""

    def wants(self, offer: Hello, now: float) -> bool:
        return offer.instance != INSTANCES[0]


def test_a_worker_that_the_choice_does_not_want_is_dropped_and_another_gets_the_job() -> None:
    setting = Setting(Picky(lambda offer: job()))
    setting.search.start(setting.now)
    unwanted = proved(setting, INSTANCES[0])
    assert unwanted.hung_up
    assert setting.complaints == []  # it has done nothing wrong
    proved(setting, INSTANCES[1]).confirm()
    winner = setting.step()
    assert winner is not None and winner.hello.instance == INSTANCES[1]
    setting.close()


def test_an_instance_that_was_not_asked_for_gets_no_job_whatever_it_claims_to_fit() -> None:
    setting = Setting(OneJob(lambda offer: job(), Requirements(wanted=[instance_name(INSTANCES[1])])))
    setting.search.start(setting.now)
    assert proved(setting, INSTANCES[0]).hung_up
    proved(setting, INSTANCES[1]).confirm()
    winner = setting.step()
    assert winner is not None and winner.hello.instance == INSTANCES[1]
    setting.close()


class Reluctant(OneJob):
    """A choice that has no job for the first worker that confirms."""

    def __init__(self, go: Go) -> None:
        super().__init__(lambda offer: go)
        self.asked: list[tuple[bytes, str]] = []

    def job_for(self, offer: Hello, address: str) -> Go:
        self.asked.append((offer.instance, address))
        if len(self.asked) == 1:
            raise CexecError("no job for this one")
        return super().job_for(offer, address)


def test_a_choice_without_a_job_for_this_worker_lets_the_search_go_on() -> None:
    choice = Reluctant(job())
    setting = Setting(choice)
    setting.search.start(setting.now)
    first = proved(setting, INSTANCES[0]).confirm()
    assert setting.step() is None
    assert first.hung_up
    proved(setting, INSTANCES[1]).confirm()
    winner = setting.step()
    assert winner is not None and winner.hello.instance == INSTANCES[1]
    assert choice.asked == [(INSTANCES[0], "10.0.0.3"), (INSTANCES[1], "10.0.0.3")]
    setting.close()


# connections of strangers


def test_a_stranger_is_dropped_at_its_deadline(setting: Setting) -> None:
    stranger = setting.call()
    setting.step()
    setting.wait(CONNECT_DEADLINE - 0.01)
    assert setting.complaints == []
    setting.wait(0.01)
    assert setting.complaints == [("10.0.0.3", "could not read signature")]
    assert stranger.hung_up


def test_garbage_is_dropped_at_once_and_does_not_hinder_a_worker(setting: Setting) -> None:
    stranger = setting.call().send(b"GET / HTTP/1.1\r\n\r\n")
    setting.step()
    setting.step()
    assert setting.complaints == [("10.0.0.3", "violated protocol")]
    assert stranger.hung_up
    proved(setting, INSTANCES[1]).confirm()
    assert setting.step() is not None


def test_a_worker_that_never_confirms_is_dropped_at_the_same_deadline(setting: Setting) -> None:
    caller = proved(setting, INSTANCES[0])
    setting.step(CONNECT_DEADLINE)
    assert setting.complaints == [("10.0.0.3", "did not confirm in time")]
    assert caller.hung_up


def test_so_many_connections_that_have_not_proved_themselves_are_accepted_and_no_more(setting: Setting) -> None:
    for number in range(MAXIMUM_UNAUTHENTICATED + 6):
        setting.call(number.to_bytes(16, "big"))
    for _ in range(10):
        setting.step()
    assert len(setting.listener.callers) == 6
    assert LISTENER not in setting.search.filenos(setting.now)
    setting.callers[0].prove()  # which makes room for one
    setting.step()
    assert len(setting.listener.callers) == 5
    assert LISTENER not in setting.search.filenos(setting.now)


def test_when_descriptors_have_run_out_it_tries_again_a_moment_later(setting: Setting) -> None:
    setting.listener.full = True
    setting.call()
    setting.step()
    assert LISTENER not in setting.search.filenos(setting.now)
    assert setting.search.next_timeout(setting.now) == setting.now + UNTRIED
    setting.listener.full = False
    setting.step(UNTRIED)
    assert setting.listener.callers == []


# answers, and giving up


def test_without_an_answer_it_gives_up_after_the_accept_timeout(setting: Setting) -> None:
    setting.wait(ACCEPT_TIMEOUT - 0.01)
    setting.announcer.failures = {"fe80::1": "no such device"}
    count = len(setting.announcer.sent)
    with pytest.raises(NoWorkerError) as raised:
        setting.step(0.01)
    assert str(raised.value) == (
        f"no worker of {APPLICATION.client.fingerprint} answered in 10 s; sent {count} announcements to 10.0.0.255; "
        "fe80::1: no such device; is cservice running with this key, in the same group (CEXEC_GROUP)?"
    )
    assert [text for text in setting.told if "has answered; sent " in text]


def test_a_worker_that_holds_free_slots_back_is_not_called_busy(setting: Setting) -> None:
    """Regression: a worker that rested after failures was said to have all slots busy."""
    setting.answer(QUEUED, slots=4, running=1)
    setting.step()
    assert setting.search.status(setting.now) == (
        "1 worker, 1 of 4 slots busy, none free for this job yet (cps tells how healthy they are); waiting"
    )


def test_a_limit_that_keeps_the_client_waiting_is_told(setting: Setting) -> None:
    setting.answer(QUEUED, slots=4, running=4, detail="this client has 3 jobs here (cservice --per-client jobs=N)")
    setting.step()
    assert setting.search.status(setting.now) == (
        "1 worker, all 4 slots busy; waiting; worker honest says: "
        "this client has 3 jobs here (cservice --per-client jobs=N)"
    )


def test_a_worker_that_is_busy_is_waited_for(setting: Setting) -> None:
    setting.wait(ACCEPT_TIMEOUT - 1.0)
    setting.told.clear()
    setting.answer(QUEUED, slots=4, running=4)
    setting.step()
    assert setting.search.status(setting.now) == "1 worker, all 4 slots busy; waiting"
    setting.wait(QUEUED_LIFETIME + ACCEPT_TIMEOUT - 0.1)
    proved(setting, INSTANCES[0]).confirm()
    assert setting.step() is not None


def test_a_worker_that_says_again_and_again_that_it_is_busy_keeps_no_other_from_the_job(setting: Setting) -> None:
    """As docs/security.md says: it keeps the client waiting, and nothing else."""
    for uptime in range(10):
        setting.answer(QUEUED, slots=1, running=1, uptime=uptime)
        setting.wait(QUEUED_INTERVAL)
        assert setting.step() is None
    assert setting.now > START + QUEUED_LIFETIME + ACCEPT_TIMEOUT
    proved(setting, INSTANCES[1]).confirm()
    winner = setting.step()
    assert winner is not None and winner.hello.instance == INSTANCES[1]


def test_a_replayed_answer_keeps_no_client_waiting(setting: Setting) -> None:
    setting.answer(QUEUED)
    (recorded,) = setting.announcer.coming
    setting.step()
    with pytest.raises(NoWorkerError):
        for _ in range(20):
            setting.announcer.coming.append(recorded)
            setting.wait(5.0)
            setting.step()
    assert setting.now <= START + QUEUED_LIFETIME + ACCEPT_TIMEOUT + 0.1


BUSY = 3.5 * ACCEPT_TIMEOUT  # seconds that a worker has which is there


@pytest.mark.parametrize("purpose", [PROVE, None])
def test_a_worker_that_is_there_has_more_time_if_the_client_is_patient(purpose: int | None) -> None:
    """One that has answered, or whose connection has come, but that has not confirmed."""
    setting = Setting(patience=BUSY)
    setting.search.start(setting.now)
    if purpose is None:
        proved(setting, INSTANCES[0])
    else:
        setting.answer(purpose, attributes={PROOF: "0f" * 16})
    setting.step()
    setting.wait(BUSY)
    with pytest.raises(NoWorkerError):
        setting.wait(2 * ACCEPT_TIMEOUT)
    setting.close()


def test_nobody_has_more_time_if_nobody_is_there() -> None:
    setting = Setting(patience=BUSY)
    setting.search.start(setting.now)
    with pytest.raises(NoWorkerError, match="answered in 10 s"):
        setting.wait(ACCEPT_TIMEOUT + 1.0)
    setting.close()


def test_a_worker_that_cannot_connect_has_no_more_time() -> None:
    setting = Setting(patience=BUSY)
    setting.search.start(setting.now)
    setting.answer(UNREACHABLE)
    setting.step()
    with pytest.raises(NoWorkerError, match="cannot connect"):
        setting.wait(ACCEPT_TIMEOUT + 1.0)
    setting.close()


def test_a_busy_worker_that_falls_silent_is_given_up_in_the_end(setting: Setting) -> None:
    setting.answer(QUEUED)
    setting.step()
    with pytest.raises(NoWorkerError):
        setting.wait(QUEUED_LIFETIME + ACCEPT_TIMEOUT + 0.1)


@pytest.mark.parametrize(
    ("purpose", "detail", "words"),
    [
        (REFUSED, "its clock says 1970", "worker honest refuses: its clock says 1970"),
        (UNREACHABLE, "10.0.0.9:41234: timed out", "worker honest heard you, but cannot connect to 10.0.0.9:41234"),
    ],
)
def test_a_worker_that_cannot_or_will_not_is_told_once_and_named_at_the_end(
    setting: Setting, purpose: int, detail: str, words: str
) -> None:
    for _ in range(2):
        setting.answer(purpose, detail=detail)
        setting.step()
    assert [text for text in setting.told if text.startswith(words)] == setting.told[:1]
    assert len(setting.told) == 1
    with pytest.raises(NoWorkerError, match="could take the job in 10 s; " + words.replace(".", r"\.")):
        setting.wait(ACCEPT_TIMEOUT + 1)


def test_answers_to_another_announcement_and_of_other_applications_are_ignored(setting: Setting) -> None:
    other = Setting()
    other.answer(QUEUED)
    setting.announcer.coming = [*other.announcer.coming, (b"", ("10.0.0.3", 1)), (b"x" * 500, ("10.0.0.3", 1))]
    setting.step()
    assert "has answered" in setting.search.status(setting.now)
    other.close()


def expired_key() -> WorkerKey:
    """Returns a worker's key whose certificate was valid for one second in 1970."""
    key = APPLICATION.worker
    seed = bytes(32)
    certificate = Certificate.issue(
        APPLICATION.owner.authority_seed, ROLE_WORKER, "old", 1, signing_public_key(seed), not_before=1, not_after=2
    )
    return WorkerKey(key.worker_secret, key.psk, key.authority_public, Identity(certificate, seed), False)


def test_a_worker_whose_certificate_is_not_valid_now_is_named(setting: Setting) -> None:
    caller = setting.call(key=expired_key()).prove()
    setting.step()
    setting.step()
    assert caller.hung_up
    assert len(setting.complaints) == 1
    with pytest.raises(NoWorkerError, match=r"job in 10 s; worker old was not taken: certificate of old expired on"):
        setting.wait(ACCEPT_TIMEOUT + 1)


def test_every_answer_reaches_the_race_and_the_owner_who_may_have_asked_something_else(setting: Setting) -> None:
    setting.answer(QUEUED)
    strange = APPLICATION.announce()
    message = seal_hello(
        APPLICATION.hear(strange).handshake(), APPLICATION.worker.identity, hello_of(APPLICATION.worker)
    )
    data = encode_answer(APPLICATION.client.mac1_key, strange.mac1, message, 1)
    setting.announcer.coming += [(data, ("10.0.0.4", 3010)), (setting.announcer.sent[0], ("10.0.0.5", 3010))]
    setting.step(1.0)
    assert [(parsed.kind, source[0], now) for parsed, source, now in setting.passed_on] == [
        (datagram.ANSWER, "10.0.0.3", START + 1.0),
        (datagram.ANSWER, "10.0.0.4", START + 1.0),
    ]
    assert "1 worker," in setting.search.status(setting.now)  # the first of them was for the race


# the end


def test_after_the_end_nobody_can_connect_or_answer(setting: Setting) -> None:
    caller = proved(setting, INSTANCES[0])
    setting.answer(QUEUED)
    setting.search.close()
    assert setting.listener.closed
    assert caller.hung_up
    assert setting.search.filenos(setting.now)[:-1] == []
    with pytest.raises(ValueError, match="erased"):
        setting.sealed.handshake()


# proofs, renewals, crowds


def proofs_sent(setting: Setting) -> list[tuple[bytes, list[bytes]]]:
    """The proofs that were returned, with the announcement that they are about."""
    parsed = [datagram.parse(data, [APPLICATION.client.mac1_key]) for data in setting.announcer.sent]
    return [decode_proofs(one.inner) for one in parsed if one is not None and one.kind == datagram.PROOF]


@pytest.mark.parametrize("purpose", [PROVE, QUEUED, UNREACHABLE])
def test_a_proof_that_a_worker_asks_for_is_returned_to_the_group_at_once(setting: Setting, purpose: int) -> None:
    setting.answer(purpose, attributes={PROOF: "0f" * 16})
    setting.step()
    assert proofs_sent(setting) == [(setting.sealed.mac1, [b"\x0f" * 16])]
    setting.wait(3.0)
    assert proofs_sent(setting) == [(setting.sealed.mac1, [b"\x0f" * 16])] * 3


def test_a_worker_that_believes_a_proof_is_not_sent_it_again(setting: Setting) -> None:
    setting.answer(QUEUED, attributes={PROOF: "0f" * 16})
    setting.step()
    setting.answer(QUEUED)
    setting.step()
    setting.wait(3.0)
    assert len(proofs_sent(setting)) == 1


@pytest.mark.parametrize("proof", ["", "0f" * 15, "0f" * 17, "no digits", "\N{SNOWMAN}"])
def test_what_is_no_proof_is_ignored(setting: Setting, proof: str) -> None:
    setting.answer(PROVE, attributes={PROOF: proof})
    setting.step()
    setting.wait(3.0)
    assert proofs_sent(setting) == []


def test_a_worker_that_asks_for_a_proof_keeps_no_client_waiting(setting: Setting) -> None:
    setting.wait(1.0)
    setting.answer(PROVE, attributes={PROOF: "0f" * 16})
    setting.step()
    with pytest.raises(NoWorkerError, match="answered in 10 s"):
        setting.wait(ACCEPT_TIMEOUT)
    assert setting.now <= START + ACCEPT_TIMEOUT + 0.1


def announced(setting: Setting) -> list[bytes]:
    """The different announcements that were sent, by mac1."""
    parsed = [datagram.parse(data, [APPLICATION.client.mac1_key]) for data in setting.announcer.sent]
    return list(dict.fromkeys(one.mac1 for one in parsed if one is not None and one.kind == datagram.ANNOUNCEMENT))


def test_a_client_that_knows_of_no_worker_announces_anew_and_still_takes_the_worker_of_the_first_one(
    setting: Setting,
) -> None:
    setting.wait(RENEW_AFTER - 0.5)
    assert len(announced(setting)) == 1
    setting.wait(4.0)
    assert len(announced(setting)) == 2
    proved(setting, INSTANCES[0]).confirm()  # which has heard the first one only
    assert setting.step() is not None
    setting.search.tell_others()
    claims = [one for one in setting.kinds() if one == datagram.CLAIM]
    assert len(claims) == 2


def test_a_client_that_is_queued_does_not_announce_anew(setting: Setting) -> None:
    setting.answer(QUEUED)
    setting.step()
    setting.wait(QUEUED_LIFETIME - 1.0)
    assert len(announced(setting)) == 1
    setting.wait(5.0)
    assert len(announced(setting)) == 2


def test_a_second_connection_of_a_worker_is_dropped(setting: Setting) -> None:
    """Rule 3 of docs/protocol.md section 3.3: else a recorded first flight could be sent again without end."""
    first = proved(setting, INSTANCES[0])
    second = setting.call(INSTANCES[0]).prove()
    setting.step()
    setting.step()
    assert second.hung_up
    first.confirm()
    winner = setting.step()
    assert winner is not None and winner.hello.instance == INSTANCES[0]


def test_a_worker_may_connect_again_after_its_connection_was_lost(setting: Setting) -> None:
    first = proved(setting, INSTANCES[0])
    first.close()
    setting.step()
    proved(setting, INSTANCES[0]).confirm()
    assert setting.step() is not None


def test_silent_connections_give_way_to_a_worker_and_the_message_tells_it(setting: Setting) -> None:
    for _ in range(MAXIMUM_UNAUTHENTICATED + 10):
        setting.call()
    for _ in range(10):
        setting.step()
    worker = setting.call(INSTANCES[1]).prove()
    setting.step(PATIENCE)
    for _ in range(3):
        setting.step()
    worker.accept_flight().confirm()
    assert any("without a word (most of them from 10.0.0.3) filled the listener" in text for text in setting.told)
    winner = setting.step()
    assert winner is not None and winner.hello.instance == INSTANCES[1]
