"""The attempts of a lease: that of the job which runs, and that of the job which was given in advance.

Contract: to `stepping.advance` this is one attempt.  Each event of the pump goes to the attempt that it is about: what
comes behind the beginning of the job in advance (GO) is about that one, and RETURNED ends it.  A failure of the
connection ends both.  docs/protocol.md section 4.4.
"""

from __future__ import annotations

from cexec.client.attempt.attempt import LOST
from cexec.errors import DisconnectedError
from cexec.net.pump import Trouble
from cexec.protocol.connection import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.client.attempt.attempt import Attempt
    from cexec.client.attempt.patience import Patience
    from cexec.errors import CexecError
    from cexec.protocol.connection.session import Event


class AttemptsInTurn:
    """`current` has the connection, `following` waits behind it; either may be None."""

    __slots__ = ("current", "following")

    def __init__(self) -> None:
        self.current: Attempt | None = None
        self.following: Attempt | None = None

    @property
    def _live(self) -> Attempt | None:
        """The attempt that waits for something, the current one first."""
        if self.current is not None and not self.current.over:
            return self.current
        return self.following

    @property
    def over(self) -> bool:
        return self._live is None

    @property
    def patience(self) -> Patience | None:
        """Returns the patience of the attempt that waits; None if there is no limit."""
        live = self._live
        return None if live is None else live.patience

    @property
    def lost(self) -> bool:
        return any(one is not None and one.state == LOST for one in (self.current, self.following))

    def drop(self, attempt: Attempt) -> None:
        """Forgets an attempt: nothing more of it is wanted."""
        if self.current is attempt:
            self.current = None
        elif self.following is attempt:
            self.following = None

    def receive(self, found: Iterable[Event | Trouble]) -> None:
        """Takes the events of one step of the pump."""
        for one in found:
            if isinstance(one, Trouble) or one.kind not in (frames.GO, frames.RETURNED):
                if self.current is not None:
                    self.current.receive((one,))
            elif one.kind == frames.GO:
                self.current, self.following = self.following, None
            elif self.following is not None:
                self.following.receive((one,))
                self.following = None

    def connection_failed(self, error: CexecError) -> None:
        for one in (self.current, self.following):
            if one is not None:
                one.connection_failed(error)

    def stepped(self, now: float) -> bool:
        live = self._live
        return live is not None and live.stepped(now)

    def next_timeout(self) -> float | None:
        live = self._live
        return None if live is None else live.next_timeout()

    def looked(self, outstanding: bool, age: float, now: float) -> None:
        live = self._live
        if live is not None:
            live.looked(outstanding, age, now)
            if live.state == LOST and self.following is not None and self.following is not live:
                self.following.connection_failed(DisconnectedError("the connection has ended"))
