"""cexec(1): runs one job on the least loaded worker that answers.

Contract: `main(argv)` returns the exit status.  A call without options, or with flags alone (`--all`, `-n`), is parsed
by hand and never loads click, which would cost it 18 ms; one that has another option, or is wrong, is given to click.
The table in `cexec_table` feeds both.
"""

from __future__ import annotations

import os
import sys

from cexec.client.attempt.descriptors import empty_standard_input, inspect, name_of, occupy_standard
from cexec.client.attempt.signals import ENDING, EndedBySignal, die_of, end_by_default, end_by_exception
from cexec.client.blocking.client import BlockingClient
from cexec.client.request import (
    DEFAULT_RETRIES,
    DEFAULT_SPOOL,
    IF_SUGGESTED,
    LEAST_PROGRESS_TIMEOUT,
    MAXIMUM_RETRIES,
    NO_TERMINAL,
    TERMINAL,
    Invocation,
    JobStreams,
    NetworkSettings,
    Repetition,
    Reports,
    Request,
    Target,
    Times,
    check_variable,
    read_client_key,
    trust_opener,
)
from cexec.client.search.choice import requirements_from
from cexec.common_errors import EXIT_TEMPORARY, CexecError, LocalError, UsageError
from cexec.protocol.base.limits import MAXIMUM_WEIGHT
from cexec.protocol.connection.options import FETCH_ON_FAILURE, INTERRUPT, NO, WRITES
from cexec.protocol.datagrams.requirements import TERMINAL as TERMINAL_NEED
from cexec.system.signal_state import set_at_start
from cexec.system.storage.keyfile import find_client_key
from cexec.system.storage.user_files import key_descriptor, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.client.attempt.descriptors import Descriptor
    from cexec.client.attempt.files import FilePlan

DEFAULT_MAXFD = 32  # the highest descriptor that is forwarded, as in the ancestor; CEXEC_MAXFD or MAXFD
HIGHEST_MAXFD = 255  # (protocol) stream numbers above are files
MAXIMUM_EXPECTED = 10_000  # (ours)
MAXIMUM_SPOOL = 1 << 40  # bytes (ours)


def main(argv: list[str] | None = None) -> int:
    """Parses, runs, and says what went wrong in one line on stderr."""
    words = sys.argv[1:] if argv is None else argv
    if os.getpid() == 1:
        from cexec.system.process.first_process import stand_aside

        stand_aside()
    set_at_start()
    options: Mapping[str, object] = {}
    try:
        before, arguments = _split(words)
        parsed = _parse_flags(before)
        if parsed is None:
            from cexec.commands.cexec_options import parse_options
            from cexec.commands.cexec_table import OPTIONS, USAGE

            found = parse_options(before, OPTIONS, USAGE, may_move=before is words)
            if isinstance(found, int):
                return found
            parsed = found
        options, before = parsed
        end_by_default(INTERRUPT)
        return run(before, arguments, options, os.environ)
    except (CexecError, OSError) as error:
        return _tell(error, explained=bool(options.get("explain")), words=before)
    except EndedBySignal as ended:
        die_of(ended.number)
        return EXIT_TEMPORARY


def _tell(error: CexecError | OSError, *, explained: bool, words: list[str]) -> int:
    """Says in one line what went wrong; returns the exit status."""
    # All that the call has opened is closed with its frames; without that there may be no descriptor for more modules.
    error = error.with_traceback(None)
    error.__cause__ = error.__context__ = None
    from cexec.client.search.messages import advised
    from cexec.commands.common import print_error

    if isinstance(error, OSError):
        from cexec.system.reason import failed_call

        error = LocalError(failed_call(error))
    print_error("cexec", str(error) if explained else advised(error, words))
    return error.exit_status


def _load_words() -> None:
    """Loads what `_tell` needs: somebody may replace the package while the job waits."""
    from cexec.commands import common  # noqa: F401
    from cexec.system import reason  # noqa: F401


