"""The streams of a job whose caller writes and reads while it runs.

Contract: `JobInput.write` returns when a worker has been given all its bytes: it waits while the worker takes none.
`JobOutput` gives what has come; while its reader is away at most LIMIT bytes and one credit window are kept, and the
program then waits.  Both belong to a job over all of its attempts: `source` and `sink` make the end of one attempt.
Nothing is given while the input is `held`, so the program has begun when the first byte leaves.  `given` and `taken`
count the bytes that no further attempt can have again; `seen` is True also if only the end was told.  All methods
belong to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from cexec.client.aio.lease_job import LeaseJob
from cexec.system.io.fds import FEW, Sink, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview

LIMIT = 1024 * 1024  # bytes (ours) that wait for a reader before credit is withheld
SMALL = 4096  # bytes (ours): shorter chunks are joined while they wait


class JobInput:
    """The caller writes here what the program reads."""

    def __init__(self, step_again: Callable[[], None]) -> None:
        """`step_again` lets the lease move bytes, if there is one."""
        self.held = True
        self.given = 0
        self._step_again = step_again
        self._queue: deque[memoryview] = deque()
        self._put = 0  # bytes that were written so far; `given` of them have left
        self._closed = False  # by the caller
        self._refused = ""  # why nobody takes any more
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()  # and up to which byte each waits

    async def write(self, data: Buffer | Iterable[Buffer]) -> None:
        """Writes bytes, or several pieces one after the other, without copying them.

        `BrokenPipeError` when the program reads no more, `ValueError` after `close`.  A call that is cancelled has
        written all the same: no message is ever cut.
        """
        if self._closed:
            raise ValueError("the job's input has been closed")
        self._check()
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        views = [view for piece in pieces if len(view := memoryview(piece).cast("B"))]
        self._queue.extend(views)
        self._put += sum(map(len, views))
        self._step_again()
        if self.given < self._put:
            try:
                await self._wait_for(self._put)
            except asyncio.CancelledError:
                self._copy_rest()
                for view in views:
                    view.release()  # the buffer is its owner's again
                raise

    def close(self) -> None:
        """Lets the program find the end of its input, behind all that was written."""
        if not self._closed:
            self._closed = True
            self._step_again()

    @property
    def closed(self) -> bool:
        """True if nothing more can be written."""
        return self._closed or bool(self._refused)

    async def _wait_for(self, end: int) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((end, waiter))
        await waiter
        self._check()

    def _copy_rest(self) -> None:
        rest, self._queue = self._queue, deque(memoryview(bytes(view)) for view in self._queue)
        for view in rest:
            view.release()

    def _check(self) -> None:
        if self._refused:
            raise BrokenPipeError(self._refused)

    # for the job

    def source(self) -> Source:
        """Returns the source of one attempt."""
        return _InputSource(self)

    def refuse(self, why: str) -> None:
        """Nobody takes any more: those who wait are told, and those who write later."""
        self._refused = self._refused or why
        self._queue.clear()
        self._wake(self._put)

    # for the source

    @property
    def idle(self) -> bool:
        return self.held or not (self._queue or self._closed)

    @property
    def few(self) -> bool:
        """True if all that waits fits into a small buffer."""
        return len(self._queue) <= 1 and (not self._queue or len(self._queue[0]) <= FEW)

    def take(self, view: memoryview) -> int | None:
        """Moves bytes into `view`; 0 at the end, None if there is nothing now."""
        if self.idle:
            return None
        size = 0
        while self._queue and size < len(view):
            first = self._queue[0]
            part = min(len(first), len(view) - size)
            view[size : size + part] = first[:part]
            size += part
            if part == len(first):
                self._queue.popleft()
            else:
                self._queue[0] = first[part:]
        self.given += size
        self._wake(self.given)
        return size

    def _wake(self, end: int) -> None:
        while self._waiting and self._waiting[0][0] <= end:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)


class _InputSource(Source):
    """The worker's end of a `JobInput`, for one attempt."""

    def __init__(self, owner: JobInput) -> None:
        super().__init__(-1, shared=True)
        self._owner = owner

    @property
    def few(self) -> bool:  # type: ignore[override]
        return self._owner.few

    @property
    def idle(self) -> bool:  # type: ignore[override]
        return self._owner.idle

    def read_into(self, view: memoryview) -> int | None:
        return self._owner.take(view)

    def abandon(self) -> None:
        self._owner.refuse("the program reads no more of this input")


