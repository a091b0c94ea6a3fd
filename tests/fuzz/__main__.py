"""`python -m tests.fuzz`: looks for inputs that a parser does not bear.  `make fuzz` calls it.

    --target REGEX   only targets whose name contains it
    --seconds N      for each target, 10 by default
    --findings DIR   where inputs that were not borne are kept, and all that reach new code

Each target runs in a process of its own under libFuzzer (PyPI: atheris), which follows what the inputs reach.  Its
corpus is only read.  Exit status: 0 if nothing was found, 1 if something was, 100 if there is no such target, 111 if
atheris is not there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tests.fuzz.every_target  # noqa: F401
from tests.fuzz.seeds import CORPUS
from tests.fuzz.target import TARGETS

ROOT = Path(__file__).resolve().parents[2]
LONGEST_INPUT = 4096  # bytes
LONGEST_RUN = 10  # seconds of one input, which is a finding, too
DONE = re.compile(r"Done (\d+) runs? in (\d+) second")
COVERAGE = re.compile(r"cov: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`runs` and `coverage` are 0 if the target ended before it could tell."""

    name: str
    runs: int
    seconds: int
    coverage: int
    report: str  # of a finding; empty if there is none


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Looks for inputs that a parser does not bear.")
    parser.add_argument("--target", default="", metavar="REGEX")
    parser.add_argument("--seconds", type=int, default=10, metavar="N")
    parser.add_argument("--findings", type=Path, metavar="DIR")
    options = parser.parse_args()
    names = [name for name in TARGETS if re.search(options.target, name)]
    if not names:
        print(f"fuzz: no target matches {options.target!r}", file=sys.stderr)
        return 100
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not here; it has packages for Linux on x86_64", file=sys.stderr)
        return 111
    findings = options.findings or Path(tempfile.mkdtemp(prefix="cexec-fuzz-"))
    print("| target | what it reads | executions | seconds | coverage |\n|---|---|---|---|---|", flush=True)
    outcomes = []
    for name in names:
        outcome = fuzz(name, options.seconds, findings)
        outcomes.append(outcome)
        counts = f"{outcome.runs:,} | {outcome.seconds} | {outcome.coverage:,}"
        print(f"| `{name}` | {TARGETS[name].about} | {counts} |", flush=True)
    runs, seconds = sum(one.runs for one in outcomes), sum(one.seconds for one in outcomes)
    print(f"| {len(outcomes)} targets | | {runs:,} | {seconds:,} | |")
    found = [one for one in outcomes if one.report]
    for one in found:
        print(f"\n{one.name}:\n{one.report}")
    if not found and not options.findings:
        shutil.rmtree(findings)
    print(f"\n{len(found)} findings, in {findings}" if found else "\nno finding")
    return 1 if found else 0


def fuzz(name: str, seconds: int, findings: Path) -> Outcome:
    """Runs one target."""
    new = findings / name
    new.mkdir(parents=True, exist_ok=True)
    libfuzzer = {
        "max_total_time": seconds, "timeout": LONGEST_RUN, "max_len": LONGEST_INPUT,
        "artifact_prefix": f"{new}/finding-", "print_final_stats": 0,
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.fuzz.one", TARGETS[name].body.__module__, name]
    command += [f"-{option}={value}" for option, value in libfuzzer.items()]
    command += [str(new), str(CORPUS / name)]
    with tempfile.TemporaryDirectory(prefix="cexec-fuzz-") as temporary:  # libFuzzer ends without any clean-up
        environment = {**os.environ, "TMPDIR": temporary}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    told = ended.stderr.decode(errors="replace") + ended.stdout.decode(errors="replace")
    done, coverage = DONE.search(told), COVERAGE.findall(told)
    report = "" if done and not ended.returncode else told[-3000:]
    return Outcome(
        name, int(done[1]) if done else 0, int(done[2]) if done else 0, int(coverage[-1]) if coverage else 0, report
    )


if __name__ == "__main__":
    sys.exit(main())
