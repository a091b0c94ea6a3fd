"""Jobs over HTTP, on a real cluster of one worker."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.gate.gates import Gate, run_job, script, start_job, state_of, wait_for_state
from tests.waiting import wait_until


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of a problem document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status and document["title"] and document["type"] == "about:blank"
    return str(document["detail"])


def output(http: httpx.Client, id: str, stream: str = "stdout") -> bytes:
    answer = http.get(f"/v1/jobs/{id}/{stream}")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_job_from_start_to_end(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", params={"wait": "60"}, json=script("cat; echo bad >&2; exit 3", stdin="some input"))
    job = answer.json()
    assert answer.status_code == 201 and answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["exit_status"], job["signal"], job["reason"]) == ("failed", 3, None, None)
    assert job["worker"].endswith("@127.0.0.1") and job["attempts"] == 1 and job["owner"] == "admin"
    assert job["submitted"] <= job["started"] <= job["ended"]
    assert http.get(f"/v1/jobs/{job['id']}").json() == job
    assert (output(http, job["id"]), output(http, job["id"], "stderr")) == (b"some input", b"bad\n")


def test_a_job_that_nobody_waits_for_goes_on(http: httpx.Client) -> None:
    id = start_job(http, "cat; echo end", stdin={"base64": base64.b64encode(bytes(range(256))).decode()})
    wait_for_state(http, id, "succeeded")
    assert output(http, id) == bytes(range(256)) + b"end\n"


def test_a_signal_and_the_signal_that_ends_it(http: httpx.Client) -> None:
    id = start_job(http, "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    wait_until(lambda: output(http, id) == b"ready\n")
    assert http.post(f"/v1/jobs/{id}/signal", json={"signal": "USR1"}).status_code == 200
    wait_for_state(http, id, "failed")
    assert output(http, id) == b"ready\ncaught\n"
    assert run_job(http, "kill -TERM $$")["signal"] == "SIGTERM"


def test_cancel_ends_the_program_and_its_children(http: httpx.Client, gate: Gate) -> None:
    id = start_job(http, "echo ready; sleep 1000 & sleep 1000")
    wait_until(lambda: output(http, id) == b"ready\n")
    job = http.post(f"/v1/jobs/{id}/cancel").json()
    assert (job["state"], job["exit_status"], job["reason"]) == ("cancelled", None, "the job was cancelled by admin")
    assert "is over: cancelled" in problem(http.post(f"/v1/jobs/{id}/cancel"), 409)
    assert "is over" in problem(http.post(f"/v1/jobs/{id}/signal", json={"signal": "INT"}), 409)


def test_a_time_limit_ends_a_job_and_says_so(http: httpx.Client) -> None:
    job = run_job(http, "sleep 1000", time_limit=0.2)
    assert job["state"] == "failed" and "time limit" in job["reason"]


def test_delete_only_when_it_is_over(http: httpx.Client, gate: Gate) -> None:
    id = start_job(http, "head -c 100000 /dev/zero; read line", stdin={"stream": True})
    wait_for_state(http, id, "running")
    assert "cancel it first" in problem(http.delete(f"/v1/jobs/{id}"), 409)
    http.post(f"/v1/jobs/{id}/cancel")
    assert http.delete(f"/v1/jobs/{id}").status_code == 200
    assert "there is no job" in problem(http.get(f"/v1/jobs/{id}"), 404)
    assert not [name for name in gate.files if name.startswith(id)]


def test_the_same_key_is_the_same_job(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "once"}
    first = http.post("/v1/jobs", json=script("echo one"), headers=headers)
    again = http.post("/v1/jobs", json=script("echo one"), headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = http.post("/v1/jobs", json=script("echo two"), headers=headers)
    assert "came with another request" in problem(other, 422)
    assert "printable ASCII" in problem(http.post("/v1/jobs", json=script(""), headers={"Idempotency-Key": ""}), 422)


def test_requests_with_one_key_at_the_same_time_start_one_job(gate: Gate) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def post(_: int) -> str:
        with gate.http() as http:
            answer = http.post("/v1/jobs", json=script("echo one"), headers={"Idempotency-Key": "together"})
            return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(post, range(8)))) == 1


def test_files_there_and_back(http: httpx.Client, gate: Gate) -> None:
    files = {"one": "1", "a/b": {"base64": "Mg=="}}
    job = run_job(http, "cat one > two; cat a/b >> two; mkdir c; cp two c/d", files=files, fetch=["two", "c/d"])
    assert (job["state"], job["files"]) == ("succeeded", ["two", "c/d"])
    for name in job["files"]:
        answer = http.get(f"/v1/jobs/{job['id']}/files/{name}")
        assert (answer.status_code, answer.content) == (200, b"12")
    part = http.get(f"/v1/jobs/{job['id']}/files/two", headers={"Range": "bytes=1-"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"2", "bytes 1-1/2")
    assert "its files: two, c/d" in problem(http.get(f"/v1/jobs/{job['id']}/files/three"), 404)
    missing = run_job(http, "true", fetch=["never"])
    assert missing["state"] == "failed" and "never" in missing["reason"]


def test_a_form_with_files(http: httpx.Client, gate: Gate) -> None:
    big = b"x" * 3_000_000
    description = b'{"app": "app", "args": ["cat; wc -c < big"]}'
    parts = [("job", (None, description)), ("stdin", ("in", b"the input\n")), ("files", ("big", big))]
    answer = http.post("/v1/jobs", params={"wait": "60"}, files=parts)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert job["state"] == "succeeded"
    assert output(http, job["id"]).split() == [b"the", b"input", b"3000000"]
    wait_until(lambda: not [name for name in gate.files if ".in." in name])  # they go with the job


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ([("stdin", ("in", b""))], 422, "one part called job"),
        ([("job", (None, b"{")), ("stdin", ("in", b""))], 400, "not JSON"),
        ([("job", (None, b'{"app":"app"}')), ("other", ("in", b""))], 422, "but not other"),
        ([("job", (None, b'{"app":"app"}')), ("files", ("a", b"")), ("files", ("a", b""))], 422, "comes twice"),
        ([("job", (None, b'{"app":"app","stdin":""}')), ("stdin", ("in", b"b"))], 422, "stdin comes twice"),
        ([("job", (None, b'{"app":"none"}')), ("files", ("a", b"1"))], 404, "no application is called none"),
        ([("job", (None, b'{"app":"app"}')), ("files", ("../a", b"1"))], 422, "relative"),
    ],
)
def test_forms_that_are_not_right_leave_nothing(
    http: httpx.Client, gate: Gate, parts: Any, status: int, words: str
) -> None:
    before = gate.files
    assert words in problem(http.post("/v1/jobs", files=parts), status)
    assert gate.files == before


def test_a_damaged_form_writes_nothing_into_the_log(http: httpx.Client, gate: Gate) -> None:
    """The library that reads forms warns of each byte that it did not expect."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "no form" in problem(http.post("/v1/jobs", content=b"{}", headers=headers), 400)
    assert not [line for line in gate.lines if "oundary" in line]


