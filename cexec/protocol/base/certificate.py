"""Names, dates, signatures, and the certificate that an application's authority gives each client and worker.

Contract: a certificate's bytes from the network raise `ProtocolError` when they are malformed, `VerifyError` when they
are not the authority's or not for the role, `CertificateError` outside its dates.  A signature that was right once is
not computed again: the same workers answer again and again, and the same clients ask.  Dates are whole seconds since
1970, UTC; the wall clock is an argument.  A value that our own code makes wrongly is a `ValueError`.
docs/protocol.md section 1.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import MAXIMUM_NAME
from cexec.protocol.base.wire import Reader, Writer

ROLE_CLIENT = "client"
ROLE_WORKER = "worker"
_ROLE_CODES = {ROLE_CLIENT: 1, ROLE_WORKER: 2}
_ROLES = {code: role for role, code in _ROLE_CODES.items()}

CERTIFICATE_VERSION = 1
GRACE = 300  # seconds (protocol) that a clock may be wrong before a certificate's dates count

_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
_NO_BEFORE, _NO_AFTER = 1, 2

MAXIMUM_PROVED = 4096  # certificates (ours), of 300 bytes at most, whose signatures are known to be right
_proved: dict[bytes, None] = {}  # the authority's key, the signature and what it signs, oldest first


def valid_name(name: str) -> bool:
    """Returns True if `name` is 1 to 64 of A-Z a-z 0-9 `.` `_` `-`; every name that a peer supplies must be so."""
    return name.isascii() and 0 < len(name) <= MAXIMUM_NAME and not name.encode().translate(None, _NAME_BYTES)


def civil_date(seconds: int, *, minutes: bool = False) -> str:
    """`2026-11-21`, or with `minutes` `2026-11-21 13:05 UTC`; any integer, so that hostile dates have a name too."""
    day, second = divmod(seconds, 86_400)
    # The Gregorian calendar repeats every 400 years (146,097 days); a year that begins in March ends with the leap day.
    era, day_of_era = divmod(day + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day_of_month = day_of_year - (153 * month + 2) // 5 + 1
    month, year = (month + 3, 0) if month < 10 else (month - 9, 1)
    date = f"{era * 400 + year_of_era + year:04d}-{month:02d}-{day_of_month:02d}"
    return f"{date} {second // 3600:02d}:{second // 60 % 60:02d} UTC" if minutes else date


# Signatures


def _labelled(label: bytes, parts: tuple[bytes, ...]) -> bytes:
    return len(label).to_bytes(1, "big") + label + b"".join(parts)


def verify_signature(public_key: bytes, signature: bytes, label: bytes, *parts: bytes) -> None:
    """Raises `VerifyError` unless `signature` is what the holder's `Identity.sign(label, *parts)` returned."""
    sodium.verify(public_key, _labelled(label, parts), signature)


def sign_statement(signing_seed: bytes, label: bytes, *parts: bytes) -> bytes:
    """Returns the signature over `label` and `parts` by the holder of a seed; `Identity.sign` does it more often."""
    return sodium.sign(sodium.signing_key(signing_seed), _labelled(label, parts))


