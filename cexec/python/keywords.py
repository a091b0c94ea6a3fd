"""The keywords of `run`, `start` and `map`, checked and made into the plan of a job.

Contract: `plan_job` takes the keywords of `run` and raises `UsageError`, or `LocalError` for a file that cannot be
read, with the words of `cexec`; nothing has been announced by then.  A `PlanMaker` makes the plans of a `map`.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

from cexec.client.aio.data_sources import DataSource, OpenFileSource, PathSource
from cexec.client.attempt.files import Fetched, FilePlan, check_name
from cexec.client.request import (
    DEFAULT_RETRIES,
    MAXIMUM_RETRIES,
    Invocation,
    check_size,
    check_variable,
)
from cexec.client.search.choice import requirements_from
from cexec.errors import TooLongError, UsageError
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_STREAMS, MAXIMUM_WEIGHT
from cexec.protocol.connection.frames import FIRST_FILE, Go
from cexec.python.job_plan import JobPlan, JobTarget

if TYPE_CHECKING:
    from typing import TypeAlias

    from cexec.python.job_plan import OpenSource

    Text: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Names: TypeAlias = str | Iterable[str]
    Input: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
    Content: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str]

Bytes = (bytes, bytearray, memoryview)


class Where(TypedDict, total=False):
    """Keywords that say which workers may have a job; see --need, --on, --not and --weight in cexec(1)."""

    need: str | Mapping[str, str | int] | Iterable[str] | None
    on: Names | None
    exclude: Names | None
    weight: int


class JobKeywords(Where, total=False):
    """The keywords that `run`, `start` and the inputs of `map` have in common."""

    args: Iterable[Text | int | float]
    env: Mapping[str, Text | int | float]
    files: Mapping[str, Content]
    fetch: Iterable[str] | Mapping[str, str | os.PathLike[str]]
    time_limit: float | str | None
    retries: int


class RunKeywords(JobKeywords, total=False):
    """The keywords of `run` besides `input`, `text` and `encoding`."""

    check: bool
    timeout: float | None
    errors: str | None


STARTED = frozenset(name for one in (Where, JobKeywords) for name in one.__annotations__)  # keywords of `start`
KNOWN = STARTED | frozenset(RunKeywords.__annotations__)


def plan_job(
    keywords: Mapping[str, Any],
    target: Callable[[Mapping[str, Any]], JobTarget],
    *,
    input: Input | None = b"",
    text: bool | None = None,
    encoding: str | None = None,
    known: frozenset[str] = KNOWN,
) -> JobPlan:
    """Returns the plan of a job.  `keywords`: of these that are `known`; `target` finds their target."""
    if unknown := keywords.keys() - known:
        raise TypeError(f"{min(unknown)!r} is no keyword of a job")
    given = _list(keywords.get("args") or (), "args")
    args = [one if isinstance(one, bytes) else os.fsdecode(_plain(one)) for one in given]
    environment = {name: os.fsencode(_plain(value)) for name, value in (keywords.get("env") or {}).items()}
    for name in environment:
        check_variable(name)
    options = _options(keywords.get("time_limit"))
    plan = JobPlan(args, Invocation(arguments=[os.fsencode(one) for one in args], environment=environment,
                                    options=options), target(keywords))  # fmt: skip
    plan.retries = _whole("retries", keywords.get("retries", DEFAULT_RETRIES), 0, MAXIMUM_RETRIES)
    plan.check = bool(keywords.get("check"))
    plan.timeout = keywords.get("timeout")
    plan.encoding = encoding or ("utf-8" if text else None)
    plan.errors = keywords.get("errors") or "strict"
    plan.files = [(name, _content(name, content)) for name, content in (keywords.get("files") or {}).items()]
    fetch = keywords.get("fetch") or ()
    if isinstance(fetch, Mapping):
        plan.paths = {name: os.fspath(path) for name, path in fetch.items()}
    else:
        plan.fetch = _names(fetch)
    for name in [*(name for name, _ in plan.files), *plan.fetch, *plan.paths]:
        check_name(name, "file")
    if plan.first_fetched + len(plan.fetch) + len(plan.paths) > MAXIMUM_STREAMS:
        raise TooLongError(f"at most {MAXIMUM_STREAMS - FIRST_FILE} files can go with a job; pack them with tar")
    check_size(plan.invocation, lambda: _go(plan), len(plan.file_streams()))
    try:
        if input is not None:
            set_input(plan, input)
        if plan.paths:
            plan.placed = _place(plan)
    except BaseException:
        plan.close()
        raise
    return plan


def _place(plan: JobPlan) -> FilePlan:
    """Returns the files here that will be made of what comes back."""
    placed: list[Fetched] = []
    for number, (name, path) in enumerate(plan.paths.items(), plan.first_fetched):
        placed.append(Fetched(number, name, path))
        plan.closers.append(placed[-1].close)
    return FilePlan([], placed)


def set_input(plan: JobPlan, input: Input) -> None:
    """Lets the program read this as its standard input."""
    if isinstance(input, Bytes):
        plan.input = _opener_of(bytes(input))
    elif isinstance(input, str):
        if plan.encoding is None:
            raise UsageError("input is a str: give bytes, or text=True, or a pathlib.Path for a file")
        plan.input = _opener_of(input.encode(plan.encoding, plan.errors))
    elif isinstance(input, os.PathLike):
        plan.input = _opener_at(os.fspath(input))
    else:
        plan.input = _opener_of_file(plan, input)


def find_target(keywords: Mapping[str, Any], environ: Mapping[str, str]) -> JobTarget:
    """Returns the target that the keywords of `Where` and the variables of `cexec` describe."""
    need = keywords.get("need")
    if isinstance(need, Mapping):
        need = [f"{name}={value}" if value != "" else name for name, value in need.items()]
    options = {"need": need, "on": keywords.get("on") or None, "not": keywords.get("exclude") or None}
    requirements, for_ever = requirements_from(options, environ)
    weight = _whole("weight", keywords.get("weight", 1), 1, MAXIMUM_WEIGHT)
    return JobTarget(requirements, weight, for_ever=for_ever)


def _go(plan: JobPlan) -> Go:
    return Go(
        job_id=bytes(IDENTITY_SIZE),
        attempt=1,
        streams=plan.file_streams(),
        arguments=plan.invocation.arguments,
        environment=plan.invocation.environment,
        options=plan.invocation.options,
    )


def _list(values: Iterable[Any], name: str) -> Sequence[Any]:
    if isinstance(values, str | bytes):
        raise UsageError(f"{name} is a single text: give a list of them")
    return list(values)


def _plain(value: Any) -> str | bytes:
    """Returns a text of an argument or a variable; numbers are written as Python does."""
    if isinstance(value, str | bytes):
        text = value
    elif isinstance(value, os.PathLike):
        text = os.fspath(value)
    elif isinstance(value, int | float):
        text = str(value)
    else:
        raise UsageError(f"{value!r} is neither a text nor a number nor a path, so it cannot be given to a program")
    if ("\0" if isinstance(text, str) else b"\0") in text:  # type: ignore[operator]
        raise UsageError(f"{value!r} contains a NUL, which no program can be given")
    return text


def _options(time_limit: float | str | None) -> dict[str, str]:
    if time_limit is None:
        return {}
    from cexec.system.process.resource_limits import Limits, parse_time_limit

    return Limits(time=parse_time_limit(str(time_limit), "time_limit")).to_options()


def _whole(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{name} is {value!r}, but must be a whole number from {least} to {most}")
    return value


def _names(fetch: Iterable[str]) -> list[str]:
    names = [str(name) for name in _list(fetch, "fetch")]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"fetch has {min(twice)!r} twice")
    return names


def _content(name: str, content: Content) -> OpenSource:
    if isinstance(content, Bytes):
        return _opener_of(bytes(content))
    if isinstance(content, str | os.PathLike):
        return _opener_at(os.fspath(content))
    raise UsageError(f"the file {name!r} is given as {type(content).__name__}: give bytes, or the path of a file")


def _opener_of(data: bytes) -> OpenSource:
    return lambda: DataSource(data)


def _opener_at(path: str) -> OpenSource:
    PathSource(path).close()  # said at once, and not by a worker
    return lambda: PathSource(path)


def _opener_of_file(plan: JobPlan, file: BinaryIO) -> OpenSource:
    """A regular file is read from where it is, and stays there; everything else is read now, to be given again."""
    if _regular(file):
        own, start = os.dup(file.fileno()), file.tell()
        plan.closers.append(lambda: os.close(own))
        return lambda: OpenFileSource(own, start)
    if not hasattr(file, "read"):
        raise UsageError(f"input is {type(file).__name__}: give bytes, a path, or a file that is open for reading")
    data: Any = file.read()
    if isinstance(data, str):
        data = data.encode(plan.encoding or "utf-8", plan.errors)
    return _opener_of(data)


class PlanMaker:
    """Makes the plans of one `map`: of inputs, or of dicts with the keywords of `run`, which win over `keywords`."""

    def __init__(
        self,
        keywords: Mapping[str, Any],
        target: Callable[[Mapping[str, Any]], JobTarget],
        text: bool | None,
        encoding: str | None,
    ) -> None:
        """Raises `UsageError` for keywords that no job can have."""
        self._keywords = {**keywords, "text": text, "encoding": encoding}
        self._target = target
        self._common = self._plan({"input": None})
        if self._common.paths:
            self._common.close()
            raise UsageError("fetch names files here, which all jobs would write: give each input its own, as a dict")

    def plan(self, given: Input | Mapping[str, Any]) -> JobPlan | Exception:
        """Returns the plan for one input, or the error that it causes."""
        try:
            return self._plan(given) if isinstance(given, Mapping) else self._with_input(given)
        except Exception as error:
            return error

    def _with_input(self, given: Input) -> JobPlan:
        plan = copy(self._common)
        plan.closers = []
        set_input(plan, given)
        return plan

    def _plan(self, given: Mapping[str, Any]) -> JobPlan:
        own = {**self._keywords, **given}
        special = {
            name: own.pop(name, default) for name, default in (("input", b""), ("text", None), ("encoding", None))
        }
        return plan_job(own, self._target, **special)


async def read_whole(input: Input) -> Input:
    """Reads a pipe, or another file that may let its reader wait, in a thread; returns anything else as it is."""
    if isinstance(input, (*Bytes, str, os.PathLike)) or not hasattr(input, "read") or _regular(input):
        return input
    return await asyncio.to_thread(input.read)


async def open_inputs(plan: JobPlan, inputs: Mapping[int, Input | None]) -> tuple[dict[int, OpenSource], list[int]]:
    """Returns the openers of the inputs that are given, and the descriptors of those that are written later."""
    opened: dict[int, OpenSource] = {}
    for number, given in inputs.items():
        if given is not None:
            set_input(plan, await read_whole(given))
            opened[number] = plan.input
    return opened, [number for number, given in inputs.items() if given is None]


def _regular(file: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, OSError):  # `io.UnsupportedOperation` is one
        return False
