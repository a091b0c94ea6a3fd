"""TCP: the client's listener, and what holds for all connections; `connecting` has the worker's side.

Contract: sockets are plain `_socket.socket` objects, non-blocking and close-on-exec. `TcpListener` is one port number
for IPv4 and, where this machine has it, IPv6. `hurry` bounds the pauses between the kernel's own retries. Addresses are
(host, port), and for IPv6 (host, port, flow, scope); an IPv4 peer of a socket for both families has an IPv4 address.
docs/protocol.md section 3.
"""

from __future__ import annotations

import _socket
import errno
import sys

from cexec.common_errors import LocalError, UsageError
from cexec.net.groups import HIGHEST_PORT
from cexec.protocol.base.limits import LOWEST_PORT
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cexec.net.groups import Sockaddr

# the first that is set counts; the others are the ancestor's names
PORT_VARIABLES = ("CEXEC_LISTEN_PORTS", "CEXEC_LISTEN_PORT", "CEXEC_PORTS", "CEXEC_PORT")
BACKLOG = 256  # connections (ours): four times what a client handles at once, and what it lets give way in a second
KEEP_IDLE, KEEP_INTERVAL, KEEP_COUNT = 5, 2, 5  # seconds, seconds, probes (protocol): 15 s until a peer is dead

_TCP_RTO_MAX_MS = 44  # <linux/tcp.h> of 6.15
_LONGEST_INTERVAL = 5000  # milliseconds (ours) between two attempts of the kernel to reach a silent peer
_PAIR_ATTEMPTS = 16  # (ours) to find one port that is free in both families
_PORTS_NAMED = 8  # (ours) in an error message
_MAPPED = "::ffff:"  # RFC 4291 section 2.5.5.2
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENOPROTOOPT)


def parse_ports(text: str, name: str = "the port list") -> list[int]:
    """`a,b,c` and `a:b` and mixtures, in the order written; UsageError for what cannot be one of a client's ports."""
    ports: dict[int, None] = {}
    for part in text.split(","):
        first_text, colon, last_text = part.strip().partition(":")
        first, last = _parse_port(first_text, part, name), _parse_port(last_text if colon else first_text, part, name)
        if first > last:
            raise UsageError(f"{name} has the range {part.strip()!r}, whose first port is above its last")
        ports.update(dict.fromkeys(range(first, last + 1)))
    return list(ports)


def _parse_port(text: str, part: str, name: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 5) or int(text) > HIGHEST_PORT:
        raise UsageError(f"{name} has {part.strip()!r}, but must be ports or ranges as in 4000,4001,5000:5009")
    if int(text) < LOWEST_PORT:
        raise UsageError(f"{name} has port {text}, but the lowest allowed port is {LOWEST_PORT}")
    return int(text)


def ports_from_environment(environ: Mapping[str, str]) -> list[int] | None:
    """The ports that the user allows the client to listen on; None is any."""
    for name in PORT_VARIABLES:
        text = environ.get(name, "").strip()
        if text:
            return parse_ports(text, name)
    return None


class TcpListener:
    """Waits for connections on `port`; made by `open_listener`."""

    __slots__ = ("_sockets", "port")

    def __init__(self, sockets: list[_socket.socket]) -> None:
        self._sockets = sockets
        self.port: int = sockets[0].getsockname()[1]

    def accept(self) -> tuple[_socket.socket, Sockaddr] | None:
        """The next connection, tuned, and its peer, or None when nobody waits; LocalError when descriptors run out."""
        for one in self._sockets:
            try:
                number, peer = one._accept()  # type: ignore[attr-defined]
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise LocalError("cannot accept a connection: too many open files; raise ulimit -n") from error
                continue  # nobody there, or gone again
            accepted = _socket.socket(one.family, one.type, one.proto, number)
            accepted.setblocking(False)
            tune_stream_socket(accepted)
            return accepted, plain_address(peer)
        return None

    def filenos(self) -> list[int]:
        """The descriptors to select for reading."""
        return [one.fileno() for one in self._sockets]

    def close(self) -> None:
        """Refuse connections from now on; may be called again."""
        for one in self._sockets:
            one.close()
        self._sockets = []


