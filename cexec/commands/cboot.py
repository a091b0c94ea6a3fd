"""cboot(1): from a list of ssh hosts to a serving cluster, and back.

Contract: `main(argv)` returns 0 if every host is as asked, 1 if some are not, with --run the status of its command, and
111 if that could not be run because no worker serves.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click

from cexec.boot.boot import Watch, boot
from cexec.boot.boot_settings import Action, BootSettings
from cexec.boot.host_table import BootProgress, facts, summary, table
from cexec.boot.hosts import Host, read_hosts
from cexec.boot.states import Journey
from cexec.commands.cboot_options import cboot_options
from cexec.commands.common import print_line, run_click, words_of
from cexec.commands.cservice_options import cservice_options
from cexec.commands.help_page import ARGUMENTS, HelpfulCommand, version_option
from cexec.commands.parameters import AnyText
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.keyfile import forbid_core_files
from cexec.system.terminal import Terminal

STANDARD_INPUT = "-"
PATIENCE = 60.0  # seconds for hosts that do not answer now
OF_ONE_HOST = ("--name", "--also")  # options of cservice that cannot mean the same for every host

EXAMPLES = (
    ("cboot hosts app -- oggenc -Q -o- -", "copy cexec to the hosts of a file, and let them serve"),
    ("cboot -w 'node[01-32]' app --run 'cmap app.pub < work' -- sh -c 'sort | uniq'", "for one command only"),
    ("cboot --remove -w 'node[01-32]' app", "delete all of it"),
)


class _Command(HelpfulCommand):
    def advice(self, words: Sequence[str], unknown: str) -> str:
        """The program's words begin at a place that only the user knows."""
        if ARGUMENTS in words:
            return ""
        return (
            f"what is for cservice and its program comes after {ARGUMENTS}: cboot HOSTFILE APP {ARGUMENTS} EXE ARG..."
        )


@click.command("cboot", cls=_Command, examples=EXAMPLES)
@cboot_options
@version_option
@click.argument("words", metavar="[HOSTFILE] APP [-- [CSERVICE OPTIONS] EXE ARG...]", nargs=-1, type=AnyText())
def command(**values: Any) -> int:
    """Set up workers on hosts that are known by ssh: copy cexec there, let it serve, and delete it again.

    A line of HOSTFILE (- is standard input) is [N/][user@]host[:port] or a set such as node[01-32,40].
    """
    words = list(values.pop("words"))
    action = _action(values)
    hosts = _hosts(values["listed"], words)
    app = words.pop(0) if words else None
    if not app and action is not Action.REMOVE:
        raise UsageError("the name of the application's key is missing: cboot HOSTFILE APP -- EXE")
    options, program = _service_words(words) if words else ([], [])
    starts = action in (Action.SERVE, Action.PLAN) and not values["upgrade"]
    if starts and not program:
        raise UsageError("the program is missing that the workers run: cboot HOSTFILE APP -- EXE")
    if program and action in (Action.STATUS, Action.STOP, Action.REMOVE):
        raise UsageError(f"--{action.value} takes HOSTFILE and APP, and no program")
    settings = BootSettings(
        action=action,
        options=options,
        program=program,
        ssh=_ssh(values["ssh"]),
        packages=values["packages"],
        wheels=values["wheels"],
        jobs=values["jobs"],
        patience=_patience(values["patience"], action),
        keep_trying=values["keep_trying"],
        grace=values["grace"],
        days=values["days"],
        detached=values["detached"],
        upgrade=values["upgrade"],
        keep_programs=values["keep_programs"],
        ephemeral=values["ephemeral"] or values["command"] is not None,
        command=values["command"],
    )
    forbid_core_files()
    return _Report(settings, values["as_json"]).run(hosts, app)


