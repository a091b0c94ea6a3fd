"""Names the two networks that a relay joins: SELF with its group, and the TARGETs.

Contract: `parse_self` reads SELF, `plan` makes of it, of the group and the TARGETs, and of the machine's interfaces as
they are now, two `Network`s: what is sent to, and what is heard.  `UsageError` for what can never be, `LocalError` for
what is not there now.  docs/protocol.md section 6.1.
"""

from __future__ import annotations

import _socket

from cexec.errors import LocalError, UsageError
from cexec.net.groups import (
    ADDRESS,
    DEFAULT_IPV6_GROUP,
    LIMITED_BROADCAST,
    LOOPBACK_BROADCAST,
    MDNS,
    MULTICAST,
    GroupEntry,
    parse_groups,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cexec.net.interfaces import Interface

_LINK_LOCAL = "fe80:"


class Self:
    """SELF: an address of this host, and the interface that has it; `device` is empty where it was not given."""

    __slots__ = ("address", "device", "text")

    def __init__(self, text: str, device: str, address: str) -> None:
        self.text = text
        self.device = device
        self.address = address

    def interface(self, found: Iterable[Interface]) -> Interface:
        """The interface that has the address."""
        named = [one for one in found if self.device in ("", one.name, str(one.index))]
        if self.device and not named:
            raise LocalError(f"{self.text}: there is no interface {self.device}")
        for one in named:
            if self.address in one.addresses():
                return one
        owned = ", ".join(address for one in named for address in one.addresses()) or "none"
        where = self.device or "this host"
        raise LocalError(f"{self.address} is no address of {where}, whose addresses are: {owned}")


class Network:
    """One of the two: `sent_to` and `heard` are group entries; `registered`: found by multicast DNS.

    `only_link` is the index of its interface, `other_link` that of one which is not its; 0 where there is none such.
    """

    __slots__ = ("heard", "only_link", "other_link", "registered", "sent_to")

    def __init__(
        self,
        sent_to: list[GroupEntry],
        own: list[GroupEntry],
        registered: bool = False,
        *,
        only_link: int = 0,
        other_link: int = 0,
    ) -> None:
        self.sent_to = sent_to
        self.only_link = only_link
        self.other_link = other_link
        self.heard = [entry for entry in _unique([*sent_to, *own]) if entry.kind in (ADDRESS, MULTICAST)]
        self.registered = registered

    @property
    def labels(self) -> list[str]:
        return [entry.text for entry in self.sent_to]

    @property
    def texts(self) -> list[str]:
        """All that it consists of."""
        return [entry.text for entry in [*self.sent_to, *self.heard]]

    def has_link(self, index: int) -> bool:
        """True if the hosts on the link of this interface belong to it."""
        return index == self.only_link if self.only_link else index != self.other_link

    @property
    def loopback(self) -> bool:
        """True if it is meant to hear this host's loopback."""
        return any(entry.loopback for entry in self.sent_to)


def parse_self(text: str) -> Self:
    """SELF: ADDRESS or DEVICE:ADDRESS; an IPv6 address may stand in brackets."""
    address, device = _literal(text), ""
    if not address:
        device, _, rest = text.partition(":")
        address = _literal(rest) if device else ""
    if not address:
        raise UsageError(f"{text!r} is neither an address of this host nor DEVICE:ADDRESS, such as eth0:10.0.0.1")
    return Self(text, device, address)


def plan(
    own: Self,
    groups: Sequence[GroupEntry] | None,
    targets: Sequence[str],
    found: Sequence[Interface],
    towards: Callable[[GroupEntry], str],
) -> tuple[Network, Network]:
    """The network of SELF, and that of the TARGETs; `towards` says by which address of ours a target knows us."""
    interface = own.interface(found)
    if groups is None:
        home = parse(_default_group(interface))
    else:
        home = parse([_on_interface(entry, interface) for entry in groups])
    registered = any(entry.kind == MDNS for entry in home)
    near = Network(home, parse([_scoped(own.address, interface.name)]), registered, only_link=interface.index)
    if targets:
        far = parse(targets)
        for entry in far:
            if any(_same(entry, other) for other in home):
                raise UsageError(f"the target {entry.text} is the group itself that is heard at {own.text}")
    elif interface.loopback or any(entry.loopback for entry in home):
        raise UsageError(
            f"{own.text}: the loopback of this host would become one network with others; name a TARGET, the broadcast "
            "address of a network or a host"
        )
    else:
        far = _default_target(home, interface, found)
    known_as = {towards(entry): entry.interface for entry in far if entry.kind == ADDRESS and not entry.loopback}
    there = [_scoped(address, name) for address, name in known_as.items() if address not in ("", own.address)]
    # A target may be on the same link, if the near group is not all that there is.
    shared = any(address in interface.addresses() for address in known_as)
    shared = shared or any(entry.interface in (interface.name, str(interface.index)) for entry in far)
    return near, Network(far, parse(there), other_link=0 if shared else interface.index)


def parse(texts: Iterable[str]) -> list[GroupEntry]:
    """The entries of several group lists."""
    return _unique([entry for text in texts for entry in parse_groups(text)])


def _default_group(interface: Interface) -> list[str]:
    """Returns the default group's addresses on one interface."""
    if interface.loopback:
        return [LOOPBACK_BROADCAST]
    broadcasts = [one.broadcast for one in interface.ipv4 if one.broadcast]
    multicast = [f"{DEFAULT_IPV6_GROUP}%{interface.name}"] if interface.ipv6 and interface.multicast else []
    return broadcasts + multicast


def _default_target(home: list[GroupEntry], own: Interface, found: Iterable[Interface]) -> list[GroupEntry]:
    """Broadcast: on all other networks; on a host with one only, what the group does not already reach there."""
    usable = [one for one in found if one.up and not one.loopback and not one.port]
    others = parse(text for one in usable if one.index != own.index for text in _default_group(one))
    chosen = [entry for entry in others or parse(_default_group(own)) if not any(_same(entry, one) for one in home)]
    if not chosen:
        raise LocalError("this host has no other network now; name a TARGET: the broadcast address of one, or a host")
    return chosen


def _on_interface(entry: GroupEntry, interface: Interface) -> str:
    """A group is heard at SELF: what could be any interface's is this one's."""
    unbound = not entry.interface and (entry.kind == MULTICAST or entry.address == LIMITED_BROADCAST)
    if not unbound or interface.loopback:
        return entry.text
    address, hops = f"{entry.address}%{interface.name}", f"/{entry.hops}" if entry.kind == MULTICAST else ""
    if entry.port is None:
        return address + hops
    return (f"[{address}]" if entry.family == _socket.AF_INET6 else address) + f":{entry.port}{hops}"


def _literal(text: str) -> str:
    """An address as the kernel writes it, or nothing."""
    plain = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, plain))
        except (OSError, ValueError):
            continue
    return ""


def _scoped(address: str, interface: str) -> str:
    return f"{address}%{interface}" if address.startswith(_LINK_LOCAL) else address


def _same(one: GroupEntry, other: GroupEntry) -> bool:
    here, there = ((e.kind, e.address.lower(), e.interface, e.port) for e in (one, other))
    return here == there and one.kind in (ADDRESS, MULTICAST)


def _unique(entries: Iterable[GroupEntry]) -> list[GroupEntry]:
    return list({(e.kind, e.address.lower(), e.interface, e.port): e for e in entries}.values())
