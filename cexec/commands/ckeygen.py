"""ckeygen(1): makes an application's keys, issues and revokes those of single clients and workers, and shows them.

Contract: `main(argv)` returns the exit status of ckeygen(1).  A call does one thing: it makes APP and APP.pub unless an
option names something else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cexec.authority.issue import LONGEST_DAYS, issue, revoke
from cexec.authority.make import EXIT_PRIVATE_INVALID, KeyMakingError, make
from cexec.authority.show import describe_file, list_issued
from cexec.commands.common import print_line, run_click
from cexec.commands.help_page import HelpfulCommand, section, version_option
from cexec.errors import KeyFileError, LocalError, UsageError
from cexec.protocol.base.certificate import ROLE_CLIENT, ROLE_WORKER, civil_date
from cexec.protocol.base.keys import OwnerKey
from cexec.system.reason import reason_of
from cexec.system.storage.keyfile import find_key, forbid_core_files
from cexec.system.storage.user_files import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cexec.commands.help_page import Decorator

INPUT_CHUNK = 256 * 1024  # bytes (ours) of standard input hashed at a time


EXAMPLES = (
    ("ckeygen app", "make app for the workers and app.pub for the clients"),
    ("ckeygen --client laptop --days 90 app laptop.pub", "a key for one client, which can be revoked alone"),
    ("ckeygen --show app.pub", "the fingerprint, which must be the same at the worker and at the client"),
)
OPTIONS: tuple[Decorator, ...] = (
    *section(
        "Making keys",
        click.option(
            "-stdin", "--stdin", "from_input", is_flag=True, help="Derive the key from a hash of standard input."
        ),
        click.option(
            "--relay", is_flag=True, help="Also make APP.relay, for relays that forward this application only."
        ),
    ),
    *section(
        "Keys of single machines",
        click.option("--client", metavar="NAME", help="Issue a key for one client: --client NAME APP FILE."),
        click.option(
            "--worker",
            metavar="NAME",
            help="Issue a key for one worker, which can issue none: --worker NAME APP FILE.",
        ),
        click.option(
            "--days", type=click.IntRange(1, LONGEST_DAYS), metavar="N", help="The issued key ends after N days."
        ),
        click.option("--list", "list_of", metavar="APP", help="Print what was issued with APP, and when it ends."),
        click.option(
            "--revoke",
            "who",
            metavar="WHO",
            help="Revoke the keys of a name, or a serial: --revoke NAME|SERIAL APP.",
        ),
    ),
    *section(
        "Handing keys over, and looking at them",
        click.option(
            "--give", metavar="APP.pub", help="Print a code, and give this key to the machine where it is typed."
        ),
        click.option(
            "--take", "code", metavar="CODE", help="Take the key that another machine gives: --take CODE [FILE]."
        ),
        click.option(
            "--show", metavar="FILE", help="Print what kind of file FILE is, its fingerprint, names and dates."
        ),
    ),
)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.command(
    "ckeygen",
    cls=HelpfulCommand,
    examples=EXAMPLES,
    help="Make the keys of an application: APP, the private key, for its workers, and APP.pub for its clients.  "
    "A file that exists is never overwritten.",
)
@_options
@version_option
@click.argument("app", required=False)
@click.argument("file", metavar="[APP.pub]", required=False)
def _command(
    from_input: bool,
    relay: bool,
    client: str | None,
    worker: str | None,
    days: int | None,
    list_of: str | None,
    who: str | None,
    give: str | None,
    code: str | None,
    show: str | None,
    app: str | None,
    file: str | None,
) -> int:
    issued = [(role, name) for role, name in ((ROLE_CLIENT, client), (ROLE_WORKER, worker)) if name is not None]
    given = {"show": show, "list": list_of, "give": give, "take": code, "revoke": who, **dict(issued)}
    _refuse_mixture(given, from_input or relay)
    if days is not None and not issued:
        raise UsageError("--days needs --client or --worker")
    if code is not None:
        if file is not None:
            raise UsageError("--take takes CODE, then the FILE to write, and nothing else")
        return _take(code, app)
    for option, value, action in (("show", show, _show), ("list", list_of, _list), ("give", give, _give)):
        if value is not None:
            if app is not None:
                raise UsageError(f"--{option} takes one file and nothing else")
            return action(_existing(value))
    if not app:
        raise UsageError("the name of the application's key is missing; see ckeygen --help")
    if who is not None:
        if file is not None:
            raise UsageError("--revoke takes NAME or SERIAL, then APP, and nothing else")
        return _revoke(app, who)
    for role, name in issued:
        if not file:
            raise UsageError(f"--{role} takes NAME, then APP, then the FILE to write")
        return _issue(app, file, role, name, days)
    public = file or f"{app}.pub"
    _refuse_one_name([app, public, *([f"{app}.relay"] if relay else [])])
    relay_path = f"{app}.relay" if relay else None
    there = {path for path in (app, public, relay_path) if path and os.path.lexists(path)}
    owner = make(app, public, relay_path, _owner_from_input() if from_input else None)
    _tell(app, public, relay_path, owner, there)
    return 0


def _refuse_mixture(actions: dict[str, str | None], makes: bool) -> None:
    """A call does one thing."""
    given = [f"--{name}" for name, value in actions.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} cannot be used together")
    if given and makes:
        raise UsageError(f"{given[0]} cannot be used with --stdin or --relay")


def _refuse_one_name(paths: list[str]) -> None:
    places = [os.path.realpath(path) for path in paths]
    if len(set(places)) < len(places):
        raise UsageError(f"{' and '.join(paths)} must be different files")


def _owner_from_input() -> OwnerKey:
    def chunks() -> Iterator[bytes]:
        while chunk := os.read(0, INPUT_CHUNK):
            yield chunk

    try:
        return OwnerKey.from_standard_input(chunks())
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise LocalError(f"cannot read standard input: {reason_of(error)}") from None


def _tell(app: str, public: str, relay: str | None, owner: OwnerKey, there: Collection[str]) -> None:
    """`there` are the files that existed before."""

    def subject(path: str) -> str:
        return f"{quoted(path)} exists already, unchanged; it is" if path in there else f"{quoted(path)} is"

    run = f"on the workers run  cservice {quoted(app)} PROGRAM"
    print_line(f"{subject(app)} the private key of {owner.fingerprint}: {run}")
    print_line(f"{subject(public)} for the clients, copy it there and keep it secret: whoever holds it may run jobs")
    if relay is not None:
        print_line(f"{subject(relay)} for relays:  cproxy --only {quoted(relay)} SELF")
    if owner.from_input:
        print_line("both are exactly as secret as the standard input was: public input makes a public key")


def _existing(name: str) -> str:
    """Returns the path of a key file that must be there, here or in the user's configuration."""
    try:
        return find_key(name)
    except KeyFileError as error:
        raise KeyMakingError(EXIT_PRIVATE_INVALID, str(error)) from None