class _Report:
    """Shows a run: progress on standard error, the end on standard output."""

    def __init__(self, settings: BootSettings, as_json: bool) -> None:
        self._settings = settings
        self._as_json = as_json
        self._journeys: Sequence[Journey] = ()
        self._progress: BootProgress | None = None

    def run(self, hosts: Sequence[Host], app: str | None) -> int:
        try:
            status = boot(hosts, self._settings, app, self._begin, self._ready)
        except BaseException:
            self._close()
            self._show()
            raise
        self._close()
        self._show()
        return status

    def _begin(self, journeys: Sequence[Journey]) -> Watch:
        self._journeys = journeys
        self._progress = BootProgress(journeys, self._settings.action, Terminal(2), print_line)
        return self._progress.changed

    def _ready(self, journeys: Sequence[Journey]) -> None:
        """The command may use the terminal now."""
        self._close()
        end = "" if self._settings.command is not None else "; Ctrl-C ends and removes them"
        print_line(f"cboot: {summary(journeys, self._settings.action)}{end}")

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.close()

    def _show(self) -> None:
        if self._settings.command is not None or not self._journeys:
            return  # standard output is the command's
        lines = (
            [json.dumps(facts(one)) for one in self._journeys] if self._as_json else table(self._journeys, Terminal(1))
        )
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        if not self._as_json and not self._settings.ephemeral:
            print_line(f"cboot: {summary(self._journeys, self._settings.action)}")


def _patience(given: float | None, action: Action) -> float:
    """Returns seconds; a look at the hosts is over soon unless the user wants to wait."""
    if given is not None:
        return given
    return 0.0 if action in (Action.STATUS, Action.PLAN) else PATIENCE


def _action(values: dict[str, Any]) -> Action:
    """Returns what is done; refuses options that mean nothing together."""
    given = [name for name in ("status", "stop", "remove", "upgrade", "ephemeral") if values[name]]
    given += ["run"] if values["command"] is not None else []
    if set(given) == {"ephemeral", "run"}:
        given = ["run"]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} cannot be used together")
    only = given[0] if given else ""
    if values["dry_run"]:
        if only not in ("", "upgrade"):
            raise UsageError(f"--dry-run and --{only} cannot be used together")
        return Action.PLAN
    if values["keep_programs"] and only != "remove":
        raise UsageError("--keep-programs needs --remove")
    if values["as_json"] and only == "run":
        raise UsageError("--json and --run cannot be used together: standard output is the command's")
    return Action(only) if only in ("status", "stop", "remove") else Action.SERVE


def _hosts(listed: Sequence[str], words: list[str]) -> list[Host]:
    """Returns the hosts; takes HOSTFILE from the words unless they were given by -w."""
    if listed:
        return read_hosts(listed, "-w")
    if not words:
        raise UsageError("there are no hosts: cboot HOSTFILE APP -- EXE, or cboot -w HOSTS APP -- EXE")
    name = words.pop(0)
    if not name.strip():
        raise UsageError("HOSTFILE is empty; is a variable of the shell not set?")
    where = "standard input" if name == STANDARD_INPUT else name
    try:
        with open(0, "rb", closefd=False) if name == STANDARD_INPUT else open(name, "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError as error:
        hint = (
            ""
            if "[" not in name and "," not in name
            else f"; hosts themselves are given by -w: cboot -w {shlex.quote(name)}"
        )
        raise LocalError(f"cannot read {where}: {reason_of(error)}{hint}") from None
    return read_hosts(text.splitlines(), where)


def _ssh(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--ssh {text!r}: {str(error).lower()}") from None
    if not words:
        raise UsageError("--ssh is empty; is a variable of the shell not set?")
    return words


@click.command("cservice", context_settings={"allow_interspersed_args": False}, add_help_option=False)
@cservice_options
@click.argument("exe")
@click.argument("arg", nargs=-1, type=AnyText())
def _cservice(**values: Any) -> None:
    """Has the words of cservice without its key, to read them before a host is asked to."""


def _service_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns the options of cservice, and its program with arguments."""
    try:
        values = _cservice.make_context("cservice", list(words)).params
    except click.ClickException as error:
        raise UsageError(f"{words_of(error)}: cservice --help lists its options") from None
    program = [values["exe"], *values["arg"]]
    options = words[: len(words) - len(program)]
    if options[-1:] == [ARGUMENTS]:
        options.pop()
    for name in OF_ONE_HOST:
        if any(word == name or word.startswith(f"{name}=") for word in options):
            raise UsageError(f"{name} is not for many hosts: a worker has the name of its host and one key")
    if values["allow_programs"] and not values["program_cache"]:
        options += ["--program-cache", "{place}/programs"]  # filled in on the host; --remove removes it
    return options, program


def main(argv: list[str] | None = None) -> int:
    return run_click(command, argv)
