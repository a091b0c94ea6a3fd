"""A `python3 -m cexec.pool` over pipes, without any network, and what a client says to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from cexec.pool import call_messages as m
from cexec.pool.exceptions import unpack
from cexec.pool.message_pipes import MessageReader, write_all
from cexec.pool.pickles import dump, load
from tests.environment import clean_environment
from tests.waiting import PATIENCE

WORKER = [sys.executable, "-m", "cexec.pool"]
FUNCTION_ID = 1


class PoolWorker:
    """A started one, to be used as a context; `errors()` is what it has written to standard error."""

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=clean_environment(environment),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._reader = MessageReader(self._output)
        self._kept: deque[m.CallMessage] = deque()
        self._functions = 0
        self.had_modules = False  # this machine had them before `set_up`
        self.id = 0

    def __enter__(self) -> PoolWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self.process.wait(PATIENCE)
        self.process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()

    def send(self, kind: int, id: int = 0, about: int = 0, parts: Any = ()) -> None:
        write_all(self._input, m.encode(kind, id, about, parts))

    def receive(self) -> m.CallMessage:
        message = self._reader.next()
        assert message is not None, f"the worker has hung up: {self.errors()}"
        return message

    def greet(self) -> m.CallMessage:
        """Exchanges greetings; returns HELLO."""
        os.write(self._input, m.CLIENT_GREETING)
        greeting = b"".join(os.read(self._output, 1) for _ in m.WORKER_GREETING)
        assert greeting == m.WORKER_GREETING
        hello = self.receive()
        assert hello.kind == m.HELLO
        return hello

    def set_up(
        self,
        initializer: Callable[..., object] | None = None,
        *arguments: object,
        most_calls: int = 0,
        environment: Mapping[str, str] | None = None,
        modules: bytes = b"",
    ) -> m.CallMessage:
        """Greets and sends SETUP; returns READY or UNREADY."""
        self.greet()
        fields = {"worker": "w@host", "environment": dict(environment or {}), "most_calls": most_calls}
        pickled = [] if initializer is None else dump((initializer, arguments), "the initializer")
        digest = sha256(modules).digest() if modules else b""
        self.send(m.SETUP, parts=[json.dumps(fields).encode(), digest, *pickled])
        answer = self.receive()
        self.had_modules = answer.kind != m.MISSING_MODULES
        if not self.had_modules:
            self.send(m.MODULES, parts=[modules])
            assert self.receive().kind == m.KEPT_MODULES
            answer = self.receive()
        return answer

    def function(self, function: Callable[..., object]) -> int:
        """Sends a function; returns its id."""
        self._functions += 1
        self.send(m.FUNCTION, self._functions, parts=dump(function, "a function"))
        return self._functions

    def call(self, function: int, *arguments: object, **keywords: object) -> int:
        """Sends a call; returns its id."""
        self.id += 1
        self.send(m.CALL, self.id, function, dump((arguments, keywords), "the arguments"))
        return self.id

    def outcome(self, message: m.CallMessage | None = None) -> Any:
        """Returns a result, or raises the exception of a call."""
        message = message or self.receive()
        if message.kind == m.RAISED:
            raise unpack(message.parts, "w@host")
        assert message.kind == m.RESULT
        if not m.is_short(message):
            assert self.receive().kind == m.DONE
        return load(message.parts)

    def run(self, function: Callable[..., object], *arguments: object, **keywords: object) -> Any:
        """Runs one call."""
        self.call(self.function(function), *arguments, **keywords)
        return self.outcome()
