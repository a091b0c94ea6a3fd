"""WebSocket `/v1/exec`: a program's input and outputs, live, in one conversation; docs/api.md has every message.

Contract: the client's first message starts a job or attaches to one.  Bytes travel in binary messages whose first byte
is the number of the stream; everything else is JSON in text messages.  Both directions wait for the slower side.  A
client that goes leaves the job as it is, and can attach again from any offset that is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from cexec.errors import CexecError
from cexec.gate.access.credential import SUBPROTOCOL
from cexec.gate.http.error_documents import problem_of
from cexec.gate.http.gate import gate_of, identity_of, note_change
from cexec.gate.http.job_bodies import parse_job
from cexec.gate.http.job_routes import job_document
from cexec.gate.jobs.pipe import OutputReader, start_pipe
from cexec.gate.json_text import parse_json
from cexec.gate.problem import Problem
from cexec.gate.store.bell import Bell
from cexec.gate.store.output_log import behind_the_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send
    from starlette.websockets import WebSocket

    from cexec.gate.access.caller import Caller
    from cexec.gate.http.gate import Gate
    from cexec.gate.jobs.live_job import InputWriter, LiveJob

CHUNK = 256 * 1024 - 1  # bytes (ours) of one message, behind its number
INPUT_WINDOW = 1024 * 1024  # bytes (ours) of input that wait here, so that a signal need not wait behind them
FIRST_PATIENCE = 30.0  # seconds (ours) for the first message
OUTPUTS = (1, 2)
NORMAL, POLICY = 1000, 1008  # close codes (RFC 6455, section 7.4.1)


class _Gone(Exception):
    """The client has hung up."""


class ExecSocket:
    """One conversation."""

    def __init__(self, gate: Gate, identity: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._identity = identity
        self._scope = scope
        self._receive = receive
        self._send = send
        self._input: deque[bytes | None] = deque()  # None: its end
        self._waiting = 0  # bytes in there
        self._changed = Bell()  # of the input

    async def converse(self) -> None:
        """Speaks until the job is over, or the client has gone."""
        await self._receive()  # websocket.connect
        offered = self._scope.get("subprotocols", ())
        await self._send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
        try:
            try:
                await self._speak()
            except (Problem, CexecError) as error:
                await self._tell({"type": "error", "problem": problem_of(error).document()})
                await self._pass_on({"type": "websocket.close", "code": POLICY})
        except _Gone:
            pass

    async def _speak(self) -> None:
        try:
            first = await asyncio.wait_for(self._next(), FIRST_PATIENCE)
        except TimeoutError:
            raise Problem(408, "the first message has not come") from None
        live, offsets, writes = await self._begin(self._command(first))
        await self._tell({"type": "job", "job": job_document(self._gate, live.record)})
        writer = live.take_input(None) if writes else None
        tasks: list[asyncio.Future[None]] = []
        with OutputReader(live, 1, offsets[1]) as stdout, OutputReader(live, 2, offsets[2]) as stderr:
            sending = [asyncio.ensure_future(self._send_output(1, stdout)),
                       asyncio.ensure_future(self._send_output(2, stderr))]  # fmt: skip
            tasks += [asyncio.ensure_future(self._listen(live, writes)), *sending]
            if writer is not None:
                tasks.append(asyncio.ensure_future(self._write_input(live, writer)))
            try:
                await self._until_over(live, tasks, sending)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        await self._tell({"type": "exit", "job": job_document(self._gate, live.record)})
        await self._pass_on({"type": "websocket.close", "code": NORMAL})

    async def _until_over(
        self, live: LiveJob, tasks: Sequence[asyncio.Future[None]], sending: Sequence[asyncio.Future[None]]
    ) -> None:
        """Returns when all outputs were sent and the job is over; raises what ends the conversation before."""
        over = asyncio.ensure_future(live.wait())
        try:
            waiting: set[asyncio.Future[Any]] = {*tasks, over}
            while not (over.done() and all(one.done() for one in sending)):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
        finally:
            over.cancel()

    async def _begin(self, command: dict[str, Any]) -> tuple[LiveJob, dict[int, int], bool]:
        """Starts a job or attaches to one; returns it, where its outputs are read from, and if its input is written."""
        kind = command.pop("type", None)
        if kind == "start":
            wanted = parse_job(command, stdin=None, without=frozenset({"workers"}))
            live = await start_pipe(self._gate.engine, self._identity, wanted)
            note_change(self._scope, f"job {live.record.id} of {wanted.app} started")
            return live, dict.fromkeys(OUTPUTS, 0), wanted.stdin is None
        if kind != "attach" or not isinstance(command.get("job"), str):
            raise Problem(422, 'the first message has to be {"type": "start", "app": NAME, ...} or '
                               '{"type": "attach", "job": ID, ...}')  # fmt: skip
        return await self._attach(command)

    async def _attach(self, command: dict[str, Any]) -> tuple[LiveJob, dict[int, int], bool]:
        id, writes = command.pop("job"), command.pop("stdin", False)
        offsets = {1: command.pop("stdout", 0), 2: command.pop("stderr", 0)}
        good = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in offsets.values())
        if command or not good or not isinstance(writes, bool):
            raise Problem(422, "attach has the members job, stdout and stderr (offsets), and stdin (true to write it)")
        job = await self._gate.engine.job(self._identity, id)
        live = self._gate.engine.live.get(id)
        if live is None:
            raise Problem(409, f"the job is over: {job.state.value}; read its outputs by GET", state=job.state.value)
        for stream, offset in offsets.items():
            if offset > live.outputs[stream].end:
                raise Problem(416, behind_the_end(live.outputs[stream].end))
        if writes:
            await self._gate.desk.running(self._identity, id)
        return live, offsets, writes

    # from the client

    async def _next(self) -> dict[str, Any]:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise _Gone
        return dict(message)

    def _command(self, message: dict[str, Any]) -> dict[str, Any]:
        text = message.get("text")
        value = None if text is None else parse_json(text)
        if not isinstance(value, dict):
            raise Problem(422, "this message has to be a JSON object, in a text message")
        return value

    async def _listen(self, live: LiveJob, writes: bool) -> None:
        """Takes the client's messages, for as long as he is there."""
        while True:
            message = await self._next()
            data = message.get("bytes")
            if data is None:
                await self._obey(live, self._command(message), writes)
                continue
            if not data or data[0] != 0 or not writes:
                raise Problem(422, "a binary message has the stream's number 0 first, and the input has to be yours")
            self._put(memoryview(data)[1:])
            while self._waiting > INPUT_WINDOW:
                await self._changed.wait()

    def _put(self, data: Any) -> None:
        self._input.append(data)
        self._waiting += 0 if data is None else len(data)
        self._changed.ring()

    async def _obey(self, live: LiveJob, command: dict[str, Any], writes: bool) -> None:
        kind = command.get("type")
        if kind == "eof" and writes:
            self._put(None)
        elif kind == "signal" and isinstance(command.get("signal"), str):
            if not live.latest.over:
                await self._gate.desk.signal(self._identity, live.record.id, command["signal"])
                note_change(self._scope, f"job {live.record.id} sent {command['signal']}")
        elif kind == "cancel":
            owned, _ = await self._gate.desk.owned(self._identity, live.record.id)
            self._gate.engine.cancel(live, reason=f"the job was cancelled by {self._identity.name}")
            note_change(self._scope, f"job {owned.id} cancelled")
        else:
            raise Problem(422, "a text message is eof, signal or cancel here")

    async def _write_input(self, live: LiveJob, writer: InputWriter) -> None:
        told = False
        with writer:
            while True:
                while not self._input:
                    await self._changed.wait()
                data = self._input.popleft()
                if data is None:
                    break
                await writer.write(data)
                self._waiting -= len(data)
                self._changed.ring()
                if writer.broken and not told:
                    told = True
                    await self._tell({"type": "stdin-closed"})
            writer.close()

    # to the client

    async def _tell(self, value: dict[str, object]) -> None:
        await self._pass_on({"type": "websocket.send", "text": json.dumps(value, separators=(",", ":"))})

    async def _pass_on(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError, WebSocketDisconnect):  # it has been closed meanwhile
            raise _Gone from None

    async def _send_output(self, stream: int, reader: OutputReader) -> None:
        """Sends an output to its end, and says so."""
        number = bytes([stream])
        while chunk := await reader.next(CHUNK):
            await self._pass_on({"type": "websocket.send", "bytes": number + chunk})
            await asyncio.sleep(0)  # the socket may have taken it without waiting
        await self._tell({"type": "eof", "stream": stream, "size": reader.offset})


async def exec_endpoint(socket: WebSocket) -> None:
    """GET /v1/exec, a WebSocket"""
    gate, identity = gate_of(socket), identity_of(socket.scope)
    await ExecSocket(gate, identity, socket.scope, socket.receive, socket.send).converse()


ROUTES = [WebSocketRoute("/v1/exec", exec_endpoint)]
