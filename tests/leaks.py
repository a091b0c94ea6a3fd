"""Descriptors as they leak into a shell from terminals, session managers, virtual machines and debuggers.

Contract: `Leaks(stack, directory).open(name)` returns a descriptor that `stack` closes.  BAD are names of what cannot
be carried to a program elsewhere, GOOD of what can.  A device or file that this machine has not is skipped.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: a close resets the connection
FILES = {
    "tun": ("/dev/net/tun", os.O_RDWR),
    "kvm": ("/dev/kvm", os.O_RDWR),
    "random numbers": ("/dev/hwrng", os.O_RDONLY),
    "namespace": ("/proc/self/ns/net", os.O_RDONLY),
    "log device": ("/dev/kmsg", os.O_RDONLY),
    "memory": ("/proc/self/mem", os.O_RDONLY),
    "null": ("/dev/null", os.O_RDWR),
    "zero": ("/dev/zero", os.O_RDONLY),
    "urandom": ("/dev/urandom", os.O_RDONLY),
    "/proc": ("/proc/self/mountinfo", os.O_RDONLY),
    "/sys": ("/sys/kernel/uevent_seqnum", os.O_RDONLY),
}


class Leaks:
    """Opens them one at a time."""

    BAD = ("closed pty", "reset", "unconnected", "datagrams to nobody", "netlink", "listening", "epoll", "directory",
           "tun", "kvm", "random numbers", "namespace", "log device", "memory")  # fmt: skip
    GOOD = ("pty", "terminal", "pipe", "ended pipe", "broken pipe", "connection", "half-closed", "socketpair",
            "datagrams", "file", "null", "zero", "urandom", "/proc", "/sys")  # fmt: skip

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """The two ends of a TCP connection."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = self._keep(socket.create_connection(listener.getsockname()))
            return one, self._keep(listener.accept()[0])

    def open(self, name: str) -> int:
        if name in FILES:
            return self._file(*FILES[name])
        if name in ("closed pty", "pty", "terminal"):
            main, theirs = os.openpty()
            if name == "closed pty":
                os.close(theirs)
                return self._own(main)
            self._own(main)
            self._own(theirs)
            return main if name == "pty" else theirs
        if name.endswith("pipe"):
            return self._pipe(name)
        if name == "epoll":
            return self._own(os.dup(self._stack.enter_context(select.epoll()).fileno()))
        if name == "directory":
            return self._own(os.open(self._directory, os.O_RDONLY))
        if name == "file":
            return self._own(os.open(self._directory / "leaked", os.O_RDWR | os.O_CREAT))
        return self._socket(name)

    def _pipe(self, name: str) -> int:
        reading, writing = os.pipe()
        if name == "ended pipe":
            os.close(writing)
            return self._own(reading)
        if name == "broken pipe":
            os.close(reading)
            return self._own(writing)
        self._own(writing)
        return self._own(reading)

    def _socket(self, name: str) -> int:
        if name in ("connection", "half-closed", "reset"):
            one, other = self.connection()
            if name == "half-closed":
                other.shutdown(socket.SHUT_WR)
            elif name == "reset":
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                other.close()
            if name != "connection":
                select.select([one], [], [], 10)
            return one.fileno()
        if name == "socketpair":
            return self._pair(socket.SOCK_STREAM)
        if name == "datagrams":
            return self._pair(socket.SOCK_DGRAM)
        if name == "netlink":
            return self._keep(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM)).fileno()
        if name == "datagrams to nobody":
            return self._keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).fileno()
        found = self._keep(socket.socket())
        if name == "listening":
            found.bind(("127.0.0.1", 0))
            found.listen()
        return found.fileno()

    def _pair(self, kind: int) -> int:
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        self._keep(other)
        return self._keep(one).fileno()

    def _file(self, path: str, flags: int) -> int:
        try:
            return self._own(os.open(path, flags | os.O_NOCTTY))
        except OSError:
            pytest.skip(f"{path} cannot be opened here")

    def _keep(self, found: socket.socket) -> socket.socket:
        return self._stack.enter_context(found)

    def _own(self, fd: int) -> int:
        self._stack.callback(_close, fd)
        return fd


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass  # the test has done it
