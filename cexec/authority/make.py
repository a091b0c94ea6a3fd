"""Makes an application's private key APP, and the files that follow from it alone: APP.pub and APP.relay.

Contract: `make` writes each file whole or not at all and never replaces one; two of them at once on one APP end with
the same files.  Failures are `KeyMakingError`, which has ckeygen's exit status.
"""

from __future__ import annotations

import os
import signal

from cexec.errors import CexecError, KeyFileError, LocalError
from cexec.protocol.base import sodium
from cexec.protocol.base.keys import ClientKey, Key, OwnerKey, RelayKey, encode_key
from cexec.system.storage.keyfile import read_key
from cexec.system.storage.whole_files import write_new

# The ancestor's exit statuses; 100 and 111 are those of errors.py.
EXIT_PRIVATE_INVALID = 101
EXIT_PUBLIC = 102
EXIT_PRIVATE_UNWRITABLE = 103
EXIT_OTHER_INPUT = 104


class KeyMakingError(CexecError):
    """An error with ckeygen's own exit status."""

    def __init__(self, exit_status: int, message: str) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def make(app: str, public: str, relay: str | None, wanted: OwnerKey | None) -> OwnerKey:
    """Makes those of the files that do not exist, and returns the private key.

    `relay` is None if no relay's key is wanted, `wanted` is the private key if it must be a certain one.
    """
    # APP is written before APP.pub, so an APP.pub that was there when APP was not belongs to some other key; then
    # nothing is written, rather than a private key whose public half is missing.
    public_was_there = os.path.lexists(public)
    owner = _existing_owner(app, wanted) if os.path.lexists(app) else None
    if owner is None:
        owner = wanted or OwnerKey(sodium.random_bytes(sodium.KEY_SIZE))
        if public_was_there:
            _compare(public, owner.client_key())
        try:
            write_undisturbed(app, owner)
        except FileExistsError:
            owner = _existing_owner(app, wanted)
        except LocalError as error:
            raise KeyMakingError(EXIT_PRIVATE_UNWRITABLE, str(error)) from None
    _write_or_compare(public, owner.client_key())
    if relay is not None:
        _write_or_compare(relay, owner.relay_key())
    return owner


def read_owner(app: str, what: str) -> OwnerKey:
    """Returns the private key in `app`; `what` tells the user what is needed instead of another kind."""
    try:
        return read_key(app, (OwnerKey,), what)
    except KeyFileError as error:
        raise KeyMakingError(EXIT_PRIVATE_INVALID, str(error)) from None


def write_undisturbed(path: str, key: Key) -> None:
    """Writes a key; a signal waits for the few milliseconds, so that no draft of a secret stays behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
    try:
        write_new(path, encode_key(key))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _existing_owner(app: str, wanted: OwnerKey | None) -> OwnerKey:
    owner = read_owner(app, "APP must be the private key or not exist yet")
    if wanted is not None and not sodium.equal(owner.seed, wanted.seed):
        raise KeyMakingError(EXIT_OTHER_INPUT, f"{app} exists and is not the key of this standard input")
    return owner


def _write_or_compare(path: str, key: ClientKey | RelayKey) -> None:
    if not os.path.lexists(path):
        try:
            write_undisturbed(path, key)
            return
        except FileExistsError:
            pass  # another ckeygen was faster
        except LocalError as error:
            raise KeyMakingError(EXIT_PUBLIC, str(error)) from None
    _compare(path, key)


def _compare(path: str, key: ClientKey | RelayKey) -> None:
    """Returns if the file at `path` holds just this key; its holder's comments do not count."""
    try:
        found = read_key(path, (type(key),), "it is in the way and was left untouched")
    except KeyFileError as error:
        raise KeyMakingError(EXIT_PUBLIC, str(error)) from None
    if encode_key(found) != encode_key(key):
        raise KeyMakingError(EXIT_PUBLIC, f"{path} belongs to another private key and was left untouched")
