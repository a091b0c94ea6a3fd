"""Server-sent events when `cgate` stops: their readers are told all, and the end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.gate.gates import Gate, start_job, wait_for_state
from tests.service import Application, Service
from tests.waiting import PATIENCE

STOP = 2.5  # seconds: less than answers on their way are waited for


def test_open_streams_end_with_cgate_and_its_log_is_clean(key: Application, worker: Service, state: Path) -> None:
    gate = Gate(key, state)
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
