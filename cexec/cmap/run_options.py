"""The options of a run, as values of the types that they mean.

Contract: a value.  `commands.cmap_options` makes one of a command line; the defaults are those of options that are not
given.  What is empty, None or False was not asked for.  `mode_of` and `policy_of` say what several of them mean
together, and `check_combinations` raises `UsageError` for those that contradict one another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cexec.cmap.inputs.sources import LINEAR
from cexec.cmap.results.journal import NEW, RESUME, RESUME_FAILED, RETRY_FAILED
from cexec.cmap.run.policy import ALL_SLOTS, DEFAULT_TERM_SEQ, NO_LIMIT, Pace, Policy, parse_term_seq
from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from re import Pattern

    from cexec.cmap.run.policy import Halt, Placement, Rate, TimeLimit

CRASH_LIMIT = 5  # (ours)
SPECULATE_AFTER = 1.5  # (ours) medians that a task may take before --speculate starts it a second time
RETRIES = 1  # (GNU parallel)
RETRIES_IF_VALIDATED = 2  # (ours) with --validate: what is rejected may be the worker's fault
MOST_RETRIES = 1_000_000  # (ours)


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
    max_args: int | None = None  # 0: tasks see nothing of their inputs
    colsep: Pattern[str] | None = None
    header: int | None = None  # lines
    rpl: Sequence[tuple[str, Callable[[str], str]]] = ()
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
    tagstring: str | None = None
    color_failed: bool = False
    results: str = ""
    collect: str = ""
    overwrite: bool = False
    # what happens to failures
    retries: int | None = None  # 0: without end
    timeout: TimeLimit | None = None
    halt: Halt | None = None
    term_seq: Sequence[tuple[int, float]] = field(default_factory=partial(parse_term_seq, DEFAULT_TERM_SEQ))
    crash_limit: int = CRASH_LIMIT
    speculate: bool = False
    # state
    joblog: str = ""
    report: str = ""
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


def check_combinations(options: Options, inputs: Sequence[object]) -> None:
    """`inputs` stood after `:::`."""
    sources = {
        ":::": inputs, "-a": options.arg_file, "--params": options.params, "--array": options.array,
        "--slices": options.slices,
    }  # fmt: skip
    given = [name for name, value in sources.items() if value]
    if options.pipe:
        excess = {
            "--rows": options.rows, "--tee": options.tee, "-n": options.max_args is not None, "-0": options.null,
            "--order random": options.order != LINEAR, "--colsep": options.colsep is not None,
        }  # fmt: skip
        for name in (*given, *(name for name, value in excess.items() if value)):
            raise UsageError(f"--pipe and {name} cannot be used together: its tasks are blocks of standard input")
    elif options.block or options.recend is not None:
        raise UsageError("--block and --recend need --pipe")
    if options.header not in (None, 1) and not options.pipe:
        raise UsageError(
            "--header with a number needs --pipe; --header : takes the names of columns from the first row"
        )
    if options.tee and not given:
        raise UsageError("--tee gives standard input to every task, so the tasks need another source: ::: or -a")
    if options.keep_order and options.line_buffer:
        raise UsageError("-k and --line-buffer cannot be used together: lines come as they are written")
    if options.line_buffer and options.collect:
        raise UsageError("--collect and --line-buffer cannot be used together")


def mode_of(options: Options) -> str:
    """Returns the mode of the journal; raises `UsageError` for options that contradict one another."""
    modes = {RESUME: options.resume, RESUME_FAILED: options.resume_failed, RETRY_FAILED: options.retry_failed}
    given = [mode for mode, wanted in modes.items() if wanted]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} cannot be used together")
    if given and not options.state:
        raise UsageError(f"{given[0]} needs the journal of the run that is to go on: --state FILE")
    if options.repeat_once and not given:
        raise UsageError(f"--repeat-once needs {RESUME}, {RESUME_FAILED} or {RETRY_FAILED}")
    return given[0] if given else NEW


def policy_of(options: Options) -> Policy:
    retries = RETRIES_IF_VALIDATED if options.validate else RETRIES
    if options.retries is not None:
        retries = options.retries or MOST_RETRIES
    return Policy(
        retries=retries,
        crash_limit=options.crash_limit,
        speculate=SPECULATE_AFTER if options.speculate else 0.0,
        halt=options.halt,
        timeout=options.timeout or NO_LIMIT,
        pace=Pace(options.delay or 0.0, options.rate),
        placement=options.jobs or ALL_SLOTS,
    )
