"""Requests to every operation of the OpenAPI document: schemathesis sends what it allows and what it does not.

Contract: test_openapi.py runs this file in a process of its own, because its cases are made when it is read, and each
process that collects tests would make them.  The usual run tries each value and each bound that the document names, and
a few requests by chance; the campaign tries hundreds.  The cases have placeholders, in place of which `Placeholders`
puts what there is on the way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from requests.adapters import HTTPAdapter
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi.checks import ignored_auth

from cexec.gate.http.openapi import document
from tests.cmap.watch.journals import write_journal
from tests.gate.gates import Gate, run_job, start_job
from tests.python.clients import SHELL
from tests.service import Application, Service
from tests.waiting import PATIENCE

FEW, MANY = 3, 100
ALIKE: dict[str, Any] = {"deadline": None, "suppress_health_check": tuple(HealthCheck)}
FORGIVING = Path(__file__).with_name("forgiving.py")
STAY = "cexec: stay"  # the argument of a job that ends when its input does
PROGRAM = [*SHELL, f'if [ "$1" = "{STAY}" ]; then exec cat; fi; printf "%s\\n" "$@"', "sh"]  # whatever it is given
SLOTS = "50"  # jobs that were stopped, or were given no input, are there for a minute
OVER, RUNNING, FRESH, POOL = (f"00000000-0000-7000-8000-00000000000{number}" for number in range(4))
NAMES = {"cancelJob": [RUNNING, OVER], "signalJob": [RUNNING, OVER], "writeStdin": [RUNNING, OVER],
         "deleteJob": [FRESH, RUNNING], "getPool": [POOL], "killPool": [POOL]}  # fmt: skip
RUN = "0123456789abcdef"
NAMES |= {name: [RUN] for name in ("getRun", "getRunMap", "listFailedTasks", "pauseRun", "continueRun", "setRunWeight")}
TOKEN = "Bearer of-an-admin"
# Answers to what is right: the thing may not be there, or be over; and several values, each of which is right, may be
# too much together.
GOOD = ["2xx", "401", "403", "404", "409", "413", "429"]
# What is right as such may ask for bytes behind the end of an output, or for some that are not kept any more.
BYTES = {"positive_data_acceptance": {"expected-statuses": [*GOOD, "410", "416"]}}
# No worker may have what a job needs: the answer of a pipe is then a 503.
PIPES = {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]},
         "positive_data_acceptance": {"expected-statuses": [*GOOD, "503"]}}  # fmt: skip
CONFIG = {
    "checks": {"positive_data_acceptance": {"expected-statuses": GOOD}},
    "operations": [
        {"include-operation-id": ["getStdout", "getStderr", "getFile"], "checks": BYTES},
        {"include-operation-id": "run", "checks": PIPES},
    ],
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A worker whose program does no harm, whatever its arguments are."""
    service = Service(Application(tmp_path_factory.mktemp("worker")), PROGRAM, ["--allow-args", "-j", SLOTS])
    yield service
    service.close()


