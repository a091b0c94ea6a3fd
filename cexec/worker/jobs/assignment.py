"""A connection whose handshake is done, on its way from the worker to the process that will carry it.

Contract: `send` hands the descriptor over with the values of the announcement that it answers; `receive` blocks until
one comes, and returns None when the worker wants no more.  Both use a socketpair that keeps messages apart.
"""

from __future__ import annotations

import _socket
import json
import os
import socket
from typing import TYPE_CHECKING

from cexec.protocol.base import sodium
from cexec.protocol.connection.options import LEASE, YES
from cexec.protocol.connection.records import Records
from cexec.system.process import orphans

if TYPE_CHECKING:
    from cexec.net.groups import Sockaddr
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.announcement import Announcement

_MARK = orphans.MARK.encode()
MAXIMUM_SIZE = 4096  # bytes (ours) of a message: names and addresses are far shorter


def is_leased(go: Go) -> bool:
    """Returns True if the client may send another job after this one."""
    return go.options.get(LEASE) == YES


class Assignment:
    """`client`: the peer's address and port; `name`: its certificate's; `job_id`, `attempt`: of the announcement."""

    __slots__ = ("_jobs", "_keys", "_mark", "_shared", "attempt", "client", "job_id", "name")

    def __init__(
        self, client: Sockaddr, name: str, job_id: bytes, attempt: int, keys: tuple[str, bool, bytes, bytes]
    ) -> None:
        self.client = client
        self.name = name
        self.job_id = job_id
        self.attempt = attempt
        self._keys = keys
        self._mark = os.urandom(8).hex()  # with the number of the job it makes a run's name that no other has
        self._jobs = 0
        self._shared: dict[bytes, bytes] | None = None

    @classmethod
    def of(cls, announcement: Announcement, client: Sockaddr, records: Records) -> Assignment:
        """`records`: of a handshake that is just done."""
        return cls(client, announcement.certificate.name, announcement.job_id, announcement.attempt, records.keys)

    def encode(self) -> bytes:
        cipher, packed, *keys = self._keys
        fields = (list(self.client), self.name, self.job_id.hex(), self.attempt, cipher, packed,
                  *(key.hex() for key in keys))  # fmt: skip
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes) -> Assignment:
        client, name, job_id, attempt, cipher, packed, sending, receiving = json.loads(data)
        keys = (cipher, packed, bytes.fromhex(sending), bytes.fromhex(receiving))
        return cls(tuple(client), name, bytes.fromhex(job_id), attempt, keys)

    def records(self) -> Records:
        """Makes the records, which count their nonces: to be called once."""
        cipher, packed, sending, receiving = self._keys
        return Records(sodium.aead(cipher), sending, receiving, proved=True, packed=packed)

    def environment(self, go: Go, local: Sockaddr) -> dict[bytes, bytes]:
        """Returns the variables of one job; docs/protocol.md section 4.2 (GO) and cservice(1), ENVIRONMENT."""
        # One announcement stands for all jobs of a lease.
        job_id, attempt = (go.job_id, go.attempt) if is_leased(go) else (self.job_id, self.attempt)
        self._jobs += 1
        name = job_id.hex()
        result = {
            **self._environment(local),
            b"CEXEC_JOB": name.encode(),
            b"CEXEC_ATTEMPT": b"%d" % attempt,
            _MARK: f"{name}-{self._mark}-{self._jobs:x}".encode(),  # the next attempt may run here too
        }
        result.update({b"PEER_" + name.encode(): value for name, value in go.environment.items()})
        return result

    def _environment(self, local: Sockaddr) -> dict[bytes, bytes]:
        """Returns the variables that all jobs of the connection share, made once."""
        if self._shared is None:
            values = {
                "REMOTE_ADDR": str(self.client[0]),
                "REMOTE_PORT": str(self.client[1]),
                "SERVER_ADDR": str(local[0]),
                "SERVER_PORT": str(local[1]),
                "CEXEC_CLIENT": self.name,
            }
            self._shared = {name.encode(): value.encode() for name, value in values.items()}
        return self._shared


def send(channel: socket.socket, connection: _socket.socket, assignment: Assignment) -> None:
    """Raises `OSError` if the process has gone."""
    socket.send_fds(channel, [assignment.encode()], [connection.fileno()])


def receive(channel: socket.socket) -> tuple[_socket.socket, Assignment] | None:
    """Passes over words that were meant for an earlier connection; returns None also if no descriptor is left."""
    while True:
        try:
            data, fds, flags, _ = socket.recv_fds(channel, MAXIMUM_SIZE, 1)
        except OSError:
            return None
        if not data or flags & socket.MSG_CTRUNC:
            return None
        if fds:
            os.set_inheritable(fds[0], False)
            connection = _socket.socket(fileno=fds[0])
            connection.setblocking(False)
            return connection, Assignment.decode(data)
