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
    f"{CONNECTION}/test_session_ahead.py",
    f"{CONNECTION}/test_session_wanted.py",
    f"{CONNECTION}/test_ahead_machine.py",
    f"{CONNECTION}/test_session_silence.py",
    f"{CONNECTION}/test_silence.py",
    f"{CONNECTION}/test_session_machine.py",
    f"{CONNECTION}/test_streams.py",
    RECORDED_SESSIONS,
)

# Those that see most come first: the first test that fails ends the run.
MIRRORS: dict[str, tuple[str, ...]] = {
    "cexec.protocol.base.wire": (f"{BASE}/test_wire.py",),
    "cexec.protocol.base.keys": (f"{BASE}/test_keys.py", RECORDED, DOCUMENT),
    "cexec.protocol.base.certificate": (f"{BASE}/test_keys.py", RECORDED, DOCUMENT),
    "cexec.protocol.datagrams.hello": (f"{DATAGRAMS}/test_hello.py", RECORDED, DOCUMENT, ATTACKS),
    "cexec.protocol.datagrams.announcement": (f"{DATAGRAMS}/test_announcement.py", RECORDED, DOCUMENT, ATTACKS),
    "cexec.protocol.connection.frames": (
        f"{CONNECTION}/test_frames.py", f"{CONNECTION}/test_frames_bounds.py", DOCUMENT, *SESSIONS,
    ),
    "cexec.protocol.connection.streams": (f"{CONNECTION}/test_streams.py", *SESSIONS),
    "cexec.protocol.connection.session_states": (*SESSIONS,),
    "cexec.protocol.connection.session": (*SESSIONS,),
    "cexec.protocol.connection.lease_jobs": (*SESSIONS,),
    "cexec.protocol.connection.silence": (*SESSIONS, "tests/net/test_liveness.py"),
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
        "bid", "bid_slots", "bid_bounds", "bid_claims", "bid_machine", "clients", "reservations", "places",
        "remembered", "unproved", "unproved_room", "replay", "turns", "turns_rests", "reputation", "competition",
    )
)  # fmt: skip
BIDDERS = (
    "bid", "bid_delay", "clients", "places", "queue_words", "remembered", "reservations", "slots", "turns", "unproved",
)  # fmt: skip
MIRRORS |= {f"cexec.protocol.decisions.{name}": BIDS for name in BIDDERS}
MIRRORS["cexec.protocol.decisions.wanted_slots"] = (
    f"{DECISIONS}/test_wanted_slots.py", f"{DECISIONS}/test_bid_machine.py",
)  # fmt: skip
