"""One slot of an executor: a long job that runs `cexec.pool`, and the messages that pass through it.

Contract: `serve` starts the job, greets, sets the worker up, and then passes messages to the `SlotOwner` until the job
is over; it returns nothing and raises what has ended it: `NotThisWorkerError` if the worker cannot be used, else the
error of the cluster.  `send` queues buffers, which go out together.  `give_back` ends the job in peace.  What the
worker writes to standard error comes out here, line by line, with its name.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Protocol

from cexec.errors import DisconnectedError, ProtocolError
from cexec.pool import call_messages as m
from cexec.pool.interpreter import Interpreter
from cexec.python.calls.module_courier import ModuleCourier
from cexec.python.calls.pool_errors import NotThisWorkerError
from cexec.system.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from typing import Any

    from cexec.pool.call_messages import Buffer, CallMessage, Part
    from cexec.python.started_job import Job

GREETING_PATIENCE = 1.5  # seconds (ours) in which a cexec.pool says something: it does so before it loads anything
GOODBYE_PATIENCE = 2.0  # seconds (ours) until a slot that is given back is hung up on
KEPT_LINES = 3  # lines (ours) of standard error that are told with the end of a job
NO_CEXEC = ("No module named 'cexec'", "No module named cexec")  # what Python says
INSTALL_THERE = (
    "cannot start cexec.pool: its Python has no cexec; in a checkout there type: python3 -m pip install '.[pool]'"
)
LONGEST_LINE = 8192  # bytes (ours) that are kept until the end of a line comes


class SlotSetup:
    """What all slots of an executor are told first."""

    def __init__(
        self, environment: Mapping[str, str], initializer: Sequence[Part], most_calls: int, modules: bytes
    ) -> None:
        """`modules`: a zip file, or nothing."""
        self.here = Interpreter.here()
        self.modules = ModuleCourier(modules)
        self._environment = dict(environment)
        self._initializer = initializer
        self._most_calls = most_calls

    def encode(self, worker: str) -> list[Buffer]:
        fields = {"worker": worker, "environment": self._environment, "most_calls": self._most_calls}
        return m.encode(m.SETUP, parts=[json.dumps(fields).encode(), self.modules.digest, *self._initializer])


class SlotOwner(Protocol):
    """Who hears of a slot."""

    def slot_held(self) -> None:
        """The worker has begun the job."""

    def slot_wanted(self) -> None:
        """Another client waits for it."""

    def slot_says(self, messages: list[CallMessage]) -> None:
        """Messages have come."""


class CallSlot:
    """A slot, from the search for it to its end."""

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, Job]],
        setup: SlotSetup,
        owner: SlotOwner,
        write: Callable[[str], None],
    ) -> None:
        """`start` begins the search; `write` takes the lines for the user."""
        self._start = start
        self._setup = setup
        self._owner = owner
        self._write = write
        self._job: Job | None = None
        self._queue: deque[Buffer] = deque()
        self._queued = asyncio.Event()
        self._put = self._written = 0  # buffers that were queued, and of which a worker was given all bytes
        self._leaving = False
        self._ready = False
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.functions: set[int] = set()  # that the worker has

    @property
    def worker(self) -> str:
        """The worker's name and address; empty before it is known."""
        return "" if self._job is None else self._job.worker

    @property
    def instance(self) -> bytes:
        """Which running cservice it is; empty before it is known."""
        return b"" if self._job is None else self._job.instance

    def send(self, buffers: Sequence[Buffer]) -> int:
        """Queues a message; returns its mark for `has_sent`."""
        self._queue.extend(buffers)
        self._put += len(buffers)
        self._queued.set()
        return self._put

    def has_sent(self, mark: int) -> bool:
        """Returns False as long as a message is here, or behind another one that has not left as a whole."""
        return self._written >= mark

    def set_up(self) -> None:
        """Sends SETUP before anything else; again if the worker did not have the modules, and others have sent them."""
        buffers = self._setup.encode(self.worker)
        self._queue.extendleft(reversed(buffers))
        self._put += len(buffers)
        self._queued.set()

    def give_back(self) -> None:
        """Ends the job once everything is sent."""
        self._leaving = True
        self._queued.set()

    async def serve(self) -> None:
        job = self._job = await self._start()
        tasks: list[asyncio.Task[None]] = []
        try:
            await job.begun()
            self._owner.slot_held()
            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(one) for one in (self._write_all(job), self._read_errors(job), self._watch(job))]
            self.send([m.CLIENT_GREETING])
            await self._read(job)
            await asyncio.wait({tasks[1]}, timeout=GOODBYE_PATIENCE)  # the last lines
            await self._end(job)
        finally:
            await job.cancel()  # first: nobody waits any more for what is still to be sent
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, job: Job) -> None:
        """Raises what the end of the job means."""
        async with asyncio.timeout(GOODBYE_PATIENCE):
            completed = await job.wait()
        if not self._leaving:
            lines = " | ".join(self._last_lines)
            raise DisconnectedError(
                f"cexec.pool at {self.worker} has ended with status {completed.returncode}{lines and f': {lines}'}"
            )

    # what comes

    async def _read(self, job: Job) -> None:
        try:
            async with asyncio.timeout(GREETING_PATIENCE):
                beginning = await self._read_greeting(job)
        except TimeoutError:
            raise self._no_pool(f"has said nothing in {GREETING_PATIENCE:g} s") from None
        decoder = m.Decoder(_memory_size())
        messages = decoder.feed(beginning)
        while True:
            if messages:
                if not self._ready:
                    messages = self._greet(messages)
                if messages:
                    self._owner.slot_says(messages)
            chunk = await job.stdout.read(m.SMALL * 16)
            if not chunk:
                return
            messages = decoder.feed(chunk)

    async def _read_greeting(self, job: Job) -> bytes:
        """Returns what has come behind the greeting."""
        data = b""
        while len(data) < len(m.WORKER_GREETING):
            chunk = await job.stdout.read(m.SMALL)
            if not chunk:
                await asyncio.sleep(0)  # what it has written to standard error comes with it
                if any(words in line for line in self._last_lines for words in NO_CEXEC):
                    raise NotThisWorkerError(self.worker, INSTALL_THERE, is_pool=True)
                said = f"has written {data[:40]!r}" if data else "has ended without a word"
                raise self._no_pool(said + "".join(f": {line}" for line in self._last_lines))
            data += chunk
            start = m.WORKER_START
            if data[: len(start)] != start[: len(data)]:
                raise self._no_pool(f"writes {data[:40]!r}")
        if not data.startswith(m.WORKER_GREETING):
            theirs = data[len(start) :].partition(b"\n")[0].decode(errors="replace")
            versions = f"pools have version {theirs}, this is version {m.VERSION}"
            raise NotThisWorkerError(
                self.worker, f"has a cexec whose {versions}: install the same cexec on both sides", is_pool=True
            )
        return data[len(m.WORKER_GREETING) :]

    def _no_pool(self, said: str) -> NotThisWorkerError:
        return NotThisWorkerError(self.worker, f"does not serve cexec.pool: it {said}", is_pool=False)

    def _greet(self, messages: list[CallMessage]) -> list[CallMessage]:
        """Takes the first message; returns the others."""
        first = messages[0]
        if first.kind != m.HELLO or not first.parts:
            raise ProtocolError(f"{self.worker} did not begin with its hello")
        if difference := Interpreter.decode(first.parts[0]).difference(self._setup.here):
            raise NotThisWorkerError(self.worker, f"has {difference}", is_pool=True)
        self._ready = True
        self.set_up()
        return messages[1:]

    async def _read_errors(self, job: Job) -> None:
        name = printable(self.worker.partition("@")[0])
        rest = b""
        async for chunk in job.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines.append(rest)
                rest = b""
            self._tell(name, lines)
        if rest:
            self._tell(name, [rest])

    def _tell(self, name: str, lines: list[bytes]) -> None:
        texts = [line.decode(errors="replace") for line in lines]
        self._last_lines.extend(texts)
        if texts:
            self._write("".join(f"{name}: {text}\n" for text in texts))

    async def _watch(self, job: Job) -> None:
        await job.slot_wanted.wait()
        self._owner.slot_wanted()

    # what goes

    async def _write_all(self, job: Job) -> None:
        try:
            while True:
                await self._queued.wait()
                self._queued.clear()
                if self._queue:
                    count, buffers = len(self._queue), _joined(self._queue)
                    self._queue.clear()
                    await job.stdin.write(buffers)
                    self._written += count
                elif self._leaving:
                    job.stdin.close()
                    return
                if self._leaving:
                    self._queued.set()
        except BrokenPipeError:
            pass  # the job's end says why


def _memory_size() -> int:
    """Returns the bytes of memory of this machine, which no result can exceed, whatever its worker says."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _joined(buffers: Iterable[Buffer]) -> list[Buffer]:
    """Returns the same bytes with neighbours joined that are short."""
    joined: list[Buffer] = []
    short: list[Buffer] = []
    for one in buffers:
        if len(one) <= m.SMALL:
            short.append(one)
        else:
            joined += [b"".join(short), one] if short else [one]
            short = []
    if short:
        joined.append(b"".join(short))
    return joined


def write_to_stderr(text: str) -> None:
    """Writes lines of workers where this program's own errors go."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        pass  # closed: nobody reads them
