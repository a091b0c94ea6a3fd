"""TLS: the context of the server, and a small authority of one's own (`cgate tls init`).

Contract: `make_materials` makes the files of `FILES` in a directory, all or none, readable by their owner alone, and
never replaces one; `make_client` makes a further client's certificate there.  For gRPC the common name of a client's
certificate is the name of its token.  `server_context` reads certificate and key and refuses a pair that does not fit,
or has ended; with `client_ca` every connection needs a certificate of that authority (and a token, as always).
`names_of` returns the names that a server's certificate is for.  All raise `LocalError`, which names the file.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import ssl
import stat
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
CA_DAYS = 3650  # (ours)
DAYS = 825  # (ours) the longest that some browsers accept of a server's certificate
SKEW = timedelta(hours=1)  # (ours) by which a client's clock may be behind
CLIENT = "client"  # (ours) the common name of the first client, unless it is given
ALWAYS = ("localhost", "127.0.0.1", "::1")


def make_materials(
    directory: str, names: Iterable[str], now: datetime | None = None, client: str = CLIENT
) -> list[str]:
    """Returns the paths of the new files.

    `names`: the server's host names and numeric addresses; `client`: the common name of the client's certificate.
    """
    begin = now or datetime.now(UTC)
    alternatives = [_alternative(name) for name in dict.fromkeys([*names, *ALWAYS])]
    ca, ca_key = _certificate("cgate CA", begin, CA_DAYS, authority=None)
    server, server_key = _certificate("cgate server", begin, DAYS, authority=(ca, ca_key), names=alternatives)
    caller, caller_key = _certificate(client, begin, DAYS, authority=(ca, ca_key))
    contents = [_pem(ca), _key_pem(ca_key), _pem(server), _key_pem(server_key), _pem(caller), _key_pem(caller_key)]
    return _write_all(directory, dict(zip(FILES, contents, strict=True)))


def make_client(directory: str, name: str, now: datetime | None = None) -> list[str]:
    """Returns the paths of NAME.pem and NAME.key, which the authority in this directory has signed."""
    authority = _load(os.path.join(directory, FILES[0])), _load_key(os.path.join(directory, FILES[1]))
    made, key = _certificate(name, now or datetime.now(UTC), DAYS, authority=authority)
    return _write_all(directory, {f"{name}.pem": _pem(made), f"{name}.key": _key_pem(key)})


def server_context(certificate: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (certificate, key, *([client_ca] if client_ca else [])):
        _check_readable(path)
    _check_private(key)
    _check_dates(certificate)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise LocalError(f"{certificate} and {key} are no certificate and its key: {_reason(error)}") from None
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise LocalError(f"{client_ca} is no certificate of an authority: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def names_of(certificate: str) -> list[str]:
    """Returns the DNS names and addresses of the certificate."""
    from cryptography import x509

    try:
        extension = _load(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *extension.get_values_for_type(x509.DNSName),
        *map(str, extension.get_values_for_type(x509.IPAddress)),
    ]


def _alternative(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    try:
        labels = name.encode("idna").decode().removeprefix("*.").split(".")
    except UnicodeError:
        labels = [""]
    if not all(label.replace("-", "a").replace("_", "a").isalnum() for label in labels):
        raise UsageError(f"{name!r} is neither the name of a host nor a numeric address")
    return x509.DNSName(name.encode("idna").decode())


def _certificate(
    name: str,
    begin: datetime,
    days: int,
    *,
    authority: tuple[x509.Certificate, EllipticCurvePrivateKey] | None,
    names: list[x509.GeneralName] | None = None,
) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """Returns a certificate: that of an authority, else with `names` that of a server, else that of a client."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (subject, key) if authority is None else (authority[0].subject, authority[1])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - SKEW)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=0 if authority is None else None), True)
        .add_extension(_usage(ca=authority is None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    )
    if authority is not None:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return builder.sign(signer, hashes.SHA256()), key


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_all(directory: str, contents: dict[str, bytes]) -> list[str]:
    made: list[str] = []
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in contents:
                if _exists(name, folder):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            for name, content in contents.items():
                write_new(name, content, folder)
                made.append(name)
        except BaseException:
            for name in made:
                os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(folder)
    except FileExistsError as error:
        name = error.filename if error.filename in contents else ""
        raise LocalError(f"{os.path.join(directory, name)} exists already, and nothing is replaced") from None
    except OSError as error:
        raise LocalError(f"cannot write to {directory}: {reason_of(error)}") from None
    return [os.path.join(directory, name) for name in contents]


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_new(name: str, content: bytes, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        with open(fd, "wb", closefd=True) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise LocalError(f"cannot read {path}: {reason_of(error)}") from None


def _check_private(path: str) -> None:
    if os.stat(path).st_mode & stat.S_IROTH:
        raise LocalError(f"every user can read the key {path}: chmod go= {path}")


def _check_dates(path: str) -> None:
    certificate = _load(path)
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise LocalError(f"{path} has ended on {certificate.not_valid_after_utc:%Y-%m-%d}; make another one")


def _load(path: str) -> x509.Certificate:
    from cryptography import x509

    try:
        with open(path, "rb") as file:
            return x509.load_pem_x509_certificate(file.read())
    except OSError as error:
        raise LocalError(f"cannot read {path}: {reason_of(error)}") from None
    except ValueError:
        raise LocalError(f"{path} is no certificate in PEM") from None


def _load_key(path: str) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with open(path, "rb") as file:
            key = load_pem_private_key(file.read(), None)
    except OSError as error:
        raise LocalError(f"cannot read {path}: {reason_of(error)}") from None
    except (TypeError, ValueError):
        raise LocalError(f"{path} is no private key without a password, in PEM") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise LocalError(f"{path} is not a key that cgate tls init has made")
    return key


def _no_password() -> str:
    """Without this OpenSSL would ask the terminal for one."""
    return ""


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")
