"""Blocks of standard input that are read ahead by a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from cexec.cmap.inputs.blocks import AHEAD, BlockReader
from cexec.errors import LocalError

DEADLINE = 60.0  # seconds


def taken(reader: BlockReader) -> Iterator[bytes]:
    """All blocks, waiting for each."""
    arrived = threading.Event()
    reader.arrived = arrived.set
    while True:
        arrived.clear()
        block = reader.take()
        if block == b"":
            return
        if block is None:
            assert arrived.wait(DEADLINE)
        else:
            yield block


def test_blocks_come_in_order_and_end() -> None:
    blocks = [b"%d" % number for number in range(50)]
    reader = BlockReader(iter(blocks))
    assert list(taken(reader)) == blocks
    assert reader.take() == b""


def test_nothing_is_read_before_it_is_asked_for_and_little_ahead() -> None:
    read: list[int] = []
    enough = threading.Event()

    def source() -> Iterator[bytes]:
        for number in range(100):
            read.append(number)
            if number == AHEAD + 1:
                enough.set()
            yield b"block"

    reader = BlockReader(source())
    assert not read
    while reader.take() is None:
        pass
    assert enough.wait(DEADLINE)
    assert len(read) <= AHEAD + 2
    assert len(list(taken(reader))) == 99


def test_an_input_that_cannot_be_read_is_told() -> None:
    def source() -> Iterator[bytes]:
        yield b"block"
        raise OSError(5, os.strerror(5))

    blocks = taken(BlockReader(source()))
    assert next(blocks) == b"block"
    with pytest.raises(LocalError, match="cannot read standard input: input/output error"):
        next(blocks)
