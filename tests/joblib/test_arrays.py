"""Large arrays of `Parallel` on a real service: each comes to the machine once, as a file, and is gone at last."""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cexec.errors import UsageError
from cexec.python.calls.pool_errors import ArrayNotKeptError
from tests.needs import require_module
from tests.python.pools import PoolService
from tests.waiting import PATIENCE, wait_until

SLOTS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker's directory for temporary files."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, place: Path) -> Iterator[PoolService]:
    require_module("joblib", "numpy")
    directory = tmp_path_factory.mktemp("pool")
    with PoolService(directory, slots=SLOTS, environment={"TMPDIR": str(place)}) as started:
        yield started


@pytest.fixture
def joblib(pool: PoolService) -> Any:
    import joblib

    import cexec.joblib  # noqa: F401 - registers the backend

    return joblib


@pytest.fixture
def inside(joblib: Any, pool: PoolService) -> Iterator[None]:
    """A `with` block around the test."""
    with joblib.parallel_config(backend="cexec", key=pool.key, max_nbytes=10_000):
        yield
    gc.collect()  # an exception that a test has looked at may keep the backend, and with it the slots


def stores(place: Path) -> list[Path]:
    return list(place.glob("cexec-pool-*"))


def arrays(place: Path) -> list[Path]:
    return [path for store in stores(place) for path in store.iterdir() if path.name.isdigit()]


def look(array: Any) -> tuple[str, str, bool, bool, Any]:
    """What a call sees of an array."""
    import numpy

    mapped = isinstance(array, numpy.memmap)
    return str(array.dtype), str(array.shape), mapped, bool(array.flags.writeable), array.copy(order="K")


def test_an_array_comes_once_and_is_gone_at_the_end(joblib: Any, pool: PoolService, place: Path) -> None:
    import numpy

    array = numpy.arange(30_000.0).reshape(100, 300)
    with joblib.parallel_config(backend="cexec", key=pool.key, max_nbytes="0.1M"):
        jobs = [joblib.delayed(look)(array) for _ in range(12)]
        for dtype, shape, mapped, writeable, copy in joblib.Parallel(batch_size=1)(jobs):
            assert (dtype, shape, mapped, writeable) == ("float64", "(100, 300)", True, False)
            assert numpy.array_equal(copy, array) and type(copy) is numpy.ndarray
        (path,) = arrays(place)
        number = path.stat().st_ino
        assert path.stat().st_size == array.nbytes
        assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
        equal = joblib.Parallel()(joblib.delayed(look)(array.copy()) for _ in range(2))
        assert [one[2] for one in equal] == [True, True]
        assert [path.stat().st_ino for path in arrays(place)] == [number]  # not written again
        small = joblib.Parallel()(joblib.delayed(look)(array[:20]) for _ in range(2))
        assert [one[2] for one in small] == [False, False]
    wait_until(lambda: not stores(place))


def test_two_slots_get_one_copy(joblib: Any, pool: PoolService, tmp_path: Path) -> None:
    import numpy

    def meet(array: Any, name: str) -> str:
        (tmp_path / name).touch()
        deadline = time.monotonic() + PATIENCE
        while len(list(tmp_path.iterdir())) < SLOTS:
            assert time.monotonic() < deadline, "the other one does not come"
            time.sleep(0.01)
        return str(array.filename)

    pool.wait_until_free()
    before = len(pool.service.lines_with("finished ", 0))
    array = numpy.random.default_rng(0).random(300_000)
    with joblib.parallel_config(backend="cexec", key=pool.key):
        files = joblib.Parallel(batch_size=1)(joblib.delayed(meet)(array, str(n)) for n in range(SLOTS))
    assert len(set(files)) == 1
    lines = pool.service.lines_with("finished ", before + SLOTS)[before:]
    received = sum(int(re.findall(r"received=(\d+)", line)[0]) for line in lines)
    assert array.nbytes < received < 1.5 * array.nbytes


def test_an_array_that_has_changed_is_another_one(joblib: Any, inside: None, place: Path) -> None:
    import numpy

    array = numpy.zeros(10_000)
    with joblib.Parallel() as parallel:
        for value in range(3):
            array[0] = value
            assert parallel(joblib.delayed(numpy.sum)(array) for _ in range(2)) == [value, value]
    assert len(arrays(place)) == 3


