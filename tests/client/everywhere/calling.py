"""A roll call among simulated workers, on a clock that only the test moves.

Contract: `Calling(workers)` makes the call and its announcer.  `until(seconds)` plays that long, or until `stop()` is
true: rounds go out, answers come back, and `call.advance` is called after all that has come was heard.  `hear` may be
replaced by what else is to hear the answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from cexec.client.everywhere.roll_call import RollCall
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.requirements import Requirements
from tests.protocol.census_workers import KEYS, FakeWorker
from tests.protocol.wires import APPLICATION

START = 100.0  # seconds


class FakeAnnouncer:
    """The part of an `Announcer` that a roll call uses."""

    def __init__(self, *, loopback: bool) -> None:
        self.loopback = loopback
        self.failures: dict[str, str] = {}
        self.sent: list[bytes] = []
        self.browses = 0

    def send(self, data: bytes) -> list[str]:
        self.sent.append(data)
        return ["10.0.0.255"]

    def filenos(self) -> list[int]:
        return []

    def receive(self) -> list[tuple[bytes, tuple[str, int]]]:
        return []

    def browse(self) -> None:
        self.browses += 1

    def answered(self, host: str) -> None:
        pass


class Calling:
    """One roll call.  `coming`: answers on their way, with the time of arrival and the worker's address."""

    def __init__(
        self,
        workers: Iterable[FakeWorker],
        *,
        expected: int = 0,
        wanted: Iterable[str] = (),
        loopback: bool = True,
        lost: Callable[[int, FakeWorker], bool] = lambda round, worker: False,
    ) -> None:
        """`lost`: the answers that get lost, by the number of the round, from 1, and the worker."""
        self.now = START
        self.workers = list(workers)
        self.announcer = FakeAnnouncer(loopback=loopback)
        requirements = Requirements({}, list(wanted), []) if wanted else None
        self.call = RollCall(APPLICATION.client, self.announcer, requirements, expected, START)  # type: ignore[arg-type]
        self.hear: Callable[..., object] = self.call.hear
        self.advance: Callable[[float], None] = self.call.advance
        self.coming: list[tuple[float, bytes, str]] = []
        self.turns = 0
        self._lost = lost
        self._asked = 0
        self._dice = random.Random(1)

    @property
    def roll(self) -> list[str]:
        """The addresses of the workers that have answered, in this order."""
        return [answer.address for answer in self.call.answers.values()]

    def until(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Plays until so many seconds have passed since the start, or `stop()` is true after a turn."""
        while True:
            self.turn()
            due = min([self.call.next_timeout(), *(when for when, _, _ in self.coming)])
            if stop() or due > START + seconds:
                return
            self.now = max(self.now, due)

    def turn(self) -> None:
        """Hears what has come by now, then does what is due."""
        self.turns += 1
        assert self.turns < 10_000, "it asks for turns that do nothing"
        for one in sorted(self.coming):
            if one[0] <= self.now:
                self.coming.remove(one)
                parsed = datagram.parse(one[1], KEYS)
                assert parsed is not None
                self.hear(parsed, (one[2], 3010), self.now)
        self.advance(self.now)
        for data in self.announcer.sent[self._asked :]:
            self._asked += 1
            for worker in self.workers:
                answered = worker.answer(data, self._dice)
                if answered is not None and not self._lost(self._asked, worker):
                    self.coming.append((self.now + answered[0], answered[1], worker.address))
