"""A `cexec.pool` that ends as soon as it has said hello: a program for a test's service."""

from __future__ import annotations

import os
import sys

from cexec.pool.call_messages import HELLO, WORKER_GREETING, encode
from cexec.pool.interpreter import Interpreter

if __name__ == "__main__":
    os.write(1, WORKER_GREETING + b"".join(encode(HELLO, parts=[Interpreter.here().encode()])))
    sys.stderr.write("not today\n")
    sys.exit(7)
