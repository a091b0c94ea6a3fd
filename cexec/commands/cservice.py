"""cservice(1): serves an application on this machine.

Contract: `main(argv)` returns the exit status when it has been told to stop; options end at APP, what follows is the
program and its arguments.
"""

from __future__ import annotations

import os
import random
import sys
from functools import partial

import click

from cexec import __version__
from cexec.commands.common import run_click
from cexec.commands.cservice_settings import (
    CLEAN_VARIABLES,
    DEFAULT_MAX_WEIGHT,
    LEAST_FILES,
    MAXIMUM_SLOTS,
    PerClient,
    boost,
    client_limits,
    concurrency,
    described,
    job_environment,
    most_files,
    parse_per_client,
    sandbox_of,
    sent_programs,
    short_host_name,
)
from cexec.commands.cservice_words import containment, tell_that_it_serves, warn_of_root
from cexec.commands.parameters import AnyText, Parsed
from cexec.commands.served_keys import ServedKey, open_keys, served_keys
from cexec.errors import LocalError, UsageError
from cexec.net.announcer import Announcer
from cexec.net.group_sockets import GroupSockets
from cexec.net.groups import GroupEntry, groups_from_environment, udp_port_from_environment
from cexec.protocol.base.limits import MAXIMUM_WEIGHT
from cexec.protocol.datagrams.requirements import ALLOWED
from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.clients import ClientLimits
from cexec.system.host.load import FASTEST, SLOWEST, measure_speed
from cexec.system.host.load_command import LoadCommand
from cexec.system.process import helpers, orphans, process
from cexec.system.process.job_group import claim_place
from cexec.system.process.memory_group import claim_parent
from cexec.system.process.privileges import find_account, forbid_new_privileges, guard_memory
from cexec.system.process.resource_limits import (
    LARGEST_NICE,
    Limits,
    parse_cpu_limit,
    parse_memory_limit,
    parse_time_limit,
)
from cexec.system.process.strays import Strays
from cexec.system.storage.directories import runtime_directory, state_directory
from cexec.system.storage.eventlog import EventLog
from cexec.system.storage.program_cache import parse_limit
from cexec.system.storage.series import Series
from cexec.system.units import parse_number, parse_size
from cexec.worker.discovery.answers import Profile
from cexec.worker.discovery.load_watch import LoadWatch
from cexec.worker.jobs.disk_quota import DiskLimits
from cexec.worker.jobs.job_tree import GRACE
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.sent_programs import PLACE
from cexec.worker.jobs.supervisor_link import SupervisorLink
from cexec.worker.worker import Role, Worker, WorkerNetwork


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
@click.option(
    "--disk-limit",
    type=Parsed(partial(parse_size, least=LEAST_FILES)),
    metavar="SIZE",
    help="How much the directory of a job may take: its client's files, and what the program writes there.",
)
@click.option("--nice", type=click.IntRange(0, LARGEST_NICE), metavar="N", help="How far jobs stand back: 0 to 19.")
@click.option("--user", metavar="NAME", help="Become this user, after the key has been opened; only root can.")
@click.option(
    "--isolate",
    is_flag=True,
    help="Run every job in a sandbox: read-only file system, /tmp and process ids of its own, no network.",
)
@click.option("--network", is_flag=True, help="With --isolate: jobs have the network of this machine.")
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
@click.option(
    "--also",
    multiple=True,
    metavar="APP",
    help="Serve another key as well, while clients change from one to the other.",
)
@click.option(
    "--clients",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Serve the clients with such a name only, a shell pattern; may be given again.",
)
@click.option(
    "--per-client",
    type=Parsed(parse_per_client),
    metavar="N",
    help="What one client may have while others wait: N, or jobs=N,places=N,files=SIZE.",
)
@click.option(
    "--max-weight",
    type=click.IntRange(1, MAXIMUM_WEIGHT),
    default=DEFAULT_MAX_WEIGHT,
    show_default=True,
    metavar="N",
    help="The most that a client's --weight counts.",
)
@click.option("--require-revoked", is_flag=True, help="Serve nobody until there is a list of revoked certificates.")
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
    disk_limit: int | None,
    nice: int | None,
    user: str | None,
    isolate: bool,
    network: bool,
    clean_env: bool,
    log_format: str,
    speed: float | None,
    load_command: str | None,
    also: tuple[str, ...],
    patterns: tuple[str, ...],
    per_client: PerClient | None,
    max_weight: int,
    require_revoked: bool,
    app: str,
    exe: str,
    arg: tuple[str, ...],
) -> int:
    """Serve EXE with its ARGs to everyone who holds APP.pub.

    Clients on the network then run it with `cexec APP.pub`; their standard input, output and error are the program's.
    """
    if network and not isolate:
        raise UsageError("--network needs --isolate: without that every job has the network")
    if not allow_programs and (program_cache or program_cache_size or empty_program_cache):
        raise UsageError("what is said about the program cache needs --allow-programs")
    opened = open_keys((app, *also))
    _confine(user)
    programs = sent_programs([exe, *arg], program_cache, program_cache_size) if allow_programs else None
    log = EventLog(sys.stderr, as_json=log_format == "json")
    records, found = _clean_up_after_the_last_time()
    program = Program(
        exe if programs and exe == PLACE else process.resolve(exe, os.environ.get("PATH", os.defpath)),
        list(arg),
        job_environment(clean_env),
        allow_args,
        limits=Limits(time=time_limit or 0.0, cpu=cpu_limit or 0, memory=memory_limit or 0, nice=nice or 0),
        private=private_dir,
        once=once,
        records=records,
        programs=programs,
        disk=DiskLimits(job=disk_limit or 0, client=most_files(per_client)),
        sandbox=sandbox_of([app, *also], network) if isolate else None,
    )
    supervisor = SupervisorLink.fork(program)  # before the key is read: no process of a job has ever had it
    served = served_keys(opened, name, patterns, require_revoked=require_revoked)
    profile = Profile(
        host=short_host_name(),
        slots=slots or concurrency(),
        speed=speed or measure_speed(),
        attributes=described((*labels, ALLOWED) if programs else labels),
        once=once,
    )
    load = LoadWatch(log, None if load_command is None else LoadCommand(load_command))
    groups = GroupSockets(*_group())
    limits = client_limits(profile.slots, per_client, max_weight)
    worker = _worker(served, profile, groups, supervisor, log, load, limits, program.disk.client)
    worker.say_hello()
    tell_that_it_serves(log, [one.key for one in served], profile.slots, groups, containment(program), app)
    for event, field, text in found:
        log.event(event, **{field: text})
    warn_of_root(log, program)
    for one in served:
        if one.admission.problem or one.admission.warning:
            log.event("revocations", reason=one.admission.problem or one.admission.warning)
    worker.run()
    if programs is not None and empty_program_cache:
        programs.cache.empty()
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_click(command, argv)


