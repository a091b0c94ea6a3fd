"""The stages of a session: what each side may send in it, what the other side takes, and where it leads.

Contract: constants only.  `Session` moves from stage to stage as TRANSITIONS allows.  docs/protocol.md section 4.2.

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
