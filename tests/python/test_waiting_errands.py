"""Which job a worker gets of those that wait."""

from __future__ import annotations

from typing import Any

import pytest

from cexec.python.waiting_errands import WaitingErrands


class Waiting:
    """As much of an errand as counts here."""

    def __init__(self, name: str, *, avoided: bytes = b"", may_wait: bool = True, submitted: float = 0.0) -> None:
        self.name = name
        self.avoided = avoided
        self.may_wait = may_wait
        self.submitted = submitted

    def avoids(self, instance: bytes, now: float) -> bool:
        return instance == self.avoided and now < 10.0


@pytest.fixture
def waiting() -> Any:
    return WaitingErrands()


def taken(waiting: Any, count: int, instance: bytes = b"w", **how: bool) -> list[str | None]:
    found = [waiting.take(instance, 0.0, **how) for _ in range(count)]
    return [None if one is None else one.name for one in found]


def test_those_that_were_tried_come_first(waiting: Any) -> None:
    for name in ("a", "b"):
        waiting.add(Waiting(name))
    waiting.add_again(Waiting("c"))
    waiting.add_again(Waiting("d"), first=True)
    assert len(waiting) == 4
    assert taken(waiting, 5) == ["d", "c", "a", "b", None]
    assert len(waiting) == 0


def test_a_worker_that_has_failed_with_a_job_is_passed_over_for_a_while(waiting: Any) -> None:
    waiting.add_again(Waiting("a", avoided=b"w"))
    waiting.add(Waiting("b"))
    assert taken(waiting, 2) == ["b", None]
    assert waiting.take(b"w", 10.0).name == "a"
    waiting.add_again(Waiting("c", avoided=b"w"))
    assert taken(waiting, 1, b"other") == ["c"]


def test_in_advance_only_the_first_is_given_and_only_if_it_may_wait(waiting: Any) -> None:
    waiting.add(Waiting("a", may_wait=False))
    waiting.add(Waiting("b"))
    assert taken(waiting, 1, ahead=True) == [None]
    assert taken(waiting, 1) == ["a"]
    assert taken(waiting, 1, ahead=True) == ["b"]


def test_what_is_not_wanted_any_more_goes(waiting: Any) -> None:
    kept, dropped = Waiting("a"), Waiting("b")
    waiting.add(kept)
    waiting.add_again(dropped)
    waiting.discard(dropped)
    waiting.discard(dropped)
    assert taken(waiting, 2) == ["a", None]


def test_all_or_all_that_were_there_before(waiting: Any) -> None:
    waiting.add(Waiting("a", submitted=1.0))
    waiting.add(Waiting("b", submitted=3.0))
    waiting.add_again(Waiting("c", submitted=2.0))
    assert [one.name for one in waiting.take_all(2.0)] == ["c", "a"]
    assert [one.name for one in waiting.take_all()] == ["b"]