def _confine(user: str | None) -> None:
    """Gives up what neither cservice nor a job needs; becomes the user, if one is named."""
    account = None if user is None else find_account(user)
    claim_parent()
    claim_place(None if account is None else account.user)
    process.become_urgent()  # a machine whose jobs take all CPUs must answer all the same
    if account is not None:
        account.become(os.environ)
    guard_memory()
    forbid_new_privileges()
    process.close_on_exec_from(3)
    helpers.adopt_existing()
    process.adopt_orphans()


def _role(served: ServedKey) -> Role:
    name = f"series-{served.key.fingerprint}-{served.key.identity.certificate.name}"
    return Role(key=served.key, series=Series(state_directory(), name), admission=served.admission)


def _worker(
    served: list[ServedKey],
    profile: Profile,
    groups: GroupSockets,
    supervisor: SupervisorLink,
    log: EventLog,
    load: LoadWatch,
    limits: ClientLimits,
    most_files: int,
) -> Worker:
    """Returns the worker, which hears its group already."""
    dice = random.SystemRandom().random
    return Worker(
        roles=[_role(one) for one in served],
        profile=profile,
        network=WorkerNetwork(groups=groups, announcer=_announcer(groups)),
        supervisor=supervisor,
        bidder=Bidder(slots=profile.slots, speed=profile.speed, boost=boost(), random=dice, limits=limits),
        log=log,
        load=load,
        strays=Strays(helpers.known),
        random=dice,
        most_files=most_files,
    )


def _group() -> tuple[list[GroupEntry] | None, int]:
    """The entries of CEXEC_GROUP and the port."""
    return groups_from_environment(os.environ), udp_port_from_environment(os.environ)


def _announcer(groups: GroupSockets) -> Announcer:
    """For alerts, HELLO and BYE; also to what the process that registers us with multicast DNS finds."""
    announcer = Announcer(*_group())
    if groups.registration is not None:
        announcer.share(groups.registration)
    return announcer


def _clean_up_after_the_last_time() -> tuple[str | None, list[tuple[str, str, str]]]:
    """Ends what dead jobs have left.

    Returns the directory for records of jobs, None if it cannot be used, and what the log is to be told: events, each
    with the name and the value of a field.
    """
    try:
        directory = runtime_directory()
    except LocalError as error:
        return None, [("warning", "reason", f"{error}; what a killed cservice leaves will stay")]
    marks = orphans.sweep(directory, grace=GRACE)
    return directory, [("swept", "job", mark.removeprefix(f"{orphans.MARK}=").partition("-")[0]) for mark in marks]
