"""A worker's HELLO and BYE, and those of the others.

Contract: `PresenceSender.hello` and `bye` send a statement to the whole group at once; HELLO is sent again a few times,
byte for byte (`next_timeout`, `handle_timeout`), because nobody acknowledges it.  `hear` returns the statement of
another worker.  docs/protocol.md section 5.1.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.protocol.datagrams import presence
from cexec.protocol.datagrams.presence import BYE, HELLO, Followed, Presence

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.net.announcer import Announcer
    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.base.keys import WorkerKey
    from cexec.protocol.datagrams.datagram import Datagram

REPETITIONS = (1.0, 4.0)  # seconds (ours) after which a HELLO is sent again, past a short loss of packets
NEVER = float("inf")


class PresenceSender:
    """The statements of one worker, and its ear for those of others."""

    def __init__(
        self,
        key: WorkerKey,
        instance: bytes,
        host: str,
        announcer: Announcer,
        revoked: Callable[[Certificate], bool] = lambda certificate: False,
    ) -> None:
        """Statements whose certificate is `revoked` do not count."""
        self._revoked = revoked
        self._key = key
        self._instance = instance
        self._host = host
        self._announcer = announcer
        self._sequence = 0
        self._statement = b""  # the last one
        self._again: list[float] = []  # when it is sent again
        self._followed = Followed()
        self._gone = False

    def hello(self, now: float) -> None:
        """Says that this worker serves from now on, or by other ways than before."""
        self._say(HELLO)
        self._again = [now + after for after in REPETITIONS]

    def moved(self, now: float) -> None:
        """Says HELLO again, because the addresses have changed; nothing after BYE."""
        if not self._gone:
            self.hello(now)

    def bye(self) -> None:
        """Says that this worker takes no more jobs; twice at once, because there is no later."""
        self._again = []
        self._gone = True
        self._say(BYE)
        self._announcer.send(self._statement)

    def next_timeout(self) -> float:
        return self._again[0] if self._again else NEVER

    def handle_timeout(self, now: float) -> None:
        while self._again and self._again[0] <= now:
            del self._again[0]
            self._announcer.send(self._statement)

    def hear(self, parsed: Datagram) -> Presence | None:
        """Returns the statement if it is another worker's, and not a copy."""
        try:
            said = presence.open_presence(self._key, parsed.inner)
        except ProtocolError:
            return None
        if self._revoked(said.certificate):
            return None
        return said if said.instance != self._instance and self._followed.news(said) else None

    def _say(self, purpose: int) -> None:
        self._sequence += 1
        statement = Presence(
            purpose=purpose,
            instance=self._instance,
            sequence=self._sequence,
            clock=int(time() * 1000),
            host=self._host,
            certificate=self._key.identity.certificate,
        )
        inner = presence.seal(self._key, statement)
        self._statement = presence.encode_presence(self._key.mac1_key, inner, MAXIMUM_HOPS)
        self._announcer.send(self._statement)
