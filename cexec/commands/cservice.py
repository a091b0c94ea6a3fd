"""cservice(1): serves an application on this machine.

Contract: `main(argv)` returns the exit status when it has been told to stop; options end at APP, what follows is the
program and its arguments.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from functools import partial

import click

from cexec import __version__
from cexec.commands.common import run_click
from cexec.commands.parameters import AnyText, Parsed
from cexec.errors import CertificateError, LocalError, UsageError
from cexec.net.announcer import Announcer
from cexec.net.group_sockets import GroupSockets
from cexec.net.groups import GroupEntry, groups_from_environment, udp_port_from_environment
from cexec.protocol.base.certificate import valid_name
from cexec.protocol.base.keys import OwnerKey, WorkerKey
from cexec.protocol.base.limits import MAXIMUM_NAME
from cexec.protocol.base.wire import Writer
from cexec.protocol.datagrams.hello import MAXIMUM_ATTRIBUTES
from cexec.protocol.datagrams.requirements import ALLOWED, BUILT_IN
from cexec.protocol.decisions.bid import Bidder
from cexec.system.host.load import FASTEST, SLOWEST, measure_speed, usable_cpus
from cexec.system.host.load_command import LoadCommand
from cexec.system.process import orphans, process
from cexec.system.process.memory_group import claim_parent
from cexec.system.process.resource_limits import (
    LARGEST_NICE,
    Limits,
    parse_cpu_limit,
    parse_memory_limit,
    parse_time_limit,
)
from cexec.system.storage.directories import runtime_directory, state_directory
from cexec.system.storage.eventlog import EventLog
from cexec.system.storage.keyfile import read_key
from cexec.system.storage.program_cache import DEFAULT_LIMIT, ProgramCache, default_directory, parse_limit
from cexec.system.storage.series import Series
from cexec.system.units import parse_number, parse_whole
from cexec.worker.discovery.answers import Profile
from cexec.worker.discovery.load_watch import LoadWatch
from cexec.worker.discovery.machine import attributes
from cexec.worker.jobs.job_tree import GRACE
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.sent_programs import PLACE, SentPrograms, own_platform
from cexec.worker.worker import Role, Worker, WorkerNetwork

OWN_VARIABLES = ("GROUP", "BOOST", "CONCURRENCY", "MAXFD")  # and CEXEC_*: ours, not the job's
CLEAN_VARIABLES = ("PATH", "HOME", "LANG", "TZ")  # what --clean-env leaves
MAXIMUM_SLOTS = 4096  # (ours)
LONGEST_BOOST = 10**9  # microseconds (ours): no client waits for a bid so long


@click.command("cservice", context_settings={"allow_interspersed_args": False, "max_content_width": 100})
@click.option(
    "-j",
    "--slots",
    type=click.IntRange(1, MAXIMUM_SLOTS),
    metavar="N",
    help="Jobs at once.  [default: $CONCURRENCY, else the CPUs that may be used]",
)
@click.option("--name", metavar="NAME", help="What this worker is called.  [default: the host's name]")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="What this worker has, for cexec --need; may be given again.",
)
@click.option("--allow-args", is_flag=True, help="Clients may append arguments: cexec APP.pub -- ARG...")
@click.option(
    "--allow-programs",
    is_flag=True,
    help="Run what clients bring along, where EXE or an ARG has {program}: cexec --program PLATFORM=FILE.",
)
@click.option(
    "--program-cache",
    metavar="DIRECTORY",
    help="Where these programs are kept; workers may share it.  [default: ~/.cache/cexec/programs]",
)
@click.option(
    "--program-cache-size", type=Parsed(parse_limit), metavar="SIZE", help="How much is kept there.  [default: 1G]"
)
@click.option("--empty-program-cache", is_flag=True, help="Remove those programs at the end.")
@click.option("--once", is_flag=True, help="A job that has started is never repeated, also if this worker fails.")
@click.option(
    "--private-dir", is_flag=True, help="Every job has a directory of its own, below $TMPDIR, removed when it ends."
)
@click.option(
    "--time-limit", type=Parsed(parse_time_limit), metavar="TIME", help="How long a job may take: 90, 1m30s, 2h."
)
@click.option(
    "--cpu-limit",
    type=Parsed(parse_cpu_limit),
    metavar="TIME",
    help="How much processor time each process of a job may use.",
)
@click.option(
    "--memory-limit", type=Parsed(parse_memory_limit), metavar="SIZE", help="How much memory a job may use: 500M, 2G."
)
@click.option("--nice", type=click.IntRange(0, LARGEST_NICE), metavar="N", help="How far jobs stand back: 0 to 19.")
@click.option("--clean-env", is_flag=True, help=f"The job's environment has only {', '.join(CLEAN_VARIABLES)}.")
@click.option(
    "--log",
    "log_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How events are written to stderr.",
)
@click.option(
    "--speed",
    type=Parsed(partial(parse_number, least=SLOWEST, most=FASTEST)),
    metavar="X",
    help="How fast this machine is; 1 is a usual one.  [default: measured once]",
)
@click.option(
    "--load-command",
    metavar="CMD",
    help="A program that prints this machine's load, 0 idle to 1 full, run once a second.",
)
@click.version_option(__version__, prog_name="cservice", message="%(prog)s %(version)s")
@click.argument("app")
@click.argument("exe")
@click.argument("arg", nargs=-1, type=AnyText())
def command(
    slots: int | None,
    name: str | None,
    labels: tuple[str, ...],
    allow_args: bool,
    allow_programs: bool,
    program_cache: str | None,
    program_cache_size: int | None,
    empty_program_cache: bool,
    once: bool,
    private_dir: bool,
    time_limit: float | None,
    cpu_limit: int | None,
    memory_limit: int | None,
    nice: int | None,
    clean_env: bool,
    log_format: str,
    speed: float | None,
    load_command: str | None,
    app: str,
    exe: str,
    arg: tuple[str, ...],
) -> int:
    """Serve EXE with its ARGs to everyone who holds APP.pub.

    Clients on the network then run it with `cexec APP.pub`; their standard input, output and error are the program's.
    """
    slots = slots or _concurrency()
    key = _worker_key(app, name)
    programs = None
    if allow_programs:
        programs = _programs([exe, *arg], program_cache, program_cache_size)
    elif program_cache or program_cache_size or empty_program_cache:
        raise UsageError("what is said about the program cache needs --allow-programs")
    executable = exe if programs and exe == PLACE else process.resolve(exe, os.environ.get("PATH", os.defpath))
    log = EventLog(sys.stderr, as_json=log_format == "json")
    speed = speed or measure_speed()
    described = _attributes((*labels, ALLOWED) if programs else labels)
    entries, port = groups_from_environment(os.environ), udp_port_from_environment(os.environ)
    groups = GroupSockets(entries, port)
    process.close_on_exec_from(3)
    process.adopt_orphans()
    claim_parent()
    program = Program(
        executable,
        list(arg),
        _job_environment(clean_env),
        allow_args,
        limits=Limits(time=time_limit or 0.0, cpu=cpu_limit or 0, memory=memory_limit or 0, nice=nice or 0),
        private=private_dir,
        once=once,
        records=_clean_up_after_the_last_time(log),
        programs=programs,
    )
    dice = random.SystemRandom().random
    host = socket.gethostname()[:MAXIMUM_NAME]
    worker = Worker(
        role=Role(
            key=key,
            profile=Profile(host=host, slots=slots, speed=speed, attributes=described, once=once),
            series=Series(state_directory(), f"series-{key.fingerprint}-{key.identity.certificate.name}"),
        ),
        network=WorkerNetwork(groups=groups, announcer=_announcer(entries, port, groups)),
        program=program,
        bidder=Bidder(slots=slots, speed=speed, boost=_boost(), random=dice),
        log=log,
        load=LoadWatch(log, None if load_command is None else LoadCommand(load_command)),
        random=dice,
    )
    process.become_urgent()  # a machine whose jobs take all CPUs must answer all the same
    worker.say_hello()
    _tell_that_it_serves(log, key, slots, groups, app)
    worker.run()
    if programs is not None and empty_program_cache:
        programs.cache.empty()
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_click(command, argv)


def _tell_that_it_serves(log: EventLog, key: WorkerKey, slots: int, groups: GroupSockets, app: str) -> None:
    """The first line: what is served, where it is heard, and the client's command."""
    client = app if app.endswith(".pub") else f"{app}.pub"
    plural = "slot" if slots == 1 else "slots"
    log.banner(
        f"cservice: serving {key.fingerprint} with {slots} {plural}, listening on {groups.description()}; "
        f"run a job with: cexec {client}",
        fingerprint=key.fingerprint,
        name=key.identity.certificate.name,
        slots=slots,
        addresses=groups.addresses(),
        command=f"cexec {client}",
    )


