"""`cexec --all`: the same job on every worker that fits, at once.

Contract: `EverywhereClient(request, ...).run()` returns the largest exit status.  A worker of the roll that did not
finish counts as 111 and is named.  Inputs are read once and given to all workers.  A worker's output is written when
the worker has finished.  A job is never repeated.  One loop drives the search, all runs and all output.
docs/protocol.md sections 2.2 and 3.3.
"""

from __future__ import annotations

import os
import select
from time import monotonic

from cexec.client.attempt.signals import Insistence, Signals, die_of, suspend
from cexec.client.everywhere.kept_output import Printer
from cexec.client.everywhere.roll_call import Gathering, call_roll
from cexec.client.everywhere.shared_input import SharedInput
from cexec.client.everywhere.worker_run import WorkerRun
from cexec.client.request import CLUSTER, DIED_OF_PIPE, UNATTENDED, Request
from cexec.client.search.choice import Notices
from cexec.client.search.messages import ancestors_words
from cexec.client.search.search import Search
from cexec.errors import EXIT_TEMPORARY, CexecError, NoWorkerError, UsageError, WithdrawnError
from cexec.net.announcer import Announcer
from cexec.net.sockets import open_listener
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.options import CONTINUE, INTERRUPT, READS, SUSPEND, WRITES
from cexec.protocol.datagrams.announcement import RUN_ALL, SealedAnnouncement
from cexec.protocol.datagrams.opened_announcement import own_job_id
from cexec.protocol.decisions.census import shown_names
from cexec.system.io.wakeup import poll_timeout
from cexec.system.printable import printable, write_line
from cexec.system.process.descriptor_limit import raise_limit
from cexec.system.terminal import TAG_COLOURS, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cexec.client.search.reception import Winner
    from cexec.protocol.decisions.census import Answer

STANDARD_ERROR = 2


