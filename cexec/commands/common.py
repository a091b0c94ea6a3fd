"""The behaviour that all commands share: one error line, and an exit status for everything that can go wrong.

Contract: an error line is `command: message` on stderr; characters that could move a terminal's cursor are escaped.
click is imported only by `run_click`, since it costs a plain call 18 ms.  `run_click` also sets the command's signal
state, and refuses options and arguments that are empty.
"""

from __future__ import annotations

import errno
import os
import sys

from cexec.errors import EXIT_TEMPORARY, EXIT_USAGE, CexecError, UsageError
from cexec.system.printable import printable
from cexec.system.reason import failed_call, reason_of
from cexec.system.signal_state import set_at_start
from cexec.system.terminal import BOLD, RED, Terminal, begin_line, wrote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO, TypeAlias

    import click

    # names; what its value is called, "" for a flag, with "..." at its end if it may be given again; help
    Option: TypeAlias = tuple[tuple[str, ...], str, str]

_NAMES = "PIPE BADF IO NOSPC DQUOT FBIG AGAIN INVAL CONNRESET NOTCONN PERM NXIO ISDIR DESTADDRREQ TIMEDOUT"
OF_OUTPUT = frozenset(getattr(errno, f"E{name}") for name in _NAMES.split())  # write(2) fails with these
CLOSE = 0.75  # (ours) of 1: how much an option must look like what was typed for us to ask if it was meant


def print_error(command: str, message: str, patience: float | None = None) -> None:
    """Tells the user what went wrong; the command's name is red on a terminal."""
    _write_error_line(f"{Terminal(2).paint(f'{command}:', RED, BOLD)} {printable(message)}", patience)


def print_line(text: str, patience: float | None = None) -> None:
    """One line on stderr; that it is closed or full is no reason to end otherwise.

    `patience`: seconds that its reader may take, as long as he likes if it is not given.
    """
    _write_error_line(printable(text), patience)


def _write_error_line(text: str, patience: float | None) -> None:
    begin_line(2)
    try:
        if patience is not None and not _has_room(sys.stderr, patience):
            return
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass
    wrote(2, b"\n")


def run_click(
    command: click.Command, argv: list[str] | None, *, standard: bool = True, patience: float | None = None
) -> int:
    """Runs a command whose function returns its exit status; click's errors in the project's style and statuses.

    Without `standard` closed standard descriptors stay closed: cexec forwards those that are open.  `patience` is that
    of `print_line`, for commands that serve others and must not wait for somebody who reads nothing.
    """
    import io

    import click

    from cexec.system.process.environment import restore_locale

    name = command.name or "cexec"
    words = list(sys.argv[1:] if argv is None else argv)
    if os.getpid() == 1:
        from cexec.system.process.first_process import stand_aside

        stand_aside()
    if standard:
        _open_standard()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a letter that the locale has not is no reason to fail
    if Terminal(1).coloured:
        from cexec.commands.help_colours import ColouredContext

        command.context_class = ColouredContext
    try:
        set_at_start()  # a Ctrl-C that was blocked until now ends us here
        restore_locale()
        with command.make_context(name, list(words)) as context:
            _refuse_empty(context)
            status: int = command.invoke(context)
            return status
    except click.exceptions.Exit as end:  # --help and --version
        if sys.stdout is None:  # click prints nothing then
            print_error(name, f"cannot write to standard output: {reason_of(errno.EBADF)}", patience)
            return EXIT_TEMPORARY
        return end.exit_code
    except click.ClickException as error:
        print_error(name, _wrong_use(command, name, words, error), patience)
        return EXIT_USAGE
    except CexecError as error:
        print_error(name, str(error), patience)
        return error.exit_status
    except KeyboardInterrupt:
        print_error(name, "interrupted", patience)
        return EXIT_TEMPORARY
    except OSError as error:
        tell_failed_call(name, error, patience)
        return EXIT_TEMPORARY