def run(words: list[str], arguments: list[str], options: Mapping[str, object], environ: Mapping[str, str]) -> int:
    """Runs one job: `words` are APP.pub and the KEY=VALUE pairs."""
    _refuse_foreign(words, arguments, any(options.values()))
    path = find_client_key(words[0])
    environment = dict(_peer_variable(word) for word in words[1:])
    maximum = _whole(environ, ("CEXEC_MAXFD", "MAXFD"), DEFAULT_MAXFD, 0, HIGHEST_MAXFD)
    everywhere = _everywhere(options)
    error_fd = _error_descriptor(environ, maximum)
    key_fd = key_descriptor(path)
    key = read_client_key(path, "cexec")
    no_stdin = bool(options.get("no_stdin"))
    if no_stdin:
        empty_standard_input()
    excluded = [fd for fd in (key_fd, error_fd) if fd is not None and not (no_stdin and fd == 0)]
    passed_over: list[str] = []
    descriptors = inspect(maximum, excluded, environ, passed_over)
    occupy_standard()
    files = _files(options)
    program = None if files is None else files.program
    if files is not None:
        files.check_targets(_not_to_be_replaced(path, descriptors))
    if options.get("hold"):
        from cexec.system.storage.temporary import check_temporary

        check_temporary("keep output back (--hold)")
    terminal = _terminal(options)
    needs = {} if program is None else program.needs()
    if terminal == TERMINAL:
        needs = {**needs, TERMINAL_NEED: ""}
    requirements, for_ever = requirements_from(options, environ, needs)
    for_ever = for_ever and not everywhere
    request = Request(
        key,
        network=NetworkSettings.from_environment(environ),
        times=Times.from_environment(environ, for_ever=for_ever, progress=_progress_timeout(options)),
        target=Target(
            requirements,
            _whole(options, ("weight",), 1, 1, MAXIMUM_WEIGHT),
            trust_opener(key, path, required=bool(options.get("require_revoked"))),
        ),
        streams=JobStreams(descriptors, files=files, no_stdin=no_stdin, passed_over=passed_over, terminal=terminal),
        invocation=Invocation(
            arguments=[os.fsencode(argument) for argument in arguments],
            environment=environment,
            options=_go_options(options) | ({} if program is None else program.options()),
        ),
        repetition=Repetition(
            retries=_whole(options, ("retries",), DEFAULT_RETRIES, 0, MAXIMUM_RETRIES),
            spool=_spool(environ),
            hold=bool(options.get("hold")),
            keep_partial=bool(options.get("keep_partial")),
        ),
        reports=Reports(
            error_fd=error_fd,
            test_alert=bool(environ.get("CEXEC_RATOUT_TEST")),
            progress=bool(options.get("progress")),
            prepare=_load_words,
        ),
    )
    request.check_size()
    return _run_everywhere(request, options) if everywhere else _run_once(request, options)


def _run_everywhere(request: Request, options: Mapping[str, object]) -> int:
    from cexec.client.everywhere.everywhere import EverywhereClient

    expected = _whole(options, ("expect",), 0, 0, MAXIMUM_EXPECTED)
    try:
        return EverywhereClient(request, expected=expected, tag=bool(options.get("tag"))).run()
    except OSError as error:
        from cexec.system.reason import failed_call

        raise LocalError(failed_call(error)) from error


def _run_once(request: Request, options: Mapping[str, object]) -> int:
    return _run_explained(request) if options.get("explain") else BlockingClient(request).run()


def _terminal(options: Mapping[str, object]) -> int:
    """Returns if the program has a terminal: by itself only where nothing speaks against it."""
    apart = [name for name in ("no_tty", "all", "hold", "progress") if options.get(name)]
    if options.get("tty"):
        if apart:
            raise UsageError(f"--tty cannot be used with --{apart[0].replace('_', '-')}")
        return TERMINAL
    return NO_TERMINAL if apart else IF_SUGGESTED


def _files(options: Mapping[str, object]) -> FilePlan | None:
    """Returns the files that go with the job and come back."""
    sends, fetches, programs = options.get("send"), options.get("fetch"), options.get("program")
    if not sends and not fetches and not programs:
        return None
    from cexec.client.attempt.files import plan_files

    return plan_files(sends or (), fetches or (), programs or ())  # type: ignore[arg-type]


def _not_to_be_replaced(key: str, descriptors: list[Descriptor]) -> dict[tuple[int, int], str]:
    """Returns the inodes that no fetched file may replace, and what each of them is."""
    found = {d.inode: f"the file of {name_of(d.fd)}" for d in descriptors if d.regular and d.directions & WRITES}
    try:
        status = os.stat(key)
        found[status.st_dev, status.st_ino] = "the key"
    except OSError:
        pass  # it was a descriptor, which has been read and closed
    return found


