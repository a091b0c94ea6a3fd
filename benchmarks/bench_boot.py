"""Measures `cboot`: 20 hosts that know only ssh, until all of them serve, from carried wheels.

    make bench BENCH=benchmarks/bench_boot.py

The hosts are network namespaces of this machine on one bridge, each with a home and an sshd of its own; all of them
share this machine's CPUs, as do both ends of the connections.  The wheels are made once of what is installed here and
given by --wheels.  Afterwards a second run finds nothing to do, and --remove deletes everything.
Goal: the first run takes less than 60 seconds on two cores.
Environment: BENCH_HOSTS (20), BENCH_ROUNDS (1).
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import goal, needed, rounds, table
from cexec.boot.target import WheelTarget
from cexec.boot.wheels import Wheels
from tests.lab import Lab
from tests.service import Application
from tests.ssh_hosts import SshHosts, facts_of_this_python

HOSTS = int(os.environ.get("BENCH_HOSTS", 20))
MOST = 60.0  # seconds


def carried(directory: Path) -> Path:
    """Returns a directory with the wheels that a host with this Python needs."""
    cache, scratch = directory / "wheels", directory / "scratch"
    cache.mkdir()
    scratch.mkdir()
    facts = facts_of_this_python()
    Wheels(scratch, cache=cache).gather(WheelTarget.of(facts))
    return cache


def cpu() -> float:
    """Returns the CPU seconds of all processes that have ended and were ours: both ends, but for the workers."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: make bench")
    for name in ("sshd", "ssh", "unshare"):
        needed(name)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="cexec-bench-") as name, Lab(HOSTS + 1) as lab:
        directory = Path(name)
        application = Application(directory)
        hosts = SshHosts(lab, directory)
        try:
            for number in range(2, HOSTS + 2):
                hosts.start(number)
            everybody = ["-w", f"10.77.0.[2-{HOSTS + 1}]"]
            wheels = ["--wheels", str(carried(directory))]
            secret = str(application.secret)
            calls = {
                "from nothing to serving": [*everybody, *wheels, secret, "--", "true"],
                "a second time": [*everybody, *wheels, secret, "--", "true"],
                "--status": ["--status", *everybody, secret],
                "--remove": ["--remove", *everybody, secret],
            }
            for _ in range(rounds(1)):
                for title, words in calls.items():
                    begin, before = time.monotonic(), cpu()
                    ended = hosts.cboot(*words)
                    if ended.returncode != 0:
                        raise SystemExit(f"{title}: status {ended.returncode}\n{ended.stdout}{ended.stderr}")
                    found.setdefault(title, []).append(time.monotonic() - begin)
                    print(f"{title}: {time.monotonic() - begin:.1f} s, cboot and its ssh {cpu() - before:.1f} s of CPU")
        finally:
            hosts.close()
    best = {title: min(values) for title, values in found.items()}
    table(f"cboot with {HOSTS} hosts", {title: f"{value:6.1f} s" for title, value in best.items()})
    goal("cboot", f"{HOSTS} hosts serve, seconds", best["from nothing to serving"], MOST, at_least=False)


if __name__ == "__main__":
    main()
