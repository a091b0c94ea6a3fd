"""`cexec --all`: nothing is written about a worker before the names of all are known, and then it is as ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from cexec.client.everywhere import roll_report
from cexec.client.everywhere.kept_output import KeptSink
from cexec.client.everywhere.roll_report import RollReport
from cexec.client.everywhere.worker_run import WorkerRun
from cexec.client.request import Repetition
from cexec.errors import DisconnectedError
from cexec.protocol.connection.frames import EXITED, Exit
from cexec.protocol.decisions.census import Answer
from tests.protocol.census_workers import key_with
from tests.protocol.wires import hello_of

pytestmark = pytest.mark.usefixtures("process_end")

ANN, BOB, OTHER_BOB, LATE = (bytes([number]) * 16 for number in range(4))
NAMES = {ANN: "ann", BOB: "bob", OTHER_BOB: "bob", LATE: "late"}
ROLL = (ANN, BOB, OTHER_BOB)


def answer_of(instance: bytes) -> Answer:
    return Answer(hello_of(key_with(NAMES[instance], None), instance=instance), f"10.0.0.{instance[0]}", 0.0, "")


def run_of(instance: bytes, output: bytes = b"", status: int | None = 0, message: str = "") -> WorkerRun:
    """A run that has ended; without a status its worker was lost."""
    answer = answer_of(instance)
    sink = KeptSink()
    sink.write(memoryview(output))
    return SimpleNamespace(  # type: ignore[return-value]
        name=f"{answer.hello.name}@{answer.address}",
        winner=SimpleNamespace(hello=answer.hello, address=answer.address),
        outputs={1: sink},
        exit=None if status is None else Exit(kind=EXITED, status=status, endings=[], message=message),
        failure=DisconnectedError("disconnected unexpectedly") if status is None else None,
    )


class Pages:
    """What is written to descriptors 1 and 2, and in the ancestor's words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reading, writing = os.pipe()
        self._ancestors, self.error_fd = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._ancestors, False)
        self.fds = [self._reading, writing, self._ancestors, self.error_fd]
        monkeypatch.setattr(roll_report, "STANDARD_ERROR", writing)
        self.output = writing

    def written(self, told: RollReport) -> list[str]:
        told.printer.advance()
        return self._read(self._reading)

    def complaints(self) -> list[str]:
        return self._read(self._ancestors)

    def _read(self, fd: int) -> list[str]:
        try:
            return os.read(fd, 65536).decode().splitlines()
        except BlockingIOError:
            return []


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    made = Pages(monkeypatch)
    yield made
    for fd in made.fds:
        os.close(fd)


def report_to(pages: Pages, *, tag: bool = True, hold: bool = False) -> RollReport:
    return RollReport(Repetition(hold=hold), tag=tag, error_fd=pages.error_fd)


def play(told: RollReport, pages: Pages, *runs: WorkerRun) -> None:
    for run in runs:
        run.outputs[pages.output] = run.outputs.pop(1)
        told.began(run)
        told.ended(run)


def close_roll(told: RollReport) -> None:
    told.roll_closed([answer_of(instance) for instance in ROLL])


def test_outputs_of_runs_that_have_ended_wait_until_the_roll_is_closed(pages: Pages) -> None:
    told = report_to(pages)
    play(told, pages, run_of(BOB, b"1\n"), run_of(ANN, b"2\n"))
    assert pages.written(told) == [] and told.printer.idle
    close_roll(told)
    assert pages.written(told) == ["bob@10.0.0.1: 1", "ann: 2"]
    play(told, pages, run_of(OTHER_BOB, b"3\n"))
    assert pages.written(told) == ["bob@10.0.0.2: 3"]


def test_a_run_that_has_begun_before_the_roll_is_closed_and_ends_later_has_the_name_of_the_roll(pages: Pages) -> None:
    told = report_to(pages)
    run = run_of(ANN, b"x\n", status=3)
    told.began(run)
    assert run.name == "ann@10.0.0.0"
    close_roll(told)
    assert run.name == "ann"
    run.outputs[pages.output] = run.outputs.pop(1)
    told.ended(run)
    assert pages.written(told) == ["ann: x", "cexec: worker ann: status 3"]
    assert told.status == 3


def test_a_worker_that_is_missing_in_the_roll_is_named_as_the_others_and_counts_once(pages: Pages) -> None:
    told = report_to(pages)
    play(told, pages, run_of(LATE, status=None), run_of(ANN, b"x\n"))
    close_roll(told)
    told.conclude()
    assert pages.written(told) == [
        "cexec: 1 of 4 workers did not finish: late",
        "cexec: worker late at 10.0.0.3 did not finish: disconnected unexpectedly",
        "ann: x",
    ]
    assert told.status == 111


def test_colours_follow_the_order_of_the_roll(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are missing in the roll come after it, in the order in which they began."""
    monkeypatch.setattr(roll_report, "TAG_COLOURS", ["red", "green", "blue", "grey"])
    monkeypatch.setattr(
        roll_report, "Terminal", lambda number: SimpleNamespace(paint=lambda text, colour: f"{colour} {text}")
    )
    told = report_to(pages)
    play(told, pages, run_of(LATE, b"1\n"), run_of(OTHER_BOB, b"2\n"))
    close_roll(told)
    play(told, pages, run_of(ANN, b"3\n"))
    assert pages.written(told) == ["grey late: 1", "blue bob@10.0.0.2: 2", "red ann: 3"]


def test_a_worker_that_is_given_up_while_the_roll_is_open_is_named_in_its_turn_and_complained_about_at_once(
    pages: Pages,
) -> None:
    told = report_to(pages)
    play(told, pages, run_of(ANN, b"x\n"))
    told.gave_up(BOB, "10.0.0.1", "did not connect")
    assert pages.complaints() == ["10.0.0.1 did not connect"]
    assert pages.written(told) == [] and told.status == 0
    close_roll(told)
    assert pages.written(told) == ["ann: x", "cexec: worker bob@10.0.0.1 at 10.0.0.1 did not finish: did not connect"]
    told.conclude()
    assert pages.written(told) == ["cexec: 1 of 3 workers did not finish: bob@10.0.0.1"]
    assert told.status == 111 and pages.complaints() == []


def test_what_is_told_to_a_person_waits_for_the_roll(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    told = report_to(pages)
    told.tell("waiting for bob")
    assert pages.written(told) == []
    close_roll(told)
    assert pages.written(told) == ["cexec: waiting for bob"]


@pytest.mark.parametrize("hold", [False, True])
def test_output_of_a_failed_program_is_held_back_if_that_is_wanted(pages: Pages, hold: bool) -> None:
    told = report_to(pages, hold=hold, tag=False)
    run = run_of(ANN, b"x\n", status=2, message="ended after its time limit")
    run.outputs[7 if hold else pages.output] = run.outputs.pop(1)
    close_roll(told)
    told.began(run)
    told.ended(run)
    words = ["cexec: worker ann: ended after its time limit", "cexec: worker ann: status 2"]
    assert pages.written(told) == ([] if hold else ["x"]) + words
    assert pages.complaints() == ["10.0.0.0 exited with code 2"]
