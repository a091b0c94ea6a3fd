"""One visit to one host: from ssh to what the run is for, step by step.

Contract: `look` comes first and changes nothing on the host; then one of `show`, `stop`, `remove`, `plan`, or `serve`,
before which an ephemeral run calls `hold`.  Each raises `HostError` if a step fails.  Events go to `tell`, which
applies them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cexec.boot import shapes, states
from cexec.boot.dummy_command import HostFacts, parse, script
from cexec.boot.failures import SILENCE, WORKER, HostError, HostFailure, shown
from cexec.boot.hosts import Host
from cexec.boot.serve import DETACHED, UNIT, Application, Service, directory_name, is_of, is_same
from cexec.boot.serving_census import ServingCensus
from cexec.boot.shapes import shaped
from cexec.boot.ssh import Connection, SshSession, new_mark, next_answer
from cexec.boot.target import WheelTarget
from cexec.boot.wheels import Bundle, Wheels
from cexec.system.call_threads import in_thread

LINGERING_OFF = "lingering is off: it ends when you have logged out there; type there: loginctl enable-linger"


@dataclass(slots=True)
class Tools:
    """All visits of a run share these.  `run_id`: a random word of this run."""

    hosts: Sequence[Host]
    application: Application | None
    service: Service | None
    wheels: Wheels | None
    scratch: Path
    run_id: str
    gathering: asyncio.Lock
    detached: bool = False
    upgrade: bool = False
    keep_programs: bool = False
    grace: float = 10.0


class Visit:
    """One connection to one host."""

    def __init__(self, host: Host, connection: Connection, tools: Tools, tell: Callable[[states.Event], None]) -> None:
        self.host = host
        self.connection = connection
        self._tools = tools
        self._tell = tell
        self._facts: HostFacts | None = None
        self._seen: dict[str, Any] = {}

    async def look(self) -> None:
        """Connects, and finds out what the host is and has; writes nothing there."""
        self._tell(states.VisitBegan())
        await self.connection.open()
        self._tell(states.SshConnected(shown(self.connection.noise)))
        mark = new_mark()
        self._facts = parse(await self.connection.answers(script(mark), mark))
        self._tell(states.Probed(self._facts))
        seen = shaped(await self._ask({"do": "look", "workers": self._names()}), shapes.SEEN)
        # A record that another version of cboot has written may lack something: its worker is then started anew.
        known = {name: record for name, record in seen["workers"].items() if shapes.fits(record, shapes.RECORD)}
        self._seen = {**seen, "workers": known}
        self._tell(states.Looked(self._seen))
        others = [other.name for other in self._tools.hosts if other != self.host]
        sharing = [name for name in others if any(is_of(directory, name) for directory in self._seen["names"])]
        if sharing:
            self._tell(states.Noted(f"shares its home with {sharing[0]}"))

    async def show(self) -> dict[str, Any] | None:
        """For --status; returns the record of a worker that runs."""
        found = list(filter(None, map(self._worker, self._names())))
        record = next((one for one in found if one["running"]), None)
        if not found:
            self._tell(states.Missing())
        elif record is None:
            self._tell(states.Stopped(ran=False))
        else:
            self._note_lingering(record)
            self._tell(states.WorkerStarted(record, new=False))
        return record

    async def stop(self) -> None:
        """For --stop."""
        names = [name for name in self._names() if self._worker(name)]
        if not names:
            self._tell(states.Missing())
            return
        self._tell(states.Stopping())
        ran = False
        for name in names:
            done = await self._ask({"do": "stop", "worker": name, "grace": self._tools.grace})
            ran |= shaped(done, shapes.STOPPED)["ran"]
        self._tell(states.Stopped(ran))

    async def remove(self, names: list[str] | None = None) -> None:
        """For --remove: the workers of this host, or those of one application, or these."""
        if names is None and self._tools.application is None:
            names = [name for name in self._seen["names"] if is_of(name, self.host.name)]
        names = self._names() if names is None else names
        self._tell(states.Removing())
        request = {"do": "remove", "workers": names, "grace": self._tools.grace}
        done = shaped(await self._ask({**request, "keep_programs": self._tools.keep_programs}), shapes.REMOVED)
        self._tell(states.Removed(len(done["removed"]), done["left"]))

    async def plan(self) -> None:
        """For --dry-run."""
        record = self._present()
        bundle = None if self._stays(record) else await self._gather(record)
        if bundle is None or self._is_up_to_date(record, bundle):
            self._tell(states.Planned("it serves already; nothing would be changed", False))
            return
        steps = []
        if bundle.release not in self._seen["releases"]:
            steps.append(f"copy {len(bundle.wheels)} wheels, {_millions(bundle.size)}, to {self._seen['home']}")
            if self._seen["free"] < bundle.unpacked:
                room = f"{_millions(bundle.unpacked)} are needed, {_millions(self._seen['free'])} are free"
                steps.append(f"fail for want of space: {room}")
        how = "as a systemd user unit" if self._wanted(record)["how"] == UNIT else "detached, with a pid file"
        steps.append(f"{'restart' if record.get('running') else 'start'} cservice {how}")
        self._tell(states.Planned(f"would {', '.join(steps)}", True))

    async def serve(self) -> dict[str, Any]:
        """Returns the record of the worker as soon as it serves; `answered` is the next step."""
        service = self._tools.service
        assert service is not None
        record = self._present()
        bundle = None if self._stays(record) else await self._gather(record)
        if bundle is not None and not self._is_up_to_date(record, bundle):
            self._tell(await self._install(bundle))
            own = self._worker(self._own_name(ephemeral=service.ephemeral))
            wanted = self._wanted(record)
            request = service.start_request(self.host, wanted, own, bundle.release, self._tools.scratch)
            record = shaped(await self._ask(request), shapes.RECORD)
            self._note_lingering(record)
            self._tell(states.WorkerStarted(record, new=True))
        else:
            self._note_lingering(record)
            self._tell(states.WorkerStarted(record, new=False))
        return record

    async def hold(self) -> SshSession | None:
        """Starts the watchdog of an ephemeral worker; None if a worker that is not ephemeral does the same already."""
        assert self._facts is not None
        if self._stays(self._worker(self._own_name(ephemeral=False))):
            return None
        request = {"do": "hold", "worker": self.ephemeral_name, "run": self._tools.run_id}
        session = await self.connection.session(self._facts.path, request)
        try:
            await next_answer(session)
        except BaseException:
            await session.close()
            raise
        return session

    @property
    def ephemeral_name(self) -> str:
        return self._own_name(ephemeral=True)

    async def _install(self, bundle: Bundle) -> states.Installed:
        assert self._facts is not None
        note = {"run": self._tools.run_id, "host": self.host.name}
        wheels = [{"name": one.name, "size": len(one.data), "sha256": one.sha256} for one in bundle.wheels]
        request = {"do": "install", "release": bundle.release, "unpacked": bundle.unpacked, "wheels": wheels}
        request |= {"note": note, "version": bundle.version}
        async with await self.connection.session(self._facts.path, request) as session:
            answer = await next_answer(session)
            if "want" in answer:
                for wheel in bundle.wheels:
                    await session.send(wheel.data)
                answer = await next_answer(session)
            done = shaped(answer, {"done": shapes.INSTALLED})["done"]
        by = shaped(done["note"], shapes.NOTE) if done["present"] else {}
        shared = by.get("run") == self._tools.run_id and by.get("host") != self.host.name
        return states.Installed(new=not done["present"], by=by["host"] if shared else "")

    async def _gather(self, record: dict[str, Any]) -> Bundle:
        assert self._facts is not None and self._tools.wheels is not None
        packages = self._wanted(record)["packages"]
        self._tell(states.WheelsWanted())
        async with self._tools.gathering:
            target = WheelTarget.of(self._facts)
            bundle = await in_thread(self._tools.wheels.gather, target, packages)
        self._tell(states.Gathered(bundle.release, bundle.size))
        return bundle

    def _stays(self, record: dict[str, Any]) -> bool:
        """Returns True if the worker is left alone, whatever release it runs."""
        return bool(record.get("running")) and not self._tools.upgrade and is_same(record, self._wanted(record))

    def _is_up_to_date(self, record: dict[str, Any], bundle: Bundle) -> bool:
        same = bool(record.get("running")) and is_same(record, self._wanted(record))
        return same and record["release"] == bundle.release

    def _present(self) -> dict[str, Any]:
        """Returns the record of the worker that counts: an ephemeral run also takes one that is not ephemeral."""
        service = self._tools.service
        assert service is not None
        lasting = self._worker(self._own_name(ephemeral=False))
        if service.ephemeral and not self._stays(lasting):
            return self._worker(self._own_name(ephemeral=True))
        return lasting

    def _wanted(self, record: dict[str, Any]) -> dict[str, Any]:
        """Returns what the record should have; an upgrade without words keeps what the worker does."""
        service = self._tools.service
        assert service is not None
        if not service.program:
            if not record:
                raise HostError(HostFailure(WORKER, "there is no worker that could be upgraded"))
            return record
        how = UNIT if self._seen["manager"] and not self._tools.detached and not service.ephemeral else DETACHED
        if service.ephemeral and record:
            how = record["how"]
        return service.wanted(self.host, how)

    def _note_lingering(self, record: dict[str, Any]) -> None:
        if record["how"] == UNIT and not self._seen["lingers"]:
            self._tell(states.Noted(LINGERING_OFF))

    def _own_name(self, *, ephemeral: bool) -> str:
        """Returns the name of the directory of the application's worker here."""
        assert self._tools.application is not None
        return directory_name(self._tools.application.fingerprint, self.host, ephemeral=ephemeral)

    def _names(self) -> list[str]:
        """Returns the names of the directories that workers of the application can have here."""
        if self._tools.application is None:
            return []
        return [self._own_name(ephemeral=False), self._own_name(ephemeral=True)]

    def _worker(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._seen["workers"].get(name, {})
        return found

    async def _ask(self, request: dict[str, Any]) -> Any:
        assert self._facts is not None
        return await self.connection.request(self._facts.path, request)


async def answered(answers: ServingCensus, record: dict[str, Any], deadline: float) -> states.CensusAnswered:
    """Waits until the worker answers the census; no connection is needed for that."""
    answer = await answers.wait(record["serial"], deadline)
    if answer is None:
        text = (
            "its worker runs, but does not answer here: a packet filter, or another group? cexec --explain tells more"
        )
        raise HostError(HostFailure(SILENCE, text, temporary=True))
    return states.CensusAnswered(answer.address, answer.trouble)


def _millions(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
