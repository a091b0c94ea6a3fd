"""Measures the throughput of a remote pipe, against ssh, socat and ncat on the loopback: goals P1 and P2.

    make bench BENCH=benchmarks/bench_throughput.py

One way, a file of zeros goes into `cat >/dev/null`.  For the echo, the same file goes through `cat` and the output is
counted.
Environment: BENCH_MEGABYTES (1024), BENCH_ROUNDS (5).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Case, Unfit, Workplace, goal, interleaved, needed, rounds, skipped, table, timed
from benchmarks.peers import Ncat, Socat, Ssh

MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", 1024))
ROUNDS = 5
ONE_WAY, ECHO = "cat >/dev/null", "cat"
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr")  # ssh's fast ones; the best counts
PLAIN = "socat, plain TCP"
TLS = "socat, OpenSSL"
SSH = "ssh, default cipher"


def main() -> None:
    with Workplace() as place, tempfile.NamedTemporaryFile(dir=_memory()) as file:
        file.truncate(MEGABYTES << 20)  # it takes no room, and no disk is timed
        one_way, echo = _cases(place, file.name)
        print(f"{MEGABYTES} MiB, {rounds(ROUNDS)} rounds, medians; {os.cpu_count()} CPUs")
        slow = interleaved(one_way, rounds(ROUNDS))
        _show("one way into cat >/dev/null", slow)
        ssh = _best_ssh(slow)
        _compare("P1", "one way, times ssh with its default cipher", slow, slow.get(SSH), 3.0)
        _compare("P1", "one way, times ssh with its best cipher", slow, ssh, 2.0)
        _compare("P1", "one way, times socat with OpenSSL", slow, slow.get(TLS), 2.0)
        _compare("P1", "one way, times socat with plain TCP", slow, slow.get(PLAIN), 0.9)
        both = interleaved(echo, rounds(ROUNDS))
        _show("echo through cat", both)
        _compare("P2", "echo, times ssh with its best cipher", both, _best_ssh(both), 1.8)
        _compare("P2", "echo, times socat with plain TCP; the aim is 1", both, both.get(PLAIN), 0.9)


def _cases(place: Workplace, file: str) -> tuple[dict[str, Case], dict[str, Case]]:
    one_way: dict[str, Case] = {}
    echo: dict[str, Case] = {}

    def add(cases: dict[str, Case], name: str, argv: Sequence[str], port: int = 0) -> None:
        variables = {**place.environment, "CEXEC_UDP_PORT": str(port)}

        def case() -> float:
            run = timed(argv, variables, stdin=file, count_output=cases is echo)
            if cases is echo and run.written != MEGABYTES << 20:
                raise Unfit(f"gave {run.written} bytes back")
            return run.seconds

        cases[name] = case

    place.service("sh", "-c", ONE_WAY, port=3010)
    place.service(ECHO, port=3011)
    client = place.command("cexec", place.public)
    add(one_way, "cexec", client, 3010)
    add(echo, "cexec", client, 3011)

    def peer(name: str, start: Callable[[], None]) -> None:
        try:
            start()
        except Unfit as reason:
            skipped(name, str(reason))

    def ssh() -> None:
        server = Ssh(place)
        for name, cipher in ((SSH, ""), *((f"ssh, {cipher}", cipher) for cipher in CIPHERS)):
            add(one_way, name, server.client(ONE_WAY, cipher=cipher))
            add(echo, name, server.client(ECHO, cipher=cipher))

    def socat(name: str, tls: bool) -> None:
        add(one_way, name, Socat(place, ONE_WAY, tls=tls).client(one_way=True))
        add(echo, name, Socat(place, ECHO, tls=tls).client())

    peer("ssh", ssh)

    def tls() -> None:
        needed("openssl")
        socat(TLS, True)

    peer(TLS, tls)
    peer(PLAIN, lambda: socat(PLAIN, False))
    peer("ncat", lambda: add(one_way, "ncat, plain TCP", Ncat(place, ONE_WAY).client()))
    return one_way, echo


def _best_ssh(measured: dict[str, float]) -> float | None:
    return min((seconds for name, seconds in measured.items() if name.startswith("ssh")), default=None)


def _show(title: str, measured: dict[str, float]) -> None:
    table(title, {name: f"{value:7.2f} s {MEGABYTES / value:7.0f} MiB/s" for name, value in measured.items()})


def _compare(name: str, what: str, measured: dict[str, float], peer: float | None, limit: float) -> None:
    if peer is not None and "cexec" in measured:
        goal(name, what, peer / measured["cexec"], limit, at_least=True)


def _memory() -> str | None:
    """Returns a directory in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    main()
