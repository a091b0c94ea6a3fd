"""Many datagrams with one system call: recvmmsg, which Python has not.

Contract: `Batches().receive(via, limit, prefix, unicast, heard)` appends to `heard` what waits in the non-blocking UDP
socket `via`, at most `limit` datagrams, and never raises: (data, source, via, whether it was sent to this machine
alone).  `unicast` is the answer to the last, or None where the kernel's packet information (IP_PKTINFO) tells it.
What does not begin with `prefix` or is longer than MAXIMUM_FORWARDED is dropped before anything is made of it.
Where there is no recvmmsg, or we may not call it, `make_batches` returns `SingleDatagrams`, which does the same for
twice the CPU time.
"""

from __future__ import annotations

import _socket
import errno
import sys
from typing import TYPE_CHECKING

from cexec.net.announcer import LINUX
from cexec.protocol.base.limits import MAXIMUM_FORWARDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from cexec.net.groups import Sockaddr

    # the datagram, its sender, the socket that heard it, whether it was sent to this machine alone
    Heard: TypeAlias = tuple[bytes, Sockaddr, _socket.socket, bool]

_BATCH = 64  # datagrams (ours) in one call
_DATA_SIZE = 1344  # bytes: MAXIMUM_FORWARDED and one more, which tells what is too long, in whole cache lines
_NAME_SIZE = 32  # bytes: room for either of the next two
_IPV4_SIZE, _IPV6_SIZE = 8, 28  # bytes of struct sockaddr_in that say something, and of struct sockaddr_in6
_CONTROL_SIZE = 64  # bytes: room for one struct in_pktinfo or in6_pktinfo and its header
MOST_SOURCES = 1024  # (ours) that are remembered as Python has them

assert _DATA_SIZE > MAXIMUM_FORWARDED


def make_batches() -> Batches | SingleDatagrams:
    """Returns the fastest way to receive that this machine has."""
    try:
        batches = Batches()
    except (ImportError, OSError, AttributeError):  # no ctypes, no recvmmsg
        return SingleDatagrams()
    return batches if batches.allowed() else SingleDatagrams()


class SingleDatagrams:
    """One datagram with each system call; the same contract."""

    def receive(self, via: _socket.socket, limit: int, prefix: bytes, unicast: bool | None, heard: list[Heard]) -> None:
        try:
            for _ in range(limit):
                if unicast is None and LINUX:
                    data, ancillary, _, source = via.recvmsg(MAXIMUM_FORWARDED + 1, _CONTROL_SIZE)
                    alone = bool(ancillary) and _was_unicast(via.family == _socket.AF_INET6, ancillary[0][2])
                else:
                    data, source = via.recvfrom(MAXIMUM_FORWARDED + 1)
                    alone = bool(unicast)
                if len(data) <= MAXIMUM_FORWARDED and data.startswith(prefix):
                    heard.append((data, source, via, alone))
        except OSError:
            return  # there is no more


