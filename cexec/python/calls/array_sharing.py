"""Arrays that travel once to each machine of an executor, however many calls have them: what a pickle says of them.

Contract: an `ArraySharing` lasts for one round of calls, during which arrays must not change: each is hashed once in
it.  `collect` returns an `ArrayCollector` for one pickle: `reduce` goes to `pickles.dump`, and `sent` then has the
arrays that the pickle names.  Equal bytes are one `SharedArray`, as long as anybody has it.  Any thread may use them.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from cexec.pool.pickles import PROTOCOL
from cexec.pool.shared_arrays import shared_array

if TYPE_CHECKING:
    from collections.abc import Callable


class SharedArray:
    """The bytes of an array, as they are known to the workers."""

    __slots__ = ("__weakref__", "digest", "number", "size")

    def __init__(self, number: int, digest: bytes, size: int) -> None:
        self.number = number
        self.digest = digest
        self.size = size


class SentArray(NamedTuple):
    """An array of a call, and where its bytes are now."""

    array: SharedArray
    data: Callable[[], memoryview]


class ArrayTable:
    """All arrays of one executor; `name` is that of its stores at the workers."""

    def __init__(self) -> None:
        self.name = os.urandom(16).hex()
        self._lock = threading.Lock()
        self._known: weakref.WeakValueDictionary[bytes, SharedArray] = weakref.WeakValueDictionary()
        self._numbers = 0

    def find(self, digest: bytes, size: int) -> SharedArray:
        with self._lock:
            found = self._known.get(digest)
            if found is None:
                self._numbers += 1
                found = self._known[digest] = SharedArray(self._numbers, digest, size)
            return found


class ArraySharing:
    """Arrays of more than `limit` bytes are shared, and are there mapped with this `mode` of numpy.memmap: r or c."""

    def __init__(self, table: ArrayTable, limit: int, mode: str) -> None:
        self.limit = limit
        self.mode = mode
        self._table = table
        self._hashed: dict[int, tuple[weakref.ref[Any], SharedArray]] = {}

    def collect(self) -> ArrayCollector:
        return ArrayCollector(self)

    def forget(self) -> None:
        """Arrays may have changed."""
        self._hashed.clear()

    def find(self, array: Any) -> SharedArray:
        known = self._hashed.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        data = _bytes_of(array)
        found = self._table.find(sha256(data).digest(), len(data))
        self._hashed[id(array)] = (weakref.ref(array), found)
        return found


class ArrayCollector:
    """One pickle's."""

    def __init__(self, sharing: ArraySharing) -> None:
        self.sent: list[SentArray] = []
        self._sharing = sharing

    def reduce(self, array: Any) -> Any:
        """Returns what `__reduce_ex__` would; `array` is a numpy.ndarray or a numpy.memmap."""
        plain = array.view(sys.modules["numpy"].ndarray)
        if array.dtype.hasobject or array.nbytes <= self._sharing.limit:
            return plain.__reduce_ex__(PROTOCOL)
        shared = self._sharing.find(array)
        self.sent.append(SentArray(shared, lambda: _bytes_of(plain)))
        arguments = (shared.number, array.dtype, array.shape, _order_of(array), self._sharing.mode)
        return shared_array, arguments


def _order_of(array: Any) -> str:
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def _bytes_of(array: Any) -> memoryview:
    """Returns the array's own memory if that is without gaps, else a copy."""
    numpy = sys.modules["numpy"]
    plain = array.view(numpy.ndarray)
    turned = plain.T if _order_of(plain) == "F" else numpy.ascontiguousarray(plain)
    return memoryview(turned.reshape(-1).view(numpy.uint8))