def _worker_key(app: str, name: str | None) -> WorkerKey:
    key = read_key(
        app, (OwnerKey, WorkerKey), "cservice needs the private key that ckeygen made, APP, or an APP.worker"
    )
    if isinstance(key, WorkerKey):
        try:
            key.identity.certificate.check_dates(time.time())
        except CertificateError as error:
            raise CertificateError(f"{app}: {error}; ask its owner for a new one, or set the clock") from None
        return key
    assert isinstance(key, OwnerKey)  # read_key gives nothing else
    if name is not None and not valid_name(name):
        raise UsageError(f"--name {name!r}: up to {MAXIMUM_NAME} letters, digits, dots, - and _")
    return key.worker_key(name or _host_name())


def _programs(command: list[str], directory: str | None, size: int | None) -> SentPrograms:
    """Returns the cache and the platform for programs of clients; `UsageError` if no word says where they go."""
    if not any(PLACE in word for word in command):
        raise UsageError(
            f"--allow-programs: EXE or an ARG must say where the program goes: {PLACE} alone runs it as it is, "
            f"and bwrap --ro-bind / / {PLACE} inside a sandbox"
        )
    cache = ProgramCache(directory or default_directory(os.environ), size or DEFAULT_LIMIT)
    return SentPrograms(cache, own_platform(attributes()))


