#!/usr/bin/env python3
"""Asks every worker for some figures every five seconds, keeps them in a database, and draws them.

    cservice --allow-args pcci env                      on each worker
    cgate --pcci pcci.pub                               on the machine that everybody asks
    cgate token add health > token                      there, too
    examples/health_check.py --token token --plot health.svg

It needs nothing but Python.  The database (SQLite) has two tables: `value` (time, measurement, worker, value) has the
figures, and `info` (time, worker, online, address) has a row whenever a worker comes or goes.  A worker that does not
answer leaves a gap.  The picture is made anew after each round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import ssl
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

# What each worker is asked for.  No shell runs unless a command names one; a command that fails leaves a gap.
COMMANDS = {
    "load": 'cut -d " " -f 1 /proc/loadavg',
    "memory %": """awk '/^MemTotal/ {m = $2} /^MemAvailable/ {a = $2} END {print 100 * (m - a) / m}' /proc/meminfo""",
    "temperature": """awk '{print $1 / 1000}' /sys/class/thermal/thermal_zone0/temp""",
}
TABLES = """
CREATE TABLE IF NOT EXISTS value (time REAL, measurement TEXT, worker TEXT, value REAL);
CREATE TABLE IF NOT EXISTS info (time REAL, worker TEXT, online INTEGER, address TEXT);
"""
GAP = 3  # times the usual step between two figures: where more is missing, the line has a gap
LOOK = 0.2  # seconds between two looks at a pool
PATIENCE = 30.0  # seconds for one request

WIDTH, HEIGHT, LEFT, ROW = 900, 160, 60, 18  # of the picture and of one of its panels, in pixels
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#7f7f7f")


class Gate:
    """The paths of PCCI."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._context = context

    def ask(self, method: str, path: str, body: object = None) -> Any:
        fields = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, fields, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE, context=self._context) as answer:
            return json.load(answer)


def check(gate: Gate, database: sqlite3.Connection, patience: float) -> None:
    """One round: who is there, and what they say."""
    now = time.time()
    peers = {one["id"]: one["socket"]["_peername"] for one in gate.ask("GET", "/workers")}
    note_who_is_there(database, now, {name: f"{peer['address']}:{peer['port']}" for name, peer in peers.items()})
    if not peers:
        return
    pools = {}
    for measurement, command in COMMANDS.items():
        answer = gate.ask("POST", "/job", {"cmd": command, "workers": list(peers)})
        pools[measurement] = answer["pool_id"]
    for measurement, pool_id in pools.items():
        for job in wait_for(gate, pool_id, now + patience):
            found = re.search(r"-?\d+(\.\d+)?", job["result"] or "")
            if job["status"] == 0 and found:
                row = (now, measurement, job["worker_id"], float(found[0]))
                database.execute("INSERT INTO value VALUES (?, ?, ?, ?)", row)
    database.commit()


def wait_for(gate: Gate, pool_id: int, deadline: float) -> list[dict[str, Any]]:
    """Returns the jobs of a pool when all have ended, or when it is late."""
    while True:
        (pool,) = gate.ask("GET", f"/pool/{pool_id}")
        if pool["status"] is not None or time.time() > deadline:
            return list(pool["jobs"])
        time.sleep(LOOK)


def note_who_is_there(database: sqlite3.Connection, now: float, addresses: dict[str, str]) -> None:
    """Adds a row for each worker that has come or gone since the last row about it."""
    last = "SELECT worker, online FROM info WHERE rowid IN (SELECT max(rowid) FROM info GROUP BY worker)"
    before = {worker for worker, online in database.execute(last) if online}
    came = [(now, worker, 1, addresses[worker]) for worker in sorted(addresses.keys() - before)]
    went = [(now, worker, 0, "") for worker in sorted(before - addresses.keys())]
    database.executemany("INSERT INTO info VALUES (?, ?, ?, ?)", came + went)
    database.commit()


# The picture


def draw(database: sqlite3.Connection, path: Path) -> None:
    """Writes an SVG file: a panel for each measurement, and who was on line."""
    workers = [worker for (worker,) in database.execute("SELECT DISTINCT worker FROM info ORDER BY worker")]
    first, last = database.execute(
        "SELECT min(time), max(time) FROM (SELECT time FROM info UNION ALL SELECT time FROM value)"
    ).fetchone()
    if first is None:
        return
    span = max(last - first, 1.0)

    def across(moment: float) -> float:
        return float(LEFT + (moment - first) / span * (WIDTH - LEFT - 10))

    parts: list[str] = []
    top = 20.0
    for (measurement,) in database.execute("SELECT DISTINCT measurement FROM value ORDER BY measurement"):
        parts += panel(database, measurement, workers, top, across)
        top += HEIGHT + 30
    parts.append(f'<text x="{LEFT}" y="{top - 6:.0f}">on line</text>')
    for worker in workers:
        parts += presence(database, worker, colour(workers, worker), top, last, across)
        top += ROW
    for moment, anchor in ((first, "start"), (last, "end")):
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        parts.append(f'<text x="{across(moment):.0f}" y="{top + 8:.0f}" text-anchor="{anchor}">{clock}</text>')
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + 20:.0f}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
    new = path.with_name(f"{path.name}.new")
    new.write_text(svg)
    new.replace(path)


