"""ckeygen: makes an application's keys, and shows what a key file is.

Contract: `main(argv)` returns the exit status of ckeygen(1).  Files are written whole or not at all and never replaced;
two ckeygen at once on one APP end with the same two files.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import click

from cexec import __version__
from cexec.commands.common import print_line, run_click
from cexec.errors import CexecError, KeyFileError, LocalError, UsageError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import civil_date
from cexec.protocol.base.keys import ClientKey, Key, OwnerKey, RelayKey, WorkerKey, encode_key
from cexec.system.reason import reason_of
from cexec.system.storage.keyfile import forbid_core_files, quoted, read_key, write_new

if TYPE_CHECKING:
    from collections.abc import Iterator

# The ancestor's exit statuses; 100 and 111 are those of errors.py.
EXIT_PRIVATE_INVALID = 101
EXIT_PUBLIC = 102
EXIT_PRIVATE_UNWRITABLE = 103
EXIT_OTHER_INPUT = 104

INPUT_CHUNK = 256 * 1024  # bytes (ours) of standard input hashed at a time


class _Failure(CexecError):
    """An error with ckeygen's own exit status."""

    def __init__(self, exit_status: int, message: str) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@click.command("ckeygen", help="Make the private key APP, and APP.pub, the key for clients.  Existing keys stay.")
@click.option("-stdin", "--stdin", "from_input", is_flag=True, help="Derive the key from a hash of standard input.")
@click.option("--relay", is_flag=True, help="Also make APP.relay, for relays that forward this application only.")
@click.option("--show", metavar="FILE", help="Print what kind of key FILE is, its fingerprint, names and dates.")
@click.argument("app", required=False)
@click.argument("public", metavar="[APP.pub]", required=False)
@click.version_option(__version__, prog_name="ckeygen", message="%(prog)s %(version)s")
def _command(from_input: bool, relay: bool, show: str | None, app: str | None, public: str | None) -> int:
    if show is not None:
        if app is not None or from_input or relay:
            raise UsageError("--show takes one file and nothing else")
        return _show(show)
    if not app:
        raise UsageError("the name of the application's key is missing; see ckeygen --help")
    public = public or f"{app}.pub"
    _refuse_one_name([app, public, *([f"{app}.relay"] if relay else [])])
    return _make(app, public, f"{app}.relay" if relay else None, _owner_from_input() if from_input else None)


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


def _make(app: str, public: str, relay: str | None, wanted: OwnerKey | None) -> int:
    # APP is written before APP.pub, so an APP.pub that was there when APP was not belongs to some other key; then
    # nothing is written, rather than a private key whose public half is missing.
    public_was_there = os.path.lexists(public)
    owner = _existing_owner(app, wanted) if os.path.lexists(app) else None
    if owner is None:
        owner = wanted or OwnerKey(sodium.random_bytes(sodium.KEY_SIZE))
        if public_was_there:
            _compare(public, owner.client_key())
        try:
            _write_undisturbed(app, owner)
        except FileExistsError:
            owner = _existing_owner(app, wanted)
        except LocalError as error:
            raise _Failure(EXIT_PRIVATE_UNWRITABLE, str(error)) from None
    _write_or_compare(public, owner.client_key())
    if relay is not None:
        _write_or_compare(relay, owner.relay_key())
    _tell(app, public, relay, owner)
    return 0


def _existing_owner(app: str, wanted: OwnerKey | None) -> OwnerKey:
    try:
        owner = read_key(app, (OwnerKey,), "APP must be the private key or not exist yet")
    except KeyFileError as error:
        raise _Failure(EXIT_PRIVATE_INVALID, str(error)) from None
    if wanted is not None and not sodium.equal(owner.seed, wanted.seed):
        raise _Failure(EXIT_OTHER_INPUT, f"{app} exists and is not the key of this standard input")
    return owner


def _write_or_compare(path: str, key: ClientKey | RelayKey) -> None:
    if not os.path.lexists(path):
        try:
            _write_undisturbed(path, key)
            return
        except FileExistsError:
            pass  # another ckeygen was faster
        except LocalError as error:
            raise _Failure(EXIT_PUBLIC, str(error)) from None
    _compare(path, key)


def _write_undisturbed(path: str, key: Key) -> None:
    """Writes a key; a signal waits for the few milliseconds, so that no draft of a secret stays behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
    try:
        write_new(path, encode_key(key))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _compare(path: str, key: ClientKey | RelayKey) -> None:
    """Returns True if the file at `path` holds just this key; its holder's comments do not count."""
    try:
        found = read_key(path, (type(key),), "it is in the way and was left untouched")
    except KeyFileError as error:
        raise _Failure(EXIT_PUBLIC, str(error)) from None
    if encode_key(found) != encode_key(key):
        raise _Failure(EXIT_PUBLIC, f"{path} belongs to another private key and was left untouched")


def _tell(app: str, public: str, relay: str | None, owner: OwnerKey) -> None:
    app, public = quoted(app), quoted(public)
    print_line(f"{app} is the private key of {owner.fingerprint}: on the workers run  cservice {app} PROGRAM")
    print_line(f"{public} is for the clients, copy it there and keep it secret: whoever holds it may run jobs")
    if relay is not None:
        print_line(f"{quoted(relay)} is for relays:  cproxy --only {quoted(relay)} SELF")
    if owner.from_input:
        print_line("both are exactly as secret as the standard input was: public input makes a public key")


def _show(path: str) -> int:
    try:
        key = read_key(path, (OwnerKey, ClientKey, WorkerKey, RelayKey))
    except KeyFileError as error:
        raise _Failure(EXIT_PRIVATE_INVALID, str(error)) from None
    click.echo("\n".join(_description(key)))
    return 0


def _description(key: Key) -> list[str]:
    """Nothing here is secret."""
    lines = [f"kind: {key.description}", f"fingerprint: {key.fingerprint}"]
    if key.from_input:
        lines.append("made from: standard input, and exactly as secret")
    if isinstance(key, ClientKey | WorkerKey):
        certificate = key.identity.certificate
        lines += [f"{certificate.role}: {certificate.name}", f"serial: {certificate.serial}"]
        for word, date in (("valid from", certificate.not_before), ("valid until", certificate.not_after)):
            lines.append(f"{word}: {'no date' if date is None else civil_date(date, minutes=True)}")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Runs ckeygen with `argv` (default: the process's arguments)."""
    forbid_core_files()
    return run_click(_command, argv)
