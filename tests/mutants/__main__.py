"""`python -m tests.mutants`: mutates the protocol and runs the tests against each mutant.  `make mutants` calls it.

    --mutants N     so many of them, 600 by default; 0 for all
    --seed N        which ones, 1 by default
    --modules TEXT  only those of the sample whose module contains this regular expression
    --killed FILE   does not run those that the file names, and adds those that are killed now: to go on with a run, or
                    to run the survivors again after tests were added
    --list          names them

Ctrl-C ends a run early, with the table so far: mutants are run in the order of the draw.  Exit status: 0 if each mutant
was killed or is explained in explained.py, 1 if one survived, 100 if there was none.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.mutants.explained import EXPLAINED
from tests.mutants.modules import MIRRORS
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.runner import KILLED, check, prepare, source_of, verdict


class Score:
    """What became of each mutant, by module."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.killed: Counter[str] = Counter()
        self.explained: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()

    def table(self) -> list[str]:
        """Returns the lines of docs/reliability.md."""
        lines = ["| module | mutants | killed | explained | survived |", "|---|---|---|---|---|"]
        for module in [*MIRRORS, ""]:
            counts = [
                counter[module] if module else counter.total()
                for counter in (self.killed, self.explained, self.survived)
            ]
            name = f"`{module.removeprefix('cexec.protocol.')}`" if module else "sum"
            if sum(counts):
                lines.append(f"| {name} | {sum(counts)} | {counts[0]} | {counts[1]} | {counts[2]} |")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = f"{time.monotonic() - self._start:.0f} seconds, {used.ru_utime + used.ru_stime:.0f} of the processor"
        return [*lines, "", seconds]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Mutates the protocol and runs its tests.")
    parser.add_argument("--mutants", type=int, default=600, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--modules", default="", metavar="TEXT")
    parser.add_argument("--killed", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = sample(options.modules, options.mutants, options.seed)
    if not chosen:
        print(f"mutants: the sample has none in a module {options.modules!r}", file=sys.stderr)
        return 100
    if options.list:
        print("\n".join(f"line {mutant.line}: {mutant}" for mutant in chosen))
        return 0
    score = Score()
    try:
        run(chosen, score, options.killed)
    except KeyboardInterrupt:
        print(f"interrupted before all {len(chosen)} were run")
    print("\n".join(["", *score.table()]))
    return 1 if score.survived else 0


def sample(modules: str, count: int, seed: int) -> list[Mutant]:
    """Returns `count` mutants of all modules, or all if it is 0, without those of modules that are not asked for.

    Each module has the share of the sample that it has of all mutants.  Which ones follows from the seed and this
    module alone, so a change elsewhere does not draw others.
    """
    found = {module: mutants_of(module, source_of(module)[1]) for module in MIRRORS}
    total = sum(map(len, found.values()))
    drawn: list[tuple[float, Mutant]] = []
    passed = 0  # mutants of the modules so far, by which a share is rounded so that the sum is exact
    for module, mutants in found.items():
        Random(f"{seed} {module}").shuffle(mutants)
        wanted = min(count or total, total)
        share = wanted * (passed + len(mutants)) // total - wanted * passed // total
        passed += len(mutants)
        drawn += [(place / share, mutant) for place, mutant in enumerate(mutants[:share])]
    drawn.sort(key=lambda pair: pair[0])  # so that a run that is interrupted has seen something of each module
    return [mutant for _, mutant in drawn if re.search(modules, mutant.module)]


def run(chosen: list[Mutant], score: Score, file: Path | None) -> None:
    """Runs one mutant after the other; `file` names those that were killed before."""
    prepare()
    before = set(file.read_text().splitlines()) if file is not None and file.exists() else set()
    limits: dict[frozenset[str], int] = {}  # by tests: many modules have the same ones
    for mutant in chosen:
        module = mutant.module
        if str(mutant) in before:
            score.killed[module] += 1
            continue
        if (tests := frozenset(MIRRORS[module])) not in limits:
            limits[tests] = check(module, MIRRORS[module])
        if verdict(mutant, MIRRORS[module], limits[tests]) == KILLED:
            score.killed[module] += 1
            if file is not None:
                with file.open("a") as text:
                    text.write(f"{mutant}\n")
        elif str(mutant) in EXPLAINED:
            score.explained[module] += 1
        else:
            score.survived[module] += 1
            print(f"survived, line {mutant.line}: {mutant}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
