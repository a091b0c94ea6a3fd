"""TCP: a worker's connection to the client that has announced a job.

Contract: sockets are as in `sockets`.  `start_connect` only begins; when the socket is writable `connect_result` says
how it went.  docs/protocol.md section 3.
"""

from __future__ import annotations

import _socket
import errno

from cexec.errors import LocalError, ProtocolError
from cexec.net.groups import HIGHEST_PORT, LIMITED_BROADCAST
from cexec.net.sockets import tune_stream_socket
from cexec.protocol.base.limits import LOWEST_PORT
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.net.groups import Sockaddr

_SYN_RETRIES = 2  # (ours) with the kernel's intervals: given up after 7 s, and the caller's deadline is shorter
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class OwnLimitError(LocalError):
    """This machine or process has no room for one more connection, to whomever."""


def start_connect(sockaddr: Sockaddr) -> _socket.socket:
    """Begin to connect to a client.

    ProtocolError when no client can have asked for this address: a port below 1024, a group, a broadcast address.
    OwnLimitError when this process has no room for a connection, another LocalError when the kernel refuses at once.
    """
    family = peer_family(sockaddr)
    try:
        created = _socket.socket(family, _socket.SOCK_STREAM, _socket.IPPROTO_TCP)
    except OSError as error:
        raise (OwnLimitError if error.errno in _NO_ROOM else LocalError)(reason_of(error)) from error
    try:
        created.setblocking(False)
        tune_stream_socket(created)
        if hasattr(_socket, "TCP_SYNCNT"):
            created.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_SYNCNT, _SYN_RETRIES)
        number = created.connect_ex(sockaddr)
    except OSError as error:
        number = error.errno or errno.EINVAL
    if number in (0, errno.EINPROGRESS):
        return created
    created.close()
    if number in (errno.ENETUNREACH, errno.EACCES) and _is_broadcast(sockaddr[0]):
        raise ProtocolError(f"asked to connect to {sockaddr[0]}, a broadcast address")
    raise LocalError(reason_of(number))


def connect_result(connecting: _socket.socket) -> str | None:
    """Why a connection failed, once its socket is writable; None when it is established."""
    number = connecting.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
    return reason_of(number) if number else None


def peer_family(sockaddr: Sockaddr) -> int:
    """The family of an address that a client may have, as it stands in a datagram that anybody can have sent."""
    host, port = sockaddr[0], sockaddr[1]
    family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
    try:
        packed = _socket.inet_pton(family, host)
    except (OSError, ValueError) as error:
        raise ProtocolError(f"asked to connect to {host!r}, which is no address") from error
    if not LOWEST_PORT <= port <= HIGHEST_PORT:
        raise ProtocolError(f"asked to connect to port {port} of {host}, below {LOWEST_PORT}")
    if family == _socket.AF_INET:
        allowed = packed[0] != 0 and packed[0] < 224
    else:
        allowed = packed[0] != 0xFF and any(packed) and packed[:12] != bytes(10) + b"\xff\xff"
    if not allowed or host == LIMITED_BROADCAST:
        raise ProtocolError(f"asked to connect to {host}, which is no host's address")
    return family


def _is_broadcast(address: str) -> bool:
    from cexec.net.interfaces import interfaces

    return any(address == one.broadcast for interface in interfaces() for one in interface.ipv4)
