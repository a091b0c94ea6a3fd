"""The hosts of a run, from the command line or a file.

Contract: `read_hosts(lines)` reads GNU parallel's sshloginfile: a line has `[N/][user@]host[:port]`, or several of them
with commas, or node sets of clush (`node_sets`); N is the number of jobs that the worker there runs at once.  What
follows `#` is a comment.  An IPv6 address with a port stands in brackets.  A host that is named twice is one host.
Every `Host` has a name of its own, which its worker's certificate has, too.  `UsageError` names the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cexec.boot.node_sets import MOST_NAMES, expand
from cexec.errors import UsageError
from cexec.protocol.base.certificate import valid_name
from cexec.protocol.base.limits import MAXIMUM_NAME

MOST_SLOTS = 4096  # (ours) as of cservice -j
HIGHEST_PORT = 65_535
SSH_PORT = 22
_HOST = re.compile(r"[A-Za-z0-9_.:%~-]+")
_USER = re.compile(r"[^\s@:/'\"\\]+")


@dataclass(frozen=True, slots=True)
class Host:
    """One machine as ssh reaches it.  `slots`, `port`: None if the list does not say."""

    address: str
    user: str = ""
    port: int | None = None
    slots: int | None = None
    name: str = ""

    @property
    def destination(self) -> str:
        """Returns ssh's last argument but the command."""
        return f"{self.user}@{self.address}" if self.user else self.address

    @property
    def known_as(self) -> str:
        """Returns what ssh's known_hosts calls it."""
        return self.address if self.port in (None, SSH_PORT) else f"[{self.address}]:{self.port}"

    @property
    def text(self) -> str:
        """Returns the host as a list has it."""
        if self.port is None:
            return self.destination
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{host}:{self.port}" if self.user else f"{host}:{self.port}"


def read_hosts(lines: Iterable[str], where: str) -> list[Host]:
    """Returns the hosts of the lines; `where` is the name of the file or option in messages."""
    found: dict[tuple[str, str, int | None], Host] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            hosts = [parse_host(word) for part in text.split() for word in expand(part)]
        except UsageError as error:
            raise UsageError(f"{where} line {number}: {error}") from None
        for host in hosts:
            key = (host.user, host.address, host.port)
            before = found.get(key)
            found[key] = host if before is None else replace(before, slots=before.slots or host.slots)
        if len(found) > MOST_NAMES:
            raise UsageError(f"{where} has more than {MOST_NAMES} hosts")
    if not found:
        raise UsageError(f"{where} names no host")
    return _named(list(found.values()))


def parse_host(text: str) -> Host:
    """Reads `[N/][user@]host[:port]`."""
    body, slots = text, None
    if body.startswith("@") and "/" in body:
        body = body.partition("/")[2]  # a host group of GNU parallel, which is about jobs
    before, slash, after = body.partition("/")
    if slash:
        if not (before.isascii() and before.isdigit() and 0 < int(before[:9]) <= MOST_SLOTS):
            raise UsageError(f"{text!r}: before the slash stands how many jobs run at once, from 1 to {MOST_SLOTS}")
        body, slots = after, int(before)
    if body == ":":
        raise UsageError("':' is this machine, for which no ssh is needed: run cservice here")
    user, at, rest = body.rpartition("@")
    if at and not _USER.fullmatch(user):
        raise UsageError(f"{text!r}: {user!r} is not the name of a user")
    address, port = _split_port(rest, text)
    if not _HOST.fullmatch(address) or address.startswith("-") or body.startswith("-"):
        raise UsageError(f"{text!r} is not a host; hosts are such as 4/user@node07:22 and node[01-32,40]")
    return Host(address, user, port, slots)


def _split_port(text: str, whole: str) -> tuple[str, int | None]:
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        if ":" not in address or (rest and not rest.startswith(":")):
            raise UsageError(f"{whole!r}: brackets are for the numbers of hosts, or for an IPv6 address before a port")
        digits = rest[1:] if rest else None
    elif text.count(":") == 1:
        address, _, digits = text.partition(":")
    else:
        address, digits = text, None
    if digits is None:
        return address, None
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) <= HIGHEST_PORT):
        raise UsageError(f"{whole!r}: {digits!r} is not a port")
    return address, int(digits)


def _named(hosts: list[Host]) -> list[Host]:
    """Gives each host a name: its own, with port and user only where two would have the same."""
    same: dict[str, int] = {}
    for host in hosts:
        same[host.address] = same.get(host.address, 0) + 1
    named, taken = [], set()
    for host in hosts:
        parts = [host.address]
        if same[host.address] > 1:
            parts += [*([str(host.port)] if host.port else []), *([host.user] if host.user else [])]
        name = "".join(letter if valid_name(letter) else "-" for letter in "-".join(parts))[:MAXIMUM_NAME]
        if name in taken:
            raise UsageError(f"{host.text}: a host before it has the name {name}, too")
        taken.add(name)
        named.append(replace(host, name=name))
    return named