@pytest.fixture(scope="module")
def gate(key: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One that does not count wrong tokens."""
    state = tmp_path_factory.mktemp("gate") / "state"
    runs = tmp_path_factory.mktemp("runs")
    write_journal(runs / "over", [None, "failed", None])
    running = Gate(key, state, ["--retention", "1d", "--runs", str(runs)], wrapper=[sys.executable, FORGIVING])
    try:
        yield running
    finally:
        running.close()


class Placeholders(HTTPAdapter):
    """Sends a request with what there is in place of the names in `makers`, which are asked when it is used up."""

    def __init__(self, token: str, makers: dict[str, Callable[[], str]]) -> None:
        super().__init__()
        self._token = token
        self._makers = makers
        self._there: dict[str, str] = {}
        self._keys: set[str | bytes] = set()

    def send(self, request: requests.PreparedRequest, *arguments: Any, **keywords: Any) -> requests.Response:
        sent = request.copy()
        assert sent.url is not None
        used = [name for name in self._makers if name in sent.url]
        for name in used:
            if name not in self._there:
                self._there[name] = self._makers[name]()
            sent.url = sent.url.replace(name, self._there[name])
        if key := sent.headers.get("Idempotency-Key"):
            if key in self._keys:  # a schema cannot say that a key comes with one request only
                sent.headers["Idempotency-Key"] = str(uuid4())
            self._keys.add(key)
        if sent.headers.get("Authorization") == TOKEN:
            sent.headers["Authorization"] = f"Bearer {self._token}"
        answer = super().send(sent, *arguments, **keywords)
        answer.request = request  # what schemathesis compares with the case
        if answer.ok and request.method != "GET":
            for name in used:
                del self._there[name]
        return answer


@pytest.fixture(scope="module")
def session(gate: Gate, http: httpx.Client) -> Iterator[requests.Session]:
    """One client for all cases."""

    def pool() -> str:
        started = http.post("/v1/jobs", params={"wait": "60"}, json={"app": "app", "workers": "all"})
        return str(started.json()["id"])

    makers: dict[str, Callable[[], str]] = {
        OVER: lambda: str(run_job(http, "some output", files={"a": "1"}, fetch=["a"])["id"]),
        RUNNING: lambda: start_job(http, STAY, stdin={"stream": True}),
        FRESH: lambda: str(run_job(http, "")["id"]),
        POOL: pool,
        RUN: lambda: str(http.get("/v1/runs").json()["runs"][0]["id"]),
    }
    with requests.Session() as opened:
        opened.mount(gate.url, Placeholders(gate.token, makers))
        yield opened


def adapted() -> dict[str, Any]:
    """The document, with names of what there is, so that not every request asks for something absent."""
    described: dict[str, Any] = json.loads(json.dumps(document()))  # no part of it is in two places any more
    described["components"]["schemas"]["JobRequest"]["properties"]["app"] = {"enum": ["app"]}
    form = described["components"]["schemas"]["JobForm"]["properties"]
    form["files"]["maxItems"] = 1  # all files of schemathesis have one name, which it cannot choose
    for item in described["paths"].values():
        for operation in item.values():
            names = {"app": ["app"], "name": ["a", "absent"], "id": NAMES.get(operation["operationId"], [OVER])}
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"] = {"enum": names[parameter["name"]]}
    return described


SCHEMA = from_dict(adapted(), config=schemathesis.Config.from_dict(CONFIG)).exclude(path="/v1/events")


@SCHEMA.auth()
class Door:
    """Gives each request the token, unless it is one with a wrong token, or without one."""

    def get(self, case: Any, context: Any) -> str:
        return TOKEN

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers["Authorization"] = data


guarded: set[str] = set()  # operations that refuse requests without a valid token


def check(case: Any, gate: Gate, session: requests.Session, http: httpx.Client) -> None:
    operation = case.operation.definition.raw["operationId"]
    # That an operation asks for a token is seen by one request that has succeeded: two more follow each of these.
    excluded = [ignored_auth] if operation in guarded else []
    try:
        answer = case.call_and_validate(base_url=gate.url, session=session, timeout=PATIENCE, excluded_checks=excluded)
    except requests.exceptions.ChunkedEncodingError:  # so a pipe tells that its job has failed, here by its time limit
        (last,) = http.get("/v1/jobs", params={"limit": "1"}).json()["jobs"]
        assert operation == "run" and last["state"] == "failed"
        return
    if answer.status_code < 300:
        guarded.add(operation)


@SCHEMA.parametrize()
@settings(max_examples=FEW, derandomize=True, phases=[Phase.explicit, Phase.generate], **ALIKE)
def test_every_operation_keeps_its_description(
    case: Any, gate: Gate, session: requests.Session, http: httpx.Client
) -> None:
    check(case, gate, session, http)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@SCHEMA.parametrize()
@settings(max_examples=MANY, phases=[Phase.generate], **ALIKE)
def test_every_operation_keeps_its_description_at_length(
    case: Any, gate: Gate, session: requests.Session, http: httpx.Client
) -> None:
    check(case, gate, session, http)
