"""The OpenAPI document against what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cexec.gate.http.app import PARTS
from cexec.gate.http.openapi import document

EVERY_OPERATION = Path(__file__).with_name("every_operation.py")
OURS = "PYTEST_"  # what variables of this run of pytest begin with, which would confuse another one


@pytest.mark.parametrize(
    ("marks", "seconds"),
    [
        pytest.param("not campaign", 200, id="few requests"),
        pytest.param("campaign", 3600, id="many", marks=[pytest.mark.campaign, pytest.mark.timeout(3700)]),
    ],
)
def test_every_operation_keeps_its_description(marks: str, seconds: float) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, str(EVERY_OPERATION)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=seconds)
    assert ended.returncode == 0, ended.stdout
    passed = re.search(r"^(\d+) passed", ended.stdout.splitlines()[-1])
    operations = sum(len(item) for item in document()["paths"].values())
    assert passed is not None and int(passed[1]) == operations - 1, "all but /v1/events"


def test_the_document_has_every_route_and_no_other(http: httpx.Client) -> None:
    told = http.get("/v1/openapi.json").json()
    described = {(path, method.upper()) for path, item in told["paths"].items() for method in item}
    routes = {
        (route.path.replace(":path", ""), method)
        for part in PARTS
        for route in part.ROUTES
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    assert described == routes


def test_streams_of_events_are_declared_as_such() -> None:
    """A tester that waits for the end of one would wait for ever."""
    (answer,) = document()["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]
    assert answer == "text/event-stream"
