"""cexec-ssh(1): runs a command on a worker of a shell service, for programs that were made for ssh.

Contract: `main(argv)` returns the command's exit status, and 255 for every failure of its own and for a command that a
signal has ended, as ssh does.  It prints nothing if the command succeeds.  It loads neither click nor argparse, because
programs start it for each thing that they do.  docs/ssh.md.
"""

from __future__ import annotations

import os
import sys

from cexec.client.attempt.descriptors import empty_standard_input, inspect_standard, occupy_standard
from cexec.client.attempt.signals import ENDING, EndedBySignal, die_of, end_by_default
from cexec.client.blocking.client import BlockingClient
from cexec.client.request import (
    NEVER,
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
    is_variable,
    read_client_key,
    trust_opener,
)
from cexec.client.search.choice import plain_name
from cexec.commands import ssh_options
from cexec.commands.ssh_options import NAME, parse_call
from cexec.common_errors import CexecError, KeyFileError, NoWorkerError, UsageError
from cexec.protocol.connection.options import INTERRUPT, SUBSYSTEM, USER_1, USER_2
from cexec.protocol.datagrams.requirements import ACCOUNT, Requirements
from cexec.protocol.datagrams.requirements import TERMINAL as TERMINAL_NEED
from cexec.system.signal_state import set_at_start
from cexec.system.storage.keyfile import find_client_key
from cexec.system.storage.user_files import key_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.commands.ssh_options import SshCall

KEY_VARIABLE = "CEXEC_SSH_KEY"
PIPE_SIGNAL = 13  # SIGPIPE, as on Linux: a reader here has gone, which is no news
KEY_NAME = "shell.pub"  # in ~/.config/cexec
FAILED = 255  # the exit status of all failures that are not the command's, as of ssh
PATIENCE = 60.0  # seconds (ours) that a worker has which is there, but does not answer: its machine is busy
HERE = ("127.0.0.1", "::1")  # what `localhost` stands for


def main(argv: list[str] | None = None) -> int:
    """Parses, runs, and says what went wrong in one line on stderr."""
    words = sys.argv[1:] if argv is None else argv
    if os.getpid() == 1:
        from cexec.system.process.first_process import stand_aside

        stand_aside()
    set_at_start()
    try:
        if words and (words[0].startswith("--") or words[0] == "-h") and words[0] != "--":
            from cexec.commands.ssh_page import run_page_option

            return run_page_option(words)
        call = parse_call(words)
        if call.version or call.settings:
            from cexec.commands.ssh_settings import print_settings, print_version

            return print_version(sys.stderr) if call.version else print_settings(call, os.environ)
        end_by_default(INTERRUPT)
        return run(call, os.environ)
    except (CexecError, OSError) as error:
        error.__traceback__ = error.__cause__ = error.__context__ = None  # closes what the call has opened
        from cexec.commands.common import print_error
        from cexec.system.reason import failed_call

        print_error(NAME, failed_call(error) if isinstance(error, OSError) else str(error))
        return FAILED
    except EndedBySignal as ended:
        die_of(ended.number)
        return FAILED


def run(call: SshCall, environ: Mapping[str, str]) -> int:
    """Runs one command."""
    path = find_shell_key(environ)
    key_fd = key_descriptor(path)
    key = read_client_key(path, NAME)
    if call.no_stdin:
        empty_standard_input()
    occupy_standard()  # before the look: ssh gives every command three descriptors, and daemons start ssh without them
    descriptors = inspect_standard([] if key_fd is None else [key_fd])
    if call.send:
        from cexec.system.process.environment import restore_locale

        restore_locale()  # LC_CTYPE is sent as the caller had it
    times = Times.from_environment(environ, for_ever=False)
    times.accept, times.patience = call.timeout, PATIENCE
    line = " ".join(call.words)
    subsystem = {SUBSYSTEM: line} if call.subsystem else {}
    request = Request(
        key,
        network=NetworkSettings.from_environment(environ),
        times=times,
        target=Target(requirements_of(call), open_trust=trust_opener(key, path, required=False)),
        streams=JobStreams(
            descriptors, no_stdin=call.no_stdin, terminal=TERMINAL if wants_terminal(call) else NO_TERMINAL
        ),
        invocation=Invocation(
            arguments=[os.fsencode(line)] if line and not call.subsystem else [],
            environment=environment_of(call, environ),
            options=subsystem,
        ),
        repetition=Repetition(retries=NEVER, spool=0, keep_partial=True),
        reports=Reports(command=NAME, quiet=True, hint=_wants_hint(call)),
    )
    request.check_size()
    client = BlockingClient(request, dies_of=(*ENDING, USER_1, USER_2))
    try:
        status = client.run()
    except CexecError as error:
        from cexec.errors import RefusedError  # most commands are run

        if isinstance(error, NoWorkerError | RefusedError):
            raise NoWorkerError(f"{call.host}: {error}") from None
        raise
    return _status(client, status)


