"""What travels, without copies, and what is said of things that cannot."""

from __future__ import annotations

import copyreg
import functools
import threading
from typing import Any

import numpy as np
import pytest

from cexec.errors import CannotPickleError
from cexec.pool.call_messages import encode
from cexec.pool.exceptions import RemoteTraceback, pack, unpack
from cexec.pool.pickles import IN_BAND, dump, load


def flat(parts: Any) -> list[bytes]:
    return [b"".join(part) if isinstance(part, list) else bytes(part) for part in parts]


def test_an_array_travels_beside_its_pickle() -> None:
    array = np.arange(IN_BAND)
    parts = dump((array, array), "arrays")
    assert len(parts) == 2
    assert np.shares_memory(np.frombuffer(parts[1], dtype=np.uint8), array)  # type: ignore[arg-type]
    first, second = load([flat(parts)[0], bytearray(flat(parts)[1])])
    assert first is second and np.array_equal(first, array) and first.flags.writeable


def test_large_bytes_are_not_copied() -> None:
    data = bytes(1_000_000)
    (first,) = dump([data], "bytes")
    assert isinstance(first, list) and any(chunk is data for chunk in first)
    assert any(buffer is data for buffer in encode(4, 1, 1, [first]))
    assert load(flat([first])) == [data]


def test_short_buffers_stay_in_the_pickle() -> None:
    assert len(dump([np.arange(3)] * 100, "arrays")) == 1


def test_functions_travel_by_value() -> None:
    base = 40
    assert load(flat(dump(lambda x: x + base, "a lambda")))(2) == 42


class Holder:
    def __init__(self) -> None:
        self.fine = [1, 2]
        self.inner = {"lock": threading.Lock()}


def closure() -> Any:
    lock = threading.Lock()
    return lambda: lock


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (([1], {"x": Holder()}), r"v\[1\]\['x'\]\.inner\['lock'\], of type _thread.lock: "),
        (closure(), r"the variable lock of v, of type _thread.lock: "),
        (functools.partial(print, threading.Lock()), r"v\.args\[0\], of type _thread.lock"),
        ((x for x in "ab"), r"v, of type generator: "),
    ],
)
def test_the_object_that_cannot_be_pickled_is_named(value: object, place: str) -> None:
    with pytest.raises(CannotPickleError, match=f"^cannot pickle {place}"):
        dump(value, "v")


def test_what_is_nested_too_deeply_is_said() -> None:
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(CannotPickleError, match="nested too deeply"):
        dump(value, "v")
    while value:
        value = value.pop()


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return unpack([bytes(part) for part in flat(pack(caught, "f", "w@host"))], "w@host")


def test_an_exception_has_the_traceback_of_its_worker() -> None:
    error = raised(ValueError("text", 5))
    assert type(error) is ValueError and error.args == ("text", 5)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in raised\n    raise error\n" in str(error.__cause__)


def test_an_exception_whose_pickle_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(copyreg.dispatch_table, Odd, raising=False)  # Dask, if a test has imported it, pickles it
    error = raised(Odd(1, 2))
    assert type(error) is RuntimeError
    assert str(error).startswith("Odd: 1 and 2 (an exception that cannot be pickled: Odd.__init__() missing 1 ")


class Mute(Exception):
    """None of its methods works, and it holds a lock."""

    def __init__(self) -> None:
        super().__init__("said")
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def leave() -> None:
    raise SystemExit(9)


class Leaving(Exception):
    """Whoever reads its pickle is to exit."""

    def __reduce__(self) -> Any:
        return leave, ()


def test_an_exception_may_do_in_its_methods_what_it_wants() -> None:
    error = raised(Mute())
    assert type(error) is RuntimeError
    assert str(error).startswith("Mute: Mute (an exception that cannot be pickled: cannot pickle the exception of f.l")
    error = raised(Leaving())
    assert type(error) is RuntimeError
    assert str(error) == "Leaving: Leaving (an exception that cannot be pickled: 9)"
    error = unpack([b"Traceback\nLeaving: no\n", *map(bytes, flat(dump(Leaving(), "v")))], "w@host")
    assert str(error) == "Leaving: no (an exception of worker w@host that cannot be read here: 9)"


def test_an_object_that_is_no_exception_is_told() -> None:
    error = unpack([b"", *map(bytes, flat(dump([Unsaid()], "v")))], "w@host")
    assert str(error) == "worker w@host raised an object of type list, no exception"


class Unsaid:
    def __repr__(self) -> str:
        raise ValueError("no text")


def test_a_name_within_a_value_may_not_be_sayable() -> None:
    with pytest.raises(CannotPickleError, match=r"^cannot pickle v of f, of type dict: "):
        dump({Unsaid(): threading.Lock()}, "v", " of f")


def test_a_module_that_a_worker_lacks_is_named_with_the_worker() -> None:
    error = raised(ModuleNotFoundError("No module named 'a.b'", name="a.b"))
    assert type(error) is ModuleNotFoundError and error.name == "a.b"
    assert str(error) == "worker w@host has no module a.b: install it there, or give modules=['a']"


def test_an_exception_that_is_unknown_here_is_told() -> None:
    error = unpack([b"Traceback\nthere.Oh: no\n", b"cthere\nOh\n."], "w@host")
    assert type(error) is RuntimeError
    assert str(error).startswith("there.Oh: no (an exception of worker w@host that cannot be read here: ")
