"""Server-sent events when `cgate` stops: their readers are told all, and the end."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from tests.gate.gates import Gate, start_job, wait_for_state
from tests.service import Application, Service
from tests.waiting import PATIENCE

STOP = 20.0  # seconds: less than answers on their way are waited for by a cgate that has this much patience
PATIENT = """
import runpy, sys
from cexec.gate import server
server.STOP_PATIENCE = 40
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_open_streams_end_with_cgate_and_its_log_is_clean(key: Application, worker: Service, state: Path) -> None:
    gate = Gate(key, state, wrapper=[sys.executable, "-c", PATIENT])
    with gate.http() as http, http.stream("GET", "/v1/events") as events:
        lines = events.iter_lines()
        next(lines)
        id = start_job(http, "exec sleep 1000")
        wait_for_state(http, id, "running")
        begin = time.monotonic()
        gate.process.send_signal(signal.SIGTERM)
        rest = list(lines)
        assert gate.process.wait(PATIENCE) == 0
        assert time.monotonic() - begin < STOP
        assert any(id in line and '"interrupted"' in line for line in rest)
    gate.close()
