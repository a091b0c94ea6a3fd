"""The limits are those of this kernel: what fits is run, one byte more is refused."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from cexec.system.process.argument_limits import LONGEST_STRING, too_long, too_much


def run(arguments: list[bytes], variables: dict[str, bytes]) -> bool:
    """Returns False if the kernel refuses to start a program with these."""
    environment = {**os.environb, **{name.encode(): value for name, value in variables.items()}}
    try:
        subprocess.run([b"true", *arguments], env=environment, check=True)
    except OSError as error:
        assert error.errno == errno.E2BIG
        return False
    return True


@pytest.mark.skipif(os.sysconf("SC_PAGE_SIZE") != 4096, reason="the limit is 32 pages")
@pytest.mark.parametrize("more", [0, 1])
def test_a_string(more: int) -> None:
    argument = b"x" * (LONGEST_STRING + more)
    assert run([argument], {}) == (not too_long([b"", argument], {})) == (not more)
    value = {"NAME": b"x" * (LONGEST_STRING - len("NAME=") + more)}
    assert run([], value) == (not too_long([], value)) == (not more)


def test_all_variables_together() -> None:
    """The limit is a little lower than the kernel's, which counts more than the variables."""
    fits: dict[str, bytes] = {}
    while not too_much(fits):
        fits[f"V{len(fits)}"] = b"x" * 100_000
    fits.popitem()
    assert run([], fits)
    assert not too_much({})
    assert not run([], {f"V{number}": b"x" * 100_000 for number in range(100)})
