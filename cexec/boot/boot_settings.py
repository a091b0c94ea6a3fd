"""The settings of a run as typed values.

Contract: `cexec/commands/cboot.py` makes one `BootSettings` of the command line, and `cexec/boot/run.py` obeys it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Action(StrEnum):
    """A run does one of these at each host."""

    SERVE = "serve"
    STATUS = "status"
    STOP = "stop"
    REMOVE = "remove"
    PLAN = "plan"


DONE_WORDS = {
    Action.SERVE: "serve",
    Action.STATUS: "serve",
    Action.STOP: "have stopped",
    Action.REMOVE: "are clean",
    Action.PLAN: "were looked at",
}


@dataclass(frozen=True, slots=True)
class BootSettings:
    """`jobs`: hosts at a time.  `patience`, `grace`: seconds.  `days`: of new keys, None: no end.

    `options`, `program`: the words of cservice before and after its key.  `packages`: requirements (PEP 508) besides
    those of cexec.  `command`: of --run, None: none.
    """

    action: Action
    options: Sequence[str] = ()
    program: Sequence[str] = ()
    packages: Sequence[str] = ()
    ssh: Sequence[str] = ("ssh",)
    wheels: Path | None = None
    jobs: int = 16
    patience: float = 60.0
    keep_trying: bool = False
    grace: float = 10.0
    days: int | None = None
    detached: bool = False
    upgrade: bool = False
    keep_programs: bool = False
    ephemeral: bool = False
    command: str | None = None
