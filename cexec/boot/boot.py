"""Carries out one call of cboot: makes its directories, runs over its hosts, handles signals and the command of --run.

Contract: `boot` returns the exit status, after it has called `report` with the journeys.  The first SIGINT, SIGTERM or
SIGHUP ends a run; an ephemeral one then removes its workers, and further signals are of no use meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cexec.boot.boot_settings import Action, BootSettings
from cexec.boot.host_table import failed
from cexec.boot.hosts import Host
from cexec.boot.run import Run
from cexec.boot.serve import Application
from cexec.boot.serving_census import ServingCensus
from cexec.boot.states import HostState, Journey
from cexec.boot.wheels import Wheels
from cexec.errors import EXIT_TEMPORARY, LocalError, UsageError
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.system.call_threads import run_loop
from cexec.system.reason import reason_of
from cexec.system.storage.directories import make_own, runtime_directory
from cexec.system.storage.temporary import no_temporary

EXIT_SOME = 1  # some host is not as asked
EXIT_SIGNAL = 128  # plus its number: a command that a signal has ended, as in a shell
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_SOCKET = 80  # bytes (ours) of a directory for ssh's sockets: ssh adds 26, and a name has 108 at most

Watch = Callable[[Journey], None]


def boot(
    hosts: Sequence[Host],
    settings: BootSettings,
    app: str | None,
    begin: Callable[[Sequence[Journey]], Watch],
    ready: Callable[[Sequence[Journey]], None],
) -> int:
    """Does everything; `begin` returns what is called with each journey that changes, `ready` tells that all serve."""
    if shutil.which(settings.ssh[0]) is None:
        raise UsageError(f"there is no program {settings.ssh[0]!r}; install an ssh client, or name one with --ssh")
    application = None if app is None else Application.find(app)
    sockets = _socket_directory()
    try:
        place = tempfile.TemporaryDirectory(prefix="cboot-")
    except OSError as error:
        raise no_temporary("keep packages for the hosts", error) from None
    with place as name:
        scratch = Path(name)
        needs_wheels = settings.action in (Action.SERVE, Action.PLAN)
        wheels = Wheels(scratch, settings.wheels) if needs_wheels else None
        return run_loop(_boot(hosts, settings, application, wheels, scratch, sockets, begin, ready))


async def _boot(
    hosts: Sequence[Host],
    settings: BootSettings,
    application: Application | None,
    wheels: Wheels | None,
    scratch: Path,
    sockets: str,
    begin: Callable[[Sequence[Journey]], Watch],
    ready: Callable[[Sequence[Journey]], None],
) -> int:
    answers = None
    if application is not None and settings.action in (Action.SERVE, Action.STATUS):
        group = groups_from_environment(os.environ)
        answers = ServingCensus(application.client, group, udp_port_from_environment(os.environ))
    watch: list[Watch] = []
    run = Run(hosts, settings, application, wheels, answers, scratch, sockets, lambda journey: watch[0](journey))
    watch.append(begin(run.journeys))
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, _set_once, stop, number)
    async with run:
        work = asyncio.create_task(run.go())
        try:
            if settings.ephemeral:
                return await _ephemeral(run, work, stop, settings, ready)
            await _first(work, stop)
            if not work.done():
                raise KeyboardInterrupt
            await work
        finally:
            work.cancel()
            await asyncio.wait([work])
    return EXIT_SOME if failed(run.journeys, settings.action) else 0


async def _ephemeral(
    run: Run,
    work: asyncio.Task[None],
    stop: asyncio.Future[int],
    settings: BootSettings,
    ready: Callable[[Sequence[Journey]], None],
) -> int:
    """Holds the workers for as long as the command runs, or until a signal comes; returns the exit status."""
    settled = asyncio.create_task(run.settled())
    try:
        await _first(settled, stop, work)
        serving = sum(journey.state is HostState.SERVING for journey in run.journeys)
        bad = failed(run.journeys, settings.action)
        status = EXIT_TEMPORARY
        if not stop.done() and serving:
            ready(run.journeys)
            if settings.command is None:
                await _first(stop, work)
                status = EXIT_SOME if bad else 0
            else:
                status = await _command(settings.command, stop)
    finally:
        settled.cancel()
        run.release()
    await work
    return status


async def _command(command: str, stop: asyncio.Future[int]) -> int:
    """Runs a command of the shell to its end.

    A terminal has sent its SIGINT to the command, too; other signals are passed on.
    """
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", command)
    ended = asyncio.create_task(process.wait())
    await _first(ended, stop)
    if not ended.done() and stop.result() != signal.SIGINT:
        process.send_signal(stop.result())
    status = await ended
    return status if status >= 0 else EXIT_SIGNAL - status


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Returns when one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _set_once(stop: asyncio.Future[int], number: int) -> None:
    if not stop.done():
        stop.set_result(number)


def _socket_directory(environ: Mapping[str, str] = os.environ) -> str:
    """Returns a directory of this user alone with a short name.

    It is beside that of job records: a `cservice` of 0.1.0 does not start where there is a directory among these.
    """
    usual = f"{runtime_directory(environ)}-boot"
    path = usual if len(os.fsencode(usual)) <= LONGEST_SOCKET else f"/tmp/cexec-{os.getuid()}-boot"
    try:
        os.close(make_own(path))
    except OSError as error:
        raise LocalError(f"cannot make the directory {path} for ssh: {reason_of(error)}") from None
    return path
