"""The client's announcing phase: sockets joined to a `Race`, until one worker has confirmed.

Contract: a `Search` is driven in steps, and told the time.  `start(now)` announces; then its owner waits until one of
`filenos(now)` is readable or `next_timeout(now)` has come, and calls `step(ready, now)`.  That returns the `Winner`
once a worker has confirmed and has got the job, and raises `NoWorkerError` when the search gives up.  `tell_others()`
releases the workers that were not chosen; `close()` closes the listener and erases the reply key.  `find_blocking` does
all of that for an owner that may wait.  A `Choice` decides which worker gets which job; `Notices` carry messages to a
person, to the ancestor's programs and to `--explain`.  A connection costs one socket and one deadline until its worker
has proved itself, and no connection can block another.
docs/protocol.md section 3.
"""

from __future__ import annotations

import select
from time import monotonic, time

from cexec.common_errors import CexecError, DisconnectedError, NoWorkerError
from cexec.net.announcer import clocks
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.hello import decode_answer, open_hello
from cexec.protocol.decisions.race import GAVE_UP, RENEW, SILENT, TRANSMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.search.choice import Choice, Notices
    from cexec.client.search.inquiry import Inquiry
    from cexec.client.search.messages import Facts
    from cexec.client.search.proofs import Proofs
    from cexec.client.search.reception import Candidate, Reception, Winner
    from cexec.client.search.renewal import Earlier
    from cexec.client.search.trust import Trust
    from cexec.net.announcer import Announcer
    from cexec.net.groups import Sockaddr
    from cexec.net.sockets import TcpListener
    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.connection.channel import ClientHandshake
    from cexec.protocol.datagrams.announcement import SealedAnnouncement
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.decisions.race import Race

WARN_AFTER = 1.0  # seconds (ours) without any destination, after which even a script gets a warning
ASK_AGAIN = 1.5  # seconds (ours) for which the answers to an inquiry, or that there were none, are true
BROWSE_AFTER = 1.0  # seconds (ours) without an answer after which workers are looked for by multicast DNS
NEVER = float("inf")


