"""What the state machines of two sessions have in common.

Contract: `WorkerOffers` has the rules of a worker that offers itself, and takes that back seldom.  A machine below it
makes `client` and `worker` when it is initialized.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from cexec.protocol.connection.session import OFFERED, OFFERING, Session

SELDOM = st.integers(0, 19)  # what is seldom happens at one of these numbers


class WorkerOffers(RuleBasedStateMachine):
    """A client's and a worker's session."""

    client: Session
    worker: Session

    @precondition(lambda self: self.worker.stage == OFFERING and self.worker.ahead is None)
    @rule()
    def confirm(self) -> None:
        self.worker.confirm()

    @precondition(lambda self: self.worker.stage == OFFERED)
    @rule(chance=SELDOM)
    def withdraw(self, chance: int) -> None:
        if chance == 7:
            self.worker.withdraw("no slot is free any more")
