"""The options of cservice(1), and their values.

Contract: `cservice_options` adds them to a command, which gets a value for each field of `ServiceOptions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from cexec.commands.cservice_settings import (
    CLEAN_VARIABLES,
    DEFAULT_MAX_WEIGHT,
    LEAST_FILES,
    MAXIMUM_SLOTS,
    PerClient,
    parse_per_client,
)
from cexec.commands.help_page import Decorator, section
from cexec.commands.parameters import Parsed
from cexec.protocol.base.limits import MAXIMUM_WEIGHT
from cexec.system.host.load import FASTEST, SLOWEST
from cexec.system.process.resource_limits import (
    LARGEST_NICE,
    parse_cpu_limit,
    parse_memory_limit,
    parse_time_limit,
)
from cexec.system.storage.program_cache import parse_limit
from cexec.system.units import parse_number, parse_size

OPTIONS: tuple[Decorator, ...] = (
    *section(
        "The worker",
        click.option(
            "-j",
            "--slots",
            type=click.IntRange(1, MAXIMUM_SLOTS),
            metavar="N",
            help="How many jobs run at once.  [default: $CONCURRENCY, else the CPUs that may be used]",
        ),
        click.option("--name", metavar="NAME", help="What this worker is called.  [default: the host's name]"),
        click.option(
            "--label",
            "labels",
            multiple=True,
            metavar="NAME[=VALUE]",
            help="Something that this worker has: --label gpu serves cexec --need gpu; may be given again.",
        ),
        click.option(
            "--speed",
            type=Parsed(partial(parse_number, least=SLOWEST, most=FASTEST)),
            metavar="X",
            help="How fast this machine is; 1 is a usual one.  [default: measured once]",
        ),
        click.option(
            "--load-command",
            metavar="CMD",
            help="A program that prints this machine's load, 0 idle to 1 full, run once a second.",
        ),
        click.option(
            "--log",
            "log_format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="How events are written to stderr.",
        ),
    ),
    *section(
        "The program",
        click.option(
            "--shell", is_flag=True, help="In place of EXE: clients run commands of theirs, as by ssh, with cexec-ssh."
        ),
        click.option("--allow-args", is_flag=True, help="Clients may append arguments: cexec APP.pub -- ARG..."),
        click.option(
            "--allow-programs",
            is_flag=True,
            help="Run what clients bring along, where EXE or an ARG has {program}: cexec --program PLATFORM=FILE.",
        ),
        click.option(
            "--program-cache",
            metavar="DIRECTORY",
            help="Where these programs are kept; workers may share it.  [default: ~/.cache/cexec/programs]",
        ),
        click.option(
            "--program-cache-size",
            type=Parsed(parse_limit),
            metavar="SIZE",
            help="How much is kept there.  [default: 1G]",
        ),
        click.option("--empty-program-cache", is_flag=True, help="Remove those programs at the end."),
        click.option(
            "--once", is_flag=True, help="A job that has started is never repeated, also if this worker fails."
        ),
        click.option(
            "--tty/--no-tty",
            "terminal",
            default=None,
            help="The program wants a terminal, so a client at one gets one there; or no client gets one."
            "  [default: clients ask for one with cexec -t]",
        ),
        click.option(
            "--private-dir",
            is_flag=True,
            help="Every job has a directory of its own, below $TMPDIR, removed when it ends.",
        ),
        click.option("--clean-env", is_flag=True, help=f"The job's environment has only {', '.join(CLEAN_VARIABLES)}."),
    ),
    *section(
        "Limits of a job",
        click.option(
            "--time-limit",
            type=Parsed(parse_time_limit),
            metavar="TIME",
            help="How long a job may take: 90, 1m30s, 2h.",
        ),
        click.option(
            "--cpu-limit",
            type=Parsed(parse_cpu_limit),
            metavar="TIME",
            help="How much processor time each process of a job may use.",
        ),
        click.option(
            "--memory-limit",
            type=Parsed(parse_memory_limit),
            metavar="SIZE",
            help="How much memory a job may use: 500M, 2G.",
        ),
        click.option(
            "--disk-limit",
            type=Parsed(partial(parse_size, least=LEAST_FILES)),
            metavar="SIZE",
            help="How much the directory of a job may take: its client's files, and what the program writes there.",
        ),
        click.option(
            "--nice",
            type=click.IntRange(0, LARGEST_NICE),
            metavar="N",
            help="The nice value of jobs: the higher it is, the further they stand back.",
        ),
    ),
    *section(
        "Safety",
        click.option("--user", metavar="NAME", help="Become this user, after the key has been opened; only root can."),
        click.option(
            "--isolate",
            is_flag=True,
            help="Run every job in a sandbox: read-only file system, /tmp and process ids of its own, no network.",
        ),
        click.option("--network", is_flag=True, help="With --isolate: jobs have the network of this machine."),
    ),
    *section(
        "Who may run jobs",
        click.option(
            "--clients",
            "patterns",
            multiple=True,
            metavar="PATTERN",
            help="Serve the clients with such a name only, a shell pattern; may be given again.",
        ),
        click.option(
            "--per-client",
            type=Parsed(parse_per_client),
            metavar="N",
            help="What one client may have while others wait: N, or jobs=N,places=N,files=SIZE.",
        ),
        click.option(
            "--max-weight",
            type=click.IntRange(1, MAXIMUM_WEIGHT),
            default=DEFAULT_MAX_WEIGHT,
            show_default=True,
            metavar="N",
            help="The most that a client's --weight counts.",
        ),
        click.option(
            "--also",
            multiple=True,
            metavar="APP",
            help="Serve another key as well, while clients change from one to the other.",
        ),
        click.option(
            "--require-revoked", is_flag=True, help="Serve nobody until there is a list of revoked certificates."
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Holds the values of the command line; None stands for an option that was not given."""

    slots: int | None
    name: str | None
    labels: tuple[str, ...]
    shell: bool
    allow_args: bool
    allow_programs: bool
    program_cache: str | None
    program_cache_size: int | None
    empty_program_cache: bool
    once: bool
    terminal: bool | None  # None: a client gets one if it asks
    private_dir: bool
    time_limit: float | None
    cpu_limit: int | None
    memory_limit: int | None
    disk_limit: int | None
    nice: int | None
    user: str | None
    isolate: bool
    network: bool
    clean_env: bool
    log_format: str
    speed: float | None
    load_command: str | None
    also: tuple[str, ...]
    patterns: tuple[str, ...]
    per_client: PerClient | None
    max_weight: int
    require_revoked: bool
    app: str
    exe: str | None  # None only with `shell`
    arg: tuple[str, ...]


def cservice_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all options to a command."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
