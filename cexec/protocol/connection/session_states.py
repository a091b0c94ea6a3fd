"""The frames that a session expects: by its stage, and by the numbers of its jobs.

Contract: constants and rules, without I/O.  `Session` moves from stage to stage as TRANSITIONS allows.  From the second
revision on each frame that belongs to a job has the job's number, which counts the GOs of the connection modulo 256.
`JobNumbers.takes` says if a frame is to be looked at; it raises `ProtocolError` for a frame that belongs to no job.
`ahead_job` has the job that was given in advance.  docs/protocol.md sections 4.2 and 4.4.

    stage      state     worker sends                  client sends                     entered by
    OFFERING   OFFERING  CONFIRM                       CANCEL, RELEASE                  the handshake, or EXIT (lease)
    OFFERED    OFFERED   WITHDRAW                      CANCEL, RELEASE, GO              CONFIRM
    PREPARING  RUNNING   PROGRAM, STARTED, REFUSED,    CANCEL, SIGNAL, WINDOW, streams  GO
                         WITHDRAW, CLOSED, CREDIT
    ASKING     RUNNING   the same without PROGRAM      the same                         PROGRAM
    EXECUTING  RUNNING   streams, WANTED, EXIT         the same                         STARTED
    OVER       OVER                                    CANCEL, RELEASE                  an end of any kind
    any                  PING, PONG                    PING, PONG

From the second revision on a client may also give a job in advance: GO from PREPARING to OFFERING, while no other one
is given so, and TAKE_BACK.  The worker answers TAKE_BACK by RETURNED, unless the job has begun, and may say RETURNED by
itself.  Such a job begins when both are OFFERING; this leads to PREPARING.

WANTED comes once at most, and only if the GO of the job has asked for it.

Streams are DATA, END, CLOSED, BROKEN and CREDIT.  Some frames may cross a change of the stage on their way, so the
receiver allows more than this table: FROM_WORKER and FROM_CLIENT say what.  In OVER it ignores everything else.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.connection import frames

OFFERING, OFFERED, RUNNING, OVER = "offering", "offered", "running", "over"
PREPARING, ASKING, EXECUTING = "preparing", "asking for the program", "executing"  # the stages of RUNNING
STATES = {OFFERING: OFFERING, OFFERED: OFFERED, PREPARING: RUNNING, ASKING: RUNNING, EXECUTING: RUNNING, OVER: OVER}
TRANSITIONS = {
    OFFERING: (OFFERED, PREPARING, OVER),
    OFFERED: (PREPARING, OVER),
    PREPARING: (ASKING, EXECUTING, OVER),
    ASKING: (ASKING, EXECUTING, OVER),
    EXECUTING: (OFFERING, OVER),
    OVER: (OVER,),
}
# What a client takes from its worker.  A stream's own state says more: most frames come too late after an EXIT.
FROM_WORKER = {
    OFFERING: (*frames.OF_A_STREAM, frames.CONFIRM),
    OFFERED: (*frames.OF_A_STREAM, frames.WITHDRAW),
    PREPARING: (frames.PROGRAM, frames.STARTED, frames.REFUSED, frames.WITHDRAW, frames.CLOSED, frames.CREDIT),
    ASKING: (frames.STARTED, frames.REFUSED, frames.WITHDRAW, frames.CLOSED, frames.CREDIT),
    EXECUTING: (*frames.OF_A_STREAM, frames.EXIT, frames.WANTED),
    OVER: (),
}
# What a worker takes from its client, whose frames may cross an EXIT.
_WHILE_RUNNING = (*frames.OF_A_STREAM, frames.SIGNAL, frames.WINDOW, frames.CANCEL)
FROM_CLIENT = {
    OFFERING: (*_WHILE_RUNNING, frames.RELEASE),
    OFFERED: (*_WHILE_RUNNING, frames.RELEASE, frames.GO),
    PREPARING: _WHILE_RUNNING,
    ASKING: _WHILE_RUNNING,
    EXECUTING: _WHILE_RUNNING,
    OVER: (frames.CANCEL, frames.RELEASE),
}

NUMBERS = 256  # (protocol) a byte
NONE = -1  # the number of no job
LATEST = NUMBERS // 2  # (ours) jobs before the next one whose numbers mean that they have ended
_OF_THE_NEXT = (frames.CONFIRM, frames.WITHDRAW, frames.GO)  # which begin a job, or take its offer back
_LATE = (*frames.OF_A_STREAM, frames.SIGNAL, frames.WINDOW, frames.TAKE_BACK)  # may come when their job has ended


class JobNumbers:
    """`current` is the number of the latest job that has begun, `following` that of the next GO."""

    __slots__ = ("current", "following", "numbered")

    def __init__(self, numbered: bool) -> None:
        """In the first revision nothing is `numbered`: all numbers are 0."""
        self.numbered = numbered
        self.current = NONE if numbered else 0
        self.following = 0

    def give(self) -> int:
        """Returns the number of a job whose GO is sent or has come."""
        number = self.following
        if self.numbered:
            self.following = (number + 1) % NUMBERS
        return number

    def of(self, kind: int) -> int:
        """Returns the number for a frame that is sent now."""
        if kind in frames.OF_THE_CONNECTION:
            return 0
        return self.following if kind in _OF_THE_NEXT else max(self.current, 0)

    def takes(self, kind: int, number: int) -> bool:
        """Returns False for a frame that is to be discarded, because its job has ended, or was returned."""
        if number == self.following and kind in _OF_THE_NEXT:
            return True
        age = (self.following - number) % NUMBERS
        if not 0 < age <= LATEST:
            raise ProtocolError("frame belongs to no job")
        if number == self.current and kind != frames.TAKE_BACK:
            return True
        if kind not in _LATE:
            raise ProtocolError("frame belongs to a job that has ended")
        return False
