"""The likely causes when no worker has answered, as far as this machine shows them.

Contract: `likely_causes` looks at the interfaces, the packet filter and the container, and returns one line of text for
each suspicious thing, the most likely first.  The last two lines, about key and group, are always there, because only
the worker's side can show such a fault.  The call takes as long as listing the packet filter, and raises nothing.
"""

from __future__ import annotations

from cexec.net.groups import LIMITED_BROADCAST, all_loopback
from cexec.net.interfaces import interfaces
from cexec.system.host.container import container_kind
from cexec.system.host.firewall import INPUT, OUTPUT, Flow, blockers, read_chains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cexec.net.groups import GroupEntry
    from cexec.net.interfaces import Interface


def likely_causes(
    *,
    fingerprint: str,
    groups: Sequence[GroupEntry] | None,
    udp_port: int,
    reply_port: int | None,
    sent_to: Sequence[str],
    failures: Mapping[str, str],
    heard: bool,
) -> list[str]:
    """Returns the lines.  `heard`: a worker has answered, so announcements do arrive."""
    outside = [one for one in interfaces() if one.up and not one.loopback and not one.port and one.addresses()]
    causes: list[str] = []
    if not heard:
        causes += _interface_causes(groups, outside, failures)
    causes += _firewall_causes(udp_port, reply_port, heard)
    if not heard:
        causes += _container_causes(outside)
        causes.append(
            f"the key: this one is {fingerprint}, and a worker's must be the same: ckeygen --show APP, "
            "or the first line of cservice"
        )
        where = ", ".join(sent_to) or "nobody"
        causes.append(
            f"the group: announcements went to {where}, port {udp_port}, and the first line of cservice must name one "
            "of these; CEXEC_GROUP and CEXEC_UDP_PORT must fit, here and there; networks are joined by cproxy"
        )
    return causes


def _interface_causes(
    groups: Sequence[GroupEntry] | None, outside: list[Interface], failures: Mapping[str, str]
) -> Iterator[str]:
    if all_loopback(groups):
        yield "the group is the loopback's: only workers on this machine hear it"
        return
    if not outside:
        yield "no interface but the loopback is up: only workers on this machine hear"
    if groups is None or any(entry.address == LIMITED_BROADCAST for entry in groups):
        for one in outside:
            silent = [address.address for address in one.ipv4 if address.broadcast is None]
            if silent:
                yield (
                    f"interface {one.name} ({', '.join(silent)}) has no broadcast: workers behind it do not hear; "
                    "name their addresses in CEXEC_GROUP"
                )
    for label, reason in failures.items():
        yield f"announcements could not be sent to {label}: {reason}"


def _firewall_causes(udp_port: int, reply_port: int | None, heard: bool) -> Iterator[str]:
    chains, problem = read_chains()
    if not heard:
        for blocker in blockers(chains, Flow(OUTPUT, "udp", to=udp_port)):
            yield f"firewall: announcements, UDP to port {udp_port}, may be stopped by {blocker}"
    for blocker in blockers(chains, Flow(INPUT, "tcp", to=reply_port)):
        yield (
            f"firewall: connections of workers, TCP to port {reply_port}, may be stopped by {blocker}; "
            "open some ports and name them, as in CEXEC_LISTEN_PORTS=41000:41010"
        )
    for blocker in blockers(chains, Flow(INPUT, "udp", source=udp_port)):
        yield f"firewall: answers of workers, UDP from port {udp_port}, may be stopped by {blocker}"
    if problem:
        yield f"firewall: its rules could not be looked at: {problem}"


def _container_causes(outside: list[Interface]) -> Iterator[str]:
    kind = container_kind()
    cables = [f"{one.name} ({', '.join(one.addresses())})" for one in outside if one.kind == "veth"]
    if not kind and not cables:
        return
    what = f"this is a container ({kind})" if kind else "this is a container or a namespace"
    where = f", and {', '.join(cables)} leads to a bridge inside its host" if cables else ""
    yield (
        f"container: {what}{where}: broadcasts do not leave that; run it in the host's network, or name the workers in "
        "CEXEC_GROUP and publish the ports of CEXEC_LISTEN_PORTS"
    )
