"""Mistakes that no test saw once, written out: each has to be seen now.

Contract: `KNOWN` names each with its module and what is replaced; `EQUIVALENT` is a change that means nothing, and has
to survive.  A text that is not in its module exactly once makes a test fail: it is then to be written anew.
"""

from __future__ import annotations

from dataclasses import dataclass

BASE = "cexec.protocol.base"
CONNECTION = "cexec.protocol.connection"
DATAGRAMS = "cexec.protocol.datagrams"
DECISIONS = "cexec.protocol.decisions"


@dataclass(frozen=True, slots=True)
class Replacement:
    """In `module`, `before` becomes `after`."""

    name: str
    module: str
    before: str
    after: str


_HELLO_SIGNATURE = "    verify_signature(hello.certificate.public_key, signature, SIGNATURE_LABEL, h, body)\n"


def _only_if(purpose: str) -> str:
    return f"    if hello.purpose != {purpose}:\n    {_HELLO_SIGNATURE}"


KNOWN = (
    Replacement("a forged QUEUED", f"{DATAGRAMS}.hello", _HELLO_SIGNATURE, _only_if("QUEUED")),
    Replacement("a forged UNREACHABLE", f"{DATAGRAMS}.hello", _HELLO_SIGNATURE, _only_if("UNREACHABLE")),
    Replacement("a forged answer to a census", f"{DATAGRAMS}.hello", _HELLO_SIGNATURE, _only_if("CENSUS")),
    Replacement("a peer proved by a recorded flight", f"{CONNECTION}.channel", "proved=worker", "proved=True"),
    Replacement(
        "an EXIT before STARTED",
        f"{CONNECTION}.session_states",
        "    PREPARING: (frames.PROGRAM,",
        "    PREPARING: (frames.EXIT, frames.PROGRAM,",
    ),
    Replacement(
        "credit kept by a lease",
        f"{CONNECTION}.session",
        "        self._creditors.clear()\n        self._take",
        "        self._take",
    ),
    Replacement(
        "a failed handshake that is not erased", f"{CONNECTION}.channel", "        self._handshake.erase()\n", ""
    ),
    Replacement(
        "no cap on `wanted for`",
        f"{DECISIONS}.bid",
        "max(0.0, min(wanted_for, LONGEST_WANTED))",
        "max(0.0, wanted_for)",
    ),
    Replacement(
        "forgetting while a slot is held",
        f"{DECISIONS}.bid",
        "        if announcement is not None and not announcement.holds_slot:\n",
        "        if announcement is not None:\n",
    ),
    Replacement(
        "a key file of an older version",
        f"{BASE}.client_key",
        "version != KEY_FILE_VERSION",
        "version > KEY_FILE_VERSION",
    ),
    Replacement(
        "swapped keys of a worker file",
        f"{BASE}.client_key",
        'ClientKey(secret_of(fields, "worker-public"), psk, authority,',
        'ClientKey(psk, secret_of(fields, "worker-public"), authority,',
    ),
)
# The one file of each module in which a test has to fail: so the whole takes seconds.
TESTS = {
    f"{BASE}.client_key": "tests/protocol/base/test_keys.py",
    f"{BASE}.wire": "tests/protocol/base/test_wire.py",
    f"{DATAGRAMS}.hello": "tests/protocol/datagrams/test_hello.py",
    f"{CONNECTION}.channel": "tests/protocol/connection/test_channel.py",
    f"{CONNECTION}.session_states": "tests/protocol/connection/test_session_states.py",
    f"{CONNECTION}.session": "tests/protocol/connection/test_session_lease.py",
    f"{DECISIONS}.bid": "tests/protocol/decisions/test_bid_bounds.py",
}
EQUIVALENT = Replacement("nothing", f"{BASE}.wire", "if end > len(self._data):", "if len(self._data) < end:")
