"""crat(1): logs what becomes of every job of an application.

Contract: `main(argv)` returns 0 when it has been told to stop; without key files it takes `*.pub` in the current
directory and in the user's configuration directory, ~/.config/cexec.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

import click

from cexec.commands.common import print_line, run_click
from cexec.commands.help_page import HelpfulCommand, version_option
from cexec.errors import CexecError, KeyFileError, UsageError
from cexec.logger.log_output import LogOutput
from cexec.logger.logger import LoggedApplication, Logger
from cexec.net.group_receiver import GroupReceiver
from cexec.net.group_sockets import GroupSockets
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.protocol.base.keys import ClientKey
from cexec.system.io.log_lines import PATIENCE
from cexec.system.storage.identity import identify
from cexec.system.storage.key_names import client_key_files
from cexec.system.storage.keyfile import find_client_key, read_key
from cexec.system.storage.revocations import Revocations
from cexec.system.storage.user_files import config_directory, list_path

if TYPE_CHECKING:
    from collections.abc import Mapping


EXAMPLES = (
    ("crat app.pub", "a line for every job, and for every worker that failed"),
    ("crat --json --output jobs.log", "of all applications whose keys are here, for programs"),
    ("crat --stats app.pub", "a table of the workers at the end"),
)


@click.command("crat", cls=HelpfulCommand, examples=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines.")
@click.option("--output", metavar="FILE", help="Append to FILE; SIGHUP opens it again.  [default: standard output]")
@click.option("--stats", is_flag=True, help="Write a table of the workers at the end; SIGUSR1 writes it at any time.")
@version_option
@click.argument("files", nargs=-1, metavar="[APP.pub]...")
def command(as_json: bool, output: str | None, stats: bool, files: tuple[str, ...]) -> int:
    """Log every job of the applications whose APP.pub is given: who ran it where, and which workers failed.

    Without APP.pub: all *.pub in the current directory and in ~/.config/cexec.
    """
    paths = [find_client_key(name) for name in files] or _found()
    applications = _read(paths, skip=not files)
    if output is not None:
        _refuse_key(output, paths)
    sink = LogOutput(output, as_json=as_json)
    groups = GroupSockets(groups_from_environment(os.environ), udp_port_from_environment(os.environ))
    receiver = GroupReceiver(groups, [one.key.mac1_key for one in applications], monotonic(), keep_strangers=True)
    logger = Logger(applications, groups=groups, receiver=receiver, output=sink, statistics=stats)
    for one in applications:
        if one.revocations.problem:
            print_line(
                f"crat: {one.revocations.problem}; alerts of revoked certificates may be logged until then", PATIENCE
            )
    print_line(
        f"crat: logging {', '.join(one.name for one in applications)}, listening on {groups.description()}", PATIENCE
    )
    logger.run()
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_click(command, argv, patience=PATIENCE)


def _found() -> list[str]:
    paths = client_key_files()
    if not paths:
        where = config_directory() or "~/.config/cexec"
        raise KeyFileError(f"no client key *.pub here or in {where}; name one: crat APP.pub")
    return paths


def _refuse_key(output: str, paths: list[str]) -> None:
    """Lines in a key file would make it unusable."""
    place = identify(output)
    for path in paths:
        if place.same_file(identify(path)):
            raise UsageError(f"--output {output} is the key {path}; give another file")


def _read(paths: list[str], *, skip: bool) -> list[LoggedApplication]:
    """Returns each application once; with `skip`, an unusable file is told and passed over."""
    found: list[LoggedApplication] = []
    environ: Mapping[str, str] = os.environ  # where CEXEC_REVOKED can name the list of the first application
    for path in paths:
        try:
            key = read_key(path, (ClientKey,), "crat needs client keys (APP.pub)")
        except CexecError as error:
            if not skip:
                raise
            print_line(f"crat: {error}; not logged", PATIENCE)
            continue
        if all(key.fingerprint != other.key.fingerprint for other in found):
            revocations, environ = Revocations(list_path(path, environ), key.authority_public), {}
            found.append(LoggedApplication(os.path.basename(path), key, revocations))
    if not found:
        raise KeyFileError("no usable client key was found; name one: crat APP.pub")
    return found
