"""The jobs of a worker, in an attribute of its answer to a census."""

from __future__ import annotations

import pytest

from cexec.protocol.datagrams.client_jobs import LONGEST_VALUE, ClientJob, encode_jobs, parse_jobs

JOBS = [ClientJob("bob", "fe80::1", 2), ClientJob("alice", "10.0.0.7", 35)]


def told(text: str) -> list[tuple[str, str, int]]:
    return [(job.client, job.host, job.seconds) for job in parse_jobs(text)]


def test_the_oldest_comes_first() -> None:
    text = encode_jobs(JOBS, 1000)
    assert text == "35\t10.0.0.7\talice\n2\tfe80::1\tbob"
    assert told(text) == [("alice", "10.0.0.7", 35), ("bob", "fe80::1", 2)]
    assert encode_jobs([], 1000) == "" and parse_jobs("") == []


@pytest.mark.parametrize(("room", "count"), [(-5, 0), (16, 0), (17, 1), (30, 1), (31, 2)])
def test_what_does_not_fit_is_left_out_whole(room: int, count: int) -> None:
    assert len(parse_jobs(encode_jobs(JOBS, room))) == count


def test_a_text_has_an_end() -> None:
    assert len(encode_jobs(JOBS * 100, 10_000).encode()) <= LONGEST_VALUE


@pytest.mark.parametrize("text", ["x", "1\thost", "-1\th\tc", "9999999999\th\tc", "\u0663\th\tc", "\t\t", "1 \th\tc"])
def test_what_cannot_be_understood_is_passed_over(text: str) -> None:
    assert told(f"{text}\n5\th\tc") == [("c", "h", 5)]
