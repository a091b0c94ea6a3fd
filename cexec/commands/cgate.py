"""cgate(1): the cluster over HTTP and gRPC.

Contract: `main(argv)` returns 0 when it has been told to stop.  `cgate token`, `cgate login` and `cgate tls` are
commands of their own.  Without the extra `gate` it says what to install.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from cexec.commands.common import print_error, print_line, run_click
from cexec.commands.help_page import Decorator, HelpfulCommand, section, version_option
from cexec.commands.parameters import Parsed
from cexec.errors import EXIT_USAGE, UsageError
from cexec.system.extras import how_to_add
from cexec.system.io.log_lines import PATIENCE
from cexec.system.storage.keyfile import find_client_key
from cexec.system.units import parse_duration, parse_number, parse_size, parse_whole, show_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.gate.server import GateListening

NEEDED = ("httptools", "prometheus_client", "python_multipart", "starlette", "uvicorn", "websockets")
NEEDED_FOR_GRPC = ("grpc", "grpc_health", "grpc_reflection", "google.rpc", "OpenSSL")
SUBCOMMANDS = {
    "token": "cexec.commands.cgate_token",
    "login": "cexec.commands.cgate_login",
    "tls": "cexec.commands.cgate_tls",
}
DEFAULT_ADDRESS, DEFAULT_PORT, DEFAULT_GRPC_PORT = "127.0.0.1", 8042, 8043
LONGEST_RETENTION = 30 * 86400.0  # seconds (ours): records are not kept for longer
WANTED_DESCRIPTORS = 65_536  # (ours)

EXAMPLES = (
    ("cgate app.pub", "at http://127.0.0.1:8042, for this machine alone"),
    ("cgate token add ci", "a token for a program; a browser gets in by: cgate login"),
    ("cgate --http 0.0.0.0 --tls-cert CERT --tls-key KEY app.pub", "by TLS; cgate tls init DIR makes both files"),
)


def _size(name: str, least: int = 1) -> Parsed:
    return Parsed(partial(parse_size, least=least), name)


OPTIONS: tuple[Decorator, ...] = (
    *section(
        "Where it listens",
        click.option("--http", "where", metavar="ADDRESS:PORT", help="Where to listen.  [default: 127.0.0.1:8042]"),
        click.option("--grpc", metavar="ADDRESS:PORT", help="Serve gRPC there, too."),
        click.option("--tls-cert", metavar="FILE", help="The certificate of this server, in PEM."),
        click.option("--tls-key", metavar="FILE", help="Its private key."),
        click.option(
            "--client-ca", metavar="FILE",
            help="Every client needs a certificate of this authority, and a token: for gRPC that of its common name.",
        ),
        click.option("--pcci", is_flag=True, help="Speak PCCI's REST API, too; with one APP.pub."),
    ),
    *section(
        "What is kept",
        click.option("--state", metavar="FILE", help="The state file.  [default: gate.sqlite in ~/.local/state/cexec]"),
        click.option(
            "--retention", type=Parsed(partial(parse_duration, most=LONGEST_RETENTION), "--retention"), metavar="TIME",
            help="How long outputs are kept after the end of a job or pool.  [default: 5m]",
        ),
        click.option(
            "--max-output", type=_size("--max-output", least=1 << 20), metavar="SIZE",
            help="How much is kept of one output; a job that writes more is ended.  [default: 1G]",
        ),
        click.option(
            "--audit", metavar="FILE", help="Append a line for each change to FILE.  [default: standard error]"
        ),
    ),
    *section(
        "Runs of cmap",
        click.option(
            "--runs", multiple=True, metavar="DIR",
            help="Show the runs whose journals (cmap --state) are in DIR; may come again.",
        ),
    ),
    *section(
        "Limits",
        click.option(
            "--max-body", type=_size("--max-body"), metavar="SIZE",
            help="The largest body of a request that is not streamed.  [default: 1G]",
        ),
        click.option(
            "--rate", type=Parsed(partial(parse_number, least=0.1, most=1e6), "--rate"), metavar="N",
            help="Requests a second of one token.  [default: 1000]",
        ),
        click.option(
            "--jobs-per-token", type=Parsed(partial(parse_whole, least=1, most=10**6), "--jobs-per-token"), metavar="N",
            help="Jobs of one token that are queued or run at once.  [default: 1000]",
        ),
    ),
)  # fmt: skip


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all options, in the order in which the help page shows them."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.command("cgate", cls=HelpfulCommand, examples=EXAMPLES)
@options
@version_option
@click.argument("keys", nargs=-1, required=True, metavar="APP.pub...")
def command(keys: tuple[str, ...], where: str | None, **given: Any) -> int:
    """Serve the applications whose APP.pub is given over HTTP: start, watch, stream and stop their jobs.

    It listens on this machine alone unless --http says otherwise.  Every request needs a token: cgate token add NAME.
    """
    from cexec.gate.server import serve
    from cexec.system.process.descriptor_limit import raise_limit

    paths = [find_client_key(name) for name in keys]
    names = [os.path.basename(path).removesuffix(".pub") for path in paths]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two keys are called {min(twice)}.pub; clients tell applications apart by these names")
    if given["pcci"] and len(paths) > 1:
        raise UsageError("--pcci serves one APP.pub")
    raise_limit(WANTED_DESCRIPTORS)
    serve(_options(where, given), paths, partial(_tell, names))
    return 0


def _options(where: str | None, given: dict[str, Any]) -> Any:
    from dataclasses import replace

    from cexec.gate.access.caller_limits import DEFAULT_LIMITS
    from cexec.gate.jobs.engine import MAX_OUTPUT, EngineSettings
    from cexec.gate.server import GateOptions
    from cexec.gate.store.retention import RETENTION
    from cexec.gate.store.state_place import default_state

    retention, largest, rate = given["retention"], given["max_output"], given["rate"]
    options = GateOptions(given["state"] or default_state())
    options.address, options.port = parse_where(where)
    if given["grpc"] is not None:
        options.grpc = parse_where(given["grpc"], "--grpc", DEFAULT_GRPC_PORT)
        if missing := [name for name in NEEDED_FOR_GRPC if find_spec(name) is None]:
            raise UsageError(f"{missing[0]} is not installed; {how_to_add('gate-grpc')}")
    options.audit = given["audit"]
    options.runs = _runs(given["runs"])
    options.settings = EngineSettings(RETENTION if retention is None else retention, largest or MAX_OUTPUT)
    changes = {"body": given["max_body"], "jobs": given["jobs_per_token"], "rate": rate,
               "burst": None if rate is None else 2 * rate}  # fmt: skip
    options.limits = replace(DEFAULT_LIMITS, **{name: value for name, value in changes.items() if value is not None})
    _set_tls(options, given["tls_cert"], given["tls_key"], given["client_ca"])
    if given["pcci"]:
        options.more = import_module("cexec.gate.pcci.routes").routes
    return options


def _runs(directories: Sequence[str]) -> Sequence[str] | None:
    for directory in directories:
        if not os.path.isdir(directory):
            raise UsageError(f"--runs {directory} is no directory; give one in which there are journals of cmap")
    return directories or None


def _set_tls(options: Any, certificate: str | None, key: str | None, client_ca: str | None) -> None:
    if certificate is None and key is None and client_ca is None:
        return
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key are given together; cgate tls init DIR makes both")
    from cexec.gate.access.tls import names_of, server_context

    options.tls = server_context(certificate, key, client_ca)
    options.tls_names = names_of(certificate)
    options.tls_files = certificate, key, client_ca


def parse_where(text: str | None, option: str = "--http", default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Returns address and port of --http or --grpc: ADDRESS:PORT, ADDRESS, or :PORT."""
    if text is None:
        return DEFAULT_ADDRESS, default_port
    bare = text.strip()
    if bare.startswith("["):
        address, _, rest = bare[1:].partition("]")
        port = rest.removeprefix(":")
    elif bare.count(":") > 1:
        address, port = bare, ""
    else:
        address, _, port = bare.partition(":")
    return address or DEFAULT_ADDRESS, parse_whole(port, option, 0, 65535) if port else default_port


def _tell(names: list[str], listening: GateListening) -> None:
    """The first line: where it is, and how to get in."""
    how = "give programs a token: cgate token add NAME; open it in a browser: cgate login"
    if sys.stderr.isatty():
        from cexec.gate.access.sessions import one_time_url

        how = f"open {one_time_url(listening.database, listening.url)} (good once); programs: cgate token add NAME"
    grpc = f" and by gRPC at {listening.grpc}" if listening.grpc else ""
    print_line(f"cgate: serving {', '.join(names)} at {listening.url}{grpc}; {how}", PATIENCE)
    if listening.interrupted:
        count = show_count(listening.interrupted, "job")
        were = "was" if listening.interrupted == 1 else "were"
        print_line(f"cgate: {count} {were} interrupted when the last cgate ended", PATIENCE)


def main(argv: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    helped = not words or any(word in ("--help", "-h", "--version") for word in words)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing and not helped:
        print_error("cgate", f"{missing[0]} is not installed; {how_to_add('gate')}", PATIENCE)
        return EXIT_USAGE
    if words and words[0] in SUBCOMMANDS:
        status: int = import_module(SUBCOMMANDS[words[0]]).main(words[1:])
        return status
    return run_click(command, words, patience=PATIENCE)
