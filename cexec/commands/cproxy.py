"""cproxy(1): relays between two networks, so that a cluster spans them.

Contract: `main(argv)` returns the exit status when it has been told to stop.
"""

from __future__ import annotations

import os
from functools import partial

import click

from cexec.commands.common import run_click
from cexec.commands.help_page import HelpfulCommand, version_option
from cexec.commands.parameters import Parsed
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.net.interfaces import interfaces
from cexec.net.route import address_towards
from cexec.net.sockets import ports_from_environment
from cexec.protocol.base.keys import RelayKey
from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.relay.networks import Network, parse_self, plan
from cexec.relay.relay import DEFAULT_RATE, Relay, RelayRules
from cexec.relay.side import Side
from cexec.system.io.log_lines import PATIENCE, STANDARD_ERROR, LogLines
from cexec.system.process.descriptor_limit import raise_limit
from cexec.system.storage.eventlog import EventLog
from cexec.system.storage.keyfile import find_key, read_key
from cexec.system.units import parse_duration, parse_number

LONGEST_DELAY = 10.0  # seconds (ours): a client gives up after 60
HIGHEST_RATE = 100_000  # datagrams a second (ours)
WANTED_DESCRIPTORS = 8192  # (ours) as far as the hard limit allows


EXAMPLES = (
    ("cproxy 10.0.0.1", "join the network of this address with all others that the machine has"),
    ("cproxy 10.0.0.1 10.0.1.255", "join it with one network, named by its broadcast address"),
    ("cproxy --only app.relay 10.0.0.1 10.8.0.7", "one application only, towards one host, through a VPN, say"),
)


@click.command("cproxy", cls=HelpfulCommand, examples=EXAMPLES)
@click.option(
    "--only", metavar="APP.relay", multiple=True,
    help="Relay this application only (ckeygen --relay); may be given again.",
)  # fmt: skip
@click.option(
    "--hop-delay", type=Parsed(partial(parse_duration, most=LONGEST_DELAY)), default=0.0, metavar="TIME",
    help="Pass announcements on so much later, and not at all if somebody near has taken the job by then.  "
    "[default: 0]",
)  # fmt: skip
@click.option(
    "--max-hops", type=click.IntRange(0, MAXIMUM_HOPS), default=MAXIMUM_HOPS, metavar="N",
    help=f"How many relays may follow this one.  [default: {MAXIMUM_HOPS}]",
)  # fmt: skip
@click.option(
    "--rate", type=Parsed(partial(parse_number, least=1, most=HIGHEST_RATE)), default=DEFAULT_RATE, metavar="N",
    help=f"Datagrams a second that are passed on from each network.  [default: {DEFAULT_RATE:.0f}]",
)  # fmt: skip
@click.option(
    "--log", "log_format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How events are written to stderr.",
)  # fmt: skip
@version_option
@click.argument("own", metavar="SELF")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
def command(
    only: tuple[str, ...],
    hop_delay: float,
    max_hops: int,
    rate: float,
    log_format: str,
    own: str,
    targets: tuple[str, ...],
) -> int:
    """Make one cluster of two networks: that of SELF, an address of this host or DEVICE:ADDRESS, and that of TARGETs.

    Jobs pass in both directions; the relay can read nothing of them.  A TARGET is an address as in CEXEC_GROUP; without
    one: the broadcast address of every other network of this host.
    """
    needed = "cproxy --only needs the file that ckeygen --relay made"
    keys = [read_key(find_key(name), (RelayKey,), needed) for name in only]
    address, groups = parse_self(own), groups_from_environment(os.environ)
    port, ports = udp_port_from_environment(os.environ), ports_from_environment(os.environ)
    descriptors = raise_limit(WANTED_DESCRIPTORS)  # before any is needed: the caller may have used up the usual ones

    def network(number: int) -> Network:
        return plan(address, groups, targets, interfaces(), address_towards)[number]

    log = EventLog(LogLines(STANDARD_ERROR), as_json=log_format == "json")
    sides = Side(0, lambda: network(0), port), Side(1, lambda: network(1), port)
    rules = RelayRules(
        mac1_keys=[key.mac1_key for key in keys],
        maximum_hops=max_hops,
        hop_delay=hop_delay,
        rate=rate,
        ports=ports,
        descriptors=descriptors,
    )
    relay = Relay(sides, rules, log=log)
    near, far = (", ".join(side.labels) or "nothing" for side in sides)
    what = ", ".join(key.fingerprint for key in keys) or "every application"
    log.banner(
        f"cproxy: relaying {what} between {near} (at {address.text}) and {far}",
        applications=[key.fingerprint for key in keys],
        near=sides[0].labels,
        far=sides[1].labels,
    )
    try:
        relay.run()
    finally:
        log.close()
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_click(command, argv, patience=PATIENCE)
