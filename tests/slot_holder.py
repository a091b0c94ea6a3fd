"""A client that holds a slot of a worker with one long job, and asks to hear when another client waits for it.

Contract: `SlotHolder(application, host)` starts such a client in a process of its own, on `host` or else here, and is a
context manager.  `heard(word)` waits until it has said `word` once more: "running" when its job runs, "wanted" when it
was told that its slot is, and with `gives_back` "ended" when it has therefore ended its job; then it takes part in the
next draw with the same lease.  `words` is all that it has said, `knows` if its worker tells that at all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Self

from cexec.client.aio.data_sources import DataSource
from cexec.client.aio.lease_job import LeaseJob
from cexec.client.aio.worker_search import Terms, find_worker
from cexec.client.request import NetworkSettings, Target, Times
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT, FAMILY_SIZE
from cexec.protocol.connection.frames import Go, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.datagrams.hello import Hello
from cexec.system.storage.keyfile import read_key
from tests.environment import clean_environment, local_environment
from tests.lab import Host
from tests.leases import Kept
from tests.service import Application
from tests.waiting import PATIENCE, wait_until

RUN = b"trap 'exit 0' TERM; while :; do sleep 0.05; done"  # what the worker's shell does until it is told to end
RUNNING, WANTED, ENDED = "running", "wanted", "ended"
KNOWS, KNOWS_NOT = "worker tells", "worker does not tell"
KEEPS, GIVES_BACK = "keeps", "gives-back"


class SlotHolder:
    """The process, and what it says."""

    def __init__(self, application: Application, host: Host | None = None, *, gives_back: bool = False) -> None:
        how = GIVES_BACK if gives_back else KEEPS
        argv = [sys.executable, "-m", "tests.slot_holder", os.fspath(application.public), how]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        if host is not None:
            self._process = host.popen(argv, env=clean_environment(), **pipes)
        else:
            self._process = subprocess.Popen(argv, env=local_environment(), **pipes)  # type: ignore[call-overload]
        self.words: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def knows(self) -> bool:
        return KNOWS in self.words

    def count(self, word: str) -> int:
        """How often it has said so."""
        return self.words.count(word)

    def heard(self, word: str, times: int = 1) -> None:
        """Waits until it has said a word so many times."""
        wait_until(lambda: self.count(word) >= times, explain=lambda: self.words)

    def leave(self) -> None:
        """Lets it hang up, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        assert self._process.stdout is not None
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._process.stdout.close()
        assert status == 0, self.words

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.words.append(line.strip())


def _say(word: str) -> None:
    print(word, flush=True)


def _job() -> LeaseJob:
    streams = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)]
    sinks = {1: Kept(), 2: Kept()}
    return LeaseJob(streams=streams, sources={0: DataSource(b"")}, sinks=dict(sinks), environment={"RUN": RUN})


async def _hold(key: str, *, gives_back: bool) -> None:
    terms = Terms(
        read_key(key, (ClientKey,)),
        network=NetworkSettings.from_environment(os.environ),
        times=Times(accept=PATIENCE, idle=DEFAULT_IDLE_TIMEOUT),
        target=Target(),
        family=os.urandom(FAMILY_SIZE),
    )
    job = _job()

    def choose(hello: Hello, address: str) -> Go:
        _say(KNOWS if hello.tells_wanted else KNOWS_NOT)
        return job.go(tell_wanted=hello.tells_wanted)

    lease = await find_worker(terms, choose)

    def wanted() -> None:
        _say(WANTED)
        if gives_back:
            lease.signal(signal.SIGTERM, job)

    lease.on_wanted = wanted
    try:
        while True:
            await lease.run(job, lambda once: _say(RUNNING))
            _say(ENDED)
            assert await lease.offered(PATIENCE)
            job = _job()
            lease.give(job.go(tell_wanted=lease.hello.tells_wanted))
    finally:
        lease.close()


async def _hold_until_the_input_ends(key: str, how: str) -> None:
    holding = asyncio.create_task(_hold(key, gives_back=how == GIVES_BACK))
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait({holding, reading}, return_when=asyncio.FIRST_COMPLETED)
    if holding in done:
        holding.result()
    holding.cancel()


if __name__ == "__main__":
    asyncio.run(_hold_until_the_input_ends(sys.argv[1], sys.argv[2]))
