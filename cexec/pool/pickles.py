"""Values as the parts of a message: a pickle of protocol 5, and the large buffers of the value beside it.

Contract: `dump` returns parts for `call_messages.encode`, `load` makes a value of the parts of a `CallMessage`.  The
memory of arrays, and of large `bytes`, is not copied by `dump`: it has to stay as it is until the parts are sent.  By
`load` the arrays get the memory into which the message was received.  Functions and classes that the other side cannot
import travel by value, as cloudpickle does it.  A value that cannot be pickled is a `CannotPickleError`, whose message
names the object within it; `culprit` is how that is found.
"""

from __future__ import annotations

import pickle
import sys
from collections import ChainMap
from functools import partial
from typing import TYPE_CHECKING, Any

import cloudpickle

from cexec.errors import CannotPickleError
from cexec.pool.call_messages import MOST_PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cexec.pool.call_messages import Part

PROTOCOL = 5
IN_BAND = 16 * 1024  # bytes (ours) of a buffer that is not worth a part of its own
DEEPEST = 12  # levels (ours) to which the object is looked for that cannot be pickled


class _Chunks:
    """What a pickler writes.  It gives large `bytes` as they are."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.write = self.chunks.append


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """cloudpickle's, with another table for arrays of numpy."""

    def __init__(
        self,
        file: _Chunks,
        keep_in_band: Callable[[pickle.PickleBuffer], bool],
        reduce_array: Callable[[Any], Any] | None,
    ) -> None:
        numpy = sys.modules.get("numpy")
        if numpy is not None and hasattr(numpy, "memmap"):
            own = {numpy.memmap: reduce_array or _reduce_mapped}
            if reduce_array is not None:
                own[numpy.ndarray] = reduce_array
            self.dispatch_table = ChainMap(own, cloudpickle.CloudPickler.dispatch_table)  # is read by the base class
        super().__init__(file, protocol=PROTOCOL, buffer_callback=keep_in_band)


def dump(value: object, name: str, of: str = "", *, reduce_array: Callable[[Any], Any] | None = None) -> list[Part]:
    """`name` is what the value is called in the error's message, `of` follows the names of its parts there.

    `reduce_array` returns for a numpy array what `__reduce_ex__` would.
    """
    file = _Chunks()
    buffers: list[memoryview] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if len(view) < IN_BAND or len(buffers) + 1 >= MOST_PARTS:
            return True
        buffers.append(view)
        return False

    try:
        _Pickler(file, keep_in_band, reduce_array).dump(value)
    except Exception as error:
        if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
            raise CannotPickleError(f"cannot pickle {name}{of}: it is nested too deeply") from error
        raise CannotPickleError(_culprit_or_whole(value, name, of, error)) from error
    return [file.chunks[0] if len(file.chunks) == 1 else file.chunks, *buffers]


def _reduce_mapped(array: Any) -> Any:
    """A mapped array travels as a plain one: the other side does not have its file."""
    return array.view(sys.modules["numpy"].ndarray).__reduce_ex__(PROTOCOL)


def load(parts: Sequence[bytes | bytearray]) -> Any:
    """Raises whatever the pickled objects raise."""
    return pickle.loads(parts[0], buffers=parts[1:])


def _culprit_or_whole(value: object, name: str, of: str, error: BaseException) -> str:
    try:
        return culprit(value, name, of, error)
    except Exception:  # of methods of the objects within, such as `__repr__`
        return f"cannot pickle {name}{of}, of type {_type_name(value)}: {text_of(error)}"


def culprit(value: object, name: str, of: str, error: BaseException) -> str:
    """Returns a sentence about the innermost object that cannot be pickled, and where it is."""
    seen: set[int] = set()
    for _ in range(DEEPEST):
        seen.add(id(value))
        for inner_name, inner in _inner(value, name):
            inner_error = None if id(inner) in seen else _failure(inner)
            if inner_error is not None:
                value, name, error = inner, inner_name, inner_error
                break
        else:
            break
    return f"cannot pickle {name}{of}, of type {_type_name(value)}: {text_of(error)}"


def _failure(value: object) -> Exception | None:
    try:
        cloudpickle.dumps(value, PROTOCOL)
    except Exception as error:
        return error
    return None


def _type_name(value: object) -> str:
    of = type(value)
    return of.__qualname__ if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"


def text_of(error: BaseException) -> str:
    """Returns the first line of an error's text, or the name of its class if there is none."""
    try:
        text = str(error).partition("\n")[0]
    except BaseException:  # its own `__str__` raises
        text = ""
    return text or type(error).__name__


def _inner(value: Any, name: str) -> Iterator[tuple[str, object]]:
    """Yields what a pickle of the value contains, each with its name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{name}[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"{name}[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield f"an element of {name}", item
    elif isinstance(value, partial):
        yield f"{name}.func", value.func
        yield from _inner(value.args, f"{name}.args")
        yield from _inner(value.keywords, f"{name}.keywords")
    elif isinstance(value, BaseException):
        yield from _inner(value.args, f"{name}.args")
        yield from _attributes(value, name)
    elif hasattr(value, "__code__"):
        yield from _inner_of_function(value, name)
    elif hasattr(value, "__func__") and hasattr(value, "__self__"):
        yield f"{name}.__self__", value.__self__
        yield f"{name}.__func__", value.__func__
    if not (isinstance(value, type) or _reduces_itself(type(value))):
        yield from _attributes(value, name)


def _attributes(value: Any, name: str) -> Iterator[tuple[str, object]]:
    for attribute, item in getattr(value, "__dict__", {}).items():
        yield f"{name}.{attribute}", item


def _reduces_itself(of: type) -> bool:
    """Returns True if objects of the class say themselves what their pickle contains."""
    return any(name in one.__dict__ for one in of.__mro__[:-1] for name in ("__reduce__", "__reduce_ex__"))


def _inner_of_function(value: Any, name: str) -> Iterator[tuple[str, object]]:
    for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            yield f"the variable {variable} of {name}", cell.cell_contents
        except ValueError:
            pass  # an empty cell
    for variable in value.__code__.co_names:
        if variable in value.__globals__:
            yield f"the global {variable} of {name}", value.__globals__[variable]
    for index, item in enumerate(value.__defaults__ or ()):
        yield f"default {index} of {name}", item
