"""What other programs and the kernel print: packet filters, /proc, multicast DNS, netlink, processes of our own."""

from __future__ import annotations

import math
import sys

from cexec.net.interfaces import parse_attributes, read_table
from cexec.net.mdns import FOUND, LOST, Finds
from cexec.system.host.iptables import parse_iptables
from cexec.system.host.load import Sampler, cpu_identity, find_quota
from cexec.system.host.load_command import parse_load
from cexec.system.host.nftables import parse_nftables
from cexec.system.host.packet_filter import INPUT, Chain, Flow, blockers
from cexec.system.printable import printable
from cexec.worker.discovery.machine import usable_memory
from cexec.worker.jobs.report_memory import RING, NoteReader, Notes, ReportMemory
from cexec.worker.jobs.reports import MAXIMUM_REPORT, ReportError, decode, encode
from tests.fuzz.target import pieces, scratch, target

FLOW = Flow(INPUT, "udp", to=3010)


def _explained(chains: list[Chain]) -> None:
    for text in blockers(chains, FLOW):
        assert isinstance(text, str)


@target(ValueError)
def nft_listing(data: bytes) -> None:
    """The rules that nft prints, as JSON."""
    _explained(parse_nftables(data.decode(errors="replace")))


@target()
def iptables_listing(data: bytes) -> None:
    """The rules that iptables prints."""
    _explained(parse_iptables(data.decode(errors="replace"), "iptables"))


@target()
def proc_files(data: bytes) -> None:
    """Files of /proc and of control groups."""
    proc, groups = scratch() / "proc", scratch() / "groups"
    names = ["self/cgroup", "stat", "loadavg", "meminfo", "pressure/memory", "cpuinfo"]
    parts = pieces(data)
    for name, part in zip(names, [*parts, *[b""] * len(names)], strict=False):
        path = proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part)
    groups.mkdir(exist_ok=True)
    for name, part in zip(["cpu.max", "cpu.stat", "memory.max"], [*parts[6:], b"", b"", b""], strict=False):
        (groups / name).write_bytes(part)
    find_quota(str(proc), str(groups))
    meter = Sampler(str(proc), str(groups))
    for now in (1.0, 2.0):
        assert 0.0 <= meter.sample(now).level < math.inf
    assert usable_memory(str(proc), str(groups)) >= 0
    cpu_identity(str(proc))


@target(ValueError)
def load_of_a_command(data: bytes) -> None:
    """What the program of --load-command prints; the message of what is refused is one line."""
    try:
        assert 0.0 <= parse_load(data) < math.inf
    except ValueError as error:
        assert printable(str(error)) == str(error)
        raise


@target()
def mdns_entries(data: bytes) -> None:
    """Lines of the process that looks for workers by multicast DNS."""
    finds = Finds()
    for line in data.decode("utf-8", "replace").split("\n"):
        what, _, rest = line.partition(" ")
        finds.hear(LOST if what == "-" else FOUND, rest)
    new, gone = finds.take()
    assert len(gone) <= len(new)


class Kernel:
    """A netlink socket that answers with this, and then says that it is done."""

    def __init__(self, data: bytes) -> None:
        self._answers = [data]

    def send(self, message: bytes) -> None:
        pass

    def recv(self, size: int) -> bytes:
        done = (20).to_bytes(4, sys.byteorder) + (3).to_bytes(2, sys.byteorder) + bytes(14)
        return self._answers.pop()[:size] if self._answers else done


@target(OSError, IndexError, ValueError)
def netlink_dump(data: bytes) -> None:
    """The kernel's table of interfaces; `interfaces` catches what is allowed here."""

    for body in read_table(Kernel(data), 18, 16, b""):  # type: ignore[arg-type]
        parse_attributes(body, 16)
        parse_attributes(body, 8)


@target(ReportError)
def report_of_a_process(data: bytes) -> None:
    """What the process that carries jobs tells its worker."""
    report = decode(data)
    assert len(encode(report)) <= MAXIMUM_REPORT
    assert decode(encode(report)) == report or len(data) > MAXIMUM_REPORT


@target()
def notes_of_a_process(data: bytes) -> None:
    """What the process that carries jobs notes in the memory that it shares with its worker."""
    memory = ReportMemory.create()
    memory.close_fd()
    memory.ring[: len(data)] = data
    reader = NoteReader(memory)
    while report := reader.read():
        assert 0 < len(report) <= MAXIMUM_REPORT
    memory.ring[:] = bytes(RING)
    reader, notes = NoteReader(memory), Notes(memory)
    for written in (piece for piece in pieces(data) if 0 < len(piece) <= MAXIMUM_REPORT):
        notes.write(written)
        assert reader.read() == written
