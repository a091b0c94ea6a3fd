"""Measures one command on 20 hosts: `cexec --all` beside clush and pdsh over ssh.

    make bench BENCH=benchmarks/bench_everywhere.py

The hosts are network namespaces of this machine on one bridge, each with a worker and an sshd of its own; the command
is `true`, started from one more host.  All of them share this machine's CPUs, as do the twenty servers' handshakes.
clush and pdsh come from Debian's packages clustershell and pdsh; what is missing is reported and left out.  clush runs
as it is, and with a connection to each host that is open already (ControlMaster).  cexec is installed from a wheel into
a virtual environment, compiled, as pip leaves it.
Goal: cexec is at least 5 times as fast as clush.
Environment: BENCH_ROUNDS (5), BENCH_HOSTS (20).
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import (
    Case,
    Unfit,
    Workplace,
    goal,
    interleaved,
    needed,
    rounds,
    skipped,
    table,
    timed,
)
from benchmarks.farm import GROUP, Servers, open_masters, start_sshd
from tests.lab import Lab

HOSTS = int(os.environ.get("BENCH_HOSTS", 20))
CEXEC, CLUSH, PDSH = "cexec --all", "clush over ssh", "pdsh over ssh"
OPEN = "clush, connections open"
LEAST = 5.0  # times


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: make bench")
    with Workplace(installed=True) as place, Lab(HOSTS + 1) as lab, ExitStack() as stack:
        client, *hosts = lab.hosts
        environment = {**place.environment, "CEXEC_GROUP": GROUP}
        options = ["-j", "64", "--speed", "1"]
        services = Servers(stack, hosts, place, "cservice")
        services.start(place.command("cservice", *options, place.secret, "true"), "cservice: serving")
        everybody = f"10.77.0.[{hosts[0].number}-{hosts[-1].number}]"
        user = pwd.getpwuid(os.getuid()).pw_name

        def case(argv: Sequence[str], **changes: str) -> Case:
            return lambda: timed(client.inside(argv), {**environment, **changes}).seconds

        cases = {CEXEC: case(place.command("cexec", "--all", place.public))}
        try:
            ssh = start_sshd(Servers(stack, hosts, place, "sshd"), place)
            for name, program in ((CLUSH, "clush"), (PDSH, "pdsh"), (OPEN, "clush")):
                try:
                    path = needed(program)
                    if name == PDSH:
                        argv = [path, "-R", "ssh", "-S", "-f", str(HOSTS), "-l", user, "-w", everybody, "true"]
                        cases[name] = case(argv, PDSH_SSH_ARGS_APPEND=shlex.join(ssh))
                        continue
                    words = open_masters(stack, client, hosts, place, ssh) if name == OPEN else ssh
                    argv = [
                        path,
                        "-S",
                        "-q",
                        "-l",
                        user,
                        "-o",
                        shlex.join(words).replace("%", "%%"),
                        "-w",
                        everybody,
                        "true",
                    ]
                    cases[name] = case(argv)
                except Unfit as reason:
                    skipped(name, str(reason))
        except Unfit as reason:
            skipped("ssh", str(reason))
        found = interleaved(cases, rounds(5))
    rows = {name: f"{value * 1000:6.0f} ms" for name, value in found.items()}
    table(f"true on {HOSTS} hosts, start to exit, medians", rows)
    if {CEXEC, CLUSH} <= found.keys():
        goal("--all", "cexec --all, times clush", found[CLUSH] / found[CEXEC], LEAST, at_least=True)


if __name__ == "__main__":
    main()
