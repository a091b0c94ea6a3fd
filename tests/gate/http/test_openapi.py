"""The OpenAPI document against what the code does: schemathesis sends what it allows and what it does not.

Contract: the usual run tries a few requests of each operation, and `make campaign` some hundreds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.generation import GenerationMode
from schemathesis.openapi import from_dict

from cexec.gate.http.app import PARTS
from cexec.gate.http.openapi import document
from tests.gate.gates import Gate

CONFIG = schemathesis.Config.from_dict({"generation": {"mode": "all"}})
SCHEMA = from_dict(document(), config=CONFIG)
FEW, MANY = 6, 300
PHASES = [Phase.explicit, Phase.generate]
EVERY = {"deadline": None, "phases": PHASES, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.fixture(scope="module")
def session(gate: Gate) -> Iterator[Any]:
    """One client of `requests` for all cases."""
    import requests

    with requests.Session() as opened:
        opened.headers["Authorization"] = f"Bearer {gate.token}"
        yield opened


def check(case: Any, gate: Gate, session: Any) -> None:
    if "args" in str(case.body):  # nothing that schemathesis invents is to run as a script
        case.headers["Content-Type"] = case.headers.get("Content-Type", "application/json")
    case.call_and_validate(base_url=gate.url, session=session, timeout=60, excluded_checks=EXCLUDED)


EXCLUDED: list[Any] = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in ("ignored_auth", "use_after_free", "ensure_resource_availability")
    if hasattr(schemathesis, "checks")
]


@SCHEMA.exclude(path="/v1/events").parametrize()
@settings(max_examples=FEW, derandomize=True, **EVERY)
def test_every_operation_keeps_its_description(case: Any, gate: Gate, session: Any) -> None:
    check(case, gate, session)


@pytest.mark.campaign
@SCHEMA.exclude(path="/v1/events").parametrize()
@settings(max_examples=MANY, **EVERY)
def test_every_operation_keeps_its_description_at_length(case: Any, gate: Gate, session: Any) -> None:
    check(case, gate, session)


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
    assert GenerationMode  # of the modes both are used


def test_streams_of_events_are_declared_as_such() -> None:
    """A tester that waits for the end of one would wait for ever."""
    (answer,) = document()["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]
    assert answer == "text/event-stream"