def plain_address(sockaddr: Sockaddr) -> Sockaddr:
    """An IPv4 peer of a socket for both families as an IPv4 address, every other as it is."""
    if len(sockaddr) == 4 and sockaddr[0].startswith(_MAPPED):
        return sockaddr[0][len(_MAPPED) :], sockaddr[1]
    return sockaddr


def with_port(sockaddr: Sockaddr, port: int) -> Sockaddr:
    """The same host's address with another port: where an announcement came from, and its reply port."""
    return sockaddr[0], port, *sockaddr[2:]


def open_listener(
    ports: Sequence[int] | None = None, *, loopback: bool = False, ipv6: bool = True, backlog: int = BACKLOG
) -> TcpListener:
    """A listener on the first of `ports` that is free (None: any), for both families unless `ipv6` is false."""
    failure: OSError | None = None
    for port in ports if ports is not None else [0]:
        try:
            return TcpListener(bind_families(port, loopback, ipv6, backlog))
        except OSError as error:
            failure = error
    if ports is None or failure is None or failure.errno not in (errno.EADDRINUSE, errno.EACCES):
        reason = "no port given" if failure is None else reason_of(failure)
        raise LocalError(f"cannot listen for workers: {reason}")
    few = len(ports) <= _PORTS_NAMED
    tried = ", ".join(map(str, ports)) if few else f"{ports[0]} to {ports[-1]} ({len(ports)} of them)"
    raise LocalError(
        f"cannot listen for workers: {'port' if len(ports) == 1 else 'all of ports'} {tried} taken by other programs; "
        f"allow more with {PORT_VARIABLES[0]}, or unset it to use any free one"
    )


def bind_families(port: int, loopback: bool, ipv6: bool, backlog: int) -> list[_socket.socket]:
    if not ipv6:
        return [listen_on(_socket.AF_INET, "127.0.0.1" if loopback else "0.0.0.0", port, backlog)]
    if not loopback:
        try:
            return [listen_on(_socket.AF_INET6, "::", port, backlog)]
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
            return [listen_on(_socket.AF_INET, "0.0.0.0", port, backlog)]
    for attempt in range(_PAIR_ATTEMPTS):
        first = listen_on(_socket.AF_INET, "127.0.0.1", port, backlog)
        try:
            return [first, listen_on(_socket.AF_INET6, "::1", first.getsockname()[1], backlog)]
        except OSError as error:
            if error.errno in _NO_IPV6:
                return [first]
            first.close()
            if port or error.errno != errno.EADDRINUSE or attempt == _PAIR_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def listen_on(family: int, address: str, port: int, backlog: int) -> _socket.socket:
    created = _socket.socket(family, _socket.SOCK_STREAM, _socket.IPPROTO_TCP)
    try:
        created.setblocking(False)
        if family == _socket.AF_INET6:
            created.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, address != "::")
        if port:  # a port of the user's choice may still be in TIME_WAIT from the last run
            created.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        created.bind((address, port))
        created.listen(backlog)
    except OSError:
        created.close()
        raise
    return created


def tune_stream_socket(stream: _socket.socket) -> None:
    """Send small records at once, and notice within 15 s that an idle peer's machine is gone."""
    stream.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    stream.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    idle = getattr(_socket, "TCP_KEEPIDLE", 0x10 if sys.platform == "darwin" else None)  # TCP_KEEPALIVE on macOS
    options = ((idle, KEEP_IDLE), (getattr(_socket, "TCP_KEEPINTVL", None), KEEP_INTERVAL))
    for option, value in (*options, (getattr(_socket, "TCP_KEEPCNT", None), KEEP_COUNT)):
        if option is not None:
            stream.setsockopt(_socket.IPPROTO_TCP, option, value)


def hurry(connection: _socket.socket) -> None:
    """Lets the kernel try again at least every five seconds.

    By default it doubles the pause after each retry.  After a link was down for a minute, the connection would go on
    only a minute after the link came back.
    """
    if hasattr(_socket, "TCP_INFO"):
        try:
            connection.setsockopt(_socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _LONGEST_INTERVAL)
        except OSError:
            pass  # an older kernel, or no TCP connection
