"""Mutants that survive and do no harm, each with the reason.

Contract: the key is `str(mutant)`, the value says why no test can, or need, see it.  An entry whose mutant does not
exist any more makes a test fail.
"""

from __future__ import annotations

BASE = "cexec.protocol.base"
CONNECTION = "cexec.protocol.connection"
DECISIONS = "cexec.protocol.decisions"

_OURS = "a number that is ours to choose; the tests take it from the code"
_TYPE = "the name of a type: only mypy, and the modules that import it, can see that it is gone"
_SAME = "it means the same"

EXPLAINED: dict[str, str] = {
    f"{DECISIONS}.boots: (-1, 0.0) -> (-1,) in: return entry.newness > max("
    "(one.newness for other, one in self.items() if other != boot), default=(-1, 0.0))": (
        f"{_SAME}: no clock is below 0, so the second number is never compared"
    ),
    f"{DECISIONS}.census_turns: 1.0 -> 2.0 in: LONGEST_ASKED = 1.0  # seconds (ours) after which the client of a "
    "census has asked again, or has given up": _OURS,
    f"{DECISIONS}.bid: announcement.began = -1.0 -> pass in: announcement.began = -1.0 (2)": (
        f"{_SAME}: a job that runs has no turn to lose, and its announcement is never used again"
    ),
    f"{DECISIONS}.bid: 0.0 -> 1.0 in: def reserved("
    "self, identity: bytes, now: float, *, latency: float = 0.0) -> bool:": (
        "the worker always says how long the client took; only tests do not"
    ),
    f"{DECISIONS}.queue_words: announcement.newness > boots[newest].newness -> "
    "announcement.newness >= boots[newest].newness in: "
    "if due and announcement.newness > boots[newest].newness:": (
        "of two that were made and came in one moment either may have the word"
    ),
    f"{DECISIONS}.unproved: 0 -> 1 in: return bool(self._spent.get(identity, 0) & _TOLD)": (
        f"{_SAME}: 1 says that it was tried, and only the other bit is looked at"
    ),
    f"{DECISIONS}.bid: True -> False in: "
    "announcement = RememberedAnnouncement(identity, weight, now, inf, targeted=True, origin=origin)": (
        f"{_SAME}: nobody claims the next job of a lease, and what is targeted matters to claims only"
    ),
    f"{DECISIONS}.wanted_slots: if not left: -> if False: in: if not left:": (
        f"{_SAME}: where no job is left, nobody is told; only the loop is longer"
    ),
    f"{DECISIONS}.remembered: (-inf, 0) -> (0,) in: if self._done.get(identity, (-inf, 0))[0] <= now:": (
        f"{_SAME}: no clock is below 0"
    ),
    f"{DECISIONS}.remembered: 0 -> 1 in: until, connected = self._done.get(identity, (-inf, 0))": (
        f"{_SAME}: of what is not done only the time is looked at"
    ),
    f"{DECISIONS}.remembered: b'' -> b'!' in: "
    'def __init__(self, client: bytes = b"", job: bytes = b"", family: bytes = b"") -> None:': (
        f"{_SAME}: all clients that nobody names are one, whatever it is called"
    ),
    f"{DECISIONS}.remembered: self._sequence += 1 -> pass in: self._sequence += 1": (
        f"{_SAME}: two timers of one moment are ordered by identities then"
    ),
    f"{DECISIONS}.remembered: 1 -> 2 in: self._sequence += 1": f"{_SAME}: the numbers only have to grow",
    f"{DECISIONS}.remembered: 1.0 -> 2.0 in: self.began = -1.0  # when its turn began, -1 if it has none": (
        f"{_SAME}: it is only compared with zero"
    ),
    f"{DECISIONS}.bid: self._now = now -> pass in: self._now = now (4)": (
        f"{_SAME}: what a claim changes goes through a call that sets it, too"
    ),
    f"{DECISIONS}.bid: if standing == Standing.PROVED: -> if False: in: if standing == Standing.PROVED:": (
        f"{_SAME}: it bids again at once, as one that is proved, and its words are forgiven when it connects"
    ),
    f"{DECISIONS}.bid: -1.0 -> 1.0 in: announcement.began = -1.0 (2)": (
        f"{_SAME}: nobody asks for the turn of a job that has started"
    ),
    f"{DECISIONS}.bid: announcement.began = -1.0 -> pass in: announcement.began = -1.0": (
        f"{_SAME}: it waits again, and its next turn begins with the next connection"
    ),
    f"{DECISIONS}.bid: announcement.began = -1.0 -> pass in: announcement.began = -1.0 (3)": (
        f"{_SAME}: its next turn begins before anybody asks for that again"
    ),
    f"{DECISIONS}.clients: 10000 -> 10001 in: MAXIMUM_ACCOUNTS = 10_000  # clients (ours) whose wasted time is "
    "remembered": _OURS,
    f"{DECISIONS}.clients: wasted > 0.0 -> wasted >= 0.0 in: if wasted > 0.0:": (
        f"{_SAME}: nothing is added, and what is forgotten until then would be forgotten later"
    ),
    f"{DECISIONS}.unproved: 100.0 -> 101.0 in: WORDS_RATE, WORDS_BURST = 50.0, 100.0  # datagrams a second to one "
    "unproved source (ours), and at once": _OURS,
    f"{DECISIONS}.unproved: 0 -> 1 in: return self._spent.get(identity, 0) == _TRIED | _TOLD": (
        f"{_SAME}: something is left both to whoever has had nothing and to whoever has had a connection"
    ),
    f"{DECISIONS}.unproved: 10.0 -> 11.0 in: SPARE_WORDS_RATE, SPARE_WORDS_BURST = 10.0, 20.0  # likewise": _OURS,
    f"{DECISIONS}.bid: -inf -> inf in: self._now = -inf": (
        f"{_SAME}: nothing waits before the first call, and each call sets the time"
    ),
    f"{DECISIONS}.bid: 1.0 -> 2.0 in: announcement.began = self._now if state == CONNECTING else -1.0": (
        f"{_SAME}: only its sign is asked for"
    ),
    f"{DECISIONS}.bid: if now >= announcement.timers.stalls_at: -> if True: in: "
    "if now >= announcement.timers.stalls_at:": f"{_SAME}: in this state there is no other timer that leads there",
    f"{CONNECTION}.ahead_job: raise ValueError('input is too long for a job in advance') -> pass in: "
    'raise ValueError("input is too long for a job in advance")': (
        f"{_SAME}: the whole job is too long for one record then, which is refused with the same class"
    ),
    f"{CONNECTION}.session_states: 1 -> 2 in: NONE = -1  # the number of no job": (
        f"{_SAME}: the number of a job is a byte, so no number below 0 is one"
    ),
    f"{CONNECTION}.session: 0 -> 1 in: if half is None or half.state != OPEN or not 0 < size <= half.window:": (
        f"{_SAME}: usual data of one byte then goes the long way of every frame, which only takes longer"
    ),
    f"{CONNECTION}.records: if len(self._frames) == 1: -> if False: in: "
    "if len(self._frames) == 1:  # the usual case": f"{_SAME}: the way of several frames makes the same record of one",
    f"{CONNECTION}.records: 8192 -> 8193 in: "
    "SHORT_DATA = 8192  # bytes (ours) of a stream that are copied, so that they share a record with other frames": (
        _OURS
    ),
    f"{CONNECTION}.frames: 1 -> 2 in: previous = -1": f"{_SAME}: no stream has a number below 0",
    f"{CONNECTION}.session: if stage not in TRANSITIONS[self.stage]: -> if False: in: "
    "if stage not in TRANSITIONS[self.stage]:": (
        "a second check, for mistakes of our own: the checks of calls and of frames let no such change come so far"
    ),
    f"{CONNECTION}.channel: len(received) > 4 -> len(received) >= 4 in: "
    "if received[:4] == OPENING[:4] and len(received) > 4 and received[4] != VERSION:": (
        f"{_SAME}: four bytes that begin like an opening do not differ from it"
    ),
    f"{BASE}.wire: if not data: -> if False: in: if not data:": f"{_SAME}: no bytes are an empty text anyway",
    f"{BASE}.certificate: b'' -> b'!' in: "
    'certificate = cls(role, name, serial, not_before, not_after, public_key, b"")': (
        f"{_SAME}: the signature, which is not signed itself, takes its place in the next line"
    ),
    f"{BASE}.wire: Bytes = bytes | bytearray | memoryview -> pass in: Bytes = bytes | bytearray | memoryview": _TYPE,
    f"{CONNECTION}.records: 2 -> 3 in: SEND_BUFFERS = 2  # (ours) one is filled while the kernel takes the other": (
        _OURS
    ),
    f"{CONNECTION}.records: 64 -> 65 in: MAXIMUM_WAITING = 64  # records or frames (ours) that may wait to be sent; "
    "then a driver must not add any": _OURS,
}
