"""A client whose machine has gone without a word: its connections end, and its job goes on."""

from __future__ import annotations

import socket
import subprocess

import httpx
import pytest

from tests.gate.gates import Gate, start_job, state_of, wait_for_state
from tests.needs import require_isolation, require_tool
from tests.waiting import wait_until

NOTICED = 50.0  # seconds: TCP_USER_TIMEOUT and the keep-alive of the connections give 30


@pytest.mark.campaign
def test_a_reader_that_has_vanished_is_noticed(gate: Gate, http: httpx.Client) -> None:
    """Of an output that is silent, and of one of which bytes are on their way."""
    require_tool("nft")
    require_isolation()
    ids = [start_job(http, text) for text in ("echo begun; sleep 1000", "while :; do echo begun; sleep 1; done")]
    readers = []
    for id in ids:
        wait_for_state(http, id, "running")
        reader = socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2])))
        lines = [
            f"GET /v1/jobs/{id}/stdout?follow=1 HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {gate.token}",
            "",
            "",
        ]
        reader.sendall("\r\n".join(lines).encode())
        while b"begun" not in reader.recv(4096):
            pass
        readers.append(reader)
    before = gate.connections()
    ports = ", ".join(str(reader.getsockname()[1]) for reader in readers)
    rules = f"table ip gone {{ chain in {{ type filter hook input priority 0; tcp sport {{ {ports} }} drop; "
    rules += f"tcp dport {{ {ports} }} drop; }}; }}"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        wait_until(lambda: gate.connections() <= before - 2, NOTICED)
        assert [state_of(http, id) for id in ids] == ["running", "running"]
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "gone"], check=True)
        for reader in readers:
            reader.close()
        for id in ids:
            http.post(f"/v1/jobs/{id}/cancel")
