"""cps(1): the workers of an application, now or for as long as somebody watches.

Contract: `main(argv)` returns 0 when some worker answered, 111 when none did.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import click

from cexec.client.request import read_client_key
from cexec.client.search.roster import Roster, WorkerRow
from cexec.commands.common import print_error, run_click
from cexec.commands.cps_watch import (
    HEALTHY,
    SORTS,
    RowOrder,
    WatchedWorker,
    WatchEndedError,
    WatchScreen,
    narrowed,
    styles_of,
)
from cexec.commands.help_page import HelpfulCommand, version_option
from cexec.commands.parameters import Parsed
from cexec.errors import EXIT_TEMPORARY, CexecError, KeyFileError
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.protocol.datagrams.requirements import JOBS
from cexec.protocol.decisions.census import shown_names
from cexec.system.printable import printable
from cexec.system.storage.key_names import client_key_files
from cexec.system.storage.keyfile import find_client_key
from cexec.system.storage.revocations import Revocations
from cexec.system.storage.user_files import config_directory, list_path, quoted
from cexec.system.terminal import BOLD, Terminal
from cexec.system.units import parse_duration, show_short_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.protocol.base.keys import ClientKey

LONGEST_INTERVAL = 86_400.0  # seconds (ours)
DEFAULT_INTERVAL = 2.0  # seconds (ours) after which --watch asks for figures again
HEADINGS = (
    "NAME", "INSTANCE", "ADDRESS", "SLOTS", "RUNNING", "WAITING", "LOAD", "SPEED", "LABELS", "VERSION", "CLOCK",
    "UPTIME", "HEALTH",
)  # fmt: skip
NUMBERS = frozenset({"SLOTS", "RUNNING", "WAITING", "LOAD", "SPEED", "CLOCK", "UPTIME", "AGE"})  # right-aligned
SHOWN_INSTANCE = 4  # bytes (ours) of an instance that are enough for people


EXAMPLES = (
    ("cps app.pub", "all workers that answer now"),
    ("cps --watch", "of all applications whose keys are here, until Ctrl-C"),
    ("cps --json app.pub | jq -r .address", "for programs"),
)


@click.command("cps", cls=HelpfulCommand, examples=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per worker and line.")
@click.option("--watch", is_flag=True, help="Show who comes and goes and which jobs run, until q or Ctrl-C.")
@click.option(
    "--interval",
    type=Parsed(partial(parse_duration, most=LONGEST_INTERVAL)),
    default=DEFAULT_INTERVAL,
    show_default=True,
    metavar="TIME",
    help="With --watch: how often figures are asked for again; 0 never.",
)
@click.option(
    "--sort", type=click.Choice(list(SORTS)), default="name", show_default=True, help="Which workers come first."
)
@version_option
@click.argument("apps", metavar="[APP.pub]...", nargs=-1)
def command(as_json: bool, watch: bool, interval: float, sort: str, apps: tuple[str, ...]) -> int:
    """Show the workers of applications: all that answer now, with their load.

    Without APP.pub: of every key *.pub here and in ~/.config/cexec.
    """
    keys = _named_keys(apps) if apps else _found_keys()
    roster = Roster(list(keys.values()), groups_from_environment(os.environ), udp_port_from_environment(os.environ))
    view = View(roster, list(keys), list(keys.values()), _lists(keys), as_json, RowOrder(sort))
    try:
        if watch:
            _watch(roster, view, interval)
        else:
            roster.take()
            view.show(now=True)
    except (KeyboardInterrupt, WatchEndedError):
        pass  # the end of every --watch
    finally:
        roster.close()
    if not roster.rows:
        view.explain_silence()
        return EXIT_TEMPORARY
    return 0


def _watch(roster: Roster, view: View, interval: float) -> None:
    """Shows the workers in a window of their own on a terminal, and elsewhere as lines."""
    terminal = Terminal(1)
    if view.as_json or not terminal.drawable:
        roster.watch(view.changed, interval)
        return
    with WatchScreen(terminal, view.order) as view.screen:
        roster.watch(view.changed, interval, view.screen.filenos)


def main(argv: list[str] | None = None) -> int:
    return run_click(command, argv)


# Which applications


def _named_keys(names: Iterable[str]) -> dict[str, ClientKey]:
    """The keys, by what the user calls them."""
    return _without_copies([(name, read_client_key(find_client_key(name), "cps")) for name in names])


def _lists(keys: dict[str, ClientKey]) -> list[Revocations]:
    """Returns each key's list of revoked certificates; CEXEC_REVOKED names that of the first key."""
    found = []
    for index, (name, key) in enumerate(keys.items()):
        path = list_path(find_client_key(name), {} if index else os.environ)
        found.append(Revocations(path, key.authority_public))
    return found


