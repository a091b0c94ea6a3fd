"""The workers of some applications, as `cps` shows them: once, or all the time.

Contract: `Roster.take()` asks once and fills `rows`.  `watch(changed, interval)` does the same, then follows HELLO and
BYE, and asks again for figures every `interval` seconds (0: never).  It calls `changed(row, gone)` for every row that
is new, different or gone, and `changed(None, False)` after it has reported everything that it knows at that moment.
Only an exception of `changed`, or KeyboardInterrupt, ends it.  A program with a loop of its own calls `open` in place
of `watch`, and then `step(now)` when a descriptor of `filenos` is readable or `next_timeout` has come.
docs/protocol.md sections 2.6 and 5.1.
"""

from __future__ import annotations

from time import monotonic

from cexec.client.search.inquiry import Inquiry
from cexec.errors import ProtocolError
from cexec.net.announcer import Announcer
from cexec.net.group_receiver import GroupReceiver
from cexec.net.group_sockets import REFRESH_INTERVAL, GroupSockets
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.presence import BYE, Followed, open_presence
from cexec.system.io.wakeup import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import TypeAlias

    from cexec.net.groups import GroupEntry
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.decisions.census import Answer

    Changed: TypeAlias = "Callable[[WorkerRow | None, bool], None]"

MAXIMUM_MISSED = 2  # censuses (ours) that a worker may miss before it counts as gone
NEVER = float("inf")


class WorkerRow:
    """One worker: the number of its application's key, and its latest answer."""

    __slots__ = ("answer", "key", "missed")

    def __init__(self, key: int, answer: Answer) -> None:
        self.key = key
        self.answer = answer
        self.missed = 0


