"""The runner: the process in which calls run, one after the other.

Contract: `run` reads SETUP, FUNCTION, FORGET, CALL and CHUNK from one descriptor and writes READY or UNREADY, and a
result for each call, to another one, until there is nothing more to read.  It notes on the page which call it takes
up.  A process that a call has forked ends where the call returns in it.  Its keeper has moved the descriptors 0 and 1
away: what the calls print goes to standard error, and what they read is empty.  An exception of a call, also one that
ends a program such as `SystemExit`, is its result.
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from cexec.pool import inside, shared_arrays, threads
from cexec.pool.call_messages import (
    CALL,
    CHUNK,
    DONE,
    FORGET,
    FUNCTION,
    LACKING,
    OPEN_STORE,
    RAISED,
    READY,
    RESULT,
    RETURNED,
    SETUP,
    SMALL,
    UNREADY,
    CallMessage,
    encode,
    size_of,
)
from cexec.pool.exceptions import pack
from cexec.pool.message_pipes import MessageReader, write_all
from cexec.pool.pickles import dump, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.pool.call_messages import Buffer, Part
    from cexec.pool.page import Page


def run(calls: int, results: int, page: Page) -> None:
    """Runs calls until there are no more."""
    Runner(calls, results, page).run()


class Runner:
    """What a runner keeps between two calls."""

    def __init__(self, calls: int, results: int, page: Page) -> None:
        self._reader = MessageReader(calls)
        self._results = results
        self._page = page
        self._functions: dict[int, CallMessage | Callable[..., Any]] = {}
        self._worker = ""
        self._pid = os.getpid()

    def run(self) -> None:
        while (message := self._reader.next()) is not None:
            if message.kind in (CALL, CHUNK):
                self._take_up(message)
            elif message.kind == FUNCTION:
                self._functions[message.id] = message  # is loaded by the first call, whose failure its failure is
            elif message.kind == FORGET:
                self._functions.pop(message.id, None)
            elif message.kind == SETUP:
                self._set_up(message)
            elif message.kind == OPEN_STORE:
                shared_arrays.use(os.fsdecode(bytes(message.parts[0])))

    def _write(self, buffers: list[Buffer]) -> None:
        write_all(self._results, buffers)

    def _set_up(self, message: CallMessage) -> None:
        fields = json.loads(message.parts[0])
        self._worker = fields["worker"]
        sys.path[:0] = fields["path"]
        os.environ.update(fields["environment"])
        os.environ.update(threads.limits(os.environ, threads.cpus()))
        inside.enter(os.environ, fields["path"])
        try:
            if len(message.parts) > 2:
                initializer, arguments = load(message.parts[2:])
                initializer(*arguments)
        except BaseException as error:
            self._end_copy(error)
            self._write(encode(UNREADY, parts=pack(error, "the initializer", self._worker)))
        else:
            self._end_copy()
            self._write(encode(READY))
        _flush()

    def _take_up(self, message: CallMessage) -> None:
        id = message.id
        self._page.begin(id)
        if self._page.is_skipped(id):
            self._write(encode(RETURNED, id))
            return
        began = perf_counter_ns()
        try:
            kind, parts = self._outcome(message)
        except shared_arrays.MissingArrayError as error:
            self._write(encode(LACKING, id, error.number))
            return
        _flush()
        buffers = encode(kind, id, perf_counter_ns() - began, parts)
        if size_of(buffers) > SMALL:
            buffers += encode(DONE, id)
        self._write(buffers)
        message.parts.clear()  # the loop keeps the message while it waits for the next one

    def _outcome(self, message: CallMessage) -> tuple[int, list[Part]]:
        name = "a function"
        try:
            function = self._function(message.about)
            name = getattr(function, "__qualname__", type(function).__name__)
            if message.kind == CHUNK:
                result: object = [function(*arguments) for arguments in load(message.parts)]
            else:
                arguments, keywords = load(message.parts)
                result = function(*arguments, **keywords)
            self._end_copy()
            return RESULT, dump(result, "the result", f" of {name}")
        except shared_arrays.MissingArrayError:
            raise
        except BaseException as error:
            self._end_copy(error)
            return RAISED, pack(error, name, self._worker)

    def _end_copy(self, error: BaseException | None = None) -> None:
        """Ends this process if the call has forked it: its messages are those of the process that it is a copy of."""
        if os.getpid() == self._pid:
            return
        status = 0 if error is None else 1
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
        _flush()
        os._exit(status & 0xFF)

    def _function(self, id: int) -> Callable[..., Any]:
        found = self._functions[id]
        if isinstance(found, CallMessage):
            found = self._functions[id] = load(found.parts)
        return found


def _flush() -> None:
    """Lets the caller see now what a call has printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # closed or replaced by a call