def test_arrays_of_all_kinds_arrive_as_they_are(joblib: Any, inside: None, tmp_path: Path) -> None:
    import numpy

    count = 12_000
    made: dict[str, Any] = {
        "fortran": numpy.asfortranarray(numpy.arange(float(count)).reshape(100, -1)),
        "strided": numpy.arange(2 * count)[::2],
        "record": numpy.zeros(count, dtype=[("a", "i4"), ("b", "f8")]),
        "time": numpy.arange(count).astype("datetime64[s]"),
        "text": numpy.array(["ab", "c"] * count),
        "read only": numpy.arange(count),
        "mapped": numpy.memmap(tmp_path / "file", dtype="i4", mode="w+", shape=(count,)),
        "objects": numpy.array([None, 1] * count),
    }
    made["read only"].flags.writeable = False
    looks = joblib.Parallel()(joblib.delayed(look)(array) for array in made.values())
    for (kind, array), (dtype, shape, mapped, _, copy) in zip(made.items(), looks, strict=True):
        assert (dtype, shape, mapped) == (str(array.dtype), str(array.shape), kind != "objects"), kind
        assert numpy.array_equal(copy, array) and type(copy) is numpy.ndarray, kind
        assert copy.flags.f_contiguous == array.flags.f_contiguous or kind == "strided", kind


def test_results_that_are_mapped_arrays_come_back_as_plain_ones(joblib: Any, inside: None) -> None:
    import numpy

    def give_back(array: Any) -> Any:
        return array, array[5:]

    array = numpy.arange(10_000)
    ((whole, part),) = joblib.Parallel()([joblib.delayed(give_back)(array)])
    assert type(whole) is type(part) is numpy.ndarray
    assert numpy.array_equal(whole, array) and numpy.array_equal(part, array[5:])


def test_modes(joblib: Any, inside: None) -> None:
    import numpy

    def write(array: Any) -> Any:
        array[0] = 7
        return array[0]

    array = numpy.zeros(10_000)
    with pytest.raises(ValueError, match="read-only"):
        joblib.Parallel()([joblib.delayed(write)(array)])
    assert joblib.Parallel(mmap_mode="c")(joblib.delayed(write)(array) for _ in range(3)) == [7, 7, 7]
    for options in ({"max_nbytes": None}, {"mmap_mode": None}):
        assert [one[2] for one in joblib.Parallel(**options)([joblib.delayed(look)(array)])] == [False]
    with pytest.raises(UsageError, match="mmap_mode is 'r\\+'"):
        joblib.Parallel(mmap_mode="r+")([joblib.delayed(write)(array)])


def test_an_array_whose_file_is_gone_is_sent_again(joblib: Any, inside: None, place: Path) -> None:
    import numpy

    array = numpy.arange(10_000)
    for _ in range(2):
        assert joblib.Parallel()(joblib.delayed(numpy.size)(array) for _ in range(4)) == [10_000] * 4
        for path in arrays(place):
            path.unlink()


def test_a_process_that_dies_finds_the_arrays_again(joblib: Any, inside: None, tmp_path: Path) -> None:
    import numpy

    def die_once(array: Any, path: Path) -> int:
        if not path.exists():
            path.touch()
            os._exit(1)
        return int(array.size)

    array = numpy.arange(10_000)
    assert joblib.Parallel()([joblib.delayed(die_once)(array, tmp_path / "died")]) == [10_000]


def test_a_worker_without_room_is_named(joblib: Any, tmp_path: Path) -> None:
    import numpy

    program = ["sh", "-c", f"ulimit -f 8; exec {sys.executable} -m cexec.pool"]
    with PoolService(tmp_path, slots=1, program=program) as small:
        with joblib.parallel_config(backend="cexec", key=small.key, max_nbytes=10_000):
            jobs = [joblib.delayed(numpy.size)(numpy.arange(10_000))]
            with pytest.raises(ArrayNotKeptError, match=r"cannot be kept at \S+@\S+: File too large; with max_nbytes"):
                joblib.Parallel()(jobs)
            assert joblib.Parallel(max_nbytes=None)(jobs) == [10_000]
        gc.collect()
