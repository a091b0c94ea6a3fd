"""Exceptions of calls as the parts of a message, with the traceback of the worker as text.

Contract: `pack` never fails: an exception that cannot be pickled, or whose pickle cannot be read, becomes a
`RuntimeError` that says so and names the object, also if its own `__str__` raises.  `unpack` returns an exception whose
`__cause__` is a `RemoteTraceback`, which prints the traceback of the worker; concurrent.futures does the same.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from cexec.errors import CannotPickleError
from cexec.pool.pickles import dump, load, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.pool.call_messages import Part


class RemoteTraceback(Exception):
    """Where a call was when it raised, at its worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def pack(error: BaseException, name: str, worker: str) -> list[Part]:
    """`name` is that of the function, `worker` that of this one."""
    text = "".join(traceback.format_exception(error))
    error = _explained(error, worker)
    try:
        parts = dump(error, f"the exception of {name}")
        load([b"".join(part) if isinstance(part, list) else bytes(part) for part in parts])
    except BaseException as problem:  # whatever the exception's own methods raise
        why = f"an exception that cannot be pickled: {text_of(problem)}"
        parts = dump(RuntimeError(f"{type(error).__qualname__}: {text_of(error)} ({why})"), name)
    return [text.encode(errors="replace"), *parts]


def unpack(parts: Sequence[bytes | bytearray], worker: str) -> BaseException:
    text = parts[0].decode(errors="replace")
    try:
        error: BaseException = load(parts[1:])
    except BaseException as unreadable:  # what a pickle does is the worker's choice: the loop goes on all the same
        last = text.rstrip().rpartition("\n")[2]
        why = text_of(unreadable)
        error = RuntimeError(f"{last} (an exception of worker {worker} that cannot be read here: {why})")
    if not isinstance(error, BaseException):
        error = RuntimeError(f"worker {worker} raised an object of type {type(error).__qualname__}, no exception")
    error.__cause__ = RemoteTraceback(text)
    return error


def _explained(error: BaseException, worker: str) -> BaseException:
    """Adds to an error that tells of something missing at a worker which worker it is."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        text = f"worker {worker} has no module {error.name}: install it there, or give modules=[{top!r}]"
        return ModuleNotFoundError(text, name=error.name, path=error.path)
    if isinstance(error, CannotPickleError):
        return CannotPickleError(f"worker {worker}: {error}")
    return error
