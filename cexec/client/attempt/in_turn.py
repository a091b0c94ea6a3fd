"""The attempts of a lease: that of the job which runs, and that of the job which was given in advance.

Contract: to `stepping.advance` this is one attempt.  Each event of the pump goes to the attempt that it is about: what
comes behind the beginning of the job in advance (GO) is about that one, and RETURNED ends it.  Ends of outputs are left
out, because a sink of a lease has no reader that waits for them.  A failure of the connection ends both.
docs/protocol.md section 4.4.
"""

from __future__ import annotations

from cexec.client.attempt.attempt import LIVE, LOST
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

_OF_THE_TURN = (frames.END, frames.GO, frames.RETURNED)


class AttemptsInTurn:
    """`current` has the connection, `following` waits behind it; either may be None."""

    __slots__ = ("current", "following")

    def __init__(self) -> None:
        self.current: Attempt | None = None
        self.following: Attempt | None = None

    @property
    def live(self) -> Attempt | None:
        """The attempt that waits for something, the current one first."""
        current = self.current
        return current if current is not None and current.state in LIVE else self.following

    @property
    def over(self) -> bool:
        return self.live is None

    @property
    def patience(self) -> Patience | None:
        """Returns the patience of the attempt that waits; None if there is no limit."""
        live = self.live
        return None if live is None else live.patience

    @property
    def lost(self) -> bool:
        current, following = self.current, self.following
        return (current is not None and current.state == LOST) or (following is not None and following.state == LOST)

    def drop(self, attempt: Attempt) -> None:
        """Forgets an attempt: nothing more of it is wanted."""
        if self.current is attempt:
            self.current = None
        elif self.following is attempt:
            self.following = None

    def receive(self, found: Iterable[Event | Trouble]) -> None:
        """Takes the events of one step of the pump."""
        for one in found:
            if isinstance(one, Trouble) or one.kind not in _OF_THE_TURN:
                if self.current is not None:
                    self.current.take(one)
            elif one.kind == frames.GO:
                self.current, self.following = self.following, None
            elif one.kind == frames.RETURNED and self.following is not None:
                self.following.take(one)
                self.following = None

    def connection_failed(self, error: CexecError) -> None:
        for one in (self.current, self.following):
            if one is not None:
                one.connection_failed(error)

    def stepped(self, now: float) -> bool:
        live = self.live
        return live is not None and live.stepped(now)

    def looked(self, outstanding: bool, age: float, now: float) -> None:
        live = self.live
        if live is not None:
            live.looked(outstanding, age, now)
            if live.state == LOST and self.following is not None and self.following is not live:
                self.following.connection_failed(DisconnectedError("the connection has ended"))
