"""The two value codecs that every message is made of: `Reader` and `Writer`.

Contract: integers are big-endian and unsigned; a `Reader` checks a length before it slices, raises `ProtocolError` and
nothing else for any bytes, and `finish()` refuses what is left over, so what parses re-encodes byte for byte.
docs/protocol.md section 0.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Bytes = bytes | bytearray | memoryview


class Reader:
    """Takes values off the front of `data`; never reads past its end."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: Bytes) -> None:
        self._data = bytes(data)
        self._position = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._position + size
        if end > len(self._data):
            raise ProtocolError("message is shorter than its contents say")
        start, self._position = self._position, end
        return self._data[start:end]

    def integer(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def u8(self) -> int:
        if self._position == len(self._data):
            return self.integer(1)  # raises
        self._position += 1
        return self._data[self._position - 1]

    def u16(self) -> int:
        return self.integer(2)

    def u32(self) -> int:
        return self.integer(4)

    def u64(self) -> int:
        return self.integer(8)

    def short_bytes(self) -> bytes:
        """Up to 255 bytes, their length in one byte before them."""
        return self.take(self.u8())

    def long_bytes(self) -> bytes:
        """Up to 65,535 bytes, their length in two bytes before them."""
        return self.take(self.u16())

    def text(self) -> str:
        """UTF-8 text of up to 255 bytes; undecodable or containing NUL is a `ProtocolError`."""
        return _decode(self.short_bytes())

    def long_text(self) -> str:
        """UTF-8 text of up to 65,535 bytes."""
        return _decode(self.long_bytes())

    def mapping(self) -> dict[str, str]:
        """Text pairs in strictly ascending order of their keys, their number in one byte before them."""
        result: dict[str, str] = {}
        previous = None
        for _ in range(self.u8()):
            key = self.text()
            if previous is not None and key <= previous:
                raise ProtocolError("keys of a mapping are not in ascending order")
            previous = key
            result[key] = self.text()
        return result

    def rest(self) -> bytes:
        """Returns all bytes that are left."""
        return self.take(len(self._data) - self._position)

    def finish(self) -> None:
        """Raises `ProtocolError` unless everything has been read."""
        if self._position != len(self._data):
            raise ProtocolError("message is longer than its contents say")

    def zeros(self) -> None:
        """Reads the padding to the end; raises `ProtocolError` unless it is all zero."""
        if self.rest().strip(b"\0"):
            raise ProtocolError("padding is not zero")


class Writer:
    """Appends values; `bytes(writer)` is the message.  A value that does not fit is a `ValueError`: our own fault."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    def raw(self, data: Bytes) -> Writer:
        self._parts.append(bytes(data))
        return self

    def integer(self, value: int, size: int) -> Writer:
        try:
            self._parts.append(value.to_bytes(size, "big"))
        except OverflowError:
            raise ValueError(f"{value} does not fit in {size} bytes") from None
        return self

    def u8(self, value: int) -> Writer:
        return self.integer(value, 1)

    def u16(self, value: int) -> Writer:
        return self.integer(value, 2)

    def u32(self, value: int) -> Writer:
        return self.integer(value, 4)

    def u64(self, value: int) -> Writer:
        return self.integer(value, 8)

    def short_bytes(self, data: bytes) -> Writer:
        return self.u8(len(data)).raw(data)

    def long_bytes(self, data: bytes) -> Writer:
        return self.u16(len(data)).raw(data)

    def text(self, value: str) -> Writer:
        return self.short_bytes(_encode(value))

    def long_text(self, value: str) -> Writer:
        return self.long_bytes(_encode(value))

    def mapping(self, pairs: Mapping[str, str]) -> Writer:
        self.u8(len(pairs))
        for key in sorted(pairs):
            self.text(key).text(pairs[key])
        return self

    def padded(self, size: int) -> bytes:
        """Returns the message, filled with zeros up to `size` bytes; with a size of 0 it is not filled."""
        data = bytes(self)
        if len(data) > size > 0:
            raise ValueError(f"message of {len(data)} bytes does not fit in {size}")
        return data.ljust(size, b"\0")


def _decode(data: bytes) -> str:
    if not data:
        return ""  # most streams of a program have no name
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("text is not UTF-8") from None
    if "\0" in text:
        raise ProtocolError("text contains a NUL")
    return text


def _encode(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("text contains a NUL")
    return value.encode("utf-8")
