"""The drivers of the client behind one face, and the worker's end of their connection, played by the test.

Contract: `DRIVERS[name](play, ...)` runs one job with the driver: GO has been sent, the worker's end is `play`ed in a
thread of its own with a `Peer`.  The result is an `Outcome`: the exit frame or the error, the program's output, and
what the driver knew of `once`.  Descriptors are real ones; the connection is TCP over the loopback.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cexec.client.aio.lease import Lease
from cexec.client.aio.lease_job import LeaseJob
from cexec.client.attempt.descriptors import Descriptor
from cexec.client.attempt.files import plan_files
from cexec.client.attempt.inputs import Inputs
from cexec.client.attempt.outputs import Outputs
from cexec.client.attempt.patience import Patience, make_patience
from cexec.client.attempt.program_plan import plan_programs
from cexec.client.attempt.signals import Signals
from cexec.client.blocking.driver import BlockingDriver
from cexec.client.everywhere.shared_input import SharedInput
from cexec.client.everywhere.worker_run import WorkerRun
from cexec.client.search.trust import RevocationWatch
from cexec.errors import CexecError
from cexec.protocol.base import sodium
from cexec.protocol.connection.frames import FIRST_FILE, Exit, Go, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.session import Session
from cexec.system.io.fds import Sink, Source
from tests.fake_worker import Connection
from tests.protocol.wires import record_pair

JOB_ID = bytes(16)
PATIENCE = 30.0  # seconds after which a play that does not end fails the test


class Peer(Connection):
    """The worker's end, with the handshake and GO behind it."""

    def __init__(self, connection: socket.socket, records: Records, go: Go) -> None:
        self.socket = connection
        self.go = go
        self._session = Session(worker=True, now=0.0, numbered=records.packed)
        self._records = records


class Outcome:
    """The driver's report of the job."""

    def __init__(self) -> None:
        self.exit: Exit | None = None
        self.error: CexecError | None = None
        self.output = b""
        self.once: bool | None = None
        self.missing: list[str] = []  # reasons for files that did not come

    @property
    def status(self) -> int:
        assert self.exit is not None, repr(self.error)
        return self.exit.exit_status


