"""cservice(1): serves an application on this machine.

Contract: `main(argv)` returns the exit status when it has been told to stop; options end at APP, what follows is the
program and its arguments; a `--` between them is passed over.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import click

from cexec.commands.common import run_click
from cexec.commands.cservice_options import ServiceOptions, cservice_options
from cexec.commands.cservice_settings import (
    boost,
    client_limits,
    concurrency,
    described,
    found_program,
    job_environment,
    most_files,
    sandbox_of,
    sent_programs,
    short_host_name,
)
from cexec.commands.cservice_words import (
    check_private_directories,
    containment,
    tell_that_it_serves,
    warn_of_home,
    warn_of_root,
)
from cexec.commands.help_page import ARGUMENTS, HelpfulCommand, version_option, with_options_first
from cexec.commands.parameters import AnyText
from cexec.commands.served_keys import OpenedKey, ServedKey, open_keys, served_keys
from cexec.errors import LocalError, UsageError
from cexec.net.announcer import Announcer
from cexec.net.group_sockets import GroupSockets
from cexec.net.groups import GroupEntry, groups_from_environment, udp_port_from_environment
from cexec.protocol.datagrams.requirements import ACCOUNT, ALLOWED, TERMINAL
from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.clients import ClientLimits
from cexec.system import signal_state
from cexec.system.host.load import measure_speed
from cexec.system.host.load_command import LoadCommand
from cexec.system.io.log_lines import PATIENCE, STANDARD_ERROR, LogLines
from cexec.system.process import descriptor_limit, helpers, orphans, process
from cexec.system.process.job_group import claim_place
from cexec.system.process.memory_group import claim_parent
from cexec.system.process.privileges import find_account, forbid_new_privileges, guard_memory
from cexec.system.process.resource_limits import Limits
from cexec.system.process.strays import Strays
from cexec.system.storage.directories import runtime_directory, state_directory
from cexec.system.storage.eventlog import EventLog
from cexec.system.storage.series import Series, series_name
from cexec.worker.discovery.answers import Profile
from cexec.worker.discovery.load_watch import LoadWatch
from cexec.worker.jobs.disk_quota import DiskLimits
from cexec.worker.jobs.job_tree import GRACE
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.sent_programs import PLACE
from cexec.worker.jobs.shell import SLOTS as SHELL_SLOTS
from cexec.worker.jobs.shell import find_shell
from cexec.worker.jobs.supervisor_link import SupervisorLink
from cexec.worker.worker import Role, Worker, WorkerNetwork

EXAMPLES = (
    ("cservice app wc -l", "offer a program; a client runs it with: cexec app.pub < FILE"),
    ("cservice -j 2 --memory-limit 2G --time-limit 1h app sh -c 'sort | uniq -c'", "a pipeline, two jobs at once"),
    ("cservice --shell shell", "commands of the clients, as by ssh; they use: cexec-ssh NAME ls"),
)


@click.command("cservice", cls=HelpfulCommand, examples=EXAMPLES, context_settings={"allow_interspersed_args": False})
@cservice_options
@version_option
@click.argument("app")
@click.argument("exe", required=False, metavar="EXE")
@click.argument("arg", nargs=-1, type=AnyText())
def command(**values: Any) -> int:
    """Serve EXE with its ARGs to everyone who holds APP.pub.

    Clients on the network then run it with `cexec APP.pub`; their standard input, output and error are the program's.
    """
    app, exe, arguments = values["app"], values["exe"], values["arg"]
    if exe is None:
        if not values["shell"]:
            raise click.MissingParameter(param=next(one for one in command.params if one.name == "exe"))
    elif exe == ARGUMENTS and arguments:  # as behind the key of cexec
        values["exe"], values["arg"] = exe, arguments = arguments[0], arguments[1:]
    elif misplaced := with_options_first(command, "cservice", app, [exe, *arguments]):
        raise UsageError(misplaced)
    return _serve(ServiceOptions(**values))


def _serve(options: ServiceOptions) -> int:
    """Serves until it is told to stop; returns the exit status."""
    signal_state.ignore(signal.SIGUSR1, signal.SIGUSR2)  # of no use here, and `pkill -USR1` must not end jobs
    _check(options)
    opened = open_keys((options.app, *options.also))
    log = EventLog(LogLines(STANDARD_ERROR), as_json=options.log_format == "json")  # another user could not open it
    try:
        return _serve_opened(options, opened, log)
    finally:
        log.close()


def _serve_opened(options: ServiceOptions, opened: list[OpenedKey], log: EventLog) -> int:
    """Serves with the keys whose files are open."""
    terminal = signal_state.has_terminal()
    _confine(options.user)
    found = check_private_directories(options.private_dir)
    records, left = _clean_up_after_the_last_time()
    program = _program(options, [one.path for one in opened], records)
    supervisor = SupervisorLink.fork(program)  # before the key is read: no process of a job has ever had it
    served = served_keys(opened, options.name, options.patterns, require_revoked=options.require_revoked)
    profile = Profile(
        host=short_host_name(),
        slots=_slots(options),
        speed=options.speed or measure_speed(),
        attributes=described((*options.labels, *_attributes(program))),
        once=options.once or options.shell,
        gives_terminal=program.terminal,
        suggests_terminal=options.terminal is True or (options.shell and program.terminal),
    )
    load = LoadWatch(log, None if options.load_command is None else LoadCommand(options.load_command))
    groups = GroupSockets(*_group())
    limits = client_limits(profile.slots, options.per_client, options.max_weight)
    worker = _worker(served, profile, groups, supervisor, log, load, limits, program.disk.client, terminal)
    worker.say_hello()
    tell_that_it_serves(
        log, [one.key for one in served], profile.slots, groups, containment(program), options.app, program
    )
    for event, field, text in found + left:
        log.event(event, **{field: text})
    warn_of_root(log, program)
    warn_of_home(log, program)
    for one in served:
        if one.admission.problem or one.admission.warning:
            log.event("revocations", reason=one.admission.problem or one.admission.warning)
    worker.run()
    if program.programs is not None and options.empty_program_cache:
        program.programs.cache.empty()
    return 0


def _check(options: ServiceOptions) -> None:
    """Refuses options that mean nothing together."""
    if options.network and not options.isolate:
        raise UsageError("--network needs --isolate: without that every job has the network")
    cache = options.program_cache or options.program_cache_size or options.empty_program_cache
    if cache and not options.allow_programs:
        raise UsageError("what is said about the program cache needs --allow-programs")
    if options.shell:
        if options.exe is not None:
            raise UsageError(f"--shell runs the commands of the clients, so no program can be named: {options.exe}")
        if options.allow_programs:
            raise UsageError("--allow-programs has no meaning with --shell: clients copy their programs with cexec-ssh")
        if options.private_dir:
            raise UsageError("--private-dir has no meaning with --shell: its commands run in the account's home")


def _slots(options: ServiceOptions) -> int:
    return options.slots or (SHELL_SLOTS if options.shell else concurrency())


def _attributes(program: Program) -> list[str]:
    """Returns what clients may need of this service, as labels."""
    found = [ALLOWED] if program.programs else []
    found += [TERMINAL] if program.terminal else []
    return [*found, f"{ACCOUNT}={program.shell.account}"] if program.shell else found


def _program(options: ServiceOptions, keys: list[str], records: str | None) -> Program:
    """Returns what a job runs, and within which limits.

    `keys` are the paths of the key files; `records`: the directory for records of jobs.
    """
    shell = find_shell() if options.shell else None
    written = shell.path if shell is not None else options.exe or ""
    words = [written, *options.arg]
    sent = sent_programs(words, options.program_cache, options.program_cache_size) if options.allow_programs else None
    return Program(
        written if sent and written == PLACE else found_program(options.app, words),
        list(options.arg),
        job_environment(options.clean_env, _slots(options)),
        options.allow_args or options.shell,
        limits=Limits(
            time=options.time_limit or 0.0,
            cpu=options.cpu_limit or 0,
            memory=options.memory_limit or 0,
            nice=options.nice or 0,
        ),
        private=options.private_dir,
        once=options.once or options.shell,
        records=records,
        programs=sent,
        disk=DiskLimits(job=options.disk_limit or 0, client=most_files(options.per_client)),
        sandbox=sandbox_of(keys, options.network) if options.isolate else None,
        written=written,
        shell=shell,
        terminal=options.terminal is not False,
    )


def main(argv: list[str] | None = None) -> int:
    return run_click(command, argv, patience=PATIENCE)


def _confine(user: str | None) -> None:
    """Gives up what neither cservice nor a job needs; becomes the user, if one is named."""
    descriptor_limit.raise_limit()
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
    name = series_name(served.key.fingerprint, served.key.identity.certificate.name)
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
    terminal: bool,
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
        terminal=terminal,
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