class Search:
    """One attempt's announcing phase."""

    def __init__(
        self,
        key: ClientKey,
        sealed: SealedAnnouncement,
        announcer: Announcer,
        listener: TcpListener,
        choice: Choice,
        race: Race,
        *,
        idle_timeout: float,
        notices: Notices,
        open_trust: Callable[[], Trust] | None = None,
        patience: float = 0.0,
        pass_on: Callable[[Datagram, Sockaddr, float], object] | None = None,
    ) -> None:
        """`race` decides when to announce and when to give up; `idle_timeout` is that of the winner's session.

        `patience`: seconds that a worker has which is there and fits, although it has not answered yet: it is busy.
        `open_trust` is called once the announcement is under way; without it every certified worker is trusted.
        `pass_on` gets every answer that comes, with its source and the time, for an owner that asks something, too.
        """
        self._key = key
        self._sealed = sealed
        self._earlier: Earlier | None = None  # those that this one has replaced
        self._proofs: Proofs | None = None  # from the first worker on that has asked for one
        self._announcer = announcer
        self._listener = listener
        self._choice = choice
        self._race = race
        self._patience_ends = race.started + patience
        self._idle_timeout = idle_timeout
        self._notices = notices
        self._open_trust = open_trust
        self._pass_on = pass_on
        self._trust: Trust | None = None
        self._trace = notices.trace
        self._warned = False
        self._ciphers = sodium.aead_names()
        self._reception: Reception | None = None  # from the first announcement on
        self._sent_to: list[str] = []
        self._inquiry: Inquiry | None = None  # asks what the workers lack, while no worker takes the job
        self._lacking = ""
        self._fits = False  # a worker has said so in an inquiry
        self._asked = -NEVER  # when the last inquiry was over
        self._invalid: dict[str, str] = {}  # names of workers whose certificate is not valid now, with the reasons
        self._browse_at = NEVER if announcer.loopback else race.started + BROWSE_AFTER

    # steps

    def find_blocking(self) -> Winner:
        """Announces until a worker has confirmed, and gives it its job."""
        try:
            self.start(monotonic())
            while True:
                winner = self.step(self._wait(), monotonic())
                if winner is not None:
                    self.tell_others()
                    return winner
        finally:
            self.close()

    def start(self, now: float) -> None:
        """Sends the first announcement; then raises `NoWorkerError` if no worker can be trusted."""
        self._follow_race(now)
        from cexec.client.search.reception import Reception  # loaded while the workers think about the announcement

        self._reception = Reception(self._listener, self._make_handshake)
        if self._open_trust is not None:
            self._trust = self._open_trust()
            self._trust.check_list()

    def filenos(self, now: float) -> list[int]:
        """Returns the descriptors to wait for: connections are accepted only while there is room for them."""
        return [*self._announcer.filenos(), *self._connections.filenos(now)]

    def next_timeout(self, now: float) -> float:
        """Returns when `step` is due although nothing has come."""
        timeouts = [self._race.next_timeout(), self._browse_at, self._connections.next_timeout(now)]
        if self._inquiry is not None:
            timeouts.append(self._inquiry.next_timeout())
        if self._proofs is not None:
            timeouts.append(self._proofs.due)
        return min(timeouts)

    def step(self, ready: set[int], now: float) -> Winner | None:
        """Goes on with all that is ready or due, up to the first worker that has got its job.

        Everything is read after `now`, before it is judged by that time: this process may have been stopped.
        """
        candidates = self._connections.candidates
        for fd in [fd for fd, candidate in candidates.items() if fd in ready or now >= candidate.deadline]:
            winner = self._advance(candidates[fd], now)
            if winner is not None:
                return winner
        self._make_room(ready, now)
        for candidate in self._connections.accept(now):
            if self._trace is not None:
                self._trace.connected(candidate.address[0])
            self._advance(candidate, now)  # a worker's first flight comes with its connection
        self._hear_datagrams(now)
        self._handle_timeouts(now)
        self._follow_race(now)
        return None

    def tell_others(self) -> None:
        """Tells the workers that were not chosen, by a claim and on their connections."""
        for sealed in (self._sealed, *(self._earlier or ())):
            self._announcer.send(sealed.claim(self._race.connected, MAXIMUM_HOPS))
        for other in self._connections.candidates.values():
            if other.session is not None:
                other.session.cancel()
                try:
                    other.flush()
                except DisconnectedError:
                    pass

    def close(self) -> None:
        """Ends the search: no worker can connect or answer any more."""
        self._listener.close()
        self._sealed.erase()
        if self._earlier is not None:
            self._earlier.erase()
        if self._reception is not None:
            self._reception.close()

    # waiting

    def _wait(self) -> set[int]:
        from cexec.system.io.wakeup import poll_timeout  # loaded while the workers think about the announcement

        poll = select.poll()
        now = monotonic()
        for fd in self.filenos(now):
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll(poll_timeout(self.next_timeout(now) - now))}

    @property
    def _connections(self) -> Reception:
        assert self._reception is not None  # `start` was called
        return self._reception

    def _handle_timeouts(self, now: float) -> None:
        for candidate in list(self._connections.candidates.values()):
            try:
                candidate.handle_timeout(now)
            except DisconnectedError as error:
                self._drop(candidate, str(error), str(error))
        self._race.handle_timeout(now)
        if now >= self._browse_at:
            self._browse_at = NEVER
            from cexec.net.interfaces import has_network

            if not (self._race.connected or self._race.answers) and has_network():
                self._announcer.browse()
                if self._trace is not None:
                    self._trace.browsing()
        if self._inquiry is not None and self._inquiry.advance(now):
            self._end_inquiry()
            self._notices.tell(self.status(now))

    def _follow_race(self, now: float) -> None:
        if not self._race.transmissions:
            self._race.handle_timeout(now)
        while (event := self._race.next_event()) is not None:
            if event == RENEW:
                self._renew()
            elif event == TRANSMIT:
                data = self._sealed.datagram(self._race.transmissions - 1, self._listener.port, MAXIMUM_HOPS)
                self._sent_to = self._announcer.send(data) or self._sent_to
                if self._trace is not None:
                    self._trace.announced(self._race.transmissions, self._sent_to, self._announcer.failures)
                if not self._sent_to:
                    self._follow_failures(now)
                if self._proofs is not None:
                    self._proofs.again(now)
                if self._race.transmissions > 1:
                    self._be_ready()
            elif event == SILENT:
                if self._picky and not self._race.queued():
                    self._inquire()
                else:
                    self._notices.tell(self.status(now))
            elif event == GAVE_UP and not self._goes_on(now):
                raise self._failure()

    def _be_ready(self) -> None:
        """No worker was quick: loads what is needed later, because somebody may replace the package while we wait."""
        from cexec import errors  # noqa: F401
        from cexec.client.search import failure_alert, messages, proofs, renewal  # noqa: F401
        from cexec.protocol.connection import session  # noqa: F401
        from cexec.protocol.datagrams import proof  # noqa: F401

        if self._picky:
            from cexec.client.search import inquiry  # noqa: F401
        self._notices.slow()

    def _goes_on(self, now: float) -> bool:
        """Asks what the workers lack.  Returns True if one is there and fits: its machine is busy, so it has more time.

        A worker that has answered the announcement fits; that it has said nothing of a place does not matter here.
        """
        patient = now < self._patience_ends and not self._race.complaints()
        if patient and (self._race.answers or self._race.connected):
            self._race.wait_on(now)
            return True
        if self._picky and not self._lacking and now >= self._asked + ASK_AGAIN:
            self._inquire().run()
            self._end_inquiry()
        if not patient or not self._fits:
            return False
        self._fits, self._lacking = False, ""  # both may have changed when they are asked for again
        self._race.wait_on(now)
        return True

    def _renew(self) -> None:
        """Announces under another name: perhaps a worker's only answer was lost, or a relay does not pass proofs on."""
        if self._earlier is None:
            from cexec.client.search.renewal import Earlier

            self._earlier = Earlier()
        self._earlier.replaced(self._sealed)
        self._proofs = None  # they are about that one
        self._sealed = self._sealed.anew(self._key, clocks())

    def _follow_failures(self, now: float) -> None:
        """Warns that no destination was reached.  Gives up only if no interface or name server could change that."""
        hopeless = self._announcer.hopeless
        if hopeless:
            raise NoWorkerError(
                f"no worker of {self._key.fingerprint} can be found: no entry of the group (CEXEC_GROUP) can be used; "
                f"{hopeless}"
            )
        if self._announcer.failures and not self._warned and now >= self._race.started + WARN_AFTER:
            self._warned = True
            self._notices.warn(self.status(now))

    # the explanation when no worker fits

    @property
    def _picky(self) -> bool:
        return bool(self._choice.requirements)

    def _inquire(self) -> Inquiry:
        """Begins a census: workers that do not fit have not answered the announcement."""
        from cexec.client.search.inquiry import Inquiry

        if self._inquiry is None:
            self._inquiry = Inquiry([self._key], self._announcer)
        return self._inquiry

    def _end_inquiry(self) -> None:
        assert self._inquiry is not None
        requirements = self._choice.requirements
        self._lacking = self._inquiry.explain(requirements) if requirements is not None else ""
        self._fits = requirements is not None and self._inquiry.finds(requirements)
        self._inquiry = None
        self._asked = monotonic()
        if self._lacking and self._trace is not None:
            self._trace.census_taken(self._lacking)

    # connections

    def _make_handshake(self, now: float) -> ClientHandshake:
        from cexec.protocol.connection.channel import ClientHandshake as Shaking

        handshake = self._sealed.handshake() if self._earlier is None else self._earlier.handshake(self._sealed)
        return Shaking(handshake, self._key.authority_public, self._ciphers, now)

    def _make_room(self, ready: set[int], now: float) -> None:
        """Lets silent connections give way to those that wait, and tells the person so."""
        first = not self._connections.crowd
        for candidate in self._connections.giving_way(ready, now):
            self._advance(candidate, now)  # its bytes may have come while this process was kept from reading them
            if candidate.hello is None and candidate.connection.fileno() in self._connections.candidates:
                self._drop(candidate, self._connections.gave_way(candidate))
        if first and self._connections.crowd:
            self._notices.tell(self.status(now))

    def _advance(self, candidate: Candidate, now: float) -> Winner | None:
        proved = candidate.hello is not None
        try:
            confirmed = candidate.advance(now, self._idle_timeout)
            if candidate.hello is not None and not proved:
                self._check(candidate.hello.certificate)
                if self._connections.has_another(candidate):
                    self._drop(candidate, "this worker has a connection already")
                    return None
                self._announcer.answered(candidate.address[0])
                self._race.offered(candidate.hello)
                if self._proofs is not None:
                    self._proofs.settled(candidate.hello.instance)
                if self._trace is not None:
                    self._trace.offered(candidate.hello, candidate.address[0])
                if not (self._choice.admits(candidate.hello) and self._choice.wants(candidate.hello, now)):
                    self._drop(candidate, "")
            if not confirmed or candidate.session is None or candidate.hello is None:
                return None
            candidate.session.go(self._choice.job_for(candidate.hello, candidate.address[0]))
            candidate.flush()
        except CexecError as error:
            from cexec.client.search.messages import ancestors_words  # most workers that connect are taken
            from cexec.errors import CertificateError

            if isinstance(error, CertificateError) and candidate.hello is not None:
                self._invalid[candidate.hello.name] = str(error)
            self._drop(candidate, str(error), ancestors_words(error))
            return None
        del self._connections.candidates[candidate.connection.fileno()]
        from cexec.client.search.reception import Winner

        if self._trace is not None:
            self._trace.won(candidate.hello, candidate.address[0], told=len(self._connections.candidates))
        return Winner(candidate, None if self._trust is None else self._trust.watch(candidate.hello.certificate))

    def _check(self, certificate: Certificate) -> None:
        """Raises `CertificateError` unless the worker may be given a job now."""
        certificate.check_dates(time())
        if self._trust is not None:
            self._trust.check(certificate)

    def _drop(self, candidate: Candidate, reason: str, words: str = "") -> None:
        """Closes a connection.  An unproved peer may be a stranger, so its fault is not shown at the terminal."""
        self._connections.drop(candidate)
        if self._trace is not None:
            self._trace.dropped(candidate.address[0], reason, candidate.hello)
        if words:
            self._notices.complain(candidate.address[0], words)

    # datagrams

    def _hear_datagrams(self, now: float) -> None:
        for data, source in self._announcer.receive():
            parsed = datagram.parse(data, (self._key.mac1_key,))
            if parsed is None or parsed.kind != datagram.ANSWER:
                continue
            if self._inquiry is not None:
                self._inquiry.receive(parsed, source, now)
            if self._pass_on is not None:
                self._pass_on(parsed, source, now)
            self._hear_answer(parsed, source, now)
        if self._proofs is not None and now >= self._proofs.due:
            from cexec.protocol.datagrams.proof import encode_proofs

            proofs = self._proofs.take(now)
            self._announcer.send_parting(encode_proofs(self._key.mac1_key, self._sealed.mac1, proofs, MAXIMUM_HOPS))

    def _hear_answer(self, parsed: Datagram, source: Sockaddr, now: float) -> None:
        try:
            announced, message = decode_answer(parsed.inner)
            sealed = self._sealed if announced == self._sealed.mac1 else self._earlier and self._earlier.of(announced)
            if not sealed or self._race.heard_before(parsed.mac1) or not self._race.listens(now):
                return
            answer = open_hello(sealed.handshake(), message, self._key.authority_public)
            self._check(answer.certificate)
        except CexecError:
            return
        self._announcer.answered(source[0])
        if sealed is self._sealed:
            self._note_proof(answer, now)
        first = answer.instance not in self._race.answers
        self._race.answered(answer, now)
        if self._trace is not None:
            self._trace.answered(answer, source[0])
        if first and answer in self._race.complaints():
            from cexec.client.search.messages import complaint

            self._notices.tell(complaint(answer))

    def _note_proof(self, answer: Hello, now: float) -> None:
        """Returns what a worker has sent to find out if we receive here."""
        if answer.proof:
            if self._proofs is None:
                from cexec.client.search.proofs import Proofs

                self._proofs = Proofs()
            self._proofs.asked(answer.instance, answer.proof, now)
        elif self._proofs is not None:
            self._proofs.settled(answer.instance)

    # words

    def status(self, now: float) -> str:
        """Returns the message for a person who waits."""
        chosen = self._choice.status()
        if chosen is not None:
            return chosen
        from cexec.client.search.messages import status  # here and below, because most searches need no words

        return status(self._facts(), now)

    def _failure(self) -> NoWorkerError:
        from cexec.client.search.messages import failure

        return failure(self._facts(), self._invalid)

    def _facts(self) -> Facts:
        from cexec.client.search.messages import Facts

        crowd = "" if self._reception is None else self._reception.crowd
        return Facts(self._key.fingerprint, self._race, self._sent_to, self._announcer.failures, self._lacking, crowd)
