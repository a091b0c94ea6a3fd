"""The numbers of jobs alone, without a session around them: docs/protocol.md section 4.2."""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import OF_THE_CONNECTION
from cexec.protocol.connection.session_states import LATEST, NUMBERS, JobNumbers


def numbers(jobs: int) -> JobNumbers:
    """So many jobs have begun."""
    made = JobNumbers(numbered=True)
    for _ in range(jobs):
        made.current = made.give()
    return made


@pytest.mark.parametrize("kind", OF_THE_CONNECTION)
@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_what_belongs_to_the_connection_has_no_number(kind: int, jobs: int) -> None:
    assert numbers(jobs).of(kind) == 0


@pytest.mark.parametrize(("kind", "number"), [(frames.CONFIRM, 3), (frames.GO, 3), (frames.DATA, 2), (frames.EXIT, 2)])
def test_what_begins_a_job_has_the_next_number_and_the_rest_that_of_the_latest(kind: int, number: int) -> None:
    assert numbers(3).of(kind) == number


@pytest.mark.parametrize(("number", "taken"), [(2, True), (1, False), (0, False), (NUMBERS + 3 - LATEST, False)])
def test_data_of_the_latest_job_is_taken_and_that_of_earlier_ones_is_not(number: int, taken: bool) -> None:
    assert numbers(3).takes(frames.DATA, number) == taken


@pytest.mark.parametrize("number", [3, 4, NUMBERS + 2 - LATEST])
def test_data_of_a_job_that_has_not_been_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match="belongs to no job"):
        numbers(3).takes(frames.DATA, number)