class EverywhereClient:
    """Runs one request on all workers.  `expected`: the least number of workers; `tag`: puts names before lines."""

    def __init__(self, request: Request, *, expected: int = 0, tag: bool = False) -> None:
        self._request = request
        self._expected = expected
        self._tag = tag
        self._started = monotonic()
        self._told = False  # where nobody sits at a terminal, why a worker is waited for is said once
        self._job_id = sodium.random_bytes(IDENTITY_SIZE)
        self._inputs: dict[int, SharedInput] = {}
        for descriptor in request.streams.descriptors:
            if descriptor.directions == READS | WRITES:
                raise UsageError(f"--all cannot share descriptor {descriptor.fd}, which is read and written; close it")
            if descriptor.directions == READS:
                empty = request.streams.no_stdin and descriptor.fd == 0
                self._inputs[descriptor.fd] = SharedInput(descriptor.fd, empty=empty)
        self._runs: list[WorkerRun] = []
        self._printer = Printer()
        self._announcer = Announcer(request.network.groups, request.network.udp_port)
        self._signals = Signals()
        self._insistence = Insistence()
        self._status = 0
        self._unfinished: list[str] = []
        self._names: dict[bytes, str] = {}  # the workers' names in messages, by instance

    def run(self) -> int:
        """Runs all jobs, from the roll call to the last byte written here."""
        request = self._request
        raise_limit()  # each worker needs a descriptor, and files for its output
        announcer = self._announcer
        try:
            roll = call_roll(request.key, announcer, request.target.requirements, self._expected)
            self._names = shown_names(roll.values())
            gathering = self._gather(roll)
            search = self._search(gathering, announcer)
            try:
                self._drive(search, gathering, roll)
            finally:
                search.close()
                for run in self._runs:
                    run.end()
        except NoWorkerError as error:
            self._complain(CLUSTER, str(error))
            self._alert(error, final=True)
            raise
        except CexecError as error:
            self._alert(error, final=True)
            raise
        finally:
            announcer.close()
            self._signals.close()
        return self._conclude(len(roll))

    def _gather(self, roll: dict[bytes, Answer]) -> Gathering:
        """Names the workers that cannot take part, and waits for the others."""
        troubles = {instance: answer.trouble or self._distrust(answer) for instance, answer in roll.items()}
        for instance, answer in roll.items():
            if troubles[instance]:
                self._give_up(self._names[instance], answer.address, troubles[instance])
        usable = {instance: answer for instance, answer in roll.items() if not troubles[instance]}
        return Gathering(usable, self._request.go(self._job_id, 1), self._request.times.accept, monotonic())

    def _distrust(self, answer: Answer) -> str:
        """Returns why the worker is not trusted, or ""."""
        if self._request.target.open_trust is None:
            return ""
        try:
            self._request.target.open_trust().check(answer.hello.certificate)
        except CexecError as error:
            return str(error)
        return ""

    def _search(self, gathering: Gathering, announcer: Announcer) -> Search:
        request = self._request
        sealed = SealedAnnouncement(
            request.key,
            job_id=self._job_id,
            attempt=1,
            kind=RUN_ALL,
            weight=request.target.weight,
            requirements=request.target.requirements,
        )
        return Search(
            request.key,
            sealed,
            announcer,
            open_listener(request.network.ports, loopback=announcer.loopback, ipv6=announcer.ipv6),
            gathering,
            gathering.race,
            idle_timeout=request.times.idle,
            notices=Notices(complain=self._complain, tell=self._tell),
            open_trust=request.target.open_trust,
        )

    # the loop

    def _drive(self, search: Search, gathering: Gathering, roll: dict[bytes, Answer]) -> None:
        searching = True
        search.start(monotonic())
        self._signals.start()
        try:
            while (searching or self._runs or not self._printer.idle) and not self._printer.reader_gone:
                ready = self._wait(search, gathering) if searching else self._wait()
                if searching:
                    self._search_on(search, gathering, roll, ready)
                if self._signals.fileno() in ready:
                    self._pass_signals_on()
                for run in self._advance(ready):
                    if isinstance(run.failure, WithdrawnError):
                        gathering.took_back(run.winner, monotonic())
                    else:
                        self._finish(run)
                if searching and gathering.complete and all(run.begun for run in self._runs):
                    search.tell_others()
                    search.close()
                    searching = False
                self._printer.advance()
        finally:
            self._signals.stop()

    def _search_on(self, search: Search, gathering: Gathering, roll: dict[bytes, Answer], ready: set[int]) -> None:
        """Gives the job to a worker that is there, and gives up those whose time is over."""
        now = monotonic()
        winner = search.step(ready, now)
        if winner is not None:
            gathering.took(winner)
            self._begin(winner)
        for instance, reason in gathering.given_up(now).items():
            self._give_up(self._names[instance], roll[instance].address, reason)

    def _wait(self, search: Search | None = None, gathering: Gathering | None = None) -> set[int]:
        poll = select.poll()
        wanted = {self._signals.fileno(): select.POLLIN, **self._printer.wanted()}
        timeouts = [run.next_timeout() for run in self._runs]
        for run in self._runs:
            wanted.update(run.wanted())
            for shared in run.short_of():
                if (rest := shared.rests_until()) > 0:
                    timeouts.append(rest)
                elif shared.fd >= 0:
                    wanted[shared.fd] = select.POLLIN
        if search is not None and gathering is not None:
            now = monotonic()
            wanted.update(dict.fromkeys(search.filenos(now), select.POLLIN))
            timeouts += [search.next_timeout(now), gathering.next_timeout()]
        for fd, mask in wanted.items():
            poll.register(fd, mask)
        if any(run.eager for run in self._runs):
            return {fd for fd, _ in poll.poll(0)}
        seconds = min(timeouts) - monotonic() if timeouts else None
        return {fd for fd, _ in poll.poll(poll_timeout(seconds))}

    def _advance(self, ready: set[int]) -> list[WorkerRun]:
        """Reads input and lets the runs step; returns those that have ended."""
        for shared in self._inputs.values():
            if shared.fd in ready:
                shared.fill()
        now = monotonic()
        for run in list(self._runs):
            if not run.over and (run.eager or run.next_timeout() <= now or not ready.isdisjoint(run.wanted())):
                run.step()
        ended = [run for run in self._runs if run.over]
        self._runs = [run for run in self._runs if not run.over]
        return ended

    def _pass_signals_on(self) -> None:
        for number in self._signals.take():
            idle = not self._runs and number not in (SUSPEND, CONTINUE)
            if self._insistence.ends(number, started=any(run.begun for run in self._runs)) or idle:
                die_of(number)
            for run in self._runs:
                run.signal(number)
            if number == SUSPEND:
                suspend()
                for run in self._runs:
                    run.signal(CONTINUE)

    # workers

    def _begin(self, winner: Winner) -> None:
        name = self._names.setdefault(winner.hello.instance, f"{winner.hello.name}@{winner.address}")
        if self._request.reports.test_alert:
            self._complain(winner.address, "test alert")
        request = self._request
        run = WorkerRun(winner, name, request.streams.descriptors, self._inputs, request.patience(monotonic()))
        self._runs.append(run)
        run.step()

    def _tag_of(self, run: WorkerRun, number: int) -> bytes:
        """Returns the worker's name for the lines of an output; on a terminal each worker's has another colour."""
        colour = TAG_COLOURS[list(self._names).index(run.winner.hello.instance) % len(TAG_COLOURS)]
        return f"{Terminal(number).paint(f'{printable(run.name)}:', colour)} ".encode()

    def _finish(self, run: WorkerRun) -> None:
        """Writes the worker's output, unless it failed and its output is not wanted; then reports how it ended."""
        status = EXIT_TEMPORARY if run.exit is None else run.exit.exit_status
        partial = run.exit is None or (status != 0 and self._request.repetition.hold)
        for number, sink in run.outputs.items():
            if partial and number != STANDARD_ERROR and not self._request.repetition.keep_partial:
                sink.drop()
            else:
                self._printer.add(number, sink.chunks(self._tag_of(run, number) if self._tag else b""))
        if run.failure is not None:
            for final in (False, True):
                self._alert(run.failure, final, run)
            self._give_up(run.name, run.winner.address, str(run.failure), complaint=ancestors_words(run.failure))
        if run.exit is None:
            return
        if run.exit.message:
            self._say(f"worker {run.name}: {run.exit.message}")
        if status:
            self._complain(run.winner.address, f"exited with code {status}")
            self._say(f"worker {run.name}: status {status}")
        self._status = max(self._status, status)

    def _give_up(self, name: str, address: str, reason: str, complaint: str = "") -> None:
        self._complain(address, complaint or reason)
        self._say(f"worker {name} at {address} did not finish: {reason}")
        self._unfinished.append(name)
        self._status = max(self._status, EXIT_TEMPORARY)

    def _conclude(self, workers: int) -> int:
        for shared in self._inputs.values():
            shared.move_offset()
        if INTERRUPT in self._signals.taken and self._status == 128 + INTERRUPT:
            die_of(INTERRUPT)
        if self._printer.reader_gone:
            return DIED_OF_PIPE
        if self._unfinished:
            names = ", ".join(self._unfinished)
            write_line(STANDARD_ERROR, f"cexec: {len(self._unfinished)} of {workers} workers did not finish: {names}")
        return self._status

    # words

    def _say(self, text: str) -> None:
        """Writes a line on standard error, after the output that it is about."""
        self._printer.add(STANDARD_ERROR, _once(f"cexec: {printable(text)}\n".encode()))

    def _complain(self, who: str, text: str) -> None:
        """Writes a line in the ancestor's words to CEXEC_FD_FOR_ERRORS, if that is set."""
        if self._request.reports.error_fd is not None:
            write_line(self._request.reports.error_fd, f"{who} {text}")

    def _alert(self, error: CexecError, final: bool, run: WorkerRun | None = None) -> None:
        """Tells the loggers of a failure; docs/protocol.md section 5.2."""
        from cexec.client.search.failure_alert import FailedAttempt, send_alert  # jobs that succeed need none

        if run is None:
            failed = FailedAttempt(self._job_id, 1, None, monotonic() - self._started)
        else:
            job_id = own_job_id(self._job_id, run.winner.hello.instance)
            failed = FailedAttempt(job_id, 1, run.winner, monotonic() - run.started)
        send_alert(self._request.key, self._announcer, failed, error, final=final)

    def _tell(self, text: str) -> None:
        """Says why a worker has not got the job, after the output that is on its way: each time at a terminal.

        Elsewhere it is said once.
        """
        late = not self._told and monotonic() - self._started >= UNATTENDED
        if os.isatty(STANDARD_ERROR) or late:
            self._told = True
            self._say(text)


def _once(data: bytes) -> Iterator[bytes]:
    yield data
