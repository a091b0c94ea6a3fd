"""Measures the time from start to exit of a whole call of `true` on an idle worker, against Python and ssh: goal P3.

    make bench BENCH=benchmarks/bench_start.py

cexec is installed from a wheel into a virtual environment, as by `make install`.  pip and pipx write the first lines of
commands without options, so that Python loads the module `site` there; this call is measured as well.

P3 is about calls that follow each other, so only the two that are compared run in turn.  Whatever else runs between
them takes their place in the caches of the CPU; that is shown as well.

For P3 the worker has a CPU to itself, as it has on another machine: all other cases run on the other CPUs.  Otherwise
the kernel lets an announcement wake the worker on the client's own CPU in part of the calls, where one of both waits;
that is measured as well.  Environment: BENCH_ROUNDS (40).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import AS_PIP_LEAVES_IT, Case, Unfit, Workplace, goal, interleaved, rounds, skipped, table, timed
from benchmarks.peers import CURVE, Ssh

ROUNDS = 40
PASS, SSH = "python -c pass", "ssh, default key exchange"


class Cpus:
    """The CPUs of a worker and of those that are measured."""

    def __init__(self, worker: int) -> None:
        self._all = os.sched_getaffinity(0)
        self._worker = worker

    def case(self, argv: Sequence[str], variables: Mapping[str, str], *, shared: bool = False) -> Case:
        """Runs a command; all others have the CPU of the worker as well if it is `shared`, or if there is one only."""

        def run() -> float:
            own = set() if shared or len(self._all) < 2 else {max(self._all)}
            worker = psutil.Process(self._worker)
            for process in (worker, *worker.children(recursive=True)):
                with suppress(ProcessLookupError):  # the program of the last job
                    os.sched_setaffinity(process.pid, own or self._all)
            os.sched_setaffinity(0, self._all - own)
            return timed(argv, variables).seconds

        return run


def main() -> None:
    with Workplace(installed=True) as place:
        cpus = Cpus(place.service("true").pid)
        argv, variables = place.client()
        by_pipx = [f"{place.python.parent}/{AS_PIP_LEAVES_IT}", *argv[1:]]
        own = cpus.case(argv, variables)
        python = cpus.case([os.fspath(place.python), "-c", "pass"], place.environment)
        others = {
            PASS: python,
            "cexec": own,
            "cexec, installed by pipx": cpus.case(by_pipx, variables),
            "cexec, all CPUs shared with the worker": cpus.case(argv, variables, shared=True),
        }
        alone = "the worker has one of them" if len(os.sched_getaffinity(0)) > 1 else "the worker has none to itself"
        print(f"{rounds(ROUNDS)} rounds, medians; {os.cpu_count()} CPUs; {alone}")
        measured = interleaved({PASS: python, "cexec": own}, rounds(ROUNDS))
        beside_others = interleaved(others, rounds(ROUNDS))
        beside_ssh = interleaved({"cexec": own, **_of_ssh(place, cpus)}, rounds(ROUNDS))
    table("start to exit of true", _shown(measured))
    table("start to exit of true, beside other cases", _shown(beside_others))
    table("start to exit of true, beside ssh", _shown(beside_ssh))
    if "cexec" in measured:
        goal("P3", "times python -c pass", measured["cexec"] / measured[PASS], 1.8)
    if "cexec" in beside_ssh and SSH in beside_ssh:
        goal("P3", "share of a fresh ssh", beside_ssh["cexec"] / beside_ssh[SSH], 1 / 10)


def _of_ssh(place: Workplace, cpus: Cpus) -> dict[str, Case]:
    """These take ten times as long, and leave little of the others in the caches of the CPUs."""
    try:
        ssh = Ssh(place)
        ssh.open_master(place)
    except Unfit as reason:
        skipped("ssh", str(reason))
        return {}
    return {
        SSH: cpus.case(ssh.client("true"), place.environment),
        "ssh, curve25519": cpus.case(ssh.client("true", kex=CURVE), place.environment),
        "ssh, open ControlMaster": cpus.case(ssh.client("true", master=True), place.environment),
    }


def _shown(measured: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value * 1000:7.1f} ms" for name, value in measured.items()}


if __name__ == "__main__":
    main()
