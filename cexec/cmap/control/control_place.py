"""The socket beside a journal on which a running cmap listens: its name, and who may be at its other end.

Contract: `control_path(journal)` is its name, JOURNAL-control; a symbolic link to a journal has the socket of the
journal.  `peer_of(socket)` is the uid at the other end, which the kernel has noted (SO_PEERCRED): when it connected, or
for a listener when it began to listen.  `ENDING` is at the end of the name, as with the files of SQLite.
`AVAILABLE` is False where the kernel notes nobody, or has no /proc; there no cmap listens.
"""

from __future__ import annotations

import os
import socket
import struct

from cexec.cmap.results.journal_format import real_path

ENDING = "-control"
ROOT = 0
ONLY_OWNER = "only the user who has started this cmap, or root, may do that"
AVAILABLE = hasattr(socket, "SO_PEERCRED") and os.path.isdir("/proc/self/fd")
_CREDENTIALS = struct.Struct("=iII")  # (Linux) struct ucred: pid, uid, gid


def control_path(journal: str) -> str:
    return real_path(journal) + ENDING


def peer_of(connection: socket.socket) -> int:
    size = _CREDENTIALS.size
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)