def _go_options(options: Mapping[str, object]) -> dict[str, str]:
    """The limits that the worker is asked to keep, and how it fetches."""
    words = {name: str(options.get(name) or "") for name in ("time_limit", "cpu_limit", "memory_limit", "nice")}
    result = {} if not options.get("no_fetch_on_failure") else {FETCH_ON_FAILURE: NO}
    if any(words.values()):
        from cexec.system.process import resource_limits

        time, cpu, memory = words["time_limit"], words["cpu_limit"], words["memory_limit"]
        limits = resource_limits.Limits(
            time=resource_limits.parse_time_limit(time, "--time-limit") if time else 0.0,
            cpu=resource_limits.parse_cpu_limit(cpu, "--cpu-limit") if cpu else 0,
            memory=resource_limits.parse_memory_limit(memory, "--memory-limit") if memory else 0,
            nice=_whole(options, ("nice",), 0, 0, resource_limits.LARGEST_NICE),
        )
        result.update(limits.to_options())
    return result


def _progress_timeout(options: Mapping[str, object]) -> float:
    text = str(options.get("progress_timeout") or "")
    if not text:
        return 0.0
    from cexec.system.units import parse_duration

    return parse_duration(text, "--progress-timeout", LEAST_PROGRESS_TIMEOUT)


def _everywhere(options: Mapping[str, object]) -> bool:
    """Returns True if the job is to run on all workers; refuses options that do not go with that, or only with that."""
    everywhere = bool(options.get("all"))
    for name in ("explain", "retries", "send", "fetch", "program", "progress") if everywhere else ("expect", "tag"):
        if options.get(name):
            raise UsageError(f"--{name} {'cannot be used with' if everywhere else 'needs'} --all")
    return everywhere


def _run_explained(request: Request) -> int:
    """The story is told however the call ends, also when somebody loses patience with the search for a worker."""
    from cexec.client.search.trace import Trace
    from cexec.commands.common import print_line

    network = request.network
    trace = Trace(fingerprint=request.key.fingerprint, groups=network.groups, udp_port=network.udp_port)
    request.reports.trace = trace
    if request.streams.passed_over:
        trace.passed_over(request.streams.passed_over)
    for number in ENDING:
        end_by_exception(number)
    try:
        return BlockingClient(request).run()
    finally:
        for line in trace.lines():
            print_line(line)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in words:
        return words, []
    where = words.index("--")
    return words[:where], words[where + 1 :]


def _parse_flags(words: list[str]) -> tuple[dict[str, object], list[str]] | None:
    """Returns the flags by name, and the other words; None if this is a call for click."""
    if words and not any(word.startswith("-") for word in words):
        return {}, words
    from cexec.commands.cexec_table import OPTIONS  # most calls have no option

    flags = {name: names[-1] for names, metavar, _ in OPTIONS if not metavar for name in names}
    rest = [word for word in words if word not in flags]
    if not rest or any(word.startswith("-") for word in rest):
        return None
    return {flags[word].removeprefix("--").replace("-", "_"): True for word in words if word in flags}, rest


def _refuse_foreign(words: list[str], arguments: list[str], has_options: bool) -> None:
    """Refuses a word behind the key that is no KEY=VALUE: it is meant for the program."""
    first = next((index for index, word in enumerate(words) if index and "=" not in word), 0)
    if first:
        kept = ["cexec", *(["[OPTIONS]"] if has_options else []), *map(quoted, words[:first])]
        moved = map(quoted, words[first:] + arguments)
        raise UsageError(f"the program's own arguments come after --: {' '.join([*kept, '--', *moved])}")


def _peer_variable(word: str) -> tuple[str, bytes]:
    name, _, value = word.partition("=")
    check_variable(name)
    return name, os.fsencode(value)


def _whole(given: Mapping[str, object], names: tuple[str, ...], default: int, least: int, most: int) -> int:
    """Returns the value of the first of these options or variables that is set."""
    for name in names:
        text = str(given.get(name) or "").strip()
        if text:
            from cexec.system.units import parse_whole  # here, as in the next two: most calls set none of these

            return parse_whole(text, name if name.isupper() else f"--{name.replace('_', '-')}", least, most)
    return default


def _spool(environ: Mapping[str, str]) -> int:
    text = environ.get("CEXEC_SPOOL", "").strip()
    if not text:
        return DEFAULT_SPOOL
    from cexec.system.units import parse_size

    return parse_size(text, "CEXEC_SPOOL", 0, MAXIMUM_SPOOL)


def _error_descriptor(environ: Mapping[str, str], maximum: int) -> int | None:
    """CEXEC_FD_FOR_ERRORS must not be one of the program's descriptors, and has to be open."""
    name = "CEXEC_FD_FOR_ERRORS"
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) <= maximum:
        raise UsageError(f"{name} is {text!r}, but must be a descriptor above MAXFD, which is {maximum}")
    try:
        os.fstat(int(text))
    except OSError:
        raise UsageError(f"{name} is {text}, but that descriptor is not open; add {text}>FILE") from None
    return int(text)