def _wrong_use(command: click.Command, name: str, words: list[str], error: click.ClickException) -> str:
    """Returns what click has found wrong, and what to do."""
    from difflib import get_close_matches

    import click

    from cexec.commands.help_page import HelpfulCommand

    if isinstance(error, click.BadOptionUsage) and error.message.endswith("requires an argument."):
        return f"{error.option_name} needs a value; see {name} --help"
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
        return f"missing argument '{_argument(error.param)}'{_taken(command, words)}; see {name} --help"
    if not isinstance(error, click.NoSuchOption):
        return f"{words_of(error)}; see {name} --help"
    unknown = error.option_name
    if isinstance(command, HelpfulCommand) and unknown in command.foreign:
        return f"no such option '{unknown}': it is {command.foreign[unknown]} here"
    advice = command.advice(words, unknown) if isinstance(command, HelpfulCommand) else ""
    guesses = get_close_matches(unknown, error.possibilities or (), 1, CLOSE)
    if guesses:
        return f"no such option '{unknown}'; did you mean {guesses[0]}? {advice or f'See {name} --help'}"
    return advice or f"no such option '{unknown}'; see {name} --help"


def words_of(error: click.ClickException) -> str:
    """Returns what click says, as our messages begin and end, and without its words for programmers."""
    message = error.format_message().rstrip(".")
    message = message.replace("a valid integer range", "a whole number").replace("a valid integer", "a whole number")
    return f"{message[:1].lower()}{message[1:]}"


def _taken(command: click.Command, words: list[str]) -> str:
    """Says which option has taken the last word as its value, if one has: the argument that is missing, mostly."""
    from cexec.commands.help_page import options_with_values

    option = words[-2] if len(words) > 1 else ""
    return f", for {option} has taken {words[-1]} as its value" if options_with_values(command).get(option) else ""


def _refuse_empty(context: click.Context) -> None:
    """Raises `UsageError` for a text that is empty, unless its type says that it `may_be_empty` (`parameters.AnyText`).

    Such a text is mostly a variable of the shell that is not set: `--validate "$CHECK"` must not accept everything.
    Another option in place of a value is refused likewise.
    """
    import click
    from click.core import ParameterSource

    options = {name for one in context.command.params if isinstance(one, click.Option) for name in one.opts}
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        if getattr(parameter.type, "may_be_empty", False):
            continue
        value = context.params.get(name)
        texts = value if isinstance(value, tuple) else (value,)
        swallowed = [text for text in texts if isinstance(text, str) and text in options]
        if swallowed and isinstance(parameter, click.Option):
            raise UsageError(f"{parameter.opts[-1]} needs a value, but the option {swallowed[0]} follows it")
        if any(isinstance(text, str) and not text.strip() for text in texts):
            shown = parameter.opts[-1] if parameter.opts[-1].startswith("-") else _argument(parameter)
            raise UsageError(f"{shown} is empty; is a variable of the shell not set?")


def _argument(parameter: click.Parameter) -> str:
    """Returns the name of an argument in the usage line."""
    words = (parameter.metavar or "").split()
    return words[0].strip("[].") if words else (parameter.name or "").upper()


def _open_standard() -> None:
    """With `>&-` Python has no sys.stdout, and a file or socket of ours would become number 1.

    What is written there then fails as on a closed descriptor does, and is told.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_RDWR)  # the lowest that is free, which is this one
            if fd == 1:
                sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  it is Python that flushes it at the end
            elif fd == 2:
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  without one `print` takes standard output


def _has_room(stream: TextIO, patience: float) -> bool:
    """Returns True as soon as a line can be written without waiting, and False if that takes too long."""
    import select

    try:
        fd = stream.fileno()
    except (OSError, ValueError):
        return True  # it is in memory
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(patience * 1000))


def tell_failed_call(command: str, error: OSError, patience: float | None = None) -> None:
    """Tells the user of a system call that nobody expected to fail.

    What a command does itself it tells as a LocalError, mostly; what is left is its own output, if it can be.
    """
    _give_up_output()
    print_error(command, _what_failed(error), patience)


def _what_failed(error: OSError) -> str:
    of_output = error.errno in OF_OUTPUT and error.filename is None
    if error.errno == errno.EAGAIN and not hasattr(error, "characters_written"):  # Python's writers set that
        of_output = False
    if of_output:
        return f"cannot write to standard output: {reason_of(error)}"
    return failed_call(error)


def _give_up_output() -> None:
    """Without this Python tries again when it ends, and makes the exit status 120."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
    except OSError:  # no descriptor is left
        sys.stdout = None  # nothing is tried again then
        return
    os.dup2(null, 1)
    os.close(null)