class Setting:
    """One job: its files, its streams, and both ends of the connection."""

    def __init__(
        self, directory: Path, *, stdin: bytes, once: bool, output: str, fetch: bool, program: bool, packed: bool
    ) -> None:
        """`packed`: a record may hold several frames."""
        (directory / "in").write_bytes(stdin)
        self.stdin = stdin
        self._packed = packed
        self.fetched = directory / "fetched"
        self.output = Path(output) if output else directory / "out"
        self.input_fd = os.open(directory / "in", os.O_RDONLY)
        self.output_fd = os.open(self.output, os.O_RDWR | os.O_CREAT)
        self.files = plan_files([], [f"result={self.fetched}"] if fetch else [], [])
        if program:
            path = directory / "program"
            path.write_bytes(b"#!/bin/sh\n")
            path.chmod(0o755)
            self.files = plan_files([], [], [f"linux-x86_64={path}"])
            self.program = plan_programs([f"linux-x86_64={path}"], FIRST_FILE)
        else:
            self.program = None
        self.descriptors = [self._descriptor(self.input_fd, READS), self._descriptor(self.output_fd, WRITES)]
        self.watch: RevocationWatch | None = None
        self.progress = 0.0  # seconds of --progress-timeout
        self._hello = SimpleNamespace(name="w", once=once, slots=1)

    @staticmethod
    def _descriptor(fd: int, direction: int) -> Descriptor:
        status = os.fstat(fd)
        return Descriptor(fd, direction, status.st_mode, (status.st_dev, status.st_ino), 0)

    @property
    def patience(self) -> Patience | None:
        return make_patience(progress=self.progress, time_limit=0.0, began=time.monotonic())

    def connect(self, streams: list[Stream], play: Callable[[Peer], None]) -> tuple[Any, threading.Thread]:
        """Returns a winner to which GO has been sent, and the thread that plays the worker."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        ours.setblocking(False)
        theirs.settimeout(PATIENCE)
        one, other = record_pair(sodium.aead_names()[0], packed=self._packed)
        session = Session(worker=False, now=0.0, numbered=one.packed)
        go = Go(job_id=JOB_ID, attempt=1, streams=streams)
        peer = Peer(theirs, other, go)
        peer.confirmed(session)
        session.go(go)
        winner = SimpleNamespace(
            connection=ours, records=one, session=session, hello=self._hello, address="here", local_address="here",
            watch=self.watch,
        )  # fmt: skip
        thread = threading.Thread(target=self._play, args=(play, peer), daemon=True)
        self.failure: BaseException | None = None
        thread.start()
        return winner, thread

    def _play(self, play: Callable[[Peer], None], peer: Peer) -> None:
        try:
            play(peer)
        except BaseException as error:
            self.failure = error
        finally:
            peer.close()

    def close(self) -> None:
        os.close(self.input_fd)
        os.close(self.output_fd)


def run_blocking(setting: Setting, play: Callable[[Peer], None], fails: int, signals: Signals | None = None) -> Outcome:
    """`signals`: those that somebody sends, which are caught already."""
    outcome, signals = Outcome(), signals or Signals()
    streams = [descriptor.stream() for descriptor in setting.descriptors]
    streams += setting.files.streams() if setting.files is not None else []
    winner, thread = setting.connect(streams, play)
    inputs = Inputs(setting.descriptors, no_stdin=False, spool=1 << 20)
    driver = BlockingDriver(winner, inputs, Outputs(setting.descriptors, hold=False), signals, setting.files,
                            patience=setting.patience)  # fmt: skip
    try:
        outcome.exit = driver.run()
        outcome.output = b"" if fails else setting.output.read_bytes()
        if setting.files is not None:
            setting.files.commit(outcome.status)
    except CexecError as error:
        outcome.error = error
        if outcome.exit is not None:
            outcome.missing = [str(error)]
    finally:
        driver.give_up()
        signals.close()
    outcome.once = driver.once
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return outcome


def run_everywhere(setting: Setting, play: Callable[[Peer], None], fails: int) -> Outcome:
    outcome = Outcome()
    streams = [descriptor.stream() for descriptor in setting.descriptors]
    if setting.files is not None:  # the command refuses these options together with --all; a worker may ask anyhow
        streams += setting.files.streams()
    winner, thread = setting.connect(streams, play)
    shared = {setting.input_fd: SharedInput(setting.input_fd, empty=False)}
    run = WorkerRun(winner, "w", setting.descriptors, shared, setting.patience)
    if fails:

        def cannot_write(view: memoryview) -> int:
            raise OSError(fails, os.strerror(fails))

        run.outputs[setting.output_fd].write = cannot_write  # type: ignore[method-assign]
    try:
        while not run.over:
            poll = select.poll()
            for fd, mask in run.wanted().items():
                poll.register(fd, mask)
            poll.poll(0 if run.eager else max(0.0, run.next_timeout() - time.monotonic()) * 1000 + 1)
            run.step()
        outcome.exit, outcome.error = run.exit, run.failure
        outcome.output = b"".join(run.outputs[setting.output_fd].chunks(b""))
    except CexecError as error:
        outcome.error = error
    run.end()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return outcome


class _Bytes(Source):
    def __init__(self, data: bytes) -> None:
        super().__init__(-1, shared=True)
        self._data = data

    def read_into(self, view: memoryview) -> int | None:
        size = min(len(view), len(self._data))
        view[:size], self._data = self._data[:size], self._data[size:]
        return size


class Failing(Sink):
    """Keeps what comes, or fails with this errno."""

    def __init__(self, fails: int) -> None:
        super().__init__(-1, shared=True)
        self.data = b""
        self._fails = fails

    def write(self, view: memoryview) -> int:
        if self._fails:
            raise OSError(self._fails, os.strerror(self._fails))
        self.data += bytes(view)
        return len(view)


def run_aio(setting: Setting, play: Callable[[Peer], None], fails: int) -> Outcome:
    outcome = Outcome()
    kept = Failing(fails)
    streams = [descriptor.stream() for descriptor in setting.descriptors]
    sinks: dict[int, Sink] = {setting.output_fd: kept}
    if setting.files is not None and setting.program is None:
        streams += setting.files.streams()
        sinks[FIRST_FILE] = Failing(0)
    job = LeaseJob(
        streams=streams, sources={setting.input_fd: _Bytes(setting.stdin)}, sinks=sinks, program=setting.program
    )

    async def run() -> threading.Thread:
        winner, thread = setting.connect(job.streams, play)
        lease = Lease(winner, None, setting.progress)  # type: ignore[arg-type]

        def began(once: bool) -> None:
            outcome.once = once

        try:
            outcome.exit = await asyncio.wait_for(lease.run(job, began), PATIENCE)
            outcome.output = kept.data
        except CexecError as error:
            outcome.error = error
        outcome.missing = list(job.missing.values())
        if outcome.once is None:
            outcome.once = lease.once
        lease.close()
        return thread

    thread = asyncio.run(run())
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return outcome


DRIVERS = {"blocking": run_blocking, "everywhere": run_everywhere, "aio": run_aio}


def exit_frame(peer: Peer, kind: int, status: int, message: str = "") -> None:
    """Ends the job with any exit frame."""
    peer.ends(Exit(kind=kind, status=status, endings=[], message=message))
