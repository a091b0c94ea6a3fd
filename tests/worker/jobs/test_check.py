"""What a worker refuses before it opens anything."""

from __future__ import annotations

import dataclasses

import pytest

from cexec.protocol.connection.frames import FIRST_FILE, HERE, PERMANENT, Go, Refusal, Stream
from cexec.protocol.connection.options import (
    FETCH_ON_FAILURE,
    FILE,
    LEASE,
    NICE,
    NO,
    READS,
    TERMINAL,
    TIME_LIMIT,
    WRITES,
    YES,
)  # fmt: skip
from cexec.system.process.resource_limits import Limits
from cexec.worker.jobs.check import check, terminal_of
from cexec.worker.jobs.program import Program


def go(
    options: dict[str, str] | None = None,
    variables: tuple[str, ...] = (),
    arguments: tuple[bytes, ...] = (),
    files: tuple[str, ...] = (),
    standard: tuple[Stream, ...] = (),
) -> Go:
    streams = [*standard, *(Stream(number, READS, FILE, name=name) for number, name in enumerate(files, FIRST_FILE))]
    return Go(
        job_id=bytes(16), attempt=1, streams=streams, options=options or {}, arguments=list(arguments),
        environment=dict.fromkeys(variables, b""),
    )  # fmt: skip


TERMINAL_STREAMS = (Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1))


def served(*, allow_arguments: bool = False, limits: Limits | None = None) -> Program:
    return Program("/bin/true", [], {}, allow_arguments, limits=limits or Limits())


@pytest.mark.parametrize(
    ("job", "kind", "words"),
    [
        (go(arguments=(b"x",)), PERMANENT, "cservice --allow-args"),
        (go(variables=("A-B",)), PERMANENT, "'A-B' cannot be a variable's name"),
        (go({"colour": "red", "zeal": "1"}), HERE, "option colour is not known here; update cexec on this worker"),
        (go({TIME_LIMIT: "soon"}), PERMANENT, "time-limit is 'soon'"),
        (go({NICE: "20"}), PERMANENT, "nice is '20'"),
        (go({"program-stream": "256"}), PERMANENT, "program"),
        (go({TERMINAL: "24 80 x"}), PERMANENT, "a terminal has the standard input"),
        (go({TERMINAL: "24 80 ../x"}, standard=TERMINAL_STREAMS), PERMANENT, "terminal has no size, or a type"),
        (go({TERMINAL: "24 80 x a=300"}, standard=TERMINAL_STREAMS), PERMANENT, "too large"),
        (go(files=("a/" * 120,) * 90), PERMANENT, "more than 10000 directories; send one archive"),
    ],
)
def test_a_job_is_refused_here_or_everywhere(job: Go, kind: int, words: str) -> None:
    refusal = check(job, served())
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, words in refusal.reason) == (kind, True), refusal.reason


def test_a_terminal_is_given_unless_the_owner_forbids_it() -> None:
    job = go({TERMINAL: "24 80 x"}, standard=TERMINAL_STREAMS)
    assert isinstance(check(job, served()), Limits)
    request = terminal_of(job)
    assert request is not None and (request.rows, request.columns, request.term) == (24, 80, "x")
    refusal = check(job, dataclasses.replace(served(), terminal=False))
    assert isinstance(refusal, Refusal) and (refusal.kind, "--no-tty" in refusal.reason) == (HERE, True)
    assert terminal_of(go()) is None


def test_a_long_name_does_not_make_a_long_refusal() -> None:
    refusal = check(go(variables=("-" * 10_000,)), served())
    assert isinstance(refusal, Refusal) and len(refusal.reason) < 200


def test_what_every_worker_knows_is_accepted() -> None:
    options = {LEASE: YES, FETCH_ON_FAILURE: NO, TIME_LIMIT: "1.5"}
    limits = check(go(options, ("A_1",), (b"x",), ("a/b/c",) * 700), served(allow_arguments=True))
    assert isinstance(limits, Limits) and limits.time == 1.5


def test_of_the_workers_and_the_clients_limits_the_stricter_ones_hold() -> None:
    limits = check(go({TIME_LIMIT: "5", NICE: "3"}), served(limits=Limits(time=2.0, nice=1, cpu=7)))
    assert isinstance(limits, Limits)
    assert (limits.time, limits.nice, limits.cpu) == (2.0, 3, 7)
