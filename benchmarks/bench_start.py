"""Measures the time from start to exit of a whole call of `true` on an idle worker, against Python and ssh: goal P3.

    make bench BENCH=benchmarks/bench_start.py

cexec is installed from a wheel into a virtual environment, as by `make install`.  pip and pipx write the first lines of
commands without options, so that Python loads the module `site` there; this call is measured as well.
Environment: BENCH_ROUNDS (40).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import AS_PIP_LEAVES_IT, Case, Unfit, Workplace, goal, interleaved, rounds, skipped, table, timed
from benchmarks.peers import CURVE, Ssh

ROUNDS = 40
PASS, SSH = "python -c pass", "ssh, default key exchange"


def main() -> None:
    with Workplace(installed=True) as place:
        place.service("true")
        argv, variables = place.client()
        cases = {
            PASS: _case([os.fspath(place.python), "-c", "pass"], place.environment),
            "cexec": _case(argv, variables),
            "cexec, installed by pipx": _case([f"{place.python.parent}/{AS_PIP_LEAVES_IT}", *argv[1:]], variables),
        }
        try:
            ssh = Ssh(place)
            ssh.open_master(place)
            cases[SSH] = _case(ssh.client("true"), place.environment)
            cases["ssh, curve25519"] = _case(ssh.client("true", kex=CURVE), place.environment)
            cases["ssh, open ControlMaster"] = _case(ssh.client("true", master=True), place.environment)
        except Unfit as reason:
            skipped("ssh", str(reason))
        print(f"{rounds(ROUNDS)} rounds, medians; {os.cpu_count()} CPUs")
        measured = interleaved(cases, rounds(ROUNDS))
    table("start to exit of true", {name: f"{value * 1000:7.1f} ms" for name, value in measured.items()})
    if "cexec" in measured:
        goal("P3", "times python -c pass", measured["cexec"] / measured[PASS], 1.8)
        if SSH in measured:
            goal("P3", "share of a fresh ssh", measured["cexec"] / measured[SSH], 1 / 10)


def _case(argv: Sequence[str], variables: Mapping[str, str]) -> Case:
    return lambda: timed(argv, variables).seconds


if __name__ == "__main__":
    main()
