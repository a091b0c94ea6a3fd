"""cgate tls (cgate(1)): makes certificates for a cgate that others in the network reach.

Contract: `main(argv)` returns the exit status.
"""

from __future__ import annotations

import os
import socket

import click

from cexec.commands.common import print_line, run_click
from cexec.commands.gate_state import dispatch
from cexec.commands.help_page import HelpfulCommand, version_option
from cexec.errors import UsageError
from cexec.gate.access.names import check_name
from cexec.gate.access.tls import CLIENT, FILES, make_client, make_materials
from cexec.system.storage.keyfile import forbid_core_files
from cexec.system.storage.user_files import quoted


@click.command(
    "cgate tls init",
    cls=HelpfulCommand,
    examples=(("cgate tls init tls gate.example.org 10.0.0.5", "for these names of this machine"),),
)
@click.option("--client", metavar="TOKEN", default=CLIENT, help="The common name of the client's: a token's name.")
@version_option
@click.argument("directory", metavar="DIR")
@click.argument("names", metavar="[NAME|ADDRESS]...", nargs=-1)
def init(directory: str, names: tuple[str, ...], client: str) -> int:
    """Make an authority, a certificate for the server and one for a client, with their keys.

    NAME and ADDRESS are those by which clients call the server; this machine's name is among them, and localhost.
    """
    paths = make_materials(directory, [*names, socket.gethostname()], client=check_name(client))
    ca, server, server_key, caller, caller_key = (quoted(paths[index]) for index in (0, 2, 3, 4, 5))
    print_line(f"serve:  cgate --tls-cert {server} --tls-key {server_key} --client-ca {ca} --http ADDRESS:PORT APP.pub")
    print_line(f"ask:    curl --cacert {ca} --cert {caller} --key {caller_key} https://...")
    print_line(f"{quoted(os.path.join(directory, 'ca.key'))} can make more certificates; keep it off the network")
    return 0


@click.command(
    "cgate tls client",
    cls=HelpfulCommand,
    examples=(("cgate tls client tls ci", "tls/ci.pem and tls/ci.key: by gRPC its holder is the token ci"),),
)
@version_option
@click.argument("directory", metavar="DIR")
@click.argument("token", metavar="TOKEN")
def add_client(directory: str, token: str) -> int:
    """Make a certificate for one more client, by the authority that cgate tls init has made in DIR.

    By gRPC whoever holds it is the token of that name; cgate token add TOKEN makes that, and revoke ends it.
    """
    name = check_name(token)
    if f"{name}.pem" in FILES:
        raise UsageError(f"TOKEN is {name!r}, which is the name of a file of cgate tls init")
    certificate, key = make_client(directory, name)
    print_line(f"give the client {quoted(certificate)}, {quoted(key)} and {quoted(os.path.join(directory, 'ca.pem'))}")
    return 0


COMMANDS: dict[str, click.Command] = {"init": init, "client": add_client}


def main(argv: list[str]) -> int:
    forbid_core_files()
    return dispatch("tls", COMMANDS, argv, run_click)