def _found_keys() -> dict[str, ClientKey]:
    """Returns every client key where keys are kept; other files called *.pub (an ssh key, say) do not count."""
    found: list[tuple[str, ClientKey]] = []
    complaints: list[str] = []
    for path in client_key_files():
        try:
            found.append((path, read_client_key(path, "cps")))
        except CexecError as error:
            complaints.append(str(error))
    if not found:
        where = f"no client key *.pub here or in {config_directory() or '~/.config/cexec'}"
        raise KeyFileError("; ".join([where, *complaints[:3]]) + "; name one: cps APP.pub")
    return _without_copies(found)


def _without_copies(keys: list[tuple[str, ClientKey]]) -> dict[str, ClientKey]:
    known: dict[bytes, tuple[str, ClientKey]] = {}
    for name, key in keys:
        known.setdefault(key.mac1_key, (name, key))
    return dict(known.values())


# What is shown


class View:
    """Rows on standard output: a table, made anew when something changes, or lines of JSON."""

    def __init__(
        self,
        roster: Roster,
        names: list[str],
        keys: list[ClientKey],
        lists: list[Revocations],
        as_json: bool,
        order: RowOrder | None = None,
    ) -> None:
        """`lists`: those of revoked certificates, one for each key."""
        self.as_json = as_json
        self.order = order or RowOrder()
        self.screen: WatchScreen | None = None
        self._roster = roster
        self._lists = lists
        self._problems: set[str] = set()  # of the lists, which were told
        self._files = names
        self._apps = [os.path.basename(name).removesuffix(".pub") for name in names]
        self._keys = keys
        self._stale = True

    def changed(self, row: WorkerRow | None, gone: bool) -> None:
        """Shows a change; `Roster.watch` calls it."""
        if row is None:
            self.show(now=False)
        elif self.as_json:
            names = self._names([*self._roster.rows.values(), row], row.key)
            facts = self._facts(row, names[row.answer.hello.instance])
            self._print([json.dumps({"event": "gone" if gone else "worker", **facts})])
        else:
            self._stale = True

    def show(self, *, now: bool) -> None:
        """The table, or all rows as JSON."""
        self._read_lists()
        workers = self._workers()
        if self.as_json:
            if now:
                self._print([json.dumps(self._facts(row, name)) for name, row in self._named()])
        elif self.screen is not None:
            self.screen.show(workers, self._headings(), format_table)
        elif self._stale and (workers or not now):
            ordered = self.order.sorted(workers)
            terminal = Terminal(1)
            headings, cells = self._headings(), [worker.cells for worker in ordered]
            if os.isatty(terminal.fd):
                headings, cells = narrowed(headings, cells, terminal.size()[0])
            head, *lines = format_table(headings, cells)
            styled = [terminal.paint(line, *styles_of(one)) for line, one in zip(lines, ordered, strict=True)]
            self._print([terminal.paint(head, BOLD), *styled, *([] if now else [""])])
        self._stale = False

    def explain_silence(self) -> None:
        """On stderr."""
        keys = ", ".join(f"{app} ({key.fingerprint})" for app, key in zip(self._apps, self._keys, strict=True))
        failures = "".join(f"; {label}: {text}" for label, text in self._roster.failures.items())
        first = quoted(self._files[0])
        print_error(
            "cps",
            f"no worker of {keys} answered; asked {', '.join(self._roster.sent_to) or 'nobody'}{failures}; "
            f"is cservice running with this key, in the same group (CEXEC_GROUP)? cexec --explain {first} tells why",
        )

    def _read_lists(self) -> None:
        """Looks for new lists of revoked certificates, and tells on stderr once why one cannot be trusted."""
        for one in self._lists:
            self._stale |= one.refresh(monotonic())
            if one.problem and one.problem not in self._problems:
                self._problems.add(one.problem)
                print_error("cps", f"{one.problem}; clients trust no worker until then")

    def _health(self, row: WorkerRow) -> str:
        certificate = row.answer.hello.certificate
        if self._lists[row.key].revoked(certificate):
            return f"certificate {certificate.serial} is revoked"
        return row.answer.trouble or row.answer.hello.detail

    def _workers(self) -> list[WatchedWorker]:
        return [
            WatchedWorker(
                printable(name), self._cells(row, name), row.answer.hello, self._health(row) in HEALTHY, row.answer.jobs
            )
            for name, row in self._named()
        ]

    def _named(self) -> list[tuple[str, WorkerRow]]:
        """Rows with their names, which are unique in an application as far as addresses tell."""
        found: list[tuple[str, WorkerRow]] = []
        for number in range(len(self._keys)):
            names = self._names(self._roster.rows.values(), number)
            named = [(names[instance], row) for instance, row in self._roster.rows.items() if row.key == number]
            found += sorted(named, key=lambda pair: (pair[0], pair[1].answer.hello.instance))
        return found

    def _names(self, rows: Iterable[WorkerRow], key: int) -> dict[bytes, str]:
        answers = {row.answer.hello.instance: row.answer for row in rows if row.key == key}
        return shown_names(answers.values())

    def _headings(self) -> list[str]:
        return [*(["APP"] if len(self._keys) > 1 else []), *HEADINGS]

    def _cells(self, row: WorkerRow, name: str) -> list[str]:
        answer = row.answer
        hello = answer.hello
        labels = ",".join(f"{key}={value}" if value else key for key, value in sorted(answer.labels.items()))
        cells = [
            name, hello.instance[:SHOWN_INSTANCE].hex(), answer.address, str(hello.slots), str(hello.running),
            str(hello.waiting), f"{hello.load:.2f}", f"{hello.speed:.2f}", labels or "-", hello.version,
            format_skew(answer.skew), show_short_duration(hello.uptime), self._health(row) or "-",
        ]  # fmt: skip
        app = [self._apps[row.key]] if len(self._keys) > 1 else []
        return [printable(cell) for cell in [*app, *cells]]

    def _facts(self, row: WorkerRow, name: str) -> dict[str, object]:
        answer = row.answer
        hello = answer.hello
        return {
            "app": self._apps[row.key],
            "fingerprint": self._keys[row.key].fingerprint,
            "name": name,
            "instance": hello.instance.hex(),
            "address": answer.address,
            "host": hello.host,
            "slots": hello.slots,
            "running": hello.running,
            "waiting": hello.waiting,
            "load": hello.load,
            "speed": hello.speed,
            "labels": answer.labels,
            "attributes": {key: value for key, value in hello.attributes.items() if key not in (*answer.labels, JOBS)},
            "version": hello.version,
            "clock": round(answer.skew, 3),
            "uptime": hello.uptime,
            "health": self._health(row),
            "jobs": [{"client": one.client, "host": one.host, "seconds": one.seconds} for one in answer.jobs],
        }

    def _print(self, lines: list[str]) -> None:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def format_table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = []
    for cells in [headings, *rows]:
        padded = [
            cell.rjust(width) if heading in NUMBERS else cell.ljust(width)
            for heading, cell, width in zip(headings, cells, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def format_skew(seconds: float) -> str:
    """Returns how far a worker's clock is ahead of ours, as text."""
    if abs(seconds) < 60:
        return f"{seconds:+.1f}s" if abs(seconds) >= 0.05 else "0.0s"
    return f"{'+' if seconds > 0 else '-'}{show_short_duration(abs(seconds))}"
