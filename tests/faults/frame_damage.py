"""A cable of bad quality: passes Ethernet frames between two TAP devices, and loses, delays, doubles or damages some.

    python frame_damage.py ONE OTHER

Contract: makes both devices and says `ready`; then reads settings, one JSON object a line, from standard input, whose
end is its own.  `drop`, `duplicate`, `corrupt` and `forge` are probabilities, `delay` and `jitter` seconds; what is not
named is 0.  `corrupt` flips a bit behind the Ethernet header.  `forge` flips a bit of what TCP or UDP carry and makes
the checksum right again, as a defective router does; it concerns IPv4.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
LARGEST_FRAME = 65_600  # bytes
ETHERNET = 14  # bytes of the header
CHECKSUM_AT = {6: 16, 17: 6}  # by protocol: where TCP and UDP have their checksum


class Cable:
    """Both directions."""

    def __init__(self, names: list[str]) -> None:
        self._ends = [_tap(name) for name in names]
        self._settings: dict[str, float] = {}
        self._late: list[tuple[float, int, int, bytes]] = []  # when, serial number, to which end, frame
        self._serial = 0

    def run(self) -> None:
        print("ready", flush=True)
        while True:
            wait = max(self._late[0][0] - time.monotonic(), 0) if self._late else None
            ready = select.select([*self._ends, sys.stdin], [], [], wait)[0]
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                self._settings = json.loads(line)
            for number, end in enumerate(self._ends):
                if end in ready:
                    self._pass(os.read(end, LARGEST_FRAME), 1 - number)
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(self._late)
                self._write(to, frame)

    def _pass(self, frame: bytes, to: int) -> None:
        if self._happens("drop"):
            return
        if self._happens("corrupt"):
            frame = corrupted(frame)
        if self._happens("forge"):
            frame = forged(frame)
        for _ in range(2 if self._happens("duplicate") else 1):
            delay = self._settings.get("delay", 0) + random.random() * self._settings.get("jitter", 0)
            if delay:
                self._serial += 1
                heapq.heappush(self._late, (time.monotonic() + delay, self._serial, to, frame))
            else:
                self._write(to, frame)

    def _happens(self, what: str) -> bool:
        return random.random() < self._settings.get(what, 0)

    def _write(self, to: int, frame: bytes) -> None:
        try:
            os.write(self._ends[to], frame)
        except OSError:
            pass  # what no interface takes is lost


def corrupted(frame: bytes) -> bytes:
    """One bit behind the Ethernet header is another one."""
    return _flip(frame, random.randrange(ETHERNET, len(frame)))


def forged(frame: bytes) -> bytes:
    """One bit of what TCP or UDP carry is another one, and the checksum fits; frames without that stay as they are."""
    if len(frame) < ETHERNET + 20 or frame[12:14] != b"\x08\x00" or frame[23] not in CHECKSUM_AT:
        return frame
    transport = ETHERNET + (frame[14] & 15) * 4
    content = transport + (8 if frame[23] == 17 else (frame[transport + 12] >> 4) * 4)
    end = ETHERNET + int.from_bytes(frame[16:18], "big")
    if content >= end:
        return frame
    at = random.randrange(content, end)
    word = transport + (at - transport) // 2 * 2
    before = int.from_bytes(frame[word : word + 2].ljust(2, b"\0"), "big")
    frame = _flip(frame, at)
    after = int.from_bytes(frame[word : word + 2].ljust(2, b"\0"), "big")
    field = transport + CHECKSUM_AT[frame[23]]
    return (
        frame[:field]
        + struct.pack("!H", updated(int.from_bytes(frame[field : field + 2], "big"), before, after))
        + (frame[field + 2 :])
    )


def updated(checksum: int, before: int, after: int) -> int:
    """The checksum when one word has changed (RFC 1624)."""
    total = (~checksum & 0xFFFF) + (~before & 0xFFFF) + after
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _flip(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1 << random.randrange(8)]) + frame[at + 1 :]


def _tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


if __name__ == "__main__":
    Cable(sys.argv[1:3]).run()
