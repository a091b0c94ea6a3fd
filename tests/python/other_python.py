"""A `cexec.pool` that says that its Python is 3.99: a program for a test's service."""

from __future__ import annotations

import sys
from dataclasses import replace

from cexec.pool.__main__ import main
from cexec.pool.interpreter import Interpreter

if __name__ == "__main__":
    here = replace(Interpreter.here(), python="3.99.1")
    Interpreter.here = classmethod(lambda cls: here)  # type: ignore[method-assign, assignment]
    sys.exit(main())
