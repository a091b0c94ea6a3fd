"""The OpenAPI document against what the code does: schemathesis sends what it allows and what it does not.

Contract: the usual run tries a few requests of each operation, and `make campaign` some hundreds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi.checks import ignored_auth, missing_required_header

from cexec.gate.http.app import PARTS
from cexec.gate.http.openapi import document
from tests.cmap.watch.journals import write_journal
from tests.gate.gates import Gate, run_job
from tests.python.clients import ALLOW
from tests.service import Application, Service
from tests.waiting import PATIENCE

FEW, MANY = 3, 200
# A pipe answers 503 if no worker fits, and is cut off by a limit; a key with another request than before is refused.
LEFT_OUT = ("need", "time_limit", "Idempotency-Key")
PHASES = (Phase.explicit, Phase.generate)
CHECKS = tuple(HealthCheck)
DOOR = [
    ignored_auth,
    missing_required_header,
]  # see tests/gate/access: wrong tokens are counted, and then refused as 429
JOB, POOL = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
RUN = "0123456789abcdef"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A worker whose program does no harm, whatever its arguments are."""
    service = Service(Application(tmp_path_factory.mktemp("worker")), ["echo"], ALLOW)
    yield service
    service.close()


@pytest.fixture(scope="module")
def gate(key: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    runs = tmp_path_factory.mktemp("runs")
    write_journal(runs / "over", [None, "failed", None])
    running = Gate(key, tmp_path_factory.mktemp("gate") / "state", ["--runs", str(runs)])
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def session(gate: Gate) -> Iterator[requests.Session]:
    """One client for all cases."""
    with requests.Session() as opened:
        opened.headers["Authorization"] = f"Bearer {gate.token}"
        yield opened


def adapted() -> dict[str, Any]:
    """The document, with names of what there is, so that not every request asks for something absent."""
    described = copy.deepcopy(document())
    request = described["components"]["schemas"]["JobRequest"]["properties"]
    request["app"] = {"enum": ["app"]}
    for name in (
        "needs",
        "exclude",
        "env",
        "files",
        "fetch",
    ):  # what no job can have is found later, and no pattern says all of it
        del request[name]
    for path, item in described["paths"].items():
        for operation in item.values():
            operation["parameters"] = [one for one in operation.get("parameters", ()) if one["name"] not in LEFT_OUT]
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["name"] == "id":
                    parameter["schema"] = {"enum": [POOL if "pools" in path else RUN if "runs" in path else JOB]}
                elif parameter["in"] == "path" and parameter["name"] == "app":
                    parameter["schema"] = {"enum": ["app"]}
    return described


# The token comes by the session, so it cannot be left out here.
CONFIG = schemathesis.Config.from_dict(
    {"generation": {"mode": "all", "with-security-parameters": False, "allow-x00": False}}
)
SCHEMA = from_dict(adapted(), config=CONFIG)


@pytest.fixture(scope="module")
def ids(http: httpx.Client) -> dict[str, str]:
    """A job, a pool and a run that are over, in place of those of the document."""
    job = run_job(http, "some output", files={"a": "1"})["id"]
    pool = http.post("/v1/jobs", params={"wait": "60"}, json={"app": "app", "workers": "all"}).json()["id"]
    return {JOB: job, POOL: pool, RUN: http.get("/v1/runs").json()["runs"][0]["id"]}


def check(case: Any, gate: Gate, session: requests.Session, ids: dict[str, str]) -> None:
    given = case.path_parameters.get("id")
    if isinstance(given, str) and given in ids and case.method != "DELETE":
        case.path_parameters["id"] = ids[given]
    case.call_and_validate(base_url=gate.url, session=session, timeout=PATIENCE, excluded_checks=DOOR)


@SCHEMA.exclude(path="/v1/events").parametrize()
@settings(max_examples=FEW, derandomize=True, deadline=None, phases=PHASES, suppress_health_check=CHECKS)
def test_every_operation_keeps_its_description(
    case: Any, gate: Gate, session: requests.Session, ids: dict[str, str]
) -> None:
    check(case, gate, session, ids)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@SCHEMA.exclude(path="/v1/events").parametrize()
@settings(max_examples=MANY, deadline=None, phases=PHASES, suppress_health_check=CHECKS)
def test_every_operation_keeps_its_description_at_length(
    case: Any, gate: Gate, session: requests.Session, ids: dict[str, str]
) -> None:
    check(case, gate, session, ids)


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
