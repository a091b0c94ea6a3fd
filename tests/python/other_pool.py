"""`other_pool.py WHAT`: a `cexec.pool` on which something is otherwise: a program for a test's service."""

from __future__ import annotations

import sys
from dataclasses import replace

from cexec.pool import __main__ as program
from cexec.pool.interpreter import Interpreter


def change(what: str) -> None:
    """`what`: python, cexec, cloudpickle (there is none), or messages."""
    if what == "messages":
        program.WORKER_GREETING = b"cexec.pool worker 99\n"  # type: ignore[attr-defined]
        program.CLIENT_GREETING = b"cexec.pool client 99\n"  # type: ignore[attr-defined]
    elif what == "cloudpickle":
        sys.modules["cloudpickle"] = None  # type: ignore[assignment]  # so that it cannot be imported
    else:
        here = Interpreter.here()
        other = replace(here, python="3.99.1") if what == "python" else replace(here, cexec="99.0.0")
        Interpreter.here = classmethod(lambda cls: other)  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    change(sys.argv[1])
    sys.exit(program.main())
