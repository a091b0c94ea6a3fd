"""ssh to one host: the system's ssh as master of a connection of our own, and sessions over it.

Contract: `Connection.open` starts the master with a dummy command and returns when that has answered, else it raises
`HostError` that says why.  `answers(script)` runs a script of `sh`; `session(python, request)` runs the agent.  ssh
never asks (BatchMode), and known_hosts, agents, ProxyJump and ssh_config are its own business.  A host has at most two
connections: sessions share that of the master, and ssh makes a second one only if the host refuses to share.  On such a
host the master's connection is ended, so that no third one is ever there.  Everything ends with this process, also if
it is killed: the dummy command ends when its input does, and with it the master.  Answers are lines with a random mark,
so a login shell that prints does no harm; `noise` is what it prints.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from cexec.boot.agent_source import command, source
from cexec.boot.failures import CONNECTION, REMOTE, SHELL, SSH_FAILED, HostError, HostFailure, of_ssh
from cexec.boot.hosts import Host
from cexec.boot.shapes import FAILED, read_line, shaped
from cexec.system.call_threads import NO_THREAD
from cexec.system.reason import reason_of

CONNECT_PATIENCE = 10  # seconds (ours) for the connection and the server's first line
ALIVE_INTERVAL, ALIVE_TRIES = 5, 3  # seconds and number (ours): after 15 s of silence ssh gives up
NOT_SHARED = b"Session open refused by peer"  # ssh's words: the host's MaxSessions is 1, so it connects by itself
SHELL_PATIENCE = 60.0  # seconds (ours) from the start of ssh to the answer of the dummy command
SILENCE_PATIENCE = 360.0  # seconds (ours) that an agent may take for an answer: it may wait for another one's lock
MOST_NOISE = 1 << 20  # bytes (ours) that a login shell may print
KEPT_ERRORS = 8192  # bytes (ours) of ssh's standard error, the last ones
CHUNK = 1 << 18  # bytes
END_PATIENCE = 5.0  # seconds (ours) for ssh to end when its input has


def options(control_path: str, master: bool) -> list[str]:
    """Returns ssh's options; those of the user stand before them and win, as ssh's rule is."""
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_PATIENCE,
        "ServerAliveInterval": ALIVE_INTERVAL,
        "ServerAliveCountMax": ALIVE_TRIES,
        "ControlMaster": "yes" if master else "no",
        "ControlPath": control_path.replace("%", "%%"),
        "ControlPersist": "no",
        "ClearAllForwardings": "yes",
        "RequestTTY": "no",
        "LogLevel": "INFO",
        "RemoteCommand": "none",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


class SshSession:
    """A command over the connection, and the marked lines that it writes."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self.noise = b""
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._mark = mark.encode()
        self.errors = b""
        self._reader = asyncio.create_task(self._read_errors(process.stderr))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, data: bytes | memoryview) -> None:
        """Writes to the command; that it has ended is told by `answer`."""
        try:
            for start in range(0, len(data), CHUNK):
                self._stdin.write(data[start : start + CHUNK])
                await self._stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def end_input(self) -> None:
        self._stdin.close()

    async def answer(self, patience: float) -> str | None:
        """Returns what stands behind the mark in the next line that has it, or None at the end of the output."""
        async with asyncio.timeout(patience):
            while line := await self._line():
                before, found, after = line.partition(self._mark)
                self.noise = (self.noise + before)[-MOST_NOISE:]
                if found:
                    return after.decode("utf-8", "replace").strip()
        return None

    async def failure(self, host: str) -> HostFailure:
        """Explains an end without an answer; `host`: what known_hosts calls it."""
        status = await self._process.wait()
        await self._reader
        return of_ssh(status, self.errors.decode("utf-8", "replace"), self.noise, host)

    async def lost(self) -> HostFailure:
        """Explains the end of a session over a connection that was good before."""
        status = await self._process.wait()
        await self._reader
        lines = self.errors.decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        if status in (SSH_FAILED, -1) or not lines:
            return HostFailure(CONNECTION, f"the connection was lost{last}", temporary=True)
        return HostFailure(REMOTE, f"its Python ended with status {status}{last}")

    async def close(self) -> None:
        """Ends the input and waits; a command that does not end is killed."""
        self._stdin.close()
        try:
            async with asyncio.timeout(END_PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
            await self._reader

    async def _line(self) -> bytes:
        try:
            return await self._stdout.readline()
        except ValueError:  # longer than the limit
            return b"\n"

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(CHUNK):
            self.errors = (self.errors + data)[-KEPT_ERRORS:]


class Connection:
    """One host; `directory` is where the socket of its master is."""

    def __init__(self, host: Host, ssh: Sequence[str], directory: str) -> None:
        self.noise = b""
        self._host = host
        self._ssh = list(ssh)
        self._path = os.path.join(directory, secrets.token_hex(4))
        self._master: SshSession | None = None

    async def open(self) -> None:
        mark = new_mark()
        self._master = await self._start(["sh"], mark, master=True)
        try:
            await self._master.send(f"echo; echo {mark}; exec cat >/dev/null\n".encode())
            if await self._master.answer(SHELL_PATIENCE) is None:
                raise HostError(await self._master.failure(self._host.known_as))
        except TimeoutError:
            text = f"its login shell has not run a command within {SHELL_PATIENCE:g} s"
            raise HostError(HostFailure(SHELL, text, temporary=True)) from None
        self.noise = self._master.noise.strip()

    async def close(self) -> None:
        """Also after an `open` that has failed."""
        if self._master is not None:
            await self._master.close()
            self._master = None

    async def answers(self, script: str, mark: str) -> list[str]:
        """Returns the marked lines of a script of `sh`, which must end by itself."""
        found = []
        async with await self._start(["sh"], mark) as session:
            await session.send(script.encode())
            session.end_input()
            try:
                while (answer := await session.answer(SHELL_PATIENCE)) is not None:
                    found.append(answer)
            except TimeoutError:
                raise HostError(HostFailure(REMOTE, f"it has not answered within {SHELL_PATIENCE:g} s", True)) from None
            if not found:
                raise HostError(await session.lost())
        if NOT_SHARED in session.errors and self._master is not None:
            await self._master.close()
        return found

    async def session(self, python: str, request: dict[str, Any]) -> SshSession:
        """Starts the agent with a request; the caller closes the session."""
        mark = new_mark()
        session = await self._start([command(python)], mark)
        await session.send(source())
        await session.send(json.dumps({**request, "mark": mark}).encode() + b"\n")
        return session

    async def request(self, python: str, request: dict[str, Any]) -> Any:
        """Returns the result of a request that needs nothing more."""
        async with await self.session(python, request) as session:
            return shaped(await next_answer(session), {"done": object})["done"]

    async def _start(self, remote: list[str], mark: str, *, master: bool = False) -> SshSession:
        port = [] if self._host.port is None else ["-p", str(self._host.port)]
        argv = [*self._ssh, *options(self._path, master), *port, "--", self._host.destination, *remote]
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=pipe, stdout=pipe, stderr=pipe, limit=MOST_NOISE, start_new_session=True
            )
        except OSError as error:
            raise HostError(HostFailure("ssh", f"cannot run {self._ssh[0]}: {reason_of(error)}")) from None
        except RuntimeError:  # Python 3.11 has a thread for each process
            raise HostError(HostFailure("ssh", f"cannot wait for {self._ssh[0]}: {NO_THREAD}")) from None
        return SshSession(process, mark)


async def next_answer(session: SshSession) -> dict[str, Any]:
    """Returns the next line of the agent; raises `HostError` for a failure that it tells, or a lost connection."""
    try:
        text = await session.answer(SILENCE_PATIENCE)
    except TimeoutError:
        raise HostError(HostFailure(CONNECTION, "nothing was heard of it for too long", temporary=True)) from None
    if text is None:
        raise HostError(await session.lost())
    return read_answer(text)


def read_answer(text: str) -> dict[str, Any]:
    """Returns what a line of the agent says; raises `HostError` for a failure that it tells."""
    found: dict[str, Any] = shaped(read_line(text), dict)
    if "failed" in found:
        failed = shaped(found["failed"], FAILED)
        temporary = failed["kind"] in ("busy", CONNECTION)
        raise HostError(HostFailure(failed["kind"], failed["text"], temporary))
    return found


def new_mark() -> str:
    """Returns a word that no shell prints by chance."""
    return f"cexec-{secrets.token_hex(12)}"
