"""What the tests of the Python API share: a service that runs what its clients say, and a loop with a deadline.

Contract: `run(what)` runs a coroutine to its end, within DEADLINE seconds.  `SHELL` are the program and options of a
service whose jobs are shell scripts: `client.run(args=[SCRIPT])`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.waiting import PATIENCE

T = TypeVar("T")

DEADLINE = 2 * PATIENCE  # seconds for a whole test
SHELL = ("sh", "-c")
ALLOW = ("--allow-args", "-j", "4")


def run(what: Coroutine[Any, Any, T]) -> T:
    """Runs it in a loop of its own."""
    return asyncio.run(asyncio.wait_for(what, DEADLINE))
