"""A network laboratory: hosts that are network namespaces of this machine, joined by bridges.

Contract: `with Lab(3) as lab:` makes hosts 1 to 3 on one bridge; `Lab([(1, 2), (2, 3, 4)])` makes one bridge per tuple,
so host 2 has a foot in both networks and forwards nothing, as a relay does.  On network k (from 0) host i has the
interface ethk with the addresses 10.77.k.i/24 (broadcast 10.77.k.255), fd77:k::i/64 and fe80::i/64.  Nothing has a name
outside: each namespace lives in a process that ends when its standard input does, so nothing is left even when the test
run is killed, and runs side by side do not meet.  Needs `require_namespaces()`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from tests.environment import clean_environment
from tests.needs import find_tool

HAS_IPV6 = os.path.exists("/proc/net/if_inet6")
# A new namespace copies the machine's setting, which containers often switch on.  `read` finds no end of line there.
FORWARD_NOTHING = (
    'read forward < /proc/sys/net/ipv4/ip_forward; test "$forward" = 0 || echo 0 > /proc/sys/net/ipv4/ip_forward'
)
PORTS = 250  # hosts on one network at most: they are numbered by the last byte of their address


class Namespace:
    """One network namespace, held by a process of ours."""

    def __init__(self, name: str, setup: str | None = None) -> None:
        """`setup`: what a shell does there first; by default it brings the loopback up."""
        self.name = name
        setup = f"{_tool('ip')} link set lo up" if setup is None else setup
        # cat ends with its standard input, that is with this process; the line says that the namespace is there
        script = f"{{ {setup}; }} && echo && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"\n":
            raise OSError("cannot make a network namespace")
        self.pid = self._holder.pid

    def close(self) -> None:
        """Lets the namespace go; it vanishes with the last process in it."""
        self._holder.communicate()

    @property
    def path(self) -> str:
        """What a process opens to enter the namespace."""
        return f"/proc/{self.pid}/ns/net"

    def inside(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command that runs `argv` in this namespace; the process keeps its id, so signals reach it."""
        return [_tool("nsenter"), f"--net={self.path}", "--", *(os.fspath(argument) for argument in argv)]

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        """Starts a process in this namespace; CEXEC_* and GROUP of our environment are not passed on."""
        return subprocess.Popen(self.inside(argv), **_with_environment(options))

    def run(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Runs a process in this namespace to its end: 60 seconds at most unless `timeout` says otherwise."""
        return subprocess.run(self.inside(argv), **{"timeout": 60, **_with_environment(options)})

    def ip(self, *commands: str) -> None:
        """Runs commands of ip(8), all in one process: `ip("link set eth0 down")`."""
        self._configure(["ip", "-batch", "-"], commands)

    def _configure(self, argv: list[str], lines: Iterable[str]) -> None:
        text = "".join(line + "\n" for line in lines)
        result = self.run([_tool(argv[0]), *argv[1:]], input=text, text=True, capture_output=True)
        if result.returncode != 0:
            raise OSError(f"{' '.join(argv)} in {self.name}: {result.stderr.strip()}\n{text}")


class Host(Namespace):
    """A host of a `Lab`; its first network's addresses are `address` and `address6`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"host {number}", FORWARD_NOTHING)
        self.number = number
        self.networks: list[int] = []

    @property
    def address(self) -> str:
        return self.address_on(self.networks[0])

    @property
    def address6(self) -> str:
        return f"fd77:{self.networks[0]:x}::{self.number:x}"

    def address_on(self, network: int) -> str:
        """The IPv4 address on network `network`."""
        return f"10.77.{network}.{self.number}"

    def link(self, up: bool, network: int | None = None) -> None:
        """Pulls the cable out of this host, or puts it in again."""
        self.ip(f"link set {self._interface(network)} {'up' if up else 'down'}")
        if up and HAS_IPV6:
            self.ip(*self._ipv6(self.networks[0] if network is None else network))  # the kernel drops it with the link

    def mtu(self, size: int, network: int | None = None) -> None:
        """The largest packet that this host sends; below 1280 bytes the interface loses IPv6."""
        self.ip(f"link set {self._interface(network)} mtu {size}")

    def limit_rate(self, rate: str, network: int | None = None) -> None:
        """Sends at most `rate`, as tc(8) writes it: 1mbit.  `unlimit_rate` ends it."""
        interface = self._interface(network)
        self._tc(f"qdisc replace dev {interface} root tbf rate {rate} burst 32kbit latency 400ms")

    def unlimit_rate(self, network: int | None = None) -> None:
        self._tc(f"qdisc del dev {self._interface(network)} root")

    def drop(self, percent: int, match: str = "meta l4proto udp", hook: str = "input") -> None:
        """Loses `percent` of the packets that `match` (nft's language) coming in or, with hook="output", going out."""
        share = "" if percent == 100 else f"numgen random mod 100 < {percent}"
        self.nft(
            "add table inet lab",
            f"add chain inet lab {hook} {{ type filter hook {hook} priority 0; }}",
            f"add rule inet lab {hook} {match} {share} drop",
        )

    def nft(self, *commands: str) -> None:
        """Runs commands of nft(8)."""
        self._configure(["nft", "-f", "-"], commands)

    def clear_rules(self) -> None:
        """Takes back `drop` and `nft`."""
        self.nft("flush ruleset")

    def plugs(self) -> list[str]:
        """What ip(8) does in the switch to plug this host into the bridges of its networks."""
        commands = []
        for network in self.networks:
            port = f"v{network}x{self.number}"
            commands.append(f"link add {port} type veth peer name eth{network} netns {self.pid}")
            commands.append(f"link set {port} master bridge{network} up")
        return commands

    def configure(self) -> None:
        """Gives the interfaces their addresses, when the host is plugged in."""
        commands = ["link set lo up"]
        for network in self.networks:
            if HAS_IPV6:  # no link-local address of the kernel's choice, for which duplicates are looked for a second
                commands.append(f"link set eth{network} addrgenmode none")
            commands.append(f"address add {self.address_on(network)}/24 broadcast 10.77.{network}.255 dev eth{network}")
            commands.append(f"link set eth{network} up")
            if HAS_IPV6:
                commands += self._ipv6(network)
        self.ip(*commands)

    def _ipv6(self, network: int) -> list[str]:
        return [
            f"address replace fd77:{network:x}::{self.number:x}/64 dev eth{network} nodad",
            f"address replace fe80::{self.number:x}/64 dev eth{network} nodad",
        ]

    def _interface(self, network: int | None) -> str:
        return f"eth{self.networks[0] if network is None else network}"

    def _tc(self, command: str) -> None:
        self._configure(["tc", "-batch", "-"], [command])


class Lab:
    """Hosts and the bridges that join them; a context manager."""

    def __init__(self, networks: int | Sequence[Iterable[int]]) -> None:
        self._networks = [range(1, networks + 1)] if isinstance(networks, int) else [list(hosts) for hosts in networks]
        self._switch: Namespace | None = None
        self._hosts: dict[int, Host] = {}

    @classmethod
    def row(cls, length: int) -> Lab:
        """Hosts in a row: each reaches only its neighbours, 1 and 2 on network 0, 2 and 3 on network 1, and so on."""
        return cls([(number, number + 1) for number in range(1, length)])

    @property
    def hosts(self) -> list[Host]:
        return list(self._hosts.values())

    @property
    def switch(self) -> Namespace:
        """Where the bridges are: bridgeK is that of network K, and host i is plugged into its port vKxi."""
        assert self._switch is not None, "the lab is not made"
        return self._switch

    def host(self, number: int) -> Host:
        """Host `number`; the first is 1, as its address says."""
        return self._hosts[number]

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unplugs everything.  What still runs in a host keeps running without a network, as on a real one."""
        for namespace in [*self._hosts.values(), self._switch]:
            if namespace is not None:
                namespace.close()
        self._hosts, self._switch = {}, None

    def _make(self) -> None:
        """Few processes, because a test has about three hosts and several hundred tests have a lab."""
        switch = self._switch = Namespace("the switch", "true")
        commands = ["link set lo up"]
        for network, numbers in enumerate(self._networks):
            # a bridge that snoops forgets multicast groups, since nobody here asks for reports
            commands.append(f"link add bridge{network} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
            commands.append(f"link set bridge{network} up")
            for number in numbers:
                if not 1 <= number <= PORTS:
                    raise ValueError(f"no host can have the number {number}")
                if number not in self._hosts:
                    self._hosts[number] = Host(number)
                self._hosts[number].networks.append(network)
        switch.ip(*commands, *(command for host in self.hosts for command in host.plugs()))
        for host in self.hosts:
            host.configure()


def _tool(name: str) -> str:
    """A tool of the system, whatever PATH a process is given."""
    return find_tool(name) or name


def _with_environment(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"env": clean_environment(), **options}
