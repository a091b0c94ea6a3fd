"""`python -m tests.fuzz.one MODULE TARGET OPTION...`: one target under libFuzzer, whose options these are."""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["cexec"]):
        importlib.import_module(sys.argv.pop(1))  # no more than the target needs, because this takes seconds
    from tests.fuzz.target import TARGETS

    one = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, lambda data: (one.run(data), None)[1])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
