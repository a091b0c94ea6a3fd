"""Says in lines for a person what a file of an application is, and what was issued.

Contract: `describe_file` reads any file that ckeygen makes, `list_issued` the record of a private key; both return
lines without a secret.  A file that is none of these is a `KeyFileError`.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from cexec.authority.issue import current_list
from cexec.authority.make import read_owner
from cexec.authority.record import read_record
from cexec.errors import KeyFileError
from cexec.protocol.base.certificate import GRACE, civil_date
from cexec.protocol.base.keys import ClientKey, OwnerKey, RelayKey, WorkerKey
from cexec.protocol.base.revocation import LIST_HEAD, decode_list
from cexec.system.storage.keyfile import WRITABLE_BY_OTHERS, read_guarded, read_key
from cexec.system.storage.revocations import LARGEST_LIST

if TYPE_CHECKING:
    from cexec.authority.record import Issued, IssueRecord
    from cexec.protocol.base.keys import Key
    from cexec.protocol.base.revocation import RevocationList

NO_DATE = "no date"


def describe_file(path: str) -> list[str]:
    """Returns the kind of a file, and what it says of its application and its holder."""
    listed = _list_in(path)
    if listed is not None:
        return _list_description(listed)
    return _key_description(read_key(path, (OwnerKey, ClientKey, WorkerKey, RelayKey)))


def list_issued(app: str) -> list[str]:
    """Returns a table of the certificates that were issued with the private key in `app`."""
    owner = read_owner(app, "the record is the private key's, APP")
    record = read_record(app)
    listed = current_list(app, owner)
    rows = [("ROLE", "NAME", "SERIAL", "ISSUED", "ENDS", "STATE")]
    now = time.time()
    for one in record.certificates():
        issued = "with APP.pub" if one.issued is None else civil_date(one.issued, minutes=True)
        ends = "never" if one.not_after is None else civil_date(one.not_after, minutes=True)
        rows.append((one.role, one.name, str(one.serial), issued, ends, _state(one, record, listed, now)))
    known = {one.serial for one in record.certificates()}
    for serial, name in sorted(({} if listed is None else listed.revoked).items()):
        if serial not in known:
            rows.append(("?", name, str(serial), "elsewhere", "?", "revoked"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if record.damaged:
        lines.append(f"{record.damaged} damaged lines of {app}.issued were read over")
    return lines


def _state(one: Issued, record: IssueRecord, listed: RevocationList | None, now: float) -> str:
    if listed is not None and one.serial in listed.revoked:
        return "revoked"
    if one.serial in record.revoked:
        return "revoked, but not yet in APP.revoked: revoke it again"
    return "expired" if one.not_after is not None and now > one.not_after + GRACE else "valid"


def _list_in(path: str) -> RevocationList | None:
    """Returns the list in a file; None if the file is something else, which may be a key in a pipe."""
    if not _begins_like_a_list(path):
        return None
    try:
        return decode_list(read_guarded(path, WRITABLE_BY_OTHERS, LARGEST_LIST))
    except KeyFileError as error:
        raise KeyFileError(f"{path} {error}") from None


def _begins_like_a_list(path: str) -> bool:
    """Looks into a regular file only: what is read from a pipe is gone."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            lines = file.read(LARGEST_LIST).split(b"\n")
    except OSError:
        return False
    counting = (line.strip() for line in lines if line.strip() and not line.strip().startswith(b"#"))
    return next(counting, b"").startswith(LIST_HEAD.encode())


def _list_description(listed: RevocationList) -> list[str]:
    return [
        "kind: list of revoked certificates",
        f"fingerprint: {listed.fingerprint}",
        f"list: {listed.serial}",
        *(f"revoked: {name}, serial {serial}" for serial, name in sorted(listed.revoked.items())),
    ]


def _key_description(key: Key) -> list[str]:
    lines = [f"kind: {key.description}", f"fingerprint: {key.fingerprint}"]
    if key.from_input:
        lines.append("made from: standard input, and exactly as secret")
    if isinstance(key, ClientKey | WorkerKey):
        certificate = key.identity.certificate
        lines += [f"{certificate.role}: {certificate.name}", f"serial: {certificate.serial}"]
        for word, date in (("valid from", certificate.not_before), ("valid until", certificate.not_after)):
            lines.append(f"{word}: {NO_DATE if date is None else civil_date(date, minutes=True)}")
    return lines