def panel(database: sqlite3.Connection, measurement: str, workers: list[str], top: float, across: Any) -> list[str]:
    """One measurement: a line for each worker."""
    rows = database.execute("SELECT worker, time, value FROM value WHERE measurement = ? ORDER BY time", [measurement])
    points: dict[str, list[tuple[float, float]]] = {}
    for worker, moment, value in rows:
        points.setdefault(worker, []).append((moment, value))
    highest = max((value for line in points.values() for _, value in line), default=0.0) or 1.0
    parts = [
        f'<text x="{LEFT}" y="{top - 6:.0f}">{escape(measurement)}</text>',
        f'<text x="4" y="{top + 10:.0f}">{highest:.4g}</text><text x="4" y="{top + HEIGHT:.0f}">0</text>',
        f'<rect x="{LEFT}" y="{top:.0f}" width="{WIDTH - LEFT - 10}" height="{HEIGHT}" fill="none" stroke="#ccc"/>',
    ]
    for worker, line in sorted(points.items()):
        drawn = f'fill="none" stroke="{colour(workers, worker)}" stroke-width="1.5"'
        for part in without_gaps(line):
            at = " ".join(
                f"{across(when):.1f},{top + HEIGHT * (1 - max(value, 0.0) / highest):.1f}" for when, value in part
            )
            parts.append(f'<polyline points="{at}" {drawn}><title>{escape(worker)}</title></polyline>')
    return parts


def without_gaps(line: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The parts of a line between which some figures are missing."""
    steps = sorted(later[0] - earlier[0] for earlier, later in pairwise(line))
    usual = steps[len(steps) // 2] if steps else 0.0
    parts = [line[:1]]
    for earlier, later in pairwise(line):
        if later[0] - earlier[0] > GAP * usual:
            parts.append([])
        parts[-1].append(later)
    return parts


def presence(database: sqlite3.Connection, worker: str, fill: str, top: float, last: float, across: Any) -> list[str]:
    """A bar while the worker was on line."""
    parts = [f'<text x="4" y="{top + ROW - 6:.0f}" fill="{fill}">{escape(worker[:9])}</text>']
    begun: float | None = None
    rows = database.execute("SELECT time, online FROM info WHERE worker = ? ORDER BY time", [worker]).fetchall()
    for moment, online in [*rows, (last, 0)]:
        if online and begun is None:
            begun = moment
        elif not online and begun is not None:
            width = max(across(moment) - across(begun), 1.0)
            place = f'x="{across(begun):.1f}" y="{top:.0f}" width="{width:.1f}" height="{ROW - 6}"'
            parts.append(f'<rect {place} fill="{fill}"><title>{escape(worker)}</title></rect>')
            begun = None
    return parts


def colour(workers: list[str], worker: str) -> str:
    return COLOURS[workers.index(worker) % len(COLOURS)] if worker in workers else "#000"


def main() -> int:
    parser = argparse.ArgumentParser(description="Figures of all workers, by cgate --pcci.")
    parser.add_argument("--url", default="http://127.0.0.1:8042", help="where cgate is (default: %(default)s)")
    parser.add_argument("--token", metavar="FILE", help="the file with the token; by default CGATE_TOKEN has it")
    parser.add_argument("--cacert", metavar="FILE", help="the authority of its certificate")
    parser.add_argument("--cert", metavar="FILE", help="our certificate")
    parser.add_argument("--key", metavar="FILE", help="its key")
    parser.add_argument("--database", metavar="FILE", default="health.sqlite", help="default: %(default)s")
    parser.add_argument("--plot", metavar="FILE.svg", type=Path, help="draw the figures there")
    parser.add_argument("--interval", type=float, default=5.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, metavar="N", help="end after N rounds")
    options = parser.parse_args()
    token = Path(options.token).read_text() if options.token else os.environ.get("CGATE_TOKEN", "")
    context = None
    if options.url.startswith("https:"):
        context = ssl.create_default_context(cafile=options.cacert)
        if options.cert:
            context.load_cert_chain(options.cert, options.key)
    gate = Gate(options.url, token.strip(), context)
    with closing(sqlite3.connect(options.database)) as database:
        database.executescript(TABLES)
        number = 0
        while options.rounds is None or number < options.rounds:
            begun = time.monotonic()
            try:
                check(gate, database, options.interval)
            except (OSError, ValueError) as error:  # cgate restarts, or a worker has gone in this very moment
                told = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
                print(f"health_check: {told}", file=sys.stderr)
            if options.plot:
                draw(database, options.plot)
            number += 1
            if options.rounds is None or number < options.rounds:
                time.sleep(max(0.0, begun + options.interval - time.monotonic()))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
