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
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.faults.campaign import Result, RunningRow, keep_or_remove
from tests.faults.checker import Verdict
from tests.faults.rows import Row, all_rows
from tests.faults.table import summary, update_page

WAITING = 6  # rows that wait for their loggers at the same time
SHOWN = 20  # harms of a row that are shown at once


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an ended campaign puts away what it has started
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
    with ThreadPoolExecutor(max_workers=WAITING) as waiting:
        pending = []
        for number, one in enumerate(rows, 1):
            pending.append(_run(one, records / f"{number:02}", waiting))
            if options.table:  # after each row, so that a campaign that is ended has written what it has found
                _write_finished(options.table, rows, pending)
        results = [one.result() for one in pending]
    print("\n".join(summary(rows, results)))
    if options.table:
        update_page(options.table, rows, results)
    harmed = sum(bool(one.harm) for one in results)
    print(f"\n{len(results)} rows, {harmed} of them with harm; records are in {records}" if harmed else "\nno harm")
    return 1 if harmed else 0


def _write_finished(page: Path, rows: list[Row], pending: list[Future[Result]]) -> None:
    finished = [(row, one.result()) for row, one in zip(rows, pending, strict=False) if one.done()]
    update_page(page, [row for row, _ in finished], [result for _, result in finished])


def _run(row: Row, directory: Path, waiting: ThreadPoolExecutor) -> Future[Result]:
    """Returns when the row's load has ended; what only waits for the logger goes on beside the next row."""
    print(f"{row.group}: {row.name} ...", flush=True)
    began = time.monotonic()
    running = RunningRow(row, directory)
    try:
        running.inject()
    except Exception:
        return waiting.submit(_tell, row, _not_run(row), directory, began)
    return waiting.submit(_judge, row, running, directory, began)


def _judge(row: Row, running: RunningRow, directory: Path, began: float) -> Result:
    try:
        result = running.judge()
    except Exception:
        result = _not_run(row)
    return _tell(row, result, directory, began)


def _not_run(row: Row) -> Result:
    return Result(row.name, 0, 0, Verdict().counts, None, "", "", [f"not run: {traceback.format_exc()}"])


def _tell(row: Row, result: Result, directory: Path, began: float) -> Result:
    found = result.recovery
    seconds = "never" if found is None else f"{found.seconds:.1f} s (usual: {found.usual:.1f} s)"
    verdict = "HARM" if result.harm else "no harm"
    took = time.monotonic() - began
    lines = [f"    {row.group}: {row.name}: {verdict}: {result.jobs} jobs, {result.injected} faults, "
             f"recovery {seconds}, took {took:.0f} s"]  # fmt: skip
    lines += [f"    !! {line}" for line in result.harm[:SHOWN]]
    print("\n".join(lines), flush=True)
    keep_or_remove(result, directory)
    return result


if __name__ == "__main__":
    sys.exit(main())
