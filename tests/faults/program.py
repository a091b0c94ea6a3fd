"""The program that the workers of the campaign offer.  It runs alone: `python -S program.py`, without cexec.

Contract: it first appends a `Start` of records.py to the file $FAULTS_STARTS, unless $PEER_ID is empty.  With
$PEER_PAUSE it then says nothing for so many seconds, and with $PEER_ACT it does one of ACTS.  Then it does what
$PEER_KIND says with its standard input.
If a file POINT is in the directory $FAULTS_POINTS and the job has at least LARGE bytes of input, the first such job
takes the file and stands still at that point of its life until it is killed.  That it has come there is told by the
file `reached-POINT`, which contains the worker's name.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time

LARGE = 5_000_000  # bytes of input: more than all windows and pipes on the way
PART = 1_000_000  # bytes of an input or output that are its middle
INPUT, OUTPUT, EXITED = "in the input", "in the output", "exited"  # the points
POINTS = (INPUT, OUTPUT, EXITED)
BOMB = 300  # processes
HELD = 2.0  # seconds


def main() -> int:
    _tell_start()
    time.sleep(float(os.environ.get("PEER_PAUSE", "0")))
    kind = os.environ["PEER_KIND"]
    if act := os.environ.get("PEER_ACT"):
        ACTS[act]()
    point = _claim() if int(os.environ["PEER_SIZE"]) >= LARGE else ""
    if kind == "cat":
        _cat(point)
    elif kind == "sha256sum":
        _sum()
    else:
        while _read():
            pass
        return int(os.environ["PEER_STATUS"])
    return 0


def _bomb() -> None:
    """Processes that stay, in sessions of their own, until they are killed."""
    for _ in range(BOMB):
        if os.fork() == 0:
            os.setsid()
            for fd in range(3):
                os.close(fd)
            time.sleep(300)
            os._exit(0)


def _hold() -> None:
    """A grandchild holds standard output for a while, so the job is not over before."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(HELD)
        os._exit(0)
    os.wait()


def _kill() -> None:
    """What carries the job is killed, and this process with it."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(300)


def _escape() -> None:
    """The same, and a process stays that has no environment and a session of its own."""
    if os.fork() == 0:
        os.setsid()
        os.execve("/bin/sleep", ["sleep", "300"], {})
    _kill()


def _third() -> None:
    """Something is written to descriptor 3, which fails at the client."""
    os.write(3, b"x" * 100)


ACTS = {"bomb": _bomb, "hold": _hold, "kill": _kill, "escape": _escape, "third": _third}


def _tell_start() -> None:
    environment = os.environ
    if not environment["PEER_ID"]:
        return
    start = {
        "id": environment["PEER_ID"],
        "job": environment["CEXEC_JOB"],
        "attempt": int(environment["CEXEC_ATTEMPT"]),
        "worker": environment["FAULTS_WORKER"],
        "time": time.time(),
    }
    fd = os.open(environment["FAULTS_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, json.dumps(start).encode() + b"\n")  # one write, so that lines of several programs are never mixed
    os.close(fd)


def _claim() -> str:
    directory = os.environ["FAULTS_POINTS"]
    for point in POINTS:
        try:
            os.unlink(os.path.join(directory, point))
        except FileNotFoundError:
            continue
        return point
    return ""


def _stand_still(point: str) -> None:
    directory = os.environ["FAULTS_POINTS"]
    with open(os.path.join(directory, "new"), "w") as file:
        file.write(os.environ["FAULTS_WORKER"])
    os.rename(file.name, os.path.join(directory, f"reached-{point}"))
    time.sleep(300)


def _cat(point: str) -> None:
    if not point:
        while data := _read():
            _write(data)
        return
    kept = b""
    while data := _read():
        kept += data
        if point == INPUT and len(kept) >= PART:
            _stand_still(point)
    _write(kept[:PART])
    if point == OUTPUT:
        _stand_still(point)
    _write(kept[PART:])
    if point == EXITED:
        program = os.getpid()
        if os.fork() == 0:  # it holds standard output, so the job is not over when its program is
            while os.getppid() == program:
                time.sleep(0.01)
            _stand_still(point)


def _sum() -> None:
    import hashlib

    digest = hashlib.sha256()
    while data := _read():
        digest.update(data)
    _write(f"{digest.hexdigest()}  -\n".encode())


def _read() -> bytes:
    """A closed standard input is an empty one."""
    try:
        return os.read(0, 1 << 20)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return b""


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(main())
