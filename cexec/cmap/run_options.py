"""The options of a run, as values of the types that they mean.

Contract: a value.  `commands.cmap_options` makes one of a command line; the defaults are those of options that are not
given.  What is empty, None or False was not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cexec.cmap.inputs.sources import LINEAR
from cexec.cmap.run.policy import DEFAULT_TERM_SEQ, parse_term_seq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.cmap.run.policy import Halt, Placement, Rate, TimeLimit

CRASH_LIMIT = 5  # (ours)


@dataclass(slots=True, kw_only=True)
class Options:
    """Named as on the command line; cmap(1) says what each of them does."""

    # where tasks come from
    arg_file: Sequence[str] = ()
    params: str = ""
    array: Sequence[range] = ()
    slices: int | None = None
    rows: Sequence[range] = ()
    order: str = LINEAR
    null: bool = False
    max_args: int | None = None
    dry_run: bool = False
    pipe: bool = False
    block: int | None = None  # bytes
    recend: bytes | None = None
    tee: bool = False
    # what a task gives the worker
    stdin: str | None = None
    stdin_text: str | None = None
    peer: Sequence[str] = ()
    send: Sequence[str] = ()
    input: Sequence[str] = ()
    program: Sequence[str] = ()
    # what comes back
    stdout: str | None = None
    stderr: str | None = None
    fetch: Sequence[str] = ()
    validate: str = ""
    keep_order: bool = False
    line_buffer: bool = False
    tag: bool = False
    results: str = ""
    collect: str = ""
    # what happens to failures
    retries: int | None = None  # 0: without end
    timeout: TimeLimit | None = None
    halt: Halt | None = None
    term_seq: Sequence[tuple[int, float]] = field(default_factory=partial(parse_term_seq, DEFAULT_TERM_SEQ))
    crash_limit: int = CRASH_LIMIT
    speculate: bool = False
    # state
    joblog: str = ""
    state: str = ""
    resume: bool = False
    resume_failed: bool = False
    retry_failed: bool = False
    repeat_once: bool = False
    no_sync: bool = False
    # how fast
    jobs: Placement | None = None
    delay: float | None = None  # seconds
    rate: Rate | None = None