def wants_terminal(call: SshCall) -> bool:
    """Returns True if the command gets a terminal: -tt, or -t or no command where a person sits at one."""
    if call.subsystem or call.terminal == ssh_options.NO_TERMINAL:
        return False
    if call.terminal == ssh_options.FORCED_TERMINAL:
        return True
    asked = call.terminal == ssh_options.TERMINAL or not " ".join(call.words)
    return asked and not call.no_stdin and _is_terminal(0)


def _wants_hint(call: SshCall) -> bool:
    """Returns True if a person sees the messages, who could have asked for a terminal; programs read them as well."""
    return call.terminal == ssh_options.AS_USUAL and not call.subsystem and _is_terminal(2)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def find_shell_key(environ: Mapping[str, str]) -> str:
    """Returns the path of the client key: CEXEC_SSH_KEY, else ~/.config/cexec/shell.pub."""
    named = environ.get(KEY_VARIABLE, "")
    if named:
        return find_client_key(named)
    from cexec.system.storage.user_files import config_directory

    directory = config_directory(environ)
    path = f"{directory}/{KEY_NAME}"
    if directory is None or not os.path.exists(path):
        raise KeyFileError(
            f"there is no {path if directory else f'~/.config/cexec/{KEY_NAME}'}; copy the client key of a service "
            f"that was started with cservice --shell to that place, or name its file in {KEY_VARIABLE}"
        )
    return path


def requirements_of(call: SshCall) -> Requirements:
    """Returns the requirements that only the named worker meets, if it runs commands as the named user.

    A terminal is among them where the command gets one.
    """
    host = call.host.lower()
    whole = host.removesuffix(".")  # the dot says that a name is whole
    names = [*map(plain_name, (call.host, host, whole)), *(HERE if whole == "localhost" else ())]
    names = list(dict.fromkeys(names))
    _check(Requirements({}, names), f"{call.host!r} cannot be the name of a worker")
    needs = {ACCOUNT: call.user, **({TERMINAL_NEED: ""} if wants_terminal(call) else {})}
    requirements = Requirements(needs, names)
    _check(requirements, f"{call.user!r} cannot be the name of a user")
    return requirements


def _check(requirements: Requirements, wrong: str) -> None:
    try:
        requirements.encode()
    except UsageError:
        raise UsageError(wrong) from None


def environment_of(call: SshCall, environ: Mapping[str, str]) -> dict[str, bytes]:
    """Returns the command's variables; those of a name that no shell could use are passed over, as bash does there."""
    sent = call.variables(environ).items()
    return {name: os.fsencode(value) for name, value in sent if is_variable(name)}


def _status(client: BlockingClient, status: int) -> int:
    """Returns the command's exit status, or FAILED for a command that was ended by a signal or a limit."""
    from cexec.protocol.connection.frames import EXITED, SIGNALLED  # loaded by now

    if client.exit is None or client.exit.kind == EXITED:
        return status
    if client.exit.kind == SIGNALLED and client.exit.status != PIPE_SIGNAL:
        from cexec.commands.common import print_error

        print_error(NAME, f"the command was ended by signal {client.exit.status}")
    return FAILED
