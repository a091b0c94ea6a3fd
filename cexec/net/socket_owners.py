"""Asks the kernel, by netlink, which user has made each AF_UNIX socket of this network namespace.

Contract: `owners(prefix)` returns the users of the sockets whose names begin with `prefix`, by name: anybody can choose
a name, nobody can choose the user whom the kernel tells.  None where the kernel does not tell: before Linux 5.3, or
where netlink is not allowed.  Raises nothing.  docs/protocol.md section 2.5.
"""

from __future__ import annotations

import _socket
import sys

from cexec.net.interfaces import parse_attributes, read_table

# <linux/sock_diag.h> and <linux/unix_diag.h>
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_ALL = 0xFFFFFFFF  # states; and as a cookie: none
_SHOW_NAME, _SHOW_USER = 0x01, 0x40
_HEAD = 16  # bytes of struct unix_diag_msg
_NAME, _USER = 0, 7  # attributes


def owners(prefix: bytes) -> dict[bytes, int] | None:
    if not hasattr(_socket, "AF_NETLINK"):
        return None
    fields = (_ALL, 0, _SHOW_NAME | _SHOW_USER, _ALL, _ALL)
    request = bytes([_socket.AF_UNIX, 0, 0, 0]) + b"".join(value.to_bytes(4, sys.byteorder) for value in fields)
    try:
        channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        try:
            bodies = read_table(channel, _SOCK_DIAG_BY_FAMILY, _SOCK_DIAG_BY_FAMILY, request)
        finally:
            channel.close()
    except OSError:
        return None
    found: dict[bytes, int] = {}
    for body in bodies:
        if body.startswith(prefix, _HEAD + 4):  # the name comes first, so the other sockets need not be taken apart
            attributes = parse_attributes(body, _HEAD)
            if _USER not in attributes:
                return None
            found[attributes[_NAME]] = int.from_bytes(attributes[_USER], sys.byteorder)
    return found
