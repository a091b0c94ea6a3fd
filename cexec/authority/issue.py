"""Issues keys for one client or one worker, and revokes them.

Contract: `issue` writes a new key file that can issue nothing itself; the record beside APP has the certificate first.
`revoke` adds certificates to APP.revoked, which it replaces as a whole; the serial of that list only grows, also if the
file was lost, because the record has it too.  docs/protocol.md sections 1.3 and 1.6.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cexec.authority.make import EXIT_PUBLIC, KeyMakingError, read_owner, write_undisturbed
from cexec.authority.record import Issued, OpenRecord
from cexec.errors import KeyFileError, LocalError, UsageError
from cexec.protocol.base.certificate import ROLE_CLIENT, valid_name
from cexec.protocol.base.keys import random_serial
from cexec.protocol.base.limits import MAXIMUM_NAME
from cexec.protocol.base.revocation import (
    LARGEST_SERIAL,
    MAXIMUM_REVOKED,
    UNKNOWN_NAME,
    RevocationList,
    decode_list,
    encode_list,
)
from cexec.system.storage.keyfile import WRITABLE_BY_OTHERS, read_guarded
from cexec.system.storage.revocations import LARGEST_LIST
from cexec.system.storage.user_files import SUFFIX as LIST_SUFFIX
from cexec.system.storage.whole_files import replace_file

if TYPE_CHECKING:
    from cexec.protocol.base.keys import ClientKey, OwnerKey, WorkerKey

SECONDS_OF_A_DAY = 86_400
LONGEST_DAYS = 100_000  # (ours) 270 years
LIST_MODE = 0o644  # the list has names and numbers, and no secret
WHAT = "keys are issued and revoked with the private key, APP"


def issue(app: str, path: str, role: str, name: str, days: int | None) -> ClientKey | WorkerKey:
    """Writes a key for one client or worker to `path`; it is valid for `days`, or without an end."""
    if not valid_name(name):
        raise UsageError(f"--{role} {name!r}: up to {MAXIMUM_NAME} letters, digits, dots, - and _")
    owner = read_owner(app, WHAT)
    if os.path.lexists(path):
        raise KeyMakingError(EXIT_PUBLIC, f"{path} exists and was left untouched")
    now = int(time.time())
    not_after = None if days is None else now + days * SECONDS_OF_A_DAY
    make_key = owner.issue_client if role == ROLE_CLIENT else owner.issue_worker
    key: ClientKey | WorkerKey = make_key(name, random_serial(), not_after)
    with OpenRecord(app) as opened:
        opened.add_issued(Issued(role, name, key.identity.certificate.serial, now, not_after))
    try:
        write_undisturbed(path, key)
    except FileExistsError:
        raise KeyMakingError(EXIT_PUBLIC, f"{path} exists and was left untouched") from None
    except LocalError as error:
        raise KeyMakingError(EXIT_PUBLIC, str(error)) from None
    return key


def revoke(app: str, who: str) -> tuple[RevocationList, list[int]]:
    """Revokes all certificates with a name, or the one with a serial; returns the new list and what is new in it."""
    owner = read_owner(app, WHAT)
    path = app + LIST_SUFFIX
    with OpenRecord(app) as opened:
        record = opened.record
        current = current_list(app, owner)
        names = {one.serial: one.name for one in record.certificates()}
        revoked = {serial: names.get(serial, UNKNOWN_NAME) for serial in record.revoked}
        if current is not None:
            revoked |= current.revoked
        serials = [one.serial for one in record.certificates() if one.name == who]
        if not serials and who.isascii() and who.isdigit() and int(who) <= LARGEST_SERIAL:
            serials = [int(who)]
        if not serials:
            raise KeyMakingError(
                EXIT_PUBLIC, f"no certificate was issued to {who} (ckeygen --list {app}); its serial does as well"
            )
        new = [serial for serial in serials if serial not in revoked]
        revoked |= {serial: names.get(serial, UNKNOWN_NAME) for serial in new}
        if len(revoked) > MAXIMUM_REVOKED:
            raise KeyMakingError(EXIT_PUBLIC, f"{path} would have more than {MAXIMUM_REVOKED} entries: make a new key")
        last = max(record.latest_list, 0 if current is None else current.serial)
        if current is not None and not new and current.serial == last:
            return current, []
        changed = RevocationList(owner.authority_public, owner.fingerprint, last + 1, revoked)
        opened.add_revoked(new or serials, changed.serial, int(time.time()))
        try:
            replace_file(path, encode_list(changed, owner.authority_seed), LIST_MODE)
        except LocalError as error:
            raise KeyMakingError(EXIT_PUBLIC, str(error)) from None
        return changed, new


def current_list(app: str, owner: OwnerKey) -> RevocationList | None:
    """Returns the list beside `app`, if there is one."""
    path = app + LIST_SUFFIX
    if not os.path.lexists(path):
        return None
    try:
        found = decode_list(read_guarded(path, WRITABLE_BY_OTHERS, LARGEST_LIST))
    except KeyFileError as error:
        raise KeyMakingError(EXIT_PUBLIC, f"{path} {error}; remove it, and it is made again from the record") from None
    if found.authority_public != owner.authority_public:
        raise KeyMakingError(EXIT_PUBLIC, f"{path} is the list of another application and was left untouched")
    return found
