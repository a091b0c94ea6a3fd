"""The parts of the fault campaign by themselves: damage to frames, recovery, and the table of rows."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from tests.environment import ROOT
from tests.faults.frame_damage import ETHERNET, corrupted, forged, updated
from tests.faults.records import CAT, CEXEC, CMAP, Ended, Fault, Submitted, append, read_all
from tests.faults.recovery import Recovery, recovery
from tests.faults.rows import CONNECTION, DATAGRAM, DISK, GOAL, HOST, OFFSET, PROCESS, all_rows
from tests.faults.soak import State
from tests.faults.stranger import packet
from tests.faults.table import BEGIN, END, totals

TCP, UDP = 6, 17


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(protocol: int, content: bytes) -> bytes:
    """An Ethernet frame with a right checksum of TCP or UDP."""
    if protocol == TCP:
        head = struct.pack("!HHIIBBHHH", 1000, 2000, 1, 2, 5 << 4, 0x18, 500, 0, 0)
    else:
        head = struct.pack("!HHHH", 1000, 2000, 8 + len(content), 0)
    addresses = bytes([10, 77, 0, 1, 10, 77, 0, 2])
    pseudo = addresses + struct.pack("!BBH", 0, protocol, len(head) + len(content))
    total = checksum(pseudo + head + content).to_bytes(2, "big")
    head = head[:16] + total + head[18:] if protocol == TCP else head[:6] + total
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(head) + len(content), 0, 0, 64, protocol, 0) + addresses
    return bytes(12) + b"\x08\x00" + ip + head + content


def is_sound(data: bytes) -> bool:
    ip = data[ETHERNET : ETHERNET + 20]
    transport = data[ETHERNET + 20 :]
    pseudo = ip[12:20] + struct.pack("!BBH", 0, ip[9], len(transport))
    return checksum(pseudo + transport) == 0


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("content", [b"a", b"some bytes", b"an odd number of bytes"])
def test_forged_frames_differ_in_a_bit_of_their_content_and_have_a_right_checksum(
    protocol: int, content: bytes
) -> None:
    whole = frame(protocol, content)
    assert is_sound(whole)
    for _ in range(50):
        changed = forged(whole)
        assert changed != whole and len(changed) == len(whole)
        assert is_sound(changed)
        assert changed[ETHERNET : ETHERNET + 20] == whole[ETHERNET : ETHERNET + 20]
        differing = int.from_bytes(changed[-len(content) :], "big") ^ int.from_bytes(content, "big")
        assert differing.bit_count() == 1


def test_frames_without_content_are_not_forged() -> None:
    for whole in (frame(TCP, b""), bytes(12) + b"\x86\xdd" + bytes(60), bytes(20)):
        assert forged(whole) == whole


def test_a_corrupted_frame_differs_in_one_bit_behind_the_ethernet_header() -> None:
    whole = frame(TCP, b"content")
    changed = corrupted(whole)
    assert (int.from_bytes(changed, "big") ^ int.from_bytes(whole, "big")).bit_count() == 1
    assert changed[:ETHERNET] == whole[:ETHERNET]


def test_the_checksum_of_rfc_1624s_example() -> None:
    assert updated(0xDD2F, 0x5555, 0x3285) == 0x0000


def submit(directory: Path, name: str, lane: str, begin: float, end: float, status: int = 0) -> None:
    append(directory, Submitted(name, CEXEC, CAT, 0, 0, begin, lane=lane))
    append(directory, Ended(name, status, end))


def test_recovery_is_that_of_the_slowest_lane_after_the_worst_fault(tmp_path: Path) -> None:
    append(tmp_path, Fault(9.0, 10.0), Fault(19.0, 20.0))
    submit(tmp_path, "a1", "a", 8.5, 11.0)
    submit(tmp_path, "a2", "a", 11.0, 20.5)
    submit(tmp_path, "b1", "b", 9.0, 9.9)
    assert recovery(tmp_path, {"a", "b"}) is None
    submit(tmp_path, "b2", "b", 9.9, 13.0, status=111)
    submit(tmp_path, "b3", "b", 13.0, 22.5)
    assert recovery(tmp_path, {"a"}) == Recovery(1.0, 0.0, "a")
    assert recovery(tmp_path, {"a", "b"}) == Recovery(12.5, 0.0, "b")


def test_the_time_that_a_lane_usually_needs_does_not_count(tmp_path: Path) -> None:
    append(tmp_path, Fault(9.0, 10.0))
    submit(tmp_path, "a1", "a", 1.0, 2.0)
    submit(tmp_path, "a2", "a", 2.5, 4.0)
    submit(tmp_path, "a3", "a", 8.0, 12.0)
    found = recovery(tmp_path, {"a"})
    assert found == Recovery(2.0, 1.5, "a")
    assert found.beyond == pytest.approx(0.5)


def test_recovery_of_a_run_of_cmap_is_that_of_its_results(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    append(tmp_path, Submitted("t", CMAP, CAT, 0, 0, 0.0, lane="cmap", run="run", row=1))
    append(tmp_path, Fault(0.0, 1.0))
    assert recovery(tmp_path, {"cmap"}) is None
    (tmp_path / "out" / "t").touch()
    assert recovery(tmp_path, {"cmap"}) == Recovery((tmp_path / "out" / "t").stat().st_ctime - 1, 0.0, "cmap")


def test_a_record_that_was_cut_short_is_none(tmp_path: Path) -> None:
    append(tmp_path, Ended("a", 0, 1.0), Ended("b", 0, 1.0))
    path = tmp_path / "ended"
    path.write_text(path.read_text()[:-5])
    assert [one.id for one in read_all(tmp_path, Ended)] == ["a"]


def test_each_line_of_the_table_is_that_of_a_row_and_they_are_in_order() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    told = [found[1] for line in lines if (found := re.match(r"\| \w+ \| ([^|:]+): ", line))]
    assert told == [one.name for one in all_rows() if one.name in told]
    assert len(told) > 40


def test_rows_that_need_longer_than_the_goal_say_why() -> None:
    assert all(bool(one.reason) == (one.limit > GOAL) for one in all_rows())
    assert any(one.quick for one in all_rows())


def test_faults_are_summed_by_what_they_hit() -> None:
    counted = {"killed after GO": 3, "flood": 5_000, "cut": 16, "connections reset": 1_200}
    assert totals(counted) == [
        "1,219 discrete faults: 3 of processes, 1,200 of connections, 0 of hosts and links, 0 of disks, "
        "16 at single bytes of a",
        "connection. And 5,000 datagrams.",
    ]
    assert {one.hits for one in all_rows()} == {PROCESS, CONNECTION, HOST, DISK, OFFSET, DATAGRAM}


def test_what_has_grown() -> None:
    before = State(10, 3, 50_000_000)
    assert not State(10, 3, 60_000_000).grown(before) and State(12, 3, 50_000_000).grown(before)
    for more in (State(11, 3, 50_000_000), State(10, 4, 50_000_000), State(10, 3, 80_000_000)):
        assert more.grown(before)


def test_a_packet_with_an_invented_source_is_one_of_udp() -> None:
    made = packet("10.77.0.2", 40_000, "10.77.0.255", b"datagram")
    assert made[:1] == b"\x45" and len(made) == int.from_bytes(made[2:4], "big")
    assert made[9] == UDP and made[12:20] == bytes([10, 77, 0, 2, 10, 77, 0, 255])
    assert made[20:28] == struct.pack("!HHHH", 40_000, 3010, 16, 0) and made[28:] == b"datagram"
