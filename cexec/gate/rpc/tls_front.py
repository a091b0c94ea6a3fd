"""Mutual TLS in front of the gRPC server, so that a caller is told in words what is wrong with its certificate.

Contract: gRPC can only break off the handshake of a caller whose certificate does not count, and that caller hears
"socket closed".  `TlsFront` lets every handshake come to its end, judges the certificate, and passes the bytes on:
those of a caller whose certificate counts to the server, all others to a server that refuses every call in words.  Both
listen on loopback ports for the front alone.  `caller(port)` returns the `TlsCaller` behind a connection from that
port, None for a connection that is not the front's.  Both directions wait for the slower side.  TLS itself is OpenSSL's
(PyPI: pyOpenSSL).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from cexec.errors import LocalError

if TYPE_CHECKING:
    import socket

    from OpenSSL.crypto import X509

HANDSHAKE_PATIENCE = 10.0  # seconds (ours)
MOST_HANDSHAKES = 256  # (ours) at a time: those of strangers, too
CHUNK = 64 * 1024  # bytes (ours) that are decrypted at once
HTTP2 = b"h2"  # the protocol's name (RFC 7540, section 3.1): gRPC speaks no other

# OpenSSL's numbers of what can be wrong with a certificate (openssl-verification-options(1)).
NOT_YET_VALID, EXPIRED, PURPOSE = 9, 10, 26
UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21, 24})


@dataclass(frozen=True, slots=True)
class TlsCaller:
    """Who has connected: `name` is the common name of the certificate, or empty; `trouble` is why it does not count."""

    address: str
    name: str
    trouble: str


class TlsFront:
    """`files`: the server's certificate, its key, and the certificate of the clients' authority."""

    def __init__(self, certificate: str, key: str, client_ca: str) -> None:
        self._context = _context(certificate, key, client_ca)
        self._callers: dict[int, TlsCaller] = {}
        self._server: asyncio.Server | None = None
        self._ports = 0, 0
        self._connections: set[_Outside] = set()
        self.handshakes = 0  # that are not over

    async def start(self, listener: socket.socket, port: int, refusing: int) -> None:
        """Accepts connections, and passes them on to the loopback port of the server, or of the one that refuses."""
        self._ports = port, refusing
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Outside(self), sock=listener)

    def close(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.end()

    def caller(self, port: int) -> TlsCaller | None:
        """Returns who is behind the connection from this loopback port."""
        return self._callers.get(port)

    # for connections

    def opened(self, connection: _Outside) -> SSL.Connection | None:
        """Returns the TLS of a new connection, None if there are too many that are not through with it."""
        if self.handshakes >= MOST_HANDSHAKES:
            return None
        self.handshakes += 1
        self._connections.add(connection)
        found = SSL.Connection(self._context)
        found.set_accept_state()
        found.set_app_data([])  # what is wrong with the certificate
        return found

    def greeted(self) -> None:
        """A handshake has come to its end, good or bad."""
        self.handshakes -= 1

    async def pass_on(self, outside: _Outside, caller: TlsCaller) -> None:
        """Connects the inner side; the server hears nothing before the caller is noted."""
        loop = asyncio.get_running_loop()
        inside = _Inside(outside)
        try:
            transport, _ = await loop.create_connection(lambda: inside, "127.0.0.1", self._ports[bool(caller.trouble)])
        except OSError:
            outside.end()
            return
        inside.port = transport.get_extra_info("sockname")[1]
        self._callers[inside.port] = caller
        outside.connected(inside)

    def ended(self, outside: _Outside, inside: _Inside | None) -> None:
        """Forgets a connection, before another process can get its port."""
        self._connections.discard(outside)
        if inside is not None:
            self._callers.pop(inside.port, None)


class _Outside(asyncio.Protocol):
    """The connection of a caller."""

    def __init__(self, front: TlsFront) -> None:
        self._front = front
        self._transport: asyncio.Transport | None = None
        self._tls: SSL.Connection | None = None
        self._inside: _Inside | None = None
        self._greeted = False
        self._timer: asyncio.TimerHandle | None = None
        self._passing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._tls = self._front.opened(self)
        if self._tls is None:
            self._greeted = True
            transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_PATIENCE, self.end)

    def data_received(self, data: bytes) -> None:
        if self._tls is None:
            return
        self._tls.bio_write(data)
        if not self._greeted:
            self._shake_hands()
        if self._inside is not None:
            self._decrypt()

    def connection_lost(self, error: Exception | None) -> None:
        self.end()

    def pause_writing(self) -> None:
        if self._inside is not None:
            self._inside.wait(True)

    def resume_writing(self) -> None:
        if self._inside is not None:
            self._inside.wait(False)

    # for the inner side

    def wait(self, full: bool) -> None:
        """Reads no more while the server is slow."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            (transport.pause_reading if full else transport.resume_reading)()

    def connected(self, inside: _Inside) -> None:
        self._inside = inside
        if self._tls is None:
            inside.end()
            self._front.ended(self, inside)
            return
        self.wait(False)
        self._decrypt()

    def encrypt(self, data: bytes) -> None:
        if self._tls is not None:
            try:
                self._tls.sendall(data)
            except SSL.Error:
                self.end()
                return
            self._flush()

    def end(self) -> None:
        """Closes both sides; may be called again."""
        if not self._greeted:
            self._greeted = True
            self._front.greeted()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tls = None
        self._front.ended(self, self._inside)
        if self._transport is not None:
            self._transport.close()
        if self._inside is not None:
            self._inside.end()

    # TLS

    def _shake_hands(self) -> None:
        assert self._tls is not None and self._transport is not None
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        except SSL.Error:
            self._flush()  # the alert, which says what was wrong with the caller's TLS
            self.end()
            return
        self._flush()
        self._greeted = True
        self._front.greeted()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        host, port = self._transport.get_extra_info("peername")[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        name, trouble = judge(self._tls.get_peer_certificate(), self._tls.get_app_data())
        self.wait(True)
        self._passing = asyncio.ensure_future(self._front.pass_on(self, TlsCaller(address, name, trouble)))

    def _decrypt(self) -> None:
        while self._tls is not None and self._inside is not None:
            try:
                self._inside.send(self._tls.recv(CHUNK))
            except SSL.WantReadError:
                break
            except (SSL.Error, SSL.ZeroReturnError):
                self.end()
                return
        self._flush()

    def _flush(self) -> None:
        while self._tls is not None and self._transport is not None:
            try:
                self._transport.write(self._tls.bio_read(CHUNK))
            except SSL.WantReadError:
                return


class _Inside(asyncio.Protocol):
    """The connection to the gRPC server."""

    def __init__(self, outside: _Outside) -> None:
        self.port = 0
        self._outside = outside
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._outside.encrypt(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._outside.end()

    def pause_writing(self) -> None:
        self._outside.wait(True)

    def resume_writing(self) -> None:
        self._outside.wait(False)

    def wait(self, full: bool) -> None:
        """Reads no more while the caller is slow."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            (transport.pause_reading if full else transport.resume_reading)()

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def judge(certificate: X509 | None, errors: list[int]) -> tuple[str, str]:
    """Returns the common name, and why the certificate does not count: empty if it does.

    `errors`: OpenSSL's numbers, in the order in which it has found them.
    """
    if certificate is None:
        return "", "this needs a client certificate of the authority that cgate was given (--client-ca)"
    found = certificate.to_cryptography()
    names = [str(one.value) for one in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(names) != 1 or not names[0]:
        return "", "the client certificate has no common name, or several"
    if not errors:
        return names[0], ""
    (first, *_) = errors
    if first == EXPIRED:
        return "", f"the client certificate has expired on {found.not_valid_after_utc:%Y-%m-%d}"
    if first == NOT_YET_VALID:
        return "", f"the client certificate is not valid before {found.not_valid_before_utc:%Y-%m-%d}"
    if first in UNKNOWN_ISSUER:
        return "", "the client certificate is not of the authority that cgate was given (--client-ca)"
    if first == PURPOSE:
        return "", "the certificate is not one for clients"
    return "", f"the client certificate does not count (OpenSSL's error {first})"


def _context(certificate: str, key: str, client_ca: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # A session that goes on would go on without a look at the certificate.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_alpn_select_callback(_choose_protocol)
    # Every certificate is taken here: `judge` says afterwards what it is worth.
    context.set_verify(SSL.VERIFY_PEER, _note_error)
    try:
        context.use_certificate_chain_file(certificate)
        context.use_privatekey_file(key)
        context.load_verify_locations(client_ca)
    except SSL.Error:
        raise LocalError(f"{certificate}, {key} and {client_ca} cannot be used together for TLS") from None
    return context


def _note_error(connection: SSL.Connection, certificate: X509, error: int, depth: int, good: int) -> bool:
    if not good:
        connection.get_app_data().append(error)
    return True


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return HTTP2 if HTTP2 in offered else SSL.NO_OVERLAPPING_PROTOCOLS
