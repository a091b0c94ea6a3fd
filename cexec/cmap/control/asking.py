"""Asks the cmap that runs with a journal: how it stands, to pause, to go on, to have another weight.

Contract: `ask(journal, request)` returns the `ControlStatus` after the request has been followed.  It takes at most
`timeout` seconds, keeps nothing, and may be called by any thread; an asyncio program calls it in one.  It raises

- `UsageError`: there is no such journal;
- `NoRunError`: no cmap runs with it, or one that cannot be asked from here (another host, not begun yet);
- `NotAllowedError`: the caller is neither the owner of that cmap nor root;
- `NotFollowedError`: cmap does not follow the request now, and says why;
- `SilentPeerError`: cmap says nothing, for example because it is stopped;
- `ProtocolError`: what answers is no cmap of this version;
- `LocalError`: a system call failed.

A socket that somebody else has put in the place of cmap's is never spoken to: the process that listens must be of
the journal's owner, of this user or of root.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from typing import TYPE_CHECKING

from cexec.cmap.control.control_messages import (
    REPLY_LIMIT,
    ControlLine,
    ControlStatus,
    encode_request,
    parse_reply,
)
from cexec.cmap.control.control_place import AVAILABLE, ONLY_OWNER, ROOT, control_path, peer_of
from cexec.cmap.results.journal_format import real_path
from cexec.errors import (
    LocalError,
    NoRunError,
    NotAllowedError,
    NotFollowedError,
    SilentPeerError,
    UsageError,
)
from cexec.system.reason import reason_of
from cexec.system.storage.lockfile import holder

if TYPE_CHECKING:
    from cexec.cmap.control.control_messages import ControlRequest

TIMEOUT = 5.0  # seconds (ours)
GLANCE = 0.02  # seconds (ours) between two tries while others stand in the queue of the socket


def ask(journal: str, request: ControlRequest, timeout: float = TIMEOUT) -> ControlStatus:
    until = time.monotonic() + timeout
    with _connected(journal, until) as connection:
        try:
            _say(connection, encode_request(request), until)
            reply = parse_reply(_line(connection, until))
        except TimeoutError:
            raise SilentPeerError(f"the cmap of {journal} has not answered within {timeout:.3g} s") from None
        except OSError as error:
            raise NoRunError(f"the cmap of {journal} has ended meanwhile: {reason_of(error)}") from None
    if isinstance(reply, ControlStatus):
        return reply
    raise (NotAllowedError if reply.denied else NotFollowedError)(reply.reason)


def _say(connection: socket.socket, request: bytes, until: float) -> None:
    """Cmap may have hung up already, but not without a reply."""
    connection.settimeout(_left(until))
    try:
        connection.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        pass


def _line(connection: socket.socket, until: float) -> bytes:
    line = ControlLine(REPLY_LIMIT)
    while True:
        connection.settimeout(_left(until))
        data = connection.recv(REPLY_LIMIT)
        if not data:
            raise ConnectionResetError("it has hung up")
        if (found := line.receive_data(data)) is not None:
            return found


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connected(journal: str, until: float) -> socket.socket:
    """Returns a connection to the cmap of this journal."""
    real = real_path(journal)
    try:
        owner = os.stat(real).st_uid
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"there is no journal {journal}; give the --state of the run") from None
    except OSError as error:
        raise LocalError(f"cannot look at the journal {journal}: {reason_of(error)}") from None
    if not AVAILABLE:
        raise NoRunError("this system does not tell who asks, so no cmap can be asked here")
    try:
        held = os.open(control_path(journal), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _nobody(journal, real, error) from None
    try:
        if not stat.S_ISSOCK(os.fstat(held).st_mode):
            raise NoRunError(f"{control_path(journal)} is no socket, so the cmap of {journal} cannot be asked")
        connection = _try(held, journal, real, until)
    finally:
        os.close(held)
    if peer_of(connection) not in (owner, os.geteuid(), ROOT):
        connection.close()
        raise NoRunError(f"another user listens at {control_path(journal)}, so the cmap of {journal} cannot be asked")
    return connection


def _try(held: int, journal: str, real: str, until: float) -> socket.socket:
    """Connects to the open file `held`, whose name may be longer than an address: it has a short one in /proc."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    while True:
        try:
            connection.connect(f"/proc/self/fd/{held}")
            return connection
        except BlockingIOError:  # its queue is full
            if time.monotonic() + GLANCE > until:
                connection.close()
                raise SilentPeerError(f"the cmap of {journal} takes no questions now") from None
            time.sleep(GLANCE)
        except PermissionError:
            connection.close()
            raise NotAllowedError(ONLY_OWNER) from None
        except OSError as error:
            connection.close()
            raise _nobody(journal, real, error) from None


def _nobody(journal: str, real: str, error: OSError) -> NoRunError | LocalError:
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        process = holder(real)
        if process:
            return NoRunError(f"the cmap of {journal} is {process}, which does not listen, or not yet, or not here")
        return NoRunError(f"no cmap runs with {journal}")
    return LocalError(f"cannot ask the cmap of {journal}: {reason_of(error)}")
