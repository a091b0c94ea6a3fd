"""What a request for a job may say: each member has one form, which the OpenAPI document tells and the code holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.client.attempt.files import LONGEST_NAME, check_name
from cexec.client.request import check_variable
from cexec.client.search.choice import plain_name
from cexec.errors import TooLongError, UsageError
from cexec.gate.access.credential import check_address
from cexec.gate.http.error_documents import problem_of
from cexec.gate.http.job_bodies import MOST_WORKERS, parse_job
from cexec.gate.http.patterns import FETCHED_NAME, FILE_NAME, NEED, VARIABLE, WORKER
from cexec.gate.problem import Problem
from cexec.protocol.datagrams.requirements import parse_needs


def address(name: str) -> None:
    check_address(f"/v1/jobs/id/files/{quote(name)}".encode(), b"")


def short(form: str) -> st.SearchStrategy[str]:
    """Texts of this form that have room in a message."""
    return st.from_regex(re.compile(form), fullmatch=True).filter(lambda text: len(text.encode()) <= LONGEST_NAME)


@pytest.mark.parametrize(
    ("form", "understood"),
    [
        (NEED, parse_needs),
        (WORKER, plain_name),
        (VARIABLE, check_variable),
        (FILE_NAME, lambda name: check_name(name, "file")),
        (FETCHED_NAME, lambda name: check_name(name, "file")),
        (FETCHED_NAME, address),
    ],
)
def test_what_has_the_form_is_understood(form: str, understood: Callable[[str], object]) -> None:
    @given(short(form))
    def check(text: str) -> None:
        understood(text)

    check()


@pytest.mark.parametrize(
    ("member", "value", "status"),
    [
        ("needs", ["gpu", "mem=4G", "cpus=1.5", "instance", "cpusets=a", "a=b=c", "f\u00fcr=\u00e9"], None),
        ("needs", ["a b"], 422), ("needs", ["a,b"], 422), ("needs", ["="], 422), ("needs", ["a="], 422),
        ("needs", ["mem=much"], 422), ("needs", ["instance=1"], 422), ("needs", [""], 422), ("needs", ["\u00a0"], 422),
        ("exclude", ["vm", "vm@10.0.0.1", "::1", "instance=0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"], None),
        ("exclude", ["a b"], 422), ("exclude", ["instance=x"], 422), ("exclude", [" "], 422),
        ("env", {"A": "", "_b1": "x" * 70}, None), ("env", {"A" * 65: ""}, 422), ("env", {"": ""}, 422),
        ("env", {"a-b": ""}, 422), ("env", {"A": 1}, 422), ("env", {"A": "\0"}, 422), ("env", {"A": "\ud800"}, 422),
        ("files", {"a/..b/.c/...": "", "a\nb": ""}, None), ("files", {"../a": ""}, 422), ("files", {"a/": ""}, 422),
        ("files", {"/a": ""}, 422), ("files", {"a//b": ""}, 422), ("files", {".": ""}, 422),
        ("files", {"a": {"base64": "AAA="}}, None), ("files", {"a": {"base64": "AAAA=="}}, 422),
        ("files", {"a": {"base64": "A A="}}, 422), ("files", {"a": {"base64": "\u00e9"}}, 422),
        ("fetch", ["a b", "\u200b", "\u00e9/x"], None), ("fetch", ["a\nb"], 422), ("fetch", ["a\\b"], 422),
        ("fetch", ["a", "a"], 422), ("fetch", ["a/./b"], 422),
        ("weight", None, 422), ("weight", 3.0, None), ("weight", True, 422), ("weight", 1e400, 422),
        ("retries", None, None), ("retries", 1001, 422),
        ("time_limit", None, None), ("time_limit", 0.0009, 422), ("time_limit", 1e400, 422),
        ("workers", ["a", "a"], 422), ("workers", [], 422), ("workers", {}, 422),
        ("workers", [str(number) for number in range(MOST_WORKERS + 1)], 413),
    ],
)  # fmt: skip
def test_members(member: str, value: Any, status: int | None) -> None:
    if status is None:
        parse_job({"app": "app", member: value})
        return
    with pytest.raises(Problem, match=re.escape(member.partition(".")[0])) as caught:
        parse_job({"app": "app", member: value})
    assert caught.value.status == status


def test_what_is_right_but_too_much_is_another_status() -> None:
    """Nobody can know from the document how much several members may have together."""
    assert problem_of(TooLongError("requirements are longer")).status == 413
    assert problem_of(UsageError("no such thing")).status == 422