class Roster:
    """All workers that have answered; `rows` has them by instance."""

    def __init__(self, keys: Sequence[ClientKey], entries: Sequence[GroupEntry] | None, port: int) -> None:
        self.rows: dict[bytes, WorkerRow] = {}
        self.sent_to: list[str] = []  # labels of the destinations that got the questions
        self.failures: dict[str, str] = {}  # the other destinations, with the reasons
        self.censuses = 0  # that are complete, after `open`
        self._keys = keys
        self._entries = entries
        self._port = port
        self._announcer = Announcer(entries, port)
        self._inquiry: Inquiry | None = None
        self._followed = Followed()
        self._greeted: set[bytes] = set()  # instances that have said HELLO since the last inquiry began
        self._changed: Changed = lambda row, gone: None
        self._alert: Callable[[Datagram], None] = lambda parsed: None
        self._groups: GroupSockets | None = None  # after `open`
        self._receiver: GroupReceiver | None = None
        self._interval = 0.0
        self._ask_at = self._refresh_at = NEVER

    def take(self) -> None:
        """Asks all workers, once."""
        self._announcer.settle()
        inquiry = Inquiry(self._keys, self._announcer)
        inquiry.run()
        self.sent_to = inquiry.sent_to
        self.failures = dict(self._announcer.failures)
        for number, census in enumerate(inquiry.censuses):
            for answer in census.answers.values():
                self.rows[answer.hello.instance] = WorkerRow(number, answer)

    def settle(self) -> None:
        """Waits for multicast DNS to find workers, where the group has it."""
        self._announcer.settle()

    def close(self) -> None:
        self._announcer.close()
        if self._groups is not None:
            self._groups.close()
            self._groups = None

    # watching

    def watch(self, changed: Changed, interval: float, also: Callable[[], Iterable[int]] = lambda: ()) -> None:
        """Reports changes, for ever.  What `also` returns are further descriptors whose news end a wait."""
        self.open(changed, interval)
        self._ask_at = monotonic() + interval if interval else NEVER
        self.take()
        for row in self.rows.values():
            changed(row, False)
        now = monotonic()
        while True:
            self._changed(None, False)
            self._advance(now)
            wait_readable([*self.filenos(), *also()], self.next_timeout() - monotonic())
            now = monotonic()
            self._hear(now)

    def open(self, changed: Changed, interval: float, alert: Callable[[Datagram], None] = lambda parsed: None) -> None:
        """Begins to follow the workers: the first question is due at once.  `alert` gets each alert as it comes."""
        self._changed = changed
        self._alert = alert
        self._interval = interval
        self._groups = GroupSockets(self._entries, self._port)
        now = self._ask_at = monotonic()
        self._receiver = GroupReceiver(self._groups, [key.mac1_key for key in self._keys], now)
        self._refresh_at = now + REFRESH_INTERVAL

    def filenos(self) -> list[int]:
        """Returns the descriptors to wait for after `open`."""
        assert self._groups is not None
        return [*self._groups.filenos(), *self._announcer.filenos()]

    def next_timeout(self) -> float:
        """Returns when to call `step` although nothing has come."""
        due = self._ask_at if self._inquiry is None else self._inquiry.next_timeout()
        return min(self._refresh_at, due)

    def step(self, now: float) -> None:
        """Takes what has come, and asks what is due."""
        self._hear(now)
        self._advance(now)

    def _hear(self, now: float) -> None:
        assert self._receiver is not None and self._groups is not None
        for parsed, _, _ in self._receiver.receive(now):
            if parsed.kind == datagram.PRESENCE:
                self._hear_presence(parsed.key, parsed.inner)
            elif parsed.kind == datagram.ALERT:
                self._alert(parsed)
        self._hear_answers(now)
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_INTERVAL
            self._groups.refresh()

    def _advance(self, now: float) -> None:
        if self._inquiry is None and now >= self._ask_at:
            self._ask(known=[])
            self._ask_at = now + self._interval if self._interval else NEVER
        if self._inquiry is None or not self._inquiry.advance(now):
            return
        if not self._inquiry.partial:
            self.censuses += 1
            self._count_missed(self._inquiry)
        self._inquiry = None
        if self._greeted:
            self._ask_greeters()

    def _ask(self, known: Collection[bytes]) -> None:
        self._greeted.clear()
        self._inquiry = Inquiry(self._keys, self._announcer, known=known, expected=max(1, len(self.rows) - len(known)))

    def _ask_greeters(self) -> None:
        """Asks the workers that have said HELLO: only an answer tells their names and figures."""
        self._ask(known=self.rows.keys() - self._greeted)

    def _hear_presence(self, key: int, inner: bytes) -> None:
        try:
            said = open_presence(self._keys[key], inner)
        except ProtocolError:
            return
        known = self.rows.get(said.instance)
        if known is not None and said.certificate.public_key != known.answer.hello.certificate.public_key:
            return  # another worker speaks in its name
        if not self._followed.news(said):
            return
        if said.purpose == BYE:
            self._remove(said.instance)
            return
        if known is not None and said.clock <= known.answer.hello.clock:
            return  # an old HELLO: by the worker's own clock, its answer is newer
        self._greeted.add(said.instance)
        if self._inquiry is None:
            self._ask_greeters()

    def _hear_answers(self, now: float) -> None:
        for data, source in self._announcer.receive():
            parsed = datagram.parse(data, [key.mac1_key for key in self._keys])
            if parsed is None or self._inquiry is None:
                continue
            answer = self._inquiry.receive(parsed, source, now)
            if answer is None or self._followed.gone(answer.hello.instance):
                continue
            self.rows[answer.hello.instance] = WorkerRow(parsed.key, answer)
            self._changed(self.rows[answer.hello.instance], False)

    def _count_missed(self, inquiry: Inquiry) -> None:
        """Removes workers that no longer answer: one that was killed has not said BYE."""
        heard = {instance for census in inquiry.censuses for instance in census.answers}
        for instance in self.rows.keys() - heard:
            self.rows[instance].missed += 1
            if self.rows[instance].missed >= MAXIMUM_MISSED:
                self._remove(instance)

    def _remove(self, instance: bytes) -> None:
        row = self.rows.pop(instance, None)
        if row is not None:
            self._changed(row, True)
