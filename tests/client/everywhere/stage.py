"""The loop of `cexec --all` among fakes: a search and a roll call of the test, and runs that end at once.

Contract: `Stage(monkeypatch, make, call)` puts the search that `make` returns, and `call`, in the place of the real
ones; `request()` is a job for `EverywhereClient`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cexec.client.everywhere import everywhere
from cexec.client.everywhere.kept_output import KeptSink
from cexec.client.everywhere.shared_input import SharedInput
from cexec.client.request import (
    Invocation,
    JobStreams,
    NetworkSettings,
    Repetition,
    Reports,
    Request,
    Target,
    Times,
)
from cexec.client.search.choice import Notices
from cexec.net.groups import groups_from_environment
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.connection.frames import EXITED, Exit
from cexec.protocol.decisions.census import Answer


class FakeSearch:
    """A search that steps as it is told: `winners` come one a step, and `told` is what was asked of it."""

    def __init__(self, notices: Notices) -> None:
        self.winners: list[SimpleNamespace] = []
        self.told: list[str] = []
        self.notices = notices

    def start(self, now: float) -> None:
        self.told.append("start")

    def filenos(self, now: float) -> list[int]:
        return []

    def next_timeout(self, now: float) -> float:
        return now + 10.0

    def step(self, ready: set[int], now: float) -> SimpleNamespace | None:
        self.told.append("step")
        return self.winners.pop(0) if self.winners else None

    def tell_others(self) -> None:
        self.told.append("tell others")

    def close(self) -> None:
        self.told.append("close")


class FakeCall:
    """A roll call whose demands are met at once; the roll is closed by the last of so many turns.

    `told` is called with what is asked of it.
    """

    def __init__(self, turns: int = 1, told: Callable[[str], object] = lambda what: None) -> None:
        self.answers: dict[bytes, Answer] = {}
        self.closed = False
        self._turns = turns
        self._told = told
        self._due = 0.0

    def wait(self) -> None:
        self._told("wait")

    def begin(self, now: float) -> None:
        pass

    def next_timeout(self) -> float:
        return math.inf if self.closed else self._due

    def advance(self, now: float) -> None:
        self._told("roll")
        if now >= self._due:
            self._due = now + 0.02
            self._turns -= 1
            self.closed = self._turns == 0


class FakeRun:
    """A run that has ended when it is stepped for the first time."""

    def __init__(self, winner: SimpleNamespace, name: str, *_: object) -> None:
        self.winner = winner
        self.name = name
        self.over = self.eager = False
        self.begun = True
        self.outputs: dict[int, KeptSink] = {}
        self.exit = Exit(kind=EXITED, status=0, endings=[])
        self.failure = None

    def step(self) -> None:
        self.over = True

    def next_timeout(self) -> float:
        return math.inf

    def wanted(self) -> dict[int, int]:
        return {}

    def short_of(self) -> list[SharedInput]:
        return []


def request() -> Request:
    """A job without descriptors."""
    return Request(
        OwnerKey(bytes(32)).client_key(),
        network=NetworkSettings(groups=groups_from_environment({"CEXEC_GROUP": "127.255.255.255"}), udp_port=3010),
        times=Times(accept=1.0, idle=600.0),
        target=Target(),
        streams=JobStreams([]),
        invocation=Invocation(),
        repetition=Repetition(),
        reports=Reports(),
    )


class Stage:
    """Puts a search and a roll call of the test in the place of the real ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, make: Callable[[Notices], FakeSearch], call: FakeCall) -> None:
        self.searches: list[FakeSearch] = []
        self._make = make
        monkeypatch.setattr(everywhere, "Search", self._search)
        monkeypatch.setattr(everywhere, "RollCall", lambda *_: call)
        monkeypatch.setattr(everywhere, "WorkerRun", FakeRun)

    def _search(self, *_: object, notices: Notices, **__: object) -> FakeSearch:
        self.searches.append(self._make(notices))
        return self.searches[-1]
