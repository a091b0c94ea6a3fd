"""A cservice that kills itself, and its job processes, by SIGKILL at one exact point of a job's life.

    doomed.py POINT [OPTION ...] APP EXE        (as cservice)

Contract: the points are before anything that the worker says there has left it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import psutil

BEFORE_THE_HANDSHAKE = "before the handshake"  # the connection is there, and the first flight is not sent
AFTER_CONNECT = "after connect"  # the handshake is complete, and CONFIRM is not sent
AFTER_GO = "after GO"  # the job is taken, and STARTED is not sent
POINTS = (BEFORE_THE_HANDSHAKE, AFTER_CONNECT, AFTER_GO)


def main() -> int:
    from cexec.commands.cservice import main as cservice
    from cexec.protocol.connection.session import Session
    from cexec.protocol.connection.worker_handshake import WorkerHandshake

    point = sys.argv.pop(1)
    if point == BEFORE_THE_HANDSHAKE:
        _kill_in(WorkerHandshake, "data_to_send")
    elif point == AFTER_CONNECT:
        _kill_in(Session, "confirm")
    else:
        _kill_in(Session, "started")
    return cservice()


def _kill_in(kind: type, name: str) -> None:
    """Whoever calls this method is killed, and cservice and its other processes with it."""
    original: Callable[..., Any] = getattr(kind, name)
    cservice_pid = os.getpid()

    def killing(*arguments: Any, **more: Any) -> Any:
        worker = psutil.Process(cservice_pid)
        for process in (worker, *worker.children()):  # cservice first, so that it starts no other one
            if process.pid != os.getpid():
                process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **more)

    setattr(kind, name, killing)


if __name__ == "__main__":
    sys.exit(main())
