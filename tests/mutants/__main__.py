"""`python -m tests.mutants`: mutates the protocol and runs the tests against each mutant.  `make mutants` calls it.

    --mutants N     so many of them, 600 by default; 0 for all
    --seed N        which ones, 1 by default
    --modules TEXT  only of modules whose name contains it
    --list          names them

Exit status: 0 if each mutant was killed or is explained in explained.py, 1 if one survived, 100 if there was none.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import Random

from tests.mutants.explained import EXPLAINED
from tests.mutants.modules import MIRRORS
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.runner import KILLED, check, prepare, source_of, verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Mutates the protocol and runs its tests.")
    parser.add_argument("--mutants", type=int, default=600, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--modules", default="", metavar="TEXT")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = sample(options.modules, options.mutants, options.seed)
    if not chosen:
        print(f"mutants: there is none in a module {options.modules!r}", file=sys.stderr)
        return 100
    if options.list:
        print("\n".join(f"line {mutant.line}: {mutant}" for mutant in chosen))
        return 0
    return report(chosen)


def sample(modules: str, count: int, seed: int) -> list[Mutant]:
    """Returns `count` mutants, or all if it is 0, in the order of the source; fewer of a seed are among the more."""
    found = [mutant for module in MIRRORS if modules in module for mutant in mutants_of(module, source_of(module)[1])]
    order = list(range(len(found)))
    Random(seed).shuffle(order)
    return [found[index] for index in sorted(order[: count or None])]


def report(chosen: list[Mutant]) -> int:
    """Runs them one after the other; returns the exit status."""
    prepare()
    start = time.monotonic()
    killed: Counter[str] = Counter()
    explained: Counter[str] = Counter()
    survivors = []
    for module in dict.fromkeys(mutant.module for mutant in chosen):
        check(module, MIRRORS[module])
    for mutant in chosen:
        if verdict(mutant, MIRRORS[mutant.module]) == KILLED:
            killed[mutant.module] += 1
        elif str(mutant) in EXPLAINED:
            explained[mutant.module] += 1
        else:
            survivors.append(mutant)
            print(f"survived, line {mutant.line}: {mutant}", flush=True)
    of_each = Counter(mutant.module for mutant in chosen)
    print("\n| module | mutants | killed | explained | survived |\n|---|---|---|---|---|")
    for module, count in of_each.items():
        left = count - killed[module] - explained[module]
        name = module.removeprefix("cexec.protocol.")
        print(f"| `{name}` | {count} | {killed[module]} | {explained[module]} | {left} |")
    print(
        f"| sum | {len(chosen)} | {killed.total()} | {explained.total()} | {len(survivors)} |\n"
        f"\n{time.monotonic() - start:.0f} seconds; killed {killed.total() / len(chosen):.1%}"
    )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
