"""The watchdog of an ephemeral worker: a process that removes it when nobody has sent a heartbeat for 30 seconds.

Contract: `hold` starts the watchdog of a worker unless it runs already, and then passes heartbeats on: each byte that
`read` returns is one.  It returns at the end of the input.  A heartbeat is the time of a file's last change, so a new
connection can go on where a broken one has stopped.  The watchdog is a session of its own and outlives the connection:
sshd may never notice that the other side has gone, because its ClientAliveInterval defaults to 0.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from cexec.boot.remote.place import HostPlace, RemoteError, write_whole
from cexec.boot.remote.placed_worker import PlacedWorker, remove
from cexec.boot.remote.service import start_time

SILENCE = 30.0  # seconds without a heartbeat after which everything is removed
GRACE = 0.5  # seconds (ours) for jobs then: nobody waits for their results, but two signals at once count as one
LOOK = 1.0  # seconds (ours) between two looks at the file


def hold(place: HostPlace, name: str, run: str, read: Callable[[], bytes], ready: Callable[[], None]) -> None:
    """Keeps the worker `name` until the end of the input, and for SILENCE afterwards.

    `run`: a random word of the run that holds it; no other run may do so at the same time.
    """
    worker = PlacedWorker(place, name)
    with place.locked():
        worker.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        pid, holder = _watchdog(worker)
        if pid and holder != run:
            raise RemoteError("busy", "another cboot has an ephemeral worker of this application there")
        if not pid:
            pid = _fork(place, worker)
            write_whole(worker.heartbeat, f"{pid} {start_time(pid)} {run}\n".encode(), 0o600)
    ready()
    while read():
        try:
            os.utime(worker.heartbeat)
        except FileNotFoundError:
            return  # it was removed


def end(worker: PlacedWorker) -> None:
    """Ends the watchdog: somebody else removes the worker now."""
    pid, _ = _watchdog(worker)
    if pid:
        os.kill(pid, signal.SIGKILL)


def _watchdog(worker: PlacedWorker) -> tuple[int, str]:
    """Returns the process that watches, or 0, and the run for which it does so."""
    try:
        pid, began, run = worker.heartbeat.read_text().split()
        return (int(pid), run) if start_time(int(pid)) == began else (0, "")
    except (OSError, ValueError):
        return 0, ""


def _fork(place: HostPlace, worker: PlacedWorker) -> int:
    """Starts the watchdog as a daemon; returns its pid."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child:
        os.close(sender)
        with os.fdopen(receiver) as told:
            pid = int(told.read())
        os.waitpid(child, 0)
        return pid
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(sender, str(os.getpid()).encode())
        _become_quiet()
        watch(place, worker)
    finally:
        os._exit(0)


def _become_quiet() -> None:
    """Lets go of the connection, which ends only when nobody holds its descriptors, and of the lock."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, 256)
    os.chdir("/")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def watch(
    place: HostPlace,
    worker: PlacedWorker,
    silence: float = SILENCE,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when the worker was removed, by us or by somebody else."""
    last, heard = 0, now()
    while now() - heard < silence:
        try:
            changed = worker.heartbeat.stat().st_mtime_ns
        except FileNotFoundError:
            if last:
                return
            changed = 0  # the file is about to be written
        if changed != last:
            last, heard = changed, now()
        sleep(LOOK)
    remove(place, [worker.name], GRACE, keep_programs=False)
