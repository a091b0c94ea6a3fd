"""The example that collects figures from all workers, on four hosts, while one of them goes and comes back."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path

import pytest

from tests.environment import ROOT, clean_environment
from tests.gate.pcci.clusters import NODES, Cluster
from tests.waiting import PATIENCE, wait_until

SCRIPT = ROOT / "examples" / "health_check.py"


def rows(path: Path, query: str) -> list[tuple[str | float | int, ...]]:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []  # it is not there yet


def test_figures_of_all_workers_and_who_was_on_line(cluster: Cluster, tmp_path: Path) -> None:
    token, database, plot = tmp_path / "token", tmp_path / "health.sqlite", tmp_path / "health.svg"
    token.write_text(cluster.new_token("health"))
    ca, certificate, key = cluster.tls
    argv = [
        sys.executable, os.fspath(SCRIPT), "--url", cluster.url, "--token", os.fspath(token), "--cacert", ca,
        "--cert", certificate, "--key", key, "--database", os.fspath(database), "--plot", os.fspath(plot),
        "--interval", "1",
    ]  # fmt: skip
    script = cluster.hosts[4].popen(argv, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    try:
        of_each = "SELECT worker FROM value GROUP BY worker, measurement HAVING measurement = 'load' AND count(*) >= 2"
        wait_until(lambda: len(rows(database, of_each)) == len(NODES))
        cluster.stop("node4")
        wait_until(lambda: rows(database, "SELECT * FROM info WHERE worker = 'node4' AND NOT online"))
        (went,) = rows(database, "SELECT max(time) FROM info")[0]
        wait_until(lambda: rows(database, f"SELECT * FROM value WHERE time > {went}"))  # the others go on
        cluster.serve("node4")
        wait_until(lambda: len(rows(database, "SELECT * FROM info WHERE worker = 'node4' AND online")) == 2)
        wait_until(lambda: rows(database, f"SELECT * FROM value WHERE worker = 'node4' AND time > {went}"))
    finally:
        script.terminate()
        errors = script.communicate(timeout=PATIENCE)[1]
    assert "Traceback" not in errors, errors
    online = rows(database, "SELECT worker, online, address FROM info ORDER BY rowid")
    addresses = dict(zip(NODES, (host.address for host in cluster.hosts), strict=False))
    assert [worker for worker, _, _ in online[:4]] == list(NODES)
    assert all(str(address).startswith(f"{addresses[str(worker)]}:") for worker, here, address in online if here)
    assert [here for worker, here, _ in online if worker == "node4"] == [1, 0, 1]
    memory = rows(
        database, "SELECT DISTINCT worker FROM value WHERE measurement = 'memory %' AND value BETWEEN 1 AND 100"
    )
    assert len(memory) == len(NODES)
    drawn = ElementTree.parse(plot).getroot()
    lines = [line.findtext("{*}title") for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert {(name, lines.count(name) >= 2) for name in NODES} == {(name, True) for name in NODES}


def test_what_is_wrong_is_told_and_the_rounds_go_on(tmp_path: Path) -> None:
    argv = [sys.executable, os.fspath(SCRIPT), "--url", "http://127.0.0.1:9", "--rounds", "2", "--interval", "0.1"]
    ended = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, env=clean_environment()
    )
    assert ended.returncode == 0
    assert ended.stderr.count("health_check: ") == 2 and "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["a<b>&\"'", "node"])
def test_names_do_not_break_the_picture(tmp_path: Path, name: str) -> None:
    code = (
        "import sqlite3, sys, runpy, pathlib; m = runpy.run_path(sys.argv[1]); d = sqlite3.connect(':memory:'); "
        "d.executescript(m['TABLES']); m['note_who_is_there'](d, 1.0, {sys.argv[2]: 'x:1'}); "
        "d.execute('INSERT INTO value VALUES (2.0, ?, ?, 1.0)', [sys.argv[2], sys.argv[2]]); "
        "m['draw'](d, pathlib.Path('out.svg'))"
    )
    subprocess.run([sys.executable, "-c", code, os.fspath(SCRIPT), name], cwd=tmp_path, check=True, timeout=PATIENCE)
    texts = [element.text for element in ElementTree.parse(tmp_path / "out.svg").getroot().iter() if element.text]
    assert name in texts
