"""The statements of a journal that are made for many tasks at once.

Contract: constants.  `ORDER` is the order in which the rows of one transaction are written: a task before its attempts,
and their ends before its end.
"""

from __future__ import annotations

from cexec.cmap.results.journal_store import RowStatement

KNOWN_TASKS = RowStatement(
    "INSERT INTO task (key, occurrence, run, number, place)",
    "ON CONFLICT (key, occurrence) DO UPDATE SET run = excluded.run, number = excluded.number, place = excluded.place",
)
NEW_TASKS = RowStatement("INSERT INTO task (key, occurrence, run, number, state, command, stamp, place)")
ATTEMPTS = RowStatement("INSERT INTO attempt (id, key, occurrence, worker, started, once)")
ATTEMPT_ENDS = RowStatement(
    "INSERT INTO attempt (id, ended, reason, once, cpu)",
    "ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, reason = excluded.reason, once = once AND excluded.once, "
    "cpu = excluded.cpu",
)
TASK_ENDS = RowStatement(
    "INSERT INTO task "
    "(key, occurrence, state, worker, started, runtime, sent, received, exitval, signal, reason, said)",
    "ON CONFLICT (key, occurrence) DO UPDATE SET state = excluded.state, worker = excluded.worker, "
    "started = excluded.started, runtime = excluded.runtime, sent = excluded.sent, received = excluded.received, "
    "exitval = excluded.exitval, signal = excluded.signal, reason = excluded.reason, said = excluded.said",
)
PENDING = RowStatement("INSERT OR REPLACE INTO pending")
SETTLED = RowStatement("DELETE FROM pending WHERE (key, occurrence) IN (", ")")
ORDER = (KNOWN_TASKS, NEW_TASKS, ATTEMPTS, ATTEMPT_ENDS, TASK_ENDS, PENDING, SETTLED)