@pytest.mark.parametrize("name", ["Content-Type", "Idempotency-Key", "Range", "Last-Event-ID"])
def test_of_two_fields_none_is_passed_over(http: httpx.Client, name: str) -> None:
    answer = http.get("/v1/apps", headers=[(name, "a"), (name, "b")])
    assert problem(answer, 400) == f"there is more than one field {name.lower()}"


BAD = [
    (b"", 422, "has to be a JSON object"),
    (b"[]", 422, "has to be a JSON object"),
    (b'{"app": "app", "args": ["x"', 400, "not JSON at byte"),
    (b'{"app": "app", "time_limit": NaN}', 400, "not JSON"),
    (b"\xff", 400, "not UTF-8"),
    (b"[" * 100_000, 400, "nested too deeply"),
    (b"{}", 422, "app has to be a text"),
    (b'{"app": "none"}', 404, "no application is called none"),
    (b'{"app": "app", "command": "x"}', 422, "no member command"),
    (b'{"app": "app", "args": "x"}', 422, "args has to be a list"),
    (b'{"app": "app", "args": ["a\\u0000b"]}', 422, "contains a NUL"),
    (b'{"app": "app", "args": ["\\ud800"]}', 422, "half a character"),
    (b'{"app": "app", "env": {"A=B": "1"}}', 422, "A=B"),
    (b'{"app": "app", "stdin": {"base64": "*"}}', 422, "not base64"),
    (b'{"app": "app", "stdin": {"stream": false}}', 422, "stdin has to be"),
    (b'{"app": "app", "stdin": {"stream": true}, "workers": "all"}', 422, "cannot be a stream"),
    (b'{"app": "app", "fetch": ["../x"]}', 422, "relative"),
    (b'{"app": "app", "needs": ["=x"]}', 422, "="),
    (b'{"app": "app", "workers": []}', 422, "workers has to be"),
    (b'{"app": "app", "workers": ["nobody"]}', 404, "no worker of app is called nobody"),
    (b'{"app": "app", "time_limit": 0}', 422, "time_limit"),
    (b'{"app": "app", "retries": true}', 422, "retries"),
    (b'{"app": "app", "weight": 0}', 422, "weight"),
]


