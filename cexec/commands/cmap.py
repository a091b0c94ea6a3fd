"""cmap(1): a table of tasks over all workers of an application.

Contract: `main(argv)` returns the exit status, which is GNU parallel's: the number of tasks that failed up to 100, 101
for more; 111 when no worker was found, 100 for wrong use, 255 for anything else.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from contextlib import nullcontext
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from cexec.client.aio.worker_search import Terms
from cexec.client.request import NetworkSettings, Target, Times, read_client_key, trust_opener
from cexec.client.search.choice import requirements_from
from cexec.client.search.messages import advised
from cexec.cmap.inputs.sources import split_words
from cexec.cmap.inputs.standard_input import open_standard_input
from cexec.cmap.inputs.tables import encode
from cexec.cmap.inputs.task_plan import dry_run
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.commit import unsaved
from cexec.cmap.run.coordinator import Coordinator
from cexec.cmap.run.policy import EXIT_NO_WORKER, EXIT_OTHER
from cexec.cmap.setup import Setup
from cexec.commands.cmap_options import call_of, cmap_options, options_from
from cexec.commands.cmap_watch import Watch, explain_main, watch_options
from cexec.commands.common import CLOSE, print_error, print_line, run_click, tell_failed_call
from cexec.commands.help_page import ARGUMENTS, HelpfulCommand, version_option, with_arguments
from cexec.commands.parallel_names import PARALLEL_NAMES
from cexec.errors import CexecError, KeyFileError, LocalError, NoWorkerError, UsageError
from cexec.system.call_threads import run_loop
from cexec.system.process.descriptor_limit import raise_limit
from cexec.system.storage.keyfile import find_client_key
from cexec.system.units import show_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from cexec.client.search.trust import Trust
    from cexec.cmap.watch.display import Display
    from cexec.protocol.base.keys import ClientKey

EXPLAIN = "explain"  # the word in place of a key
WEIGHT = "weight"
STEERING = ("pause", "continue", WEIGHT)  # other such words; `cmap_steer` is loaded for them only
# How many more objects (ours) are made than freed before Python looks for cycles among them.  A round of 1,000 leases
# makes some 20,000, which go with the next round; by Python's own 700 (or 2,000) it would look at them again and again.
COLLECT_AFTER = 20_000
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXAMPLES = (
    ("cmap ogg.pub --stdin '{}' --stdout '{.}.ogg' ::: *.wav", "a task for each file; its result is a file"),
    ("cmap sim.pub --params runs.csv --state run.journal -- --seed '{seed}'", "a task for each row of a table"),
    ("cmap explain --state run.journal 17", "where task 17 ran, how it failed, or why it waits"),
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; words after `--` and `:::` are no options."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == [EXPLAIN]:
        return explain_main(words[1:])
    if words and words[0] in STEERING:
        from cexec.commands import cmap_steer

        return cmap_steer.STEERING[words[0]](words[1:])
    try:
        before, arguments, inputs = split_command(words)
    except UsageError as error:
        print_error("cmap", str(error))
        return error.exit_status

    @click.command("cmap", cls=_Command, examples=EXAMPLES, foreign=PARALLEL_NAMES)
    @cmap_options
    @watch_options
    @version_option
    @click.argument("application", metavar="APP.pub [-- ARG...] [::: INPUT...]")
    @click.argument("others", nargs=-1, metavar="")
    def command(application: str, others: tuple[str, ...], **values: Any) -> int:
        """Run a table of tasks on all workers of an application.

        Each input becomes a task: a line of standard input, or what -a, --params, --array, --slices or ::: give. In
        ARGs and other texts {} stands for the input, {.} {/} {//} {/.} {..} for parts of it, {1} and {name} for
        columns, {#} for the number, {%} for the slot.

        cmap explain --state FILE [TASK] tells why a task waits, where it ran, and how it failed. cmap pause FILE,
        cmap continue FILE and cmap weight FILE N steer a run with that --state while it goes on.
        """
        if others:
            advice = command.advice(before, "") or "the program's own arguments come after --"
            advice += "; inputs come after :::, and a variable is --peer KEY=VALUE"
            raise UsageError(_meant(application) or advice)
        return _run(application, values, arguments, inputs)

    command.inputs = None if arguments else [word for kind, group in inputs for word in (kind, *group)]
    return run_click(command, before)


class _Command(HelpfulCommand):
    """`inputs` are the words from the first `:::` on; None if there is a `--` already."""

    inputs: list[str] | None = None

    def advice(self, words: Sequence[str], unknown: str) -> str:
        if self.inputs is None:
            return ""
        return with_arguments(self, "cmap", words, unknown, tail=self.inputs, rest=False)


def split_command(words: Sequence[str]) -> tuple[list[str], list[str], list[tuple[str, list[str]]]]:
    """Cuts `OPTIONS... APP.pub -- ARG... ::: INPUT...` into options and key, arguments, and inputs."""
    before, inputs = split_words(words)
    if any(ARGUMENTS in group for _, group in inputs):
        raise UsageError("-- ARG... has to stand before the first :::")
    if ARGUMENTS not in before:
        return before, [], inputs
    where = before.index(ARGUMENTS)
    return before[:where], before[where + 1 :], inputs


def _run(
    application: str,
    values: Mapping[str, Any],
    arguments: Sequence[str],
    inputs: Sequence[tuple[str, list[str]]],
) -> int:
    """Runs everything; returns the exit status for what went wrong, which of a key is the one that cexec has."""
    path = _find_key(application)
    key = read_client_key(path, "cmap")
    try:
        return _run_all(key, path, application, values, arguments, inputs)
    except UsageError:
        raise
    except KeyboardInterrupt:
        print_error("cmap", "interrupted before any task began")
        return EXIT_OTHER
    except CexecError as error:
        if isinstance(error, NoWorkerError):
            print_error("cmap", advised(error, [application]))
            return EXIT_NO_WORKER
        print_error("cmap", str(error))
        return EXIT_OTHER
    except OSError as error:
        tell_failed_call("cmap", error)
        return EXIT_OTHER


def _run_all(
    key: ClientKey,
    path: str,
    application: str,
    values: Mapping[str, Any],
    arguments: Sequence[str],
    inputs: Sequence[tuple[str, list[str]]],
) -> int:
    options = options_from(values)
    shared = _path_of_standard_input() if options.tee and options.dry_run else ""
    raise_limit()  # each lease has a socket, and a file for each result
    others = inputs or options.arg_file or options.params or options.array or options.slices
    if not others and os.isatty(0):
        print_line("cmap: reading inputs from the terminal, one on each line; Ctrl-D ends them")
    setup = Setup(
        options,
        application=application,
        key=path,
        fingerprint=key.fingerprint,
        arguments=arguments,
        inputs=inputs,
        stdin=open_standard_input(unbuffered=not others),
    )
    try:
        needs = None if setup.program is None else setup.program.needs()
        open_trust = trust_opener(key, path, required=values["require_revoked"])
        terms = _terms(key, open_trust, values, os.environ, needs)
        if options.dry_run:
            lines = dry_run(setup.plan, setup.dry_run(), call_of(application, values, shared))
            AppendFile(1, "standard output").append(encode(line) + b"\n" for line in lines)
            return 0
        open_trust().check_list()
        watch = Watch(values, application, setup.columns)
        setup.open()
        watch.begin(setup.journal, lambda: terms.target.weight)
        gc.set_threshold(COLLECT_AFTER)
        try:
            status = run_loop(_coordinate(setup, terms, watch))
        finally:
            watch.conclude()
        return status or (EXIT_OTHER if watch.failed else 0)
    finally:
        setup.close()


def _path_of_standard_input() -> str:
    """Returns the name of the file that standard input is, at its beginning; empty if it is none."""
    try:
        path = os.readlink("/proc/self/fd/0")
        there = os.lseek(0, 0, os.SEEK_CUR) == 0 and os.path.samestat(os.stat(path), os.fstat(0))
    except OSError:
        return ""
    return path if there and os.path.isfile(path) else ""


async def _coordinate(setup: Setup, terms: Terms, watch: Watch) -> int:
    parts = setup.parts(terms, watch.observers, _tell)
    coordinator = Coordinator(parts)
    attempts = coordinator.attempts
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            print_line("cmap: no further task begins; once more ends those that run")
        coordinator.stop(end_running=interrupts > 1)
        if interrupts > 1:
            setup.end_validators()

    def pause() -> None:
        paused = parts.scheduler.progress.paused
        (coordinator.go_on if paused else coordinator.pause)()
        told = "goes on" if paused else "paused; SIGUSR2 again lets it go on"
        print_line(f"cmap: {told}")

    loop = asyncio.get_running_loop()
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, interrupt)
    loop.add_signal_handler(signal.SIGUSR2, pause)
    if watch.display is not None and signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGTSTP, _stop, watch.display)
    status = EXIT_OTHER
    try:
        async with _steered(setup, coordinator):
            status = await coordinator.run()
        if attempts.not_done and interrupts:
            raise CexecError(f"ended by the user; {attempts.not_done}")
        if attempts.not_done:
            print_line(f"cmap: --halt {setup.halt}; {attempts.not_done}{setup.advice}")
        elif not parts.scheduler.begun:
            print_line(f"cmap: nothing to do: {setup.why_nothing}")
        for told in setup.left_undone:
            print_line(f"cmap: {told}")
            status = status or EXIT_OTHER
        return status
    except CexecError as error:
        left = {*setup.saver.unsaved, *attempts.running}
        status = EXIT_NO_WORKER if isinstance(error, NoWorkerError) else EXIT_OTHER
        words = [str(error), *([unsaved(left)] if left else [])]
        if isinstance(error, LocalError) and attempts.waiting:
            words.append(f"{show_count(attempts.waiting, 'task')} not begun")
        raise type(error)("; ".join(words) + setup.advice) from None
    finally:
        setup.end_validators()
        coordinator.close(status)


def _steered(setup: Setup, coordinator: Coordinator) -> AbstractAsyncContextManager[None]:
    """Lets a run with a journal be asked to pause, for example; without one nothing is loaded for that."""
    if setup.journal is None:
        return nullcontext()
    from cexec.cmap.steering import steered

    return steered(setup.journal.store.path, coordinator, _tell)


def _terms(
    key: ClientKey,
    open_trust: Callable[[], Trust],
    values: Mapping[str, Any],
    environ: Mapping[str, str],
    needs: Mapping[str, str] | None,
) -> Terms:
    requirements, for_ever = requirements_from(values, environ, needs)
    return Terms(
        key,
        network=NetworkSettings.from_environment(environ),
        times=Times.from_environment(environ, for_ever=for_ever, progress=values["progress_timeout"] or 0.0),
        target=Target(requirements, values["weight"], open_trust),
    )


def _stop(display: Display) -> None:
    """Ctrl-Z: the shell finds no picture in its way.  The default action spares a group that nobody could continue."""
    display.erase()
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)


def _tell(text: str) -> None:
    print_line(f"cmap: {text}")


def _find_key(application: str) -> str:
    try:
        return find_client_key(application)
    except KeyFileError as error:
        if advice := _meant(application):
            raise KeyFileError(f"{error}; {advice}") from None
        raise


def _meant(application: str) -> str:
    """Returns advice about a key that looks like one of the words which stand in place of a key."""
    for word in get_close_matches(application, [EXPLAIN, *STEERING], 1, CLOSE):
        return f"for the account of a run: cmap {word} --state FILE" if word == EXPLAIN else _for_a_run(word)
    return ""


def _for_a_run(word: str) -> str:
    return f"for a run that goes on: cmap {word} FILE{' N' if word == WEIGHT else ''}, where FILE is its --state"
