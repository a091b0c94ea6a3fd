"""The steps of one call of `cexec --explain`: one class for each, with its facts and its words.

Contract: a step is a value.  `when` is the time of the monotonic clock at which it happened.  `words(before)` returns
the lines that tell it; `before` holds the steps that came earlier, oldest first.  No input and no output.
Only `--explain` loads this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.protocol.datagrams.hello import PROVE, QUEUED, REFUSED, UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cexec.protocol.datagrams.hello import Hello


@dataclass(slots=True, frozen=True)
class Step:
    """Something that happened at the time `when`."""

    when: float

    def words(self, before: Sequence[Step]) -> list[str]:
        """Returns the lines that tell this step."""
        raise NotImplementedError


@dataclass(slots=True, frozen=True)
class AttemptBegun(Step):
    """An attempt begins.  `port`: the TCP port of our listener."""

    number: int
    port: int

    def words(self, before: Sequence[Step]) -> list[str]:
        return [f"attempt {self.number}, listening on TCP port {self.port}"]


@dataclass(slots=True, frozen=True)
class PassedOver(Step):
    """Descriptors of the caller do not go with the job.  `texts`: a number and a reason for each."""

    texts: Sequence[str]

    def words(self, before: Sequence[Step]) -> list[str]:
        return [f"descriptors that the program does not get: {', '.join(self.texts)}"]


@dataclass(slots=True, frozen=True)
class Announced(Step):
    """An announcement was sent.  `to`: labels of the destinations; `failures`: a reason for each other label."""

    number: int
    to: Sequence[str]
    failures: Mapping[str, str]

    def words(self, before: Sequence[Step]) -> list[str]:
        return [
            f"announcement {self.number} sent to {', '.join(self.to) or 'nobody'}",
            *(
                f"announcement {self.number} could not be sent to {label}: {reason}"
                for label, reason in self.failures.items()
            ),
        ]


@dataclass(slots=True, frozen=True)
class Browsing(Step):
    """No worker has answered for a while, and multicast DNS is asked."""

    def words(self, before: Sequence[Step]) -> list[str]:
        return ["nobody has answered yet: looking for workers by multicast DNS"]


@dataclass(slots=True, frozen=True)
class Connected(Step):
    """A connection was accepted; its peer has not proved itself."""

    address: str

    def words(self, before: Sequence[Step]) -> list[str]:
        return [f"connection from {self.address}"]


@dataclass(slots=True, frozen=True)
class Offered(Step):
    """A worker has proved itself on a connection."""

    hello: Hello
    address: str

    def words(self, before: Sequence[Step]) -> list[str]:
        return [f"{_worker(self.hello, self.address)} offers itself: {_state(self.hello)}"]


@dataclass(slots=True, frozen=True)
class Dropped(Step):
    """We have closed a connection.  `hello`: the worker's, if the peer had proved itself."""

    address: str
    reason: str
    hello: Hello | None

    def words(self, before: Sequence[Step]) -> list[str]:
        peer = f"connection from {self.address}" if self.hello is None else _worker(self.hello, self.address)
        return [f"{peer}: {self.reason or 'dropped'}"]


@dataclass(slots=True, frozen=True)
class Answered(Step):
    """A worker has answered by datagram."""

    hello: Hello
    address: str

    def words(self, before: Sequence[Step]) -> list[str]:
        worker = _worker(self.hello, self.address)
        if self.hello.purpose == QUEUED:
            what = "is busy" if self.hello.running >= self.hello.slots else "holds its free slots back"
            limit = f"; it says: {self.hello.detail}" if self.hello.detail else ""
            return [f"{worker} {what} and will offer itself later: {_state(self.hello)}{limit}"]
        if self.hello.purpose == UNREACHABLE:
            return [f"{worker} has heard, but cannot connect to {self.hello.detail}"]
        if self.hello.purpose == REFUSED:
            return [f"{worker} refuses: {self.hello.detail}"]
        if self.hello.purpose == PROVE:
            return [f"{worker} has no place for a client that it does not know, and asks for a proof of its address"]
        return []


@dataclass(slots=True, frozen=True)
class CensusTaken(Step):
    """A census is over, because no worker fits.  `found`: the workers that exist, and what each of them lacks."""

    found: str

    def words(self, before: Sequence[Step]) -> list[str]:
        return [f"who is there: {self.found}"]


@dataclass(slots=True, frozen=True)
class Won(Step):
    """A worker has got the job.  `told`: the number of other connections that were ended."""

    hello: Hello
    address: str
    told: int

    def words(self, before: Sequence[Step]) -> list[str]:
        offers = [step.hello for step in before if isinstance(step, Offered)]
        others = [hello for hello in offers if hello.instance != self.hello.instance]
        if others:
            names = ", ".join(f"{hello.name} (load {hello.load:.2f})" for hello in others)
            why = f"the first of {len(others) + 1} to confirm, before {names}"
        else:
            why = "the first to connect and confirm, and the only one so far"
        ended = f", and {self.told} other connection{'s' if self.told > 1 else ''} ended" if self.told else ""
        return [f"{_worker(self.hello, self.address)} gets the job: {why}; GO is sent{ended}"]


@dataclass(slots=True, frozen=True)
class Started(Step):
    """The worker has started the program."""

    def words(self, before: Sequence[Step]) -> list[str]:
        return ["the program has started"]


@dataclass(slots=True, frozen=True)
class Exited(Step):
    """The program has ended.  `sent` and `received`: bytes of all its inputs, and of all its outputs."""

    status: int
    sent: int
    received: int

    def words(self, before: Sequence[Step]) -> list[str]:
        amounts = f"{self.sent} bytes in, {self.received} bytes out"
        return [f"the program has ended with status {self.status}: {amounts}"]


@dataclass(slots=True, frozen=True)
class Failed(Step):
    """An attempt has failed."""

    reason: str

    def words(self, before: Sequence[Step]) -> list[str]:
        return [f"this attempt has failed: {self.reason}"]


def _worker(hello: Hello, address: str) -> str:
    return f"worker {hello.name} at {address}"


def _state(hello: Hello) -> str:
    return f"load {hello.load:.2f}, speed {hello.speed:.2f}, {hello.running} of {hello.slots} slots busy"