def _attributes(labels: tuple[str, ...]) -> dict[str, str]:
    """Returns the attributes of this machine and its labels."""
    found = attributes()
    for text in labels:
        name, equals, value = text.partition("=")
        if not valid_name(name) or (equals and not value) or any(c in value for c in ", ") or not value.isprintable():
            raise UsageError(f"--label {text!r}: NAME or NAME=VALUE, without commas and spaces")
        if name in BUILT_IN:
            raise UsageError(f"--label {text!r}: every worker has {name} by itself")
        found[name] = value
    try:
        fits = len(bytes(Writer().mapping(found))) <= MAXIMUM_ATTRIBUTES
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(f"labels are too long: all together may take about {MAXIMUM_ATTRIBUTES - 60} bytes")
    return found


def _announcer(entries: list[GroupEntry] | None, port: int, groups: GroupSockets) -> Announcer:
    """For alerts, HELLO and BYE; also to what the process that registers us with multicast DNS finds."""
    announcer = Announcer(entries, port)
    if groups.registration is not None:
        announcer.share(groups.registration)
    return announcer


def _host_name() -> str:
    """This host's name, as far as a certificate can say it."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())
    return plain[:MAXIMUM_NAME] or "worker"


def _concurrency() -> int:
    text = os.environ.get("CONCURRENCY", "").strip()
    if not text:
        return max(1, round(usable_cpus()))
    return parse_whole(text, "CONCURRENCY", 1, MAXIMUM_SLOTS)


def _boost() -> float | None:
    """$BOOST, a fixed delay before every bid, in microseconds, as in the ancestor."""
    text = os.environ.get("BOOST", "").strip()
    if not text:
        return None
    return parse_whole(text, "BOOST, in microseconds,", 0, LONGEST_BOOST) / 1e6


def _clean_up_after_the_last_time(log: EventLog) -> str | None:
    """Ends what dead jobs have left; returns the directory for records of jobs, or None if it cannot be used."""
    try:
        directory = runtime_directory()
    except LocalError as error:
        log.event("warning", reason=f"{error}; what a killed cservice leaves will stay")
        return None
    for mark in orphans.sweep(directory, grace=GRACE):
        log.event("swept", job=mark.removeprefix(f"{orphans.MARK}=").partition("-")[0])
    return directory


def _job_environment(clean: bool) -> dict[bytes, bytes]:
    return {
        name: value
        for name, value in os.environb.items()
        if (name.decode("ascii", "replace") in CLEAN_VARIABLES if clean else not _is_ours(name))
    }


def _is_ours(name: bytes) -> bool:
    text = name.decode("ascii", "replace")
    return text.startswith(("CEXEC_", "PEER_")) or text in OWN_VARIABLES
