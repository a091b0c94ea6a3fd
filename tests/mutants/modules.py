"""Which modules are mutated, and by which tests each of their mutants has to be seen.

Contract: constants only.  The tests are those that mirror the module, the attacks, what 0.1.0 has sent, and the numbers
of the document.  What only the test of a whole command would see counts as not seen.
"""

from __future__ import annotations

ATTACKS = "tests/protocol/test_attacks.py"
RECORDED = "tests/protocol/datagrams/test_recorded_datagrams.py"
RECORDED_SESSIONS = "tests/protocol/connection/test_recorded_sessions.py"
DOCUMENT = "tests/protocol/test_document.py::test_a_row_of_the_document_has_the_value_of_the_code"
BASE = "tests/protocol/base"
DATAGRAMS = "tests/protocol/datagrams"
CONNECTION = "tests/protocol/connection"
DECISIONS = "tests/protocol/decisions"
SESSIONS = (
    f"{CONNECTION}/test_session.py",
    f"{CONNECTION}/test_session_states.py",
    f"{CONNECTION}/test_session_calls.py",
    f"{CONNECTION}/test_session_lease.py",
    f"{CONNECTION}/test_session_silence.py",
    f"{CONNECTION}/test_silence.py",
    f"{CONNECTION}/test_streams.py",
    RECORDED_SESSIONS,
    f"{CONNECTION}/test_session_ahead.py",
    f"{CONNECTION}/test_session_wanted.py",
    f"{CONNECTION}/test_session_machine.py",
    f"{CONNECTION}/test_ahead_machine.py",
)


def _tests(*first: str, others: tuple[str, ...]) -> tuple[str, ...]:
    """Returns each of them once."""
    return tuple(dict.fromkeys([*first, *others]))


# Those that see most come first, and those that take long come last: the first test that fails ends the run.
MIRRORS: dict[str, tuple[str, ...]] = {
    "cexec.protocol.base.wire": (f"{BASE}/test_wire.py",),
    "cexec.protocol.base.keys": (f"{BASE}/test_keys.py", RECORDED, DOCUMENT),
    "cexec.protocol.base.client_key": (f"{BASE}/test_keys.py", RECORDED, DOCUMENT),
    "cexec.protocol.base.certificate": (f"{BASE}/test_keys.py", RECORDED, DOCUMENT),
    "cexec.protocol.datagrams.hello": (f"{DATAGRAMS}/test_hello.py", RECORDED, DOCUMENT, ATTACKS),
    "cexec.protocol.datagrams.announcement": (f"{DATAGRAMS}/test_announcement.py", RECORDED, DOCUMENT, ATTACKS),
    "cexec.protocol.datagrams.opened_announcement": (
        f"{DATAGRAMS}/test_announcement.py", RECORDED, DOCUMENT, ATTACKS,
    ),
    "cexec.protocol.connection.frames": (
        f"{CONNECTION}/test_frames.py", f"{CONNECTION}/test_frames_bounds.py", DOCUMENT, *SESSIONS,
    ),
    "cexec.protocol.connection.terminal_request": (f"{CONNECTION}/test_terminal_request.py", DOCUMENT),
    "cexec.protocol.connection.streams": _tests(f"{CONNECTION}/test_streams.py", others=SESSIONS),
    "cexec.protocol.connection.session_states": _tests(f"{CONNECTION}/test_job_numbers.py", others=SESSIONS),
    "cexec.protocol.connection.session": (*SESSIONS,),
    "cexec.protocol.connection.ahead_job": _tests(f"{CONNECTION}/test_session_ahead.py", others=SESSIONS),
    "cexec.protocol.connection.silence": _tests(
        f"{CONNECTION}/test_silence.py", "tests/net/test_liveness.py", others=SESSIONS
    ),
    "cexec.protocol.connection.worker_handshake": (
        f"{CONNECTION}/test_channel.py", f"{CONNECTION}/test_channel_machine.py", RECORDED_SESSIONS, DOCUMENT, ATTACKS,
    ),
    "cexec.protocol.connection.channel": (
        f"{CONNECTION}/test_channel.py", f"{CONNECTION}/test_channel_machine.py", RECORDED_SESSIONS,
        f"{CONNECTION}/test_packed_records.py", f"{CONNECTION}/test_damage.py", DOCUMENT, ATTACKS,
    ),
    "cexec.protocol.connection.records": (
        f"{CONNECTION}/test_records.py", f"{CONNECTION}/test_packed_records.py",
        f"{CONNECTION}/test_channel_machine.py", RECORDED_SESSIONS, f"{CONNECTION}/test_damage.py", DOCUMENT,
    ),
}  # fmt: skip
BIDS = tuple(
    f"{DECISIONS}/test_{name}.py"
    for name in (
        "bid", "bid_bounds", "bid_slots", "bid_claims", "allowances", "clients", "reservations", "unproved",
        "wanted_slots", "bid_machine", "remembered", "places", "slots", "queue_words", "unproved_room", "turns",
        "turns_rests", "reputation", "competition", "replay",
    )
)  # fmt: skip
# The modules of the bidder, and the tests that see most of the mutants of each.
BIDDERS: dict[str, tuple[str, ...]] = {
    "bid": ("bid",),
    "boots": ("boots", "queue_words", "census_turns"),
    "census_turns": ("census_turns", "boots"),
    "bid_delay": ("competition", "reputation"),
    "clients": ("clients", "reservations"),
    "places": ("places", "unproved"),
    "queue_words": ("queue_words", "unproved"),
    "remembered": ("remembered", "unproved", "bid_bounds"),
    "reservations": ("reservations",),
    "slots": ("slots", "bid_slots", "unproved"),
    "turns": ("turns", "turns_rests"),
    "unproved": ("allowances", "unproved"),
}
MIRRORS |= {
    f"cexec.protocol.decisions.{module}": _tests(*(f"{DECISIONS}/test_{name}.py" for name in first), others=BIDS)
    for module, first in BIDDERS.items()
}
MIRRORS["cexec.protocol.decisions.wanted_slots"] = (
    f"{DECISIONS}/test_wanted_slots.py",
    f"{DECISIONS}/test_bid_machine.py",
)