class Certificate:
    """A statement of the authority about one client or worker.  It does not change once it is signed."""

    __slots__ = ("_encoded", "name", "not_after", "not_before", "public_key", "role", "serial", "signature")

    LABEL = b"cexec 1 certificate"

    def __init__(
        self,
        role: str,
        name: str,
        serial: int,
        not_before: int | None,
        not_after: int | None,
        public_key: bytes,
        signature: bytes,
    ) -> None:
        if role not in _ROLE_CODES or not valid_name(name):
            raise ValueError(f"no certificate has the role {role!r} and the name {name!r}")
        self.role = role
        self.name = name
        self.serial = serial
        self.not_before = not_before
        self.not_after = not_after
        self.public_key = public_key
        self.signature = signature
        self._encoded = b""  # from its first use on: a worker puts its own into every alert

    @classmethod
    def issue(
        cls,
        authority_seed: bytes,
        role: str,
        name: str,
        serial: int,
        public_key: bytes,
        not_before: int | None = None,
        not_after: int | None = None,
    ) -> Certificate:
        """A certificate signed by the authority; the same arguments give the same bytes."""
        certificate = cls(role, name, serial, not_before, not_after, public_key, b"")
        certificate.signature = sign_statement(authority_seed, cls.LABEL, certificate.signed_part())
        return certificate

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Reads `encode`'s bytes; `ProtocolError` for any others.  Nothing that the certificate says is checked yet."""
        reader = Reader(data)
        if reader.u8() != CERTIFICATE_VERSION:
            raise ProtocolError("certificate is of an unknown version")
        role = _ROLES.get(reader.u8())
        name = reader.text()
        serial = reader.u64()
        flags = reader.u8()
        if role is None or not valid_name(name) or flags > _NO_BEFORE + _NO_AFTER:
            raise ProtocolError("certificate is malformed")
        not_before = None if flags & _NO_BEFORE else reader.u64()
        not_after = None if flags & _NO_AFTER else reader.u64()
        public_key = reader.take(sodium.KEY_SIZE)
        signature = reader.take(sodium.SIGNATURE_SIZE)
        reader.finish()
        return cls(role, name, serial, not_before, not_after, public_key, signature)

    def encode(self) -> bytes:
        self._encoded = self._encoded or self.signed_part() + self.signature
        return self._encoded

    def signed_part(self) -> bytes:
        writer = Writer().u8(CERTIFICATE_VERSION).u8(_ROLE_CODES[self.role]).text(self.name).u64(self.serial)
        writer.u8((_NO_BEFORE if self.not_before is None else 0) | (_NO_AFTER if self.not_after is None else 0))
        for date in (self.not_before, self.not_after):
            if date is not None:
                writer.u64(date)
        return bytes(writer.raw(self.public_key))

    def check(self, authority_public: bytes, role: str, wall_now: float) -> None:
        """Checks signature, role and dates; `wall_now` is seconds since 1970."""
        self.check_signature(authority_public, role)
        self.check_dates(wall_now)

    def check_signature(self, authority_public: bytes, role: str) -> None:
        """Raises `VerifyError` unless the authority signed it, for `role`."""
        signed = self.signed_part()
        proved = authority_public + self.signature + signed
        if proved not in _proved:
            verify_signature(authority_public, self.signature, self.LABEL, signed)
            while len(_proved) >= MAXIMUM_PROVED:
                del _proved[next(iter(_proved))]
            _proved[proved] = None
        if self.role != role:
            raise VerifyError(f"certificate of {self.name} is for a {self.role}, not for a {role}")

    def check_dates(self, wall_now: float) -> None:
        """Raises `CertificateError` outside the certificate's dates and `GRACE`."""
        if self.not_before is not None and wall_now < self.not_before - GRACE:
            self._refuse("is not valid before", self.not_before, int(wall_now))
        if self.not_after is not None and wall_now > self.not_after + GRACE:
            self._refuse("expired on", self.not_after, int(wall_now))

    def _refuse(self, how: str, date: int, now: int) -> None:
        from cexec.errors import CertificateError  # most certificates are valid

        minutes = civil_date(date) == civil_date(now)
        said, clock = civil_date(date, minutes=minutes), civil_date(now, minutes=minutes)
        raise CertificateError(f"certificate of {self.name} {how} {said} and this machine's clock says {clock}")


class Identity:
    """A certificate and the secret signing seed that belongs to it."""

    __slots__ = ("_signing_key", "certificate", "signing_seed")

    def __init__(self, certificate: Certificate, signing_seed: bytes) -> None:
        self.certificate = certificate
        self.signing_seed = signing_seed
        self._signing_key = b""  # from its first use on

    @property
    def public_key(self) -> bytes:
        """The public key of the seed, which is that of the certificate unless they do not belong together."""
        return self._expanded()[sodium.KEY_SIZE :]

    def sign(self, label: bytes, *parts: bytes) -> bytes:
        """The signature over `label` (its length before it) and `parts` joined: all but the last of a fixed size."""
        return sodium.sign(self._expanded(), _labelled(label, parts))

    def _expanded(self) -> bytes:
        self._signing_key = self._signing_key or sodium.signing_key(self.signing_seed)
        return self._signing_key
