"""The wall clock, which a person may set at any time, tells when something was; it never measures how long it took."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The modules that read it, and why a duration is not what they want of it.
READERS = {
    "authority/issue.py": "the dates of certificates",
    "authority/show.py": "the dates of certificates",
    "boot/remote/release.py": "the age of a file",
    "boot/serve.py": "the dates of certificates",
    "client/request.py": "the dates of certificates",
    "client/search/failure_alert.py": "the time of an alert",
    "client/search/inquiry.py": "how far the clocks of workers differ from ours",
    "client/search/search.py": "the dates of certificates",
    "cmap/run/task_run.py": "the Starttime of the joblog",
    "cmap/setup.py": "the start of a run, in the journal",
    "cmap/watch/explain.py": "the time of a note, which another process reads",
    "commands/cgate_token.py": "the day on which a token ends",
    "commands/cmap_watch.py": "the day of an attempt, and how long one runs that another process has begun",
    "commands/served_keys.py": "the dates of certificates",
    "gate/access/audit.py": "the time of a line",
    "gate/access/sessions.py": "when a one-time URL ends, for another process",
    "gate/access/steady_clock.py": "when tokens end",
    "gate/jobs/application.py": "since when a worker is there",
    "gate/jobs/desk.py": "when outputs were removed, and until when they are kept",
    "gate/jobs/engine.py": "the times of jobs, which are kept",
    "gate/jobs/job_ids.py": "ids in the order of time",
    "gate/page/cluster_history.py": "the times of samples, which are kept",
    "gate/pcci/routes.py": "whether a pool that is kept has expired",
    "gate/rpc/cluster_service.py": "since when a worker is there",
    "gate/rpc/worker_watch.py": "since when a worker is there",
    "gate/runs/run_shelf.py": "when tasks ended, by the clock of cmap",
    "gate/server.py": "when tokens end",
    "logger/allowances.py": "how old an alert is by its sender's clock",
    "logger/reporter.py": "the time of a line",
    "net/announcer.py": "when an announcement was made, for workers that compare two",
    "pool/module_cache.py": "the age of a file",
    "system/host/load.py": "the time of the boot, which names it",
    "system/process/orphans.py": "the age of a file",
    "system/storage/eventlog.py": "the time of a line",
    "worker/discovery/alert_sender.py": "the time of an alert",
    "worker/discovery/answers.py": "the worker's clock, for those who compare it",
    "worker/discovery/listener.py": "the dates of certificates",
    "worker/discovery/presence_sender.py": "the worker's clock, for those who compare it",
    "worker/worker.py": "the dates of certificates",
}


# A source without any of these does not read it.  That saves most of the time, for most sources are such ones.
CANDIDATE = re.compile(r"\btime\s*\.\s*time|\bfrom\s+time\s+import\b([^\n]*\btime|\s*\(|[^\n]*\\$)", re.MULTILINE)


def test_only_these_modules_read_the_wall_clock() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "cexec").rglob("*.py")}
    found = {str(path.relative_to(ROOT / "cexec")) for path, source in sources.items() if reads_it(source)}
    assert found == set(READERS)


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("import time\ntime.time()", True),
        ("import time\ndef f():\n    return time.time_ns", True),
        ("from time import monotonic, time", True),
        ("from time import (\n    monotonic,\n    time_ns,\n)", True),
        ("from time import monotonic, \\\n    time", True),
        ("import time\ntime.monotonic()", False),
        ("from time import (\n    monotonic,\n    sleep,\n)", False),
        ("from time import monotonic", False),
        ("# time.time()", False),
    ],
)
def test_the_check_sees_each_form(source: str, reads: bool) -> None:
    assert reads_it(source) is reads


def reads_it(source: str) -> bool:
    return bool(CANDIDATE.search(source)) and any(map(_is_wall_clock, ast.walk(ast.parse(source))))


def _is_wall_clock(node: ast.AST) -> bool:
    """True for `time.time` and for `from time import time`."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "time" and any(name.name.startswith("time") for name in node.names)
    return (
        isinstance(node, ast.Attribute)
        and node.attr in ("time", "time_ns")
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    )