class Batches:
    """Buffers for one batch, used again for every socket of a process."""

    def __init__(self) -> None:
        import ctypes  # 2 MB and some milliseconds: only for who hears a group

        class Buffer(ctypes.Structure):  # struct iovec
            _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))

        class MessageHeader(ctypes.Structure):  # struct msghdr
            _fields_ = (
                ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint),
                ("buffers", ctypes.POINTER(Buffer)), ("buffers_count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t), ("flags", ctypes.c_int),
            )  # fmt: skip

        class Message(ctypes.Structure):  # struct mmsghdr
            _fields_ = (("header", MessageHeader), ("length", ctypes.c_uint))

        self._receive = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._errno: Callable[[], int] = ctypes.get_errno
        self._data, self._names = bytearray(_DATA_SIZE * _BATCH), bytearray(_NAME_SIZE * _BATCH)
        self._controls = bytearray(_CONTROL_SIZE * _BATCH)
        data, names, controls = (_address(ctypes, one) for one in (self._data, self._names, self._controls))
        self._buffers = (Buffer * _BATCH)()
        self._messages = (Message * _BATCH)()
        for at, (buffer, message) in enumerate(zip(self._buffers, self._messages, strict=True)):
            header = message.header
            buffer.base, buffer.size = data + at * _DATA_SIZE, MAXIMUM_FORWARDED + 1
            header.name, header.name_size = names + at * _NAME_SIZE, _NAME_SIZE
            header.buffers, header.buffers_count = ctypes.pointer(buffer), 1
            header.control, header.control_size = controls + at * _CONTROL_SIZE, _CONTROL_SIZE
        # What the kernel writes over is put back before each call.
        self._bytes = memoryview(self._messages).cast("B")
        self._fresh = bytes(self._bytes)
        self._lengths = self._bytes.cast("I")[Message.length.offset // 4 :: ctypes.sizeof(Message) // 4]
        self._starts = range(0, len(self._data), _DATA_SIZE)
        names_at = range(0, len(self._names), _NAME_SIZE)
        self._packed = {
            ipv6: [memoryview(self._names)[at : at + size] for at in names_at]
            for ipv6, size in ((False, _IPV4_SIZE), (True, _IPV6_SIZE))
        }
        self._information_at = ctypes.sizeof(ctypes.c_size_t) + 8  # of a struct cmsghdr and what follows it
        self._sources: dict[bytes, Sockaddr] = {}

    def allowed(self) -> bool:
        """Returns False if the kernel, or a container's filter of system calls, has no recvmmsg for us.

        Without it we would hear nothing and never sleep.  So it is asked about a descriptor that is none.
        """
        return bool(
            self._receive(-1, self._messages, 1, _socket.MSG_DONTWAIT, None) < 0 and self._errno() == errno.EBADF
        )

    def receive(self, via: _socket.socket, limit: int, prefix: bytes, unicast: bool | None, heard: list[Heard]) -> None:
        fileno, ipv6 = via.fileno(), via.family == _socket.AF_INET6
        packed_names = self._packed[ipv6]
        while limit > 0:
            wanted = min(limit, _BATCH)
            self._bytes[:] = self._fresh
            count = max(0, self._receive(fileno, self._messages, wanted, _socket.MSG_DONTWAIT, None))
            whole = b""  # the batch, copied at once: a piece of bytes takes a third of the time of one of the buffer
            for start, length, packed in zip(self._starts, self._lengths[:count].tolist(), packed_names):  # noqa: B905
                if length > MAXIMUM_FORWARDED or not self._data.startswith(prefix, start, start + length):
                    continue
                whole = whole or bytes(memoryview(self._data)[: count * _DATA_SIZE])
                name = packed.tobytes()
                source = self._sources.get(name) or self._decode_source(name)
                alone = self._was_unicast(ipv6, start // _DATA_SIZE) if unicast is None else unicast
                heard.append((whole[start : start + length], source, via, alone))
            limit -= wanted
            if count < wanted:
                return

    def _was_unicast(self, ipv6: bool, at: int) -> bool:
        start = at * _CONTROL_SIZE + self._information_at
        return _was_unicast(ipv6, self._controls[start : start + 12])

    def _decode_source(self, name: bytes) -> Sockaddr:
        """As Python has it; remembered, because making it takes long and a flood has few."""
        if len(self._sources) >= MOST_SOURCES:
            self._sources.clear()
        source = self._sources[name] = _decode_source(name)
        return source


def _address(ctypes: Any, buffer: bytearray) -> int:
    """Returns the address of a buffer, which cannot be moved while the result is held."""
    return int(ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer)))


def _was_unicast(ipv6: bool, information: bytes | bytearray) -> bool:
    """struct in_pktinfo: index, the local address for answers, the destination; struct in6_pktinfo: the destination."""
    return information[0] != 0xFF if ipv6 else information[4:8] == information[8:12]


def _decode_source(packed: bytes) -> Sockaddr:
    """struct sockaddr_in or sockaddr_in6: family, port, and address; or flow, address, scope."""
    port = int.from_bytes(packed[2:4], "big")
    if len(packed) == _IPV4_SIZE:
        return _socket.inet_ntoa(packed[4:8]), port
    flow, scope = int.from_bytes(packed[4:8], "big"), int.from_bytes(packed[24:28], sys.byteorder)
    return _socket.inet_ntop(_socket.AF_INET6, packed[8:24]), port, flow, scope
