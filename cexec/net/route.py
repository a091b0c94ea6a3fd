"""Finds the address of this host that others see.

Contract: `address_towards` asks the kernel's routes and sends nothing; it never raises.
"""

from __future__ import annotations

from cexec.net.announcer import open_datagram_socket
from cexec.net.destinations import interface_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.net.groups import GroupEntry, Sockaddr


def address_towards(entry: GroupEntry) -> str:
    """The address of ours that a datagram to a group's ADDRESS would come from, without scope; empty: none would."""
    sockaddr: Sockaddr = (entry.address, entry.port or 1)
    if ":" in entry.address:
        sockaddr = (*sockaddr, 0, interface_index(entry.interface))
    try:
        asking = open_datagram_socket(entry.family)
    except OSError:
        return ""
    try:
        asking.connect(sockaddr)
        return str(asking.getsockname()[0]).partition("%")[0]
    except OSError:
        return ""
    finally:
        asking.close()
