"""Which workers a coordinator counts on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cexec.client.aio.known_workers import FORGET_AFTER, KnownWorkers


def hello(instance: bytes, name: str = "rack") -> Any:
    return SimpleNamespace(instance=instance, name=name, slots=2, once=False)


def test_two_workers_with_one_name_are_two() -> None:
    workers = KnownWorkers()
    assert not workers.any_met
    first, unknown = workers.meet(hello(b"1" * 16), "10.0.0.1", 0.0)
    assert unknown and (first.name, first.slots) == ("rack@10.0.0.1", 2)
    second, unknown = workers.meet(hello(b"2" * 16), "10.0.0.1", 0.0)
    assert unknown and second is not first
    assert workers.meet(hello(b"1" * 16), "10.0.0.1", 1.0) == (first, False)
    first.leases, second.leases = 2, 1
    assert (workers.leases, workers.by_name(), workers.any_met) == (3, {"rack@10.0.0.1": 3}, True)


def test_a_worker_without_leases_is_forgotten_after_a_while() -> None:
    workers = KnownWorkers()
    worker, _ = workers.meet(hello(b"1" * 16), "10.0.0.1", 0.0)
    worker.leases = 1
    assert not workers.forgotten(FORGET_AFTER)
    worker.leases = 0
    assert not workers.forgotten(FORGET_AFTER - 0.1)
    assert workers.forgotten(FORGET_AFTER) == [worker]
    assert workers.meet(hello(b"1" * 16), "10.0.0.1", 20.0)[1]


def test_a_worker_is_lost_once() -> None:
    workers = KnownWorkers()
    worker, _ = workers.meet(hello(b"1" * 16), "10.0.0.1", 0.0)
    assert [workers.lost(worker), workers.lost(worker)] == [True, False]


def test_a_worker_that_is_unfit_stays_so_and_is_told_once() -> None:
    workers = KnownWorkers()
    worker, _ = workers.meet(hello(b"1" * 16), "10.0.0.1", 0.0)
    assert [workers.unfit(worker, "no", 0.0), workers.unfit(worker, "no", 1.0)] == [True, False]
    assert workers.forgotten(FORGET_AFTER) == [worker]
    again, unknown = workers.meet(hello(b"1" * 16), "10.0.0.1", 20.0)
    assert unknown and not again.fits


def test_that_none_fits_is_said_after_there_has_been_no_other_worker_for_a_while() -> None:
    workers = KnownWorkers()
    assert workers.none_fits(3.0, 100.0) == ""
    worker, _ = workers.meet(hello(b"1" * 16), "10.0.0.1", 100.0)
    workers.unfit(worker, "no", 100.0)
    other, _ = workers.meet(hello(b"2" * 16), "10.0.0.2", 100.0)
    assert workers.none_fits(3.0, 110.0) == ""
    workers.lost(other)
    assert [workers.none_fits(3.0, now) for now in (112.9, 113.0)] == ["", "rack@10.0.0.1: no"]
