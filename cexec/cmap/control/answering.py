"""Hears what is asked of the cmap that runs here, in its asyncio loop.

Contract: `listening(journal, answer)` is a context in which requests are answered: `answer(request)` is called in the
loop, at once returns the reply, and raises nothing.  Entering it raises `LocalError` if it is not possible to listen.
Leaving it, for whatever reason, removes the socket and hangs up on those who still wait.

Only this user and root are answered (SO_PEERCRED); others are told so and hung up on before they have a place.  There
are MOST_CONNECTIONS places; when all are taken, the others wait in the kernel's queue.  Each asker has DEADLINE seconds
and REQUEST_LIMIT bytes, so that one who says nothing, or too much, costs nothing else.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from cexec.cmap.control.control_messages import (
    REQUEST_LIMIT,
    ControlLine,
    ControlRefusal,
    ControlRequest,
    ControlStatus,
    encode_reply,
    parse_request,
)
from cexec.cmap.control.control_place import ONLY_OWNER, ROOT, peer_of
from cexec.cmap.control.control_socket import ControlSocket
from cexec.errors import ProtocolError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from typing import TypeAlias

    Answer: TypeAlias = Callable[[ControlRequest], ControlStatus | ControlRefusal]

MOST_CONNECTIONS = 8  # (ours) at once
DEADLINE = 2.0  # seconds (ours) from the connection to the end of the reply
REST = 1.0  # seconds (ours) without accepting after it has failed, for want of descriptors for example


@asynccontextmanager
async def listening(journal: str, answer: Answer) -> AsyncIterator[None]:
    place = ControlSocket(journal)
    try:
        reception = _Reception(place.listener, answer)
        try:
            yield
        finally:
            await reception.close()
    finally:
        place.close()


class _Reception:
    """Accepts those who ask, as long as there are places."""

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        self._listener = listener
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._talks: set[asyncio.Task[None]] = set()
        self._waking: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener, self._accept)

    async def close(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._waking is not None:
            self._waking.cancel()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            self._loop.remove_reader(self._listener)
            self._waking = self._loop.call_later(REST, self._accept_again)
            return
        connection.setblocking(False)
        if peer_of(connection) not in (os.geteuid(), ROOT):
            _turn_away(connection)
            return
        talk = self._loop.create_task(self._talk(connection))
        self._talks.add(talk)
        talk.add_done_callback(self._ended)
        if len(self._talks) == MOST_CONNECTIONS:
            self._loop.remove_reader(self._listener)

    def _accept_again(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _ended(self, talk: asyncio.Task[None]) -> None:
        self._talks.discard(talk)
        if len(self._talks) == MOST_CONNECTIONS - 1 and not talk.cancelled():
            self._accept_again()

    async def _talk(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                await self._reply_to(connection)
        except OSError:
            pass  # it has gone, or takes too long, which is a TimeoutError
        finally:
            connection.close()

    async def _reply_to(self, connection: socket.socket) -> None:
        line = ControlLine(REQUEST_LIMIT)
        reply: ControlStatus | ControlRefusal
        try:
            while (found := line.receive_data(data := await self._loop.sock_recv(connection, REQUEST_LIMIT))) is None:
                if not data:
                    return
            reply = self._answer(parse_request(found))
        except ProtocolError as error:
            reply = ControlRefusal(str(error))
        await self._loop.sock_sendall(connection, encode_reply(reply))


def _turn_away(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.send(encode_reply(ControlRefusal(ONLY_OWNER, denied=True)))
