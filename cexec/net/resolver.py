"""Host names of a group: a thread looks them up.

Contract: `start` begins to look up what is not known yet, `results` waits a moment for that, `known` waits for nothing.
No method raises because of the network.  docs/protocol.md section 2.
"""

from __future__ import annotations

import _socket
import _thread

from cexec.net.destinations import Destination, address_label
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.net.groups import GroupEntry

RESOLVE_PATIENCE = 0.25  # seconds (ours) that a transmission waits for names
_MAXIMUM_ADDRESSES = 16  # (ours) of one name
NO_SUCH_NAME = "no such name"
_MULTICAST_DNS = ".local"  # RFC 6762: there a name is unknown as long as its host is away


class Resolver:
    """Looks names up in a thread, because a name server that does not answer must not stop what is under way."""

    __slots__ = ("_busy", "_entries", "_found", "_port", "failures")

    def __init__(self, entries: Sequence[GroupEntry], port: int) -> None:
        self.failures: dict[str, str] = {}  # entry -> why nothing is known
        self._entries = entries
        self._port = port
        self._found: dict[str, list[Destination]] = {}
        self._busy = _thread.allocate_lock()

    def start(self) -> None:
        """Begin to look up the names that are not known yet, unless that is going on."""
        missing = [entry for entry in self._entries if entry.text not in self._found]
        if missing and self._busy.acquire(False):
            for entry in missing:
                self.failures.setdefault(entry.text, "this name is still being looked up")
            try:
                _thread.start_new_thread(self._run, (missing,))
            except RuntimeError:  # no more threads here, so everything else waits after all
                self._run(missing)

    def results(self) -> list[Destination]:
        """Returns the known addresses, after a short wait for those that are being looked up."""
        if len(self._found) < len(self._entries) and self._busy.acquire(True, RESOLVE_PATIENCE):
            self._busy.release()
        return self.known()

    def known(self) -> list[Destination]:
        """Returns the addresses that are known by now."""
        return [destination for found in self.found().values() for destination in found]

    def found(self) -> dict[str, list[Destination]]:
        """The same by entry."""
        return dict(self._found)

    def absent(self) -> list[str]:
        """The entries whose names do not exist, as far as is known by now."""
        return [
            entry.text
            for entry in self._entries
            if self.failures.get(entry.text) == NO_SUCH_NAME
            and not entry.address.rstrip(".").lower().endswith(_MULTICAST_DNS)
        ]

    def _run(self, entries: Sequence[GroupEntry]) -> None:
        try:
            for entry in entries:
                found, failure = resolve(entry, self._port)
                if found:
                    self._found[entry.text] = found
                    self.failures.pop(entry.text, None)
                else:
                    self.failures[entry.text] = failure
        finally:
            self._busy.release()


def resolve(entry: GroupEntry, usual_port: int) -> tuple[list[Destination], str]:
    """Returns the addresses of a name, or the reason why it has none; blocks as long as the system's resolver does."""
    port = entry.port or usual_port
    try:
        # bytes, because a str would be encoded as an internationalised name, whose codec imports `re`
        answers = _socket.getaddrinfo(entry.address.encode("ascii"), port, 0, _socket.SOCK_DGRAM)
    except OSError as error:
        return [], NO_SUCH_NAME if error.errno == _socket.EAI_NONAME else reason_of(error)
    text = address_label(entry.address, "", port, usual_port)
    found = [
        Destination(family, sockaddr, text)
        for family, _, _, _, sockaddr in answers
        if family in (_socket.AF_INET, _socket.AF_INET6)
    ]
    return found[:_MAXIMUM_ADDRESSES], NO_SUCH_NAME
