"""`python -m tests.faults`: the fault campaign.  `make faults` calls it in a network namespace of its own.

    --rows REGEX   only the rows whose group and name, `worker: killed mid stdin`, contain it
    --table FILE   puts the results into the table of this page (docs/reliability.md)
    --records DIR  where the records of rows that did harm are kept
    --list         names the rows

Exit status: 0 if no row did harm, 1 if one did, 100 if no row was chosen.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.campaign import Result, keep_or_remove, run_row
from tests.faults.rows import Row, all_rows
from tests.faults.table import summary, update_page

BROKEN_ROW = {"lost": 0, "doubled": 0, "corrupted": 0, "false_success": 0, "unaccounted": 0, "orphans": 0}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description="The fault campaign.")
    parser.add_argument("--rows", default="", metavar="REGEX")
    parser.add_argument("--table", type=Path, metavar="FILE")
    parser.add_argument("--records", type=Path, metavar="DIR")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    rows = [one for one in all_rows() if re.search(options.rows, f"{one.group}: {one.name}")]
    if not rows:
        print(f"faults: no row matches {options.rows!r}", file=sys.stderr)
        return 100
    if options.list:
        for one in rows:
            print(f"{one.group}: {one.name}: {one.text}")
        return 0
    records = options.records or Path(tempfile.mkdtemp(prefix="cexec-faults-"))
    records.mkdir(parents=True, exist_ok=True)
    results = [_run(one, records / f"{number:02}", time.monotonic()) for number, one in enumerate(rows, 1)]
    print("\n".join(summary(rows, results)))
    if options.table:
        update_page(options.table, rows, results)
    harmed = sum(bool(one.harm) for one in results)
    print(f"\n{len(results)} rows, {harmed} of them with harm; records are in {records}" if harmed else "\nno harm")
    return 1 if harmed else 0


def _run(row: Row, directory: Path, began: float) -> Result:
    print(f"{row.group}: {row.name} ...", flush=True)
    try:
        result = run_row(row, directory)
    except (Exception, AssertionError):
        return Result(row.name, 0, 0, dict(BROKEN_ROW), None, "", "", [f"not run: {traceback.format_exc()}"])
    seconds = "never" if result.recovery is None else f"{result.recovery:.1f} s"
    verdict = "HARM" if result.harm else "no harm"
    took = time.monotonic() - began
    print(f"    {verdict}: {result.jobs} jobs, {result.injected} faults, recovery {seconds}, took {took:.0f} s")
    for line in result.harm[:20]:
        print(f"    !! {line}")
    sys.stdout.flush()
    keep_or_remove(result, directory)
    return result


if __name__ == "__main__":
    sys.exit(main())
