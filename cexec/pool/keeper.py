"""The keeper: the process that a slot starts, which speaks with the client and keeps a runner for its calls.

Contract: `Keeper(source, target).run()` serves one client until its messages end; then nothing of it runs any more.
The calls run in a process of their own, the runner, so that the keeper can tell for certain which call has begun when
a runner ends, can end a call, and can make a runner anew.  Short calls are kept until they are done: those that a dead
runner had not begun go to the next one.  A long call is passed on as it comes, to a runner that has nothing else.

Outcomes are passed on at once when the runner has nothing more to do; while it has, short ones are gathered.  The rest
of a long message passes from pipe to pipe, where the system can do that.  docs/python.md, "What an executor and a
worker say to each other".
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections import deque
from time import monotonic
from typing import Any

from cexec.errors import ProtocolError
from cexec.pool import call_messages as m
from cexec.pool.interpreter import Interpreter
from cexec.pool.kept_arrays import KeptArrays
from cexec.pool.kept_call import KeptCall
from cexec.pool.kept_modules import KeptModules
from cexec.pool.outcome_queue import OutcomeQueue
from cexec.pool.page import MOST_SKIPPED
from cexec.pool.runner_process import RunnerProcess
from cexec.pool.splice_through import SpliceThrough

MOST_GIVEN = 64  # calls (ours) that a runner is given at a time
MOST_QUEUED = 4 * 1024 * 1024  # bytes (ours) of a long message that are taken before they are passed on
CHUNK = 1024 * 1024  # bytes (ours) of one read


class Keeper:
    """One client's keeper."""

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._over = False
        self._from_client = m.Cutter()
        self._from_runner = m.Cutter()
        self._coming: KeptCall | None = None  # the message whose rest is to come
        self._fields: dict[str, Any] = {}  # of SETUP
        self._initializer: list[bytes | bytearray] = []
        self._most_calls = 0  # of one runner; 0: any number
        self._functions: dict[int, bytes] = {}
        self._waiting: deque[KeptCall] = deque()
        self._given: dict[int, KeptCall] = {}  # to the runner, in this order
        self._skipped: set[int] = set()  # calls that the runner has, but will not begin
        self._skips = 0
        self._runner: RunnerProcess | None = None
        self._killed_for = m.NOBODY
        self._out = OutcomeQueue(target)
        self._arrays = KeptArrays(self._out.add)
        self._modules = KeptModules(self._out.add)
        self._calls_splice, self._results_splice = SpliceThrough(), SpliceThrough()
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Returns when the client's messages have ended.  Raises `ProtocolError` if they are none."""
        for fd in (self._source, self._target, self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._out.add(m.encode(m.HELLO, parts=[Interpreter.here().encode()]))
        try:
            while not self._over:
                self._step()
        finally:
            self._close()

    def _terminate(self, number: int, frame: object) -> None:
        self._over = True

    def _close(self) -> None:
        if self._runner is not None:
            self._runner.kill()
            os.waitpid(self._runner.pid, 0)
            self._runner.close()
        self._modules.close()
        self._arrays.close()
        signal.set_wakeup_fd(-1)
        os.close(self._wake_read)
        os.close(self._wake_write)

    # the loop

    def _step(self) -> None:
        ready = self._wait()
        if self._wake_read in ready:
            _drain(self._wake_read)
        runner = self._runner
        try:
            if runner is not None and self._splices_call(runner):
                self._splice_call(runner, ready)
            elif self._source in ready:
                self._read_client()
        except EOFError:
            self._over = True
        if runner is not None:
            if self._splices_result():
                self._splice_result(runner, ready)
            elif runner.results in ready or not self._gathering:
                self._read_runner(runner)
            if (status := runner.exited()) is not None:
                self._runner_ended(runner, status)
        self._give()
        if not self._gathering and not self._out.write():
            self._over = True  # the client has gone

    @property
    def _gathering(self) -> bool:
        return self._out.gathers(bool(self._given))

    def _wait(self) -> set[int]:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        runner = self._runner
        if runner is not None and self._splices_call(runner):
            self._calls_splice.register(poll, self._source, runner.calls)
        else:
            if runner is None or runner.queued <= MOST_QUEUED or not self._is_streaming():
                poll.register(self._source, select.POLLIN)
            if runner is not None and runner.queued:
                poll.register(runner.calls, select.POLLOUT)
        timeout = None
        if self._gathering:
            timeout = max(0.0, (self._out.due - monotonic()) * 1000)
        elif runner is not None and self._splices_result():
            self._results_splice.register(poll, runner.results, self._target)
        else:
            if runner is not None and self._out.size < MOST_QUEUED:
                poll.register(runner.results, select.POLLIN)
            if self._out.size:
                poll.register(self._target, select.POLLOUT)
        return {fd for fd, _ in poll.poll(timeout)}

    # long messages

    def _is_streaming(self) -> bool:
        """Returns True while the rest of a call comes that the runner has begun to read."""
        return self._coming is not None and self._is_given(self._coming)

    def _splices_call(self, runner: RunnerProcess) -> bool:
        return self._calls_splice.possible and not runner.queued and runner.calls >= 0 and self._is_streaming()

    def _splices_result(self) -> bool:
        return self._results_splice.possible and not self._out.size and self._from_runner.missing > 0

    def _splice_call(self, runner: RunnerProcess, ready: set[int]) -> None:
        if not {self._source, runner.calls} & ready or self._coming is None:
            return
        try:
            self._from_client.skip(self._calls_splice.move(self._source, runner.calls, self._from_client.missing))
        except BrokenPipeError:
            return  # the runner has ended, which is seen next
        self._coming.missing = self._from_client.missing
        if not self._coming.missing:
            self._coming = None

    def _splice_result(self, runner: RunnerProcess, ready: set[int]) -> None:
        if not {runner.results, self._target} & ready:
            return
        try:
            self._from_runner.skip(self._results_splice.move(runner.results, self._target, self._from_runner.missing))
        except BrokenPipeError:
            self._over = True  # the client has gone
        except EOFError:
            pass  # the runner has ended, which is seen next

    # the client

    def _read_client(self) -> None:
        try:
            data = os.read(self._source, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._over = True
        for piece in self._from_client.feed(data):
            self._take(piece)

    def _take(self, piece: m.MessagePiece) -> None:
        if piece.kind == m.ARRAY:
            self._arrays.take(piece)
            return
        kept = self._coming
        if piece.first:
            kept = KeptCall(piece)
        elif kept is not None:
            kept.missing = piece.missing
            if self._is_given(kept) and self._runner is not None:
                self._runner.send(piece.data)
            elif not kept.unwanted:
                kept.data.append(piece.data)
        assert kept is not None
        self._coming = kept if piece.missing else None
        if piece.kind in (m.CALL, m.CHUNK):
            if piece.first:
                self._waiting.append(kept)
        elif not piece.missing:
            self._follow(piece.kind, piece.id, b"".join(kept.data))

    def _is_given(self, kept: KeptCall) -> bool:
        return self._given.get(kept.id) is kept

    def _follow(self, kind: int, id: int, data: bytes) -> None:
        """Does what a message says that is no call."""
        if kind == m.SETUP:
            self._set_up(data)
        elif kind == m.FUNCTION:
            self._functions[id] = data
            self._tell_runner(data)
        elif kind == m.FORGET:
            self._functions.pop(id, None)
            self._tell_runner(data)
        elif kind == m.MODULES:
            (message,) = m.Decoder().feed(data)
            self._modules.take(message.parts[0])
            self._start_runner()
        elif kind == m.CANCEL:
            self._cancel(id)
        elif kind == m.TAKE_BACK:
            self._take_back(id)
        elif kind == m.OPEN_STORE:
            self._arrays.open(data)
            self._tell_runner(self._arrays.note)
        elif kind == m.DROP_ARRAY:
            self._arrays.drop(id)
        else:
            raise ProtocolError(f"a client of cexec.pool does not send messages of kind {kind}")

    def _tell_runner(self, data: bytes) -> None:
        if self._runner is not None and data:
            self._runner.send(data)

    def _set_up(self, data: bytes) -> None:
        (message,) = m.Decoder().feed(data)
        self._fields = json.loads(message.parts[0])
        self._most_calls = self._fields["most_calls"]
        self._initializer = message.parts[2:]
        if self._modules.find(bytes(message.parts[1])):
            self._start_runner()

    @property
    def _setup(self) -> bytes:
        """What a runner is told first."""
        fields = {**self._fields, "path": self._modules.path}
        return b"".join(m.encode(m.SETUP, parts=[json.dumps(fields).encode(), b"", *self._initializer]))

    def _cancel(self, id: int) -> None:
        runner = self._runner
        if self._drop_waiting(id):
            self._out.add(m.encode(m.CANCELLED, id))
        elif id in self._given and runner is not None:
            runner.stop()
            self._read_runner(runner)
            if id not in self._given:
                runner.resume()  # its outcome is on its way
            elif runner.page.current == id:
                self._killed_for = id
                runner.kill()
            else:
                self._skip(runner, id)
                self._out.add(m.encode(m.CANCELLED, id))
                runner.resume()

    def _take_back(self, id: int) -> None:
        if self._drop_waiting(id) or (id in self._given and self._runner is not None and self._skip(self._runner, id)):
            self._out.add(m.encode(m.RETURNED, id))

    def _skip(self, runner: RunnerProcess, id: int) -> bool:
        """Lets the runner pass over a call that it was given; False if it has begun it."""
        self._skips += 1
        runner.page.skip(id, self._skips % MOST_SKIPPED)
        if runner.page.current == id:
            return False
        self._given.pop(id).unwanted = True
        self._skipped.add(id)
        return True

    def _drop_waiting(self, id: int) -> bool:
        for kept in self._waiting:
            if kept.id == id:
                self._waiting.remove(kept)
                kept.unwanted = True
                kept.data.clear()
                return True
        return False

    # the runner

    def _start_runner(self) -> None:
        from cexec.pool.runner import run  # needs cloudpickle; is loaded here once, for all runners

        others = [self._source, self._target, self._wake_read, self._wake_write, *self._arrays.descriptors]
        self._runner = RunnerProcess.start(others, run)
        self._from_runner = m.Cutter()
        for data in (self._setup, self._arrays.note, *self._functions.values()):
            self._tell_runner(data)
        self._runner.flush()

    def _give(self) -> None:
        """Gives the runner calls, as many as it should have."""
        runner = self._runner
        if runner is None or runner.calls < 0:
            return
        while self._waiting and len(self._given) + len(self._skipped) < MOST_GIVEN and runner.queued < m.SMALL:
            kept = self._waiting[0]
            used_up = self._most_calls and runner.taken >= self._most_calls
            if used_up or (self._given and (kept.long or any(one.long for one in self._given.values()))):
                break
            self._waiting.popleft()
            self._given[kept.id] = kept
            runner.taken += 1
            for data in kept.data:
                runner.send(data)
            if kept.long:
                kept.data.clear()
        runner.flush()
        if self._most_calls and runner.taken >= self._most_calls and not self._given:
            runner.finish()

    def _read_runner(self, runner: RunnerProcess) -> None:
        while self._out.size < MOST_QUEUED and (data := runner.receive()):
            for piece in self._from_runner.feed(data):
                self._take_outcome(runner, piece)
            if len(data) < CHUNK:
                break

    def _take_outcome(self, runner: RunnerProcess, piece: m.MessagePiece) -> None:
        if piece.kind not in m.RUNNER_TO_CLIENT:
            raise ProtocolError(f"a runner does not send messages of kind {piece.kind}")
        if piece.kind == m.READY:
            runner.ready = True
        long = not piece.first or bool(piece.missing) or len(piece.data) > m.SMALL
        if piece.kind == m.RETURNED:
            self._skipped.discard(piece.id)  # the client has been told
            return
        if piece.kind == m.DONE or (piece.kind in (m.RESULT, m.RAISED, m.LACKING) and not long):
            self._given.pop(piece.id, None)
        self._out.add([piece.data])

    def _runner_ended(self, runner: RunnerProcess, status: int) -> None:
        """Says what has become of its calls, and starts another one."""
        while data := runner.receive():
            for piece in self._from_runner.feed(data):
                self._take_outcome(runner, piece)
        if self._from_runner.missing:
            self._out.add([bytes(self._from_runner.missing)])  # it does not count without DONE
        victim = runner.page.current if runner.page.current in self._given else m.NOBODY
        for kept in self._given.values():
            if kept.long and victim == m.NOBODY:
                victim = kept.id  # it has ended while it read this one
        if (kept_victim := self._given.pop(victim, None)) is not None:
            kept_victim.unwanted = True
        if victim != m.NOBODY and victim == self._killed_for:
            self._out.add(m.encode(m.CANCELLED, victim))
        elif victim != m.NOBODY or status or not runner.ready:
            self._out.add(m.encode(m.DIED, victim, m.encode_status(status)))
        self._waiting.extendleft(self._given[id] for id in reversed(self._given))
        self._given.clear()
        self._skipped.clear()
        self._killed_for = m.NOBODY
        runner.close()
        self._runner = None
        if runner.ready:
            self._start_runner()  # else the next one would end so as well; the client decides


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