@pytest.mark.parametrize(("body", "status", "words"), BAD, ids=[repr(body[:40]) for body, _, _ in BAD])
def test_a_body_that_is_not_right_starts_nothing(http: httpx.Client, body: bytes, status: int, words: str) -> None:
    before = http.get("/v1/jobs", params={"limit": "1"}).json()["jobs"]
    answer = http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert words in problem(answer, status)
    assert http.get("/v1/jobs", params={"limit": "1"}).json()["jobs"] == before


def test_another_kind_of_body(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", content=b"app=app", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert "application/json" in problem(answer, 415)


def test_a_body_that_is_too_long_for_memory(http: httpx.Client) -> None:
    text = b'{"app": "app", "stdin": "' + b"x" * (17 << 20) + b'"}'
    answer = http.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert "multipart/form-data" in problem(answer, 413)


def test_pages_of_jobs(http: httpx.Client) -> None:
    ids = [run_job(http, f"exit {number % 2}")["id"] for number in range(5)]
    first = http.get("/v1/jobs", params={"limit": "3", "app": "app"}).json()
    assert [job["id"] for job in first["jobs"]] == ids[:1:-1]
    second = http.get("/v1/jobs", params={"limit": "2", "after": first["next"]}).json()
    assert [job["id"] for job in second["jobs"]] == ids[1::-1]
    failed = http.get("/v1/jobs", params={"limit": "2", "state": "failed"}).json()
    assert [job["id"] for job in failed["jobs"]] == [ids[3], ids[1]]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=x", "limit=1001", "state=done", "unknown=1", "limit=1&limit=2", "after=", "limit=%C2%B2"],
)
def test_parameters_that_are_not_right(http: httpx.Client, query: str) -> None:
    problem(http.get(f"/v1/jobs?{query}"), 422)


def test_wait_gives_the_job_as_it_is_when_the_time_is_over(http: httpx.Client) -> None:
    id = start_job(http, "read line", stdin={"stream": True})
    assert http.get(f"/v1/jobs/{id}", params={"wait": "0.05"}).json()["state"] in ("queued", "running")
    http.post(f"/v1/jobs/{id}/cancel")
    assert state_of(http, id) == "cancelled"


def test_input_that_comes_later_in_two_requests(http: httpx.Client) -> None:
    id = start_job(http, "cat", stdin={"stream": True})
    url = f"/v1/jobs/{id}/stdin"
    assert http.get(f"/v1/jobs/{id}").json()["stdin"] == {"received": 0, "open": True}
    assert "go on with offset=0" in problem(http.put(url, params={"offset": "5"}, content=b"x"), 409)
    assert http.put(url, content=iter([b"one ", b"two"])).status_code == 200
    wait_for_state(http, id, "succeeded")
    assert output(http, id) == b"one two"
    assert "is over" in problem(http.put(url, content=b"x"), 409)
    whole = start_job(http, "sleep 1000")
    assert "has all of its input" in problem(http.put(f"/v1/jobs/{whole}/stdin", content=b"x"), 409)
    http.post(f"/v1/jobs/{whole}/cancel")


def test_a_program_that_reads_no_input_to_its_end(http: httpx.Client) -> None:
    id = start_job(http, "head -c 3", stdin={"stream": True})
    answer = http.put(f"/v1/jobs/{id}/stdin", content=iter([b"x" * 100_000] * 100))
    assert answer.status_code == 200
    wait_for_state(http, id, "succeeded")
    assert output(http, id) == b"xxx"


def test_requirements_that_no_worker_meets(http: httpx.Client) -> None:
    id = start_job(http, "true", needs=["gpu"])
    assert state_of(http, id) == "queued"
    assert http.post(f"/v1/jobs/{id}/cancel").json()["state"] == "cancelled"
    assert http.post("/v1/jobs", json=script("true", exclude=["127.0.0.1"])).status_code == 201


def test_the_answers_have_no_paths_of_this_machine(http: httpx.Client, gate: Gate) -> None:
    texts = [http.get(path).text for path in ("/v1/jobs?limit=1000", "/v1/workers", "/metrics", "/v1/nothing")]
    assert not [text for text in texts if str(gate.state.parent) in text]
