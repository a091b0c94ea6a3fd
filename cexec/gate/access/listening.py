"""Where cgate may listen.

Contract: on a loopback address always; anywhere else only with TLS and at least one token that is valid, because
otherwise everybody in the network could read tokens, or nobody could have one.  `check_listening` raises `UsageError`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cexec.errors import UsageError


def is_loopback(address: str) -> bool:
    """Returns True if only processes of this machine reach the numeric address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed.is_loopback if mapped is None else bool(mapped.is_loopback)


def check_listening(addresses: Iterable[str], *, tls: bool, has_tokens: bool, option: str = "--http") -> None:
    """`addresses` are numeric: all that the name in --http stands for."""
    beyond = [address for address in addresses if not is_loopback(address)]
    if not beyond:
        return
    if not tls:
        raise UsageError(
            f"{option} {beyond[0]} is not a loopback address, and needs TLS there: "
            "give --tls-cert and --tls-key (cgate tls init DIR makes them)"
        )
    if not has_tokens:
        raise UsageError(
            f"{option} {beyond[0]} is not a loopback address, and no token is valid yet: "
            "make one first (cgate token add)"
        )
