"""`Executor.map`: the calls of one function, as they are given, and their results in order.

Contract: as `map` of the executors of Python 3.14, for older ones, too.  Without `buffersize` all inputs are read and
submitted at once; with it, so many calls are unfinished or unread at a time, and inputs are read as results are taken.
An iterator that is closed, or whose call has raised, cancels the calls behind.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future


def check(chunksize: int, buffersize: int | None) -> None:
    """Raises what `map` of Python 3.14 raises."""
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def chunks(inputs: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yields lists of so many inputs; the last one may be shorter."""
    while chunk := list(islice(inputs, size)):
        yield chunk


def results(
    submit: Callable[[Any], Future[Any]],
    inputs: Iterator[Any],
    timeout: float | None,
    buffersize: int | None,
    over: Callable[[], None],
) -> Iterator[Any]:
    """Submits at once what has to be; the iterator yields results.  `over` is called when no more is submitted."""
    deadline = None if timeout is None else time.monotonic() + timeout
    futures: deque[Future[Any]] = deque()
    try:
        for one in islice(inputs, buffersize):
            futures.append(submit(one))
    except BaseException:
        _cancel(futures)
        over()
        raise
    return _yield(submit, inputs, deadline, buffersize, futures, over)


def _yield(
    submit: Callable[[Any], Future[Any]],
    inputs: Iterator[Any],
    deadline: float | None,
    buffersize: int | None,
    futures: deque[Future[Any]],
    over: Callable[[], None],
) -> Iterator[Any]:
    try:
        while futures:
            if buffersize is not None:
                for one in islice(inputs, 1):
                    futures.append(submit(one))
            # Not kept in a variable: the caller may be the only one that has the result.
            yield _result(futures.popleft(), deadline)
    finally:
        _cancel(futures)
        over()


def _result(future: Future[Any], deadline: float | None) -> Any:
    try:
        return future.result(None if deadline is None else deadline - time.monotonic())
    finally:
        future.cancel()
        del future  # an exception's traceback must not keep its future


def _cancel(futures: deque[Future[Any]]) -> None:
    while futures:
        futures.pop().cancel()
