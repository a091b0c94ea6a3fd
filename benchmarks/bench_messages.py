"""Measures a small message there and back inside one job, by sftp's questions and answers over cexec and over ssh.

    make bench BENCH=benchmarks/bench_messages.py

`sftp -B 5 -R 1` fetches a file with one question for every five bytes, and asks the next one when the answer has come.
12,000 of them run through one job of `sftp-server` on a worker, and through one connection of ssh.  The time of a fetch
with one question is subtracted, so that the start of neither counts.  Goal: at most ssh's time.  The second table has
the CPU time of both processes of ours that a message passes, on its way to `cat` and back, which a busy machine changes
less.
Environment: BENCH_ROUNDS (5), BENCH_TRIPS (12,000).
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import (
    Case,
    Unfit,
    Workplace,
    children,
    cpu_seconds,
    goal,
    interleaved,
    job_processes,
    needed,
    rounds,
    skipped,
    table,
    timed,
)
from benchmarks.peers import Ssh

TRIPS = int(os.environ.get("BENCH_TRIPS", 12_000))
PIECE = 5  # bytes of one answer
CAT_PORT = 3011  # UDP port of the second service
MESSAGE = 30  # bytes of a message to `cat`
WARM = 500  # messages before the first one that counts
SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server", "/usr/lib/ssh/sftp-server")


def server() -> str:
    """Returns the path of the program that answers, which is not in PATH."""
    for path in SERVERS:
        if os.access(path, os.X_OK):
            return path
    raise Unfit("sftp-server is not installed (openssh-sftp-server)")


def trip(place: Workplace, way: Sequence[str]) -> Case:
    """Returns the milliseconds of one question and its answer.  `way` tells sftp how to reach the server."""
    sftp = needed("sftp")
    sizes = {"one": PIECE, "many": PIECE * (TRIPS + 1)}
    for name, size in sizes.items():
        (place.directory / name).write_bytes(b"x" * size)
        (place.directory / f"get-{name}").write_text(f"get {place.directory / name} {place.directory / 'got'}\n")

    def fetch(name: str) -> float:
        batch = str(place.directory / f"get-{name}")
        run = timed([sftp, "-q", "-B", str(PIECE), "-R", "1", "-b", batch, *way], place.environment)
        if (place.directory / "got").stat().st_size != sizes[name]:
            raise Unfit("sftp did not fetch the whole file")
        return run.seconds

    return lambda: (fetch("many") - fetch("one")) / TRIPS * 1000


def cpu_times(place: Workplace) -> dict[str, float]:
    """Returns the microseconds of CPU time that one message costs: medians of the client and of the job's process."""
    service = place.service("cat", port=CAT_PORT)
    argv, environment = place.client(CAT_PORT)
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert client.stdin is not None and client.stdout is not None
    message = b"x" * MESSAGE

    def send(times: int) -> None:
        assert client.stdin is not None and client.stdout is not None
        for _ in range(times):
            client.stdin.write(message)
            left = MESSAGE
            while left:
                left -= len(client.stdout.read(left) or b"")

    send(WARM)
    processes = {
        "client": client.pid,
        "job's process": next(one for one in job_processes(service.pid) if children(one)),
    }
    found: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(rounds(5)):
        before = {name: cpu_seconds(pid) for name, pid in processes.items()}
        send(TRIPS // rounds(5))
        for name, pid in processes.items():
            found[name].append((cpu_seconds(pid) - before[name]) / (TRIPS // rounds(5)) * 1e6)
    client.stdin.close()
    client.wait()
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    with Workplace() as place:
        place.service(server())
        argv, _ = place.client()
        cases = {"cexec": trip(place, ["-D", shlex.join(argv)])}
        try:
            client = Ssh(place).client("")
            port, settings, target = client[client.index("-p") + 1], client[client.index("-i") : -2], client[-2]
            cases["ssh"] = trip(place, ["-s", server(), "-F", "none", "-P", port, *settings, target])
        except Unfit as reason:
            skipped("ssh", str(reason))
        found = interleaved(cases, rounds(5))
        spent = cpu_times(place)
    table("CPU time of a message there and back", {name: f"{value:.0f} us" for name, value in spent.items()})
    table(f"{TRIPS} messages there and back, medians", {name: f"{value:.3f} ms each" for name, value in found.items()})
    if {"cexec", "ssh"} <= found.keys():
        goal("P2a", "times ssh", found["cexec"] / found["ssh"], 1.0)


if __name__ == "__main__":
    main()