def _issue(app: str, path: str, role: str, name: str, days: int | None) -> int:
    certificate = issue(_existing(app), path, role, name, days).identity.certificate
    end = "without an end" if certificate.not_after is None else f"until {civil_date(certificate.not_after)}"
    use = f"cexec {quoted(path)}" if role == ROLE_CLIENT else f"cservice {quoted(path)} PROGRAM"
    print_line(f"{quoted(path)} is the key of the {role} {name}, serial {certificate.serial}, {end}:  {use}")
    return 0


def _revoke(app: str, who: str) -> int:
    app = _existing(app)
    listed, new = revoke(app, who)
    path = quoted(f"{app}.revoked")
    if not new:
        print_line(f"{who} was revoked before; {path} is list {listed.serial}")
    else:
        serials = ", ".join(map(str, new))
        print_line(f"{path} is list {listed.serial} and revokes {who} (serial {serials}); copy it beside every key")
        print_line(f"its holder still knows the psk of {listed.fingerprint}; only a new key shuts it out of everything")
    return 0


def _give(path: str) -> int:
    from cexec.authority.code import Code
    from cexec.authority.handover import give  # only these two options need a network

    code = Code.new()

    def ready() -> None:
        click.echo(str(code))
        print_line(f"on the other machine type, within ten minutes:  ckeygen --take {code}")

    give(path, code, os.environ, ready)
    print_line(f"{quoted(path)} was taken")
    return 0


def _take(text: str, path: str | None) -> int:
    from cexec.authority.code import Code
    from cexec.authority.handover import take

    where, key = take(Code.parse(text), path, os.environ)
    print_line(f"{quoted(where)} is a {key.description} of {key.fingerprint}; keep it secret")
    return 0


def _list(app: str) -> int:
    click.echo("\n".join(list_issued(app)))
    return 0


def _show(path: str) -> int:
    try:
        lines = describe_file(path)
    except KeyFileError as error:
        raise KeyMakingError(EXIT_PRIVATE_INVALID, str(error)) from None
    click.echo("\n".join(lines))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs ckeygen with `argv` (default: the process's arguments)."""
    forbid_core_files()
    return run_click(_command, argv)
