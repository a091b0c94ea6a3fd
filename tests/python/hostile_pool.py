"""A `cexec.pool` that answers calls in ways that no honest one has: a program for a test's service.

The name of the way is the first argument of each call.
"""

from __future__ import annotations

import os
import pickle
import sys

from cexec.pool import call_messages as m
from cexec.pool.interpreter import Interpreter

ESCAPES = "\x1b]0;title\x07"
LONG = (1 << 60).to_bytes(m.LENGTH_SIZE, "big")


def answers(way: str, call: int) -> bytes:
    """Returns the bytes for one call."""
    if way == "raised without parts":
        return m.HEADER.pack(m.RAISED, 0, call, 1)
    if way == "store without parts":
        return m.HEADER.pack(m.STORE, 0, 0, 0)
    if way == "no memory":
        return m.HEADER.pack(m.RESULT, 1, call, 1) + LONG
    if way == "no message":
        return b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"
    if way == "ends":
        sys.stderr.write(f"{ESCAPES}\n")
        sys.exit(7)
    assert way == "leaves in its pickle"
    leaving = b"cbuiltins\nexit\n)R."
    return b"".join(m.encode(m.RAISED, call, 1, [b"SystemExit", leaving]))


def main() -> None:
    os.write(1, m.WORKER_GREETING + b"".join(m.encode(m.HELLO, parts=[Interpreter.here().encode()])))
    os.write(1, b"".join(m.encode(m.READY)))
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(0, 1)
    decoder = m.Decoder()
    while data := os.read(0, 1 << 16):
        for message in decoder.feed(data):
            if message.kind == m.CALL:
                (way,), _ = pickle.loads(message.parts[0])
                os.write(1, answers(way, message.id))


if __name__ == "__main__":
    main()
