"""`cexec --all`: what is written here: outputs with names and colours, what became of each worker, and the status.

Contract: a `RollReport` is told when a worker has begun (`began`), has ended (`ended`) or is given up (`gave_up`).  It
writes nothing about workers before `roll_closed`, because a worker's name and colour depend on all the others; until
then it keeps what it is told.  All is written by `printer`, in this order.  `complain` writes at once: the ancestor's
lines have addresses, no names.  `status` is the exit status so far; `conclude` writes the last line.
"""

from __future__ import annotations

import os
from time import monotonic

from cexec.client.everywhere.kept_output import Printer
from cexec.client.request import UNATTENDED
from cexec.client.search.messages import ancestors_words
from cexec.errors import EXIT_TEMPORARY
from cexec.protocol.decisions.census import shown_names
from cexec.system.printable import printable, write_line
from cexec.system.terminal import TAG_COLOURS, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cexec.client.everywhere.worker_run import WorkerRun
    from cexec.client.request import Repetition
    from cexec.protocol.decisions.census import Answer

STANDARD_ERROR = 2


class RollReport:
    """The report of one `cexec --all`."""

    def __init__(self, repetition: Repetition, *, tag: bool, error_fd: int | None) -> None:
        """`repetition` says which output of a failed worker is written.  `tag`: the worker's name before each line."""
        self.printer = Printer()
        self.status = 0
        self._repetition = repetition
        self._tag = tag
        self._error_fd = error_fd
        self._started = monotonic()
        self._told = False  # where nobody sits at a terminal, why a worker is waited for is said once
        self._unfinished: list[str] = []
        self._names: dict[bytes, str] = {}  # in messages, by instance: the roll, then who was missing in it and ran
        self._held: list[Callable[[], None]] | None = []  # calls that wait until the names are known; then it is None

    def roll_closed(self, answers: Iterable[Answer]) -> None:
        """Names the workers, and writes what has waited for that."""
        self._names = shown_names(answers)
        held, self._held = self._held, None
        for write in held or ():
            write()

    def began(self, run: WorkerRun) -> None:
        """Notes that a worker has got the job."""
        self._when_named(lambda: self._name(run))

    def ended(self, run: WorkerRun) -> None:
        """Writes the worker's output, unless it failed and its output is not wanted, and how it ended."""
        self._when_named(lambda: self._write(run))

    def gave_up(self, instance: bytes, address: str, reason: str) -> None:
        """Tells that a worker of the roll does not get the job."""
        self.complain(address, reason)
        self._when_named(lambda: self._miss(self._names[instance], address, reason))

    def tell(self, text: str) -> None:
        """Says why a worker has not got the job, after the output that is on its way: each time at a terminal.

        Elsewhere it is said once.
        """
        late = not self._told and monotonic() - self._started >= UNATTENDED
        if os.isatty(STANDARD_ERROR) or late:
            self._told = True
            self._when_named(lambda: self._say(text))

    def complain(self, who: str, text: str) -> None:
        """Writes a line in the ancestor's words to CEXEC_FD_FOR_ERRORS, if that is set."""
        if self._error_fd is not None:
            write_line(self._error_fd, f"{who} {text}")

    def conclude(self) -> None:
        """Says who did not finish."""
        if self._unfinished:
            missing = f"{len(self._unfinished)} of {len(self._names)} workers did not finish"
            write_line(STANDARD_ERROR, f"cexec: {missing}: {', '.join(self._unfinished)}")

    def _when_named(self, write: Callable[[], None]) -> None:
        if self._held is None:
            write()
        else:
            self._held.append(write)

    def _name(self, run: WorkerRun) -> None:
        """A worker whose answer was lost, or was too late, is named as those of the roll are."""
        name = run.winner.hello.name
        shared = any(other.partition("@")[0] == name for other in self._names.values())
        run.name = self._names.setdefault(run.winner.hello.instance, run.name if shared else name)

    def _write(self, run: WorkerRun) -> None:
        status = EXIT_TEMPORARY if run.exit is None else run.exit.exit_status
        partial = run.exit is None or (status != 0 and self._repetition.hold)
        for number, sink in run.outputs.items():
            if partial and number != STANDARD_ERROR and not self._repetition.keep_partial:
                sink.drop()
            else:
                self.printer.add(number, sink.chunks(self._tag_of(run, number) if self._tag else b""))
        if run.failure is not None:
            self.complain(run.winner.address, ancestors_words(run.failure))
            self._miss(run.name, run.winner.address, str(run.failure))
        if run.exit is None:
            return
        if run.exit.message:
            self._say(f"worker {run.name}: {run.exit.message}")
        if status:
            self.complain(run.winner.address, f"exited with code {status}")
            self._say(f"worker {run.name}: status {status}")
        self.status = max(self.status, status)

    def _tag_of(self, run: WorkerRun, number: int) -> bytes:
        """Returns the worker's name for the lines of an output; on a terminal each worker's has another colour."""
        colour = TAG_COLOURS[list(self._names).index(run.winner.hello.instance) % len(TAG_COLOURS)]
        return f"{Terminal(number).paint(f'{printable(run.name)}:', colour)} ".encode()

    def _miss(self, name: str, address: str, reason: str) -> None:
        self._say(f"worker {name} at {address} did not finish: {reason}")
        self._unfinished.append(name)
        self.status = max(self.status, EXIT_TEMPORARY)

    def _say(self, text: str) -> None:
        """Writes a line on standard error, after the output that it is about."""
        self.printer.add(STANDARD_ERROR, _once(f"cexec: {printable(text)}\n".encode()), ours=True)


def _once(data: bytes) -> Iterator[bytes]:
    yield data