class JobOutput:
    """The caller reads here what the program writes: `async for chunk in output` gives it as it comes."""

    def __init__(self, step_again: Callable[[], None]) -> None:
        self.taken = 0
        self.seen = False
        self.unlimited = False
        self._step_again = step_again
        self._chunks: deque[bytes | bytearray] = deque()
        self._size = 0
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> JobOutput:
        return self

    async def __anext__(self) -> bytes:
        """Returns the next bytes, some at least; raises the job's error where the output is cut off."""
        chunk = await self._next()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self, size: int = -1) -> bytes:
        """Returns up to `size` bytes as soon as there are some, or without a size all up to the end; b"" at the end."""
        if size == 0:
            return b""
        if size < 0:
            return b"".join([chunk async for chunk in self])
        chunk = await self._next()
        if len(chunk) > size:
            self._chunks.appendleft(chunk[size:])
            self._size += len(chunk) - size
            self.taken -= len(chunk) - size
            chunk = chunk[:size]
        return chunk

    async def readexactly(self, size: int) -> bytes:
        """Returns `size` bytes; `asyncio.IncompleteReadError` if the output ends before."""
        parts: list[bytes] = []
        left = size
        while left:
            part = await self.read(left)
            if not part:
                raise asyncio.IncompleteReadError(b"".join(parts), size)
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    async def _next(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                self.seen = True
                return b""
            if self._waiter is not None:
                raise RuntimeError("another task reads this output of the job already")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        full = self._size >= LIMIT
        chunk = bytes(self._chunks.popleft())  # which copies only what was joined
        self._size -= len(chunk)
        self.taken += len(chunk)
        self.seen = True
        if full and self._size < LIMIT:
            self._step_again()
        return chunk

    # for the job

    def sink(self) -> Sink:
        """Returns the sink of one attempt."""
        return _OutputSink(self)

    def clear(self) -> None:
        """Forgets what an attempt has written, of which nobody has taken anything."""
        self._chunks.clear()
        self._size = 0
        self._ended = False

    def end(self, error: BaseException | None = None) -> None:
        """No more will come; with `error` there should have been more."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    # for the sink

    def put(self, view: memoryview) -> int:
        """Takes bytes as far as there is room; returns their number."""
        room = len(view) if self.unlimited else LIMIT - self._size
        if room <= 0:
            return 0
        part = view[:room]
        last = self._chunks[-1] if self._chunks else b""
        if self._chunks and len(last) < SMALL and len(part) < SMALL:
            if not isinstance(last, bytearray):
                last = self._chunks[-1] = bytearray(last)
            last += part
        else:
            self._chunks.append(bytes(part))
        self._size += len(part)
        self._wake()
        return len(part)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _OutputSink(Sink):
    """The worker's end of a `JobOutput`, for one attempt.  After `detach` the output goes on without it."""

    def __init__(self, owner: JobOutput) -> None:
        super().__init__(-1, shared=True)
        self._owner: JobOutput | None = owner

    def write(self, view: memoryview) -> int:
        if self._owner is None:
            return len(view)
        size = self._owner.put(view)
        self.count += size
        return size

    def take_rest(self) -> None:
        if self._owner is not None:
            self._owner.unlimited = True

    def detach(self) -> None:
        self._owner = None

    def close(self) -> None:
        """The program has closed this output."""
        if self._owner is not None:
            self._owner.end()
            self._owner = None


class StreamedLeaseJob(LeaseJob):
    """A `LeaseJob` of which some streams are a `JobInput` or a `JobOutput`."""

    def whole_inputs(self) -> dict[int, bytes] | None:
        """Such a job is not given in advance: its streams need the connection."""
        return None

    def take_rest(self) -> None:
        for sink in self.sinks.values():
            if isinstance(sink, _OutputSink):
                sink.take_rest()

    def close(self) -> None:
        """Ends the attempt: that says nothing about the end of its outputs."""
        for sink in self.sinks.values():
            if isinstance(sink, _OutputSink):
                sink.detach()
        super().close()
