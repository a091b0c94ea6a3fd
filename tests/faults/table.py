"""The table of results, for a terminal and for docs/reliability.md.

Contract: `update_page` replaces, between the two marks of the page, the lines of the rows that were run, and keeps
those of the others; rows stand in the order of `all_rows()`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults.campaign import Result
from tests.faults.rows import CONNECTION, DATAGRAM, DISCRETE, DISK, HOST, OFFSET, PROCESS, Row, all_rows

BEGIN, END = "<!-- make faults: begin -->", "<!-- make faults: end -->"
HEAD = (
    "group", "fault", "jobs", "injected", "lost", "doubled", "corrupted", "false success", "unaccounted", "orphans",
    "recovery (usual), s", "descriptors", "memory, MB",
)  # fmt: skip

LINE = 120  # characters
INJECTED = 3  # its place in HEAD
NAMES = {
    PROCESS: "of processes", CONNECTION: "of connections", HOST: "of hosts and links", DISK: "of disks",
    OFFSET: "at single bytes of a connection",
}  # fmt: skip


def cells(row: Row, result: Result) -> list[str]:
    counts = [str(result.counts[name.replace(" ", "_")]) for name in HEAD[4:10]]
    found = result.recovery
    seconds = "never" if found is None else f"{found.seconds:.1f} ({found.usual:.1f})"
    told = f"{seconds}: {row.reason}" if row.reason else seconds
    return [
        row.group, f"{row.name}: {row.text}", str(result.jobs), str(result.injected), *counts, told,
        result.descriptors, result.memory,
    ]  # fmt: skip


def markdown(row: Row, result: Result) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row, result)) + " |"


def summary(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """One line for each row, and a loud one for each harm."""
    lines = ["", f"{'row':44} {'jobs':>5} {'inj.':>5} lost doub corr fals unac orph  recovery (usual), s"]
    for row, result in zip(rows, results, strict=True):
        counts = " ".join(f"{count:4}" for count in result.counts.values())
        found = result.recovery
        seconds = "   never" if found is None else f"{found.seconds:8.1f} ({found.usual:.1f})"
        loud = "  <<<<<< HARM" if result.harm else ""
        lines.append(f"{row.group + ': ' + row.name:44} {result.jobs:5} {result.injected:5} {counts}  {seconds}{loud}")
    return [*lines, "", *totals({row.name: result.injected for row, result in zip(rows, results, strict=True)})]


def update_page(page: Path, rows: Sequence[Row], results: Sequence[Result]) -> None:
    text = page.read_text()
    before, found, rest = text.partition(BEGIN)
    old, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{page} has no place for the table: {BEGIN} and {END}")
    lines = {
        name: line for name in (one.name for one in all_rows()) for line in old.splitlines() if f"| {name}: " in line
    }
    lines.update({row.name: markdown(row, result) for row, result in zip(rows, results, strict=True)})
    head = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    body = [lines[one.name] for one in all_rows() if one.name in lines]
    counted = {one.name: int(lines[one.name].split(" | ")[INJECTED]) for one in all_rows() if one.name in lines}
    page.write_text(before + BEGIN + "\n" + "\n".join([*head, *body, "", *totals(counted)]) + "\n" + END + after)


def totals(counted: Mapping[str, int]) -> list[str]:
    """Sums of the faults by what they hit, from the number of each row."""
    sums = dict.fromkeys((*DISCRETE, DATAGRAM), 0)
    for one in all_rows():
        sums[one.hits] += counted.get(one.name, 0)
    told = ", ".join(f"{sums[kind]:,} {name}" for kind, name in NAMES.items())
    discrete = f"{sum(sums[kind] for kind in DISCRETE):,} discrete faults: {told}."
    return textwrap.wrap(f"{discrete} And {sums[DATAGRAM]:,} datagrams.", LINE)
