"""`cexec --all`: the same job on every worker that fits, at once.

Contract: `EverywhereClient(request, ...).run()` returns the largest exit status.  A worker of the roll that did not
finish counts as 111 and is named.  The first jobs run while the roll is still called.  Inputs are read once and given
to all workers.  A worker's output is written when the worker has finished and the roll is closed.  A job is never
repeated.  One loop drives the roll call, the search, all runs and all output.
docs/protocol.md sections 2.2 and 3.3.
"""

from __future__ import annotations

import select
from time import monotonic

from cexec.client.attempt.signals import Insistence, Signals, die_of, suspend
from cexec.client.everywhere.gathering import Gathering
from cexec.client.everywhere.open_roll import OpenRoll
from cexec.client.everywhere.roll_call import RollCall
from cexec.client.everywhere.roll_report import RollReport
from cexec.client.everywhere.shared_input import SharedInput
from cexec.client.everywhere.worker_run import WorkerRun
from cexec.client.request import CLUSTER, DIED_OF_PIPE, Request
from cexec.client.search.choice import Notices
from cexec.client.search.search import Search
from cexec.errors import CexecError, NoWorkerError, UsageError, WithdrawnError
from cexec.net.announcer import Announcer, clocks
from cexec.net.sockets import open_listener
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.options import CONTINUE, INTERRUPT, READS, SUSPEND, WRITES
from cexec.protocol.datagrams.announcement import RUN_ALL, SealedAnnouncement
from cexec.protocol.datagrams.opened_announcement import own_job_id
from cexec.system.io.wakeup import poll_timeout
from cexec.system.process.descriptor_limit import raise_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.search.reception import Winner


class EverywhereClient:
    """Runs one request on all workers.  `expected`: the least number of workers; `tag`: puts names before lines."""

    def __init__(self, request: Request, *, expected: int = 0, tag: bool = False) -> None:
        self._request = request
        self._expected = expected
        self._started = monotonic()
        self._job_id = sodium.random_bytes(IDENTITY_SIZE)
        self._inputs: dict[int, SharedInput] = {}
        for descriptor in request.streams.descriptors:
            if descriptor.directions == READS | WRITES:
                raise UsageError(f"--all cannot share descriptor {descriptor.fd}, which is read and written; close it")
            if descriptor.directions == READS:
                empty = request.streams.no_stdin and descriptor.fd == 0
                self._inputs[descriptor.fd] = SharedInput(descriptor.fd, empty=empty)
        self._runs: list[WorkerRun] = []
        self._report = RollReport(request.repetition, tag=tag, error_fd=request.reports.error_fd)
        self._announcer = Announcer(request.network.groups, request.network.udp_port)
        self._signals = Signals()
        self._insistence = Insistence()

    def run(self) -> int:
        """Runs all jobs, from the roll call to the last byte written here."""
        raise_limit()  # each worker needs a descriptor, and files for its output
        try:
            self._announcer.settle()
            requirements = self._request.target.requirements
            call = RollCall(self._request.key, self._announcer, requirements, self._expected, monotonic())
            call.wait()
            self._start(call)
        except NoWorkerError as error:
            self._report.complain(CLUSTER, str(error))
            self._alert(error, final=True)
            raise
        except CexecError as error:
            self._alert(error, final=True)
            raise
        finally:
            self._announcer.close()
            self._signals.close()
        return self._conclude()

    def _start(self, call: RollCall) -> None:
        """Announces the job to the workers that are there, and runs it on them and on those that still answer."""
        request = self._request
        now = monotonic()
        gathering = Gathering(request.go(self._job_id, 1), request.times.accept, now)
        roll = OpenRoll(call, gathering, self._report, request.target.open_trust, now)
        search = self._search(gathering, roll)
        try:
            self._drive(search, gathering, roll)
        finally:
            search.close()
            for run in self._runs:
                run.end()

    def _search(self, gathering: Gathering, roll: OpenRoll) -> Search:
        request, announcer = self._request, self._announcer
        sealed = SealedAnnouncement(
            request.key,
            job_id=self._job_id,
            attempt=1,
            kind=RUN_ALL,
            weight=request.target.weight,
            requirements=request.target.requirements,
            clocks=clocks(),
        )
        return Search(
            request.key,
            sealed,
            announcer,
            open_listener(request.network.ports, loopback=announcer.loopback, ipv6=announcer.ipv6),
            gathering,
            gathering.race,
            idle_timeout=request.times.idle,
            notices=Notices(complain=self._report.complain, tell=self._report.tell),
            open_trust=request.target.open_trust,
            pass_on=roll.hear,
        )

    # the loop

    def _drive(self, search: Search, gathering: Gathering, roll: OpenRoll) -> None:
        searching = True
        printer = self._report.printer
        search.start(monotonic())
        self._signals.start()
        try:
            while (searching or self._runs or not printer.idle) and not printer.reader_gone:
                ready = self._wait(search, roll) if searching else self._wait()
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
                printer.advance()
        finally:
            self._signals.stop()

    def _search_on(self, search: Search, gathering: Gathering, roll: OpenRoll, ready: set[int]) -> None:
        """Gives the job to the workers that are there; only then the search has read all that has come by now."""
        now = monotonic()
        while (winner := search.step(ready, now)) is not None:
            gathering.took(winner)
            self._begin(winner)
        roll.advance(now)

    def _wait(self, search: Search | None = None, roll: OpenRoll | None = None) -> set[int]:
        poll = select.poll()
        wanted = {self._signals.fileno(): select.POLLIN, **self._report.printer.wanted()}
        timeouts = [run.next_timeout() for run in self._runs]
        for run in self._runs:
            wanted.update(run.wanted())
            for shared in run.short_of():
                if (rest := shared.rests_until()) > 0:
                    timeouts.append(rest)
                elif shared.fd >= 0:
                    wanted[shared.fd] = select.POLLIN
        if search is not None and roll is not None:
            now = monotonic()
            wanted.update(dict.fromkeys(search.filenos(now), select.POLLIN))
            timeouts += [search.next_timeout(now), roll.next_timeout()]
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
        request = self._request
        if request.reports.test_alert:
            self._report.complain(winner.address, "test alert")
        name = f"{winner.hello.name}@{winner.address}"  # the report may know a shorter one, from the roll
        run = WorkerRun(winner, name, request.streams.descriptors, self._inputs, request.patience(monotonic()))
        self._runs.append(run)
        self._report.began(run)
        run.step()

    def _finish(self, run: WorkerRun) -> None:
        """Reports how it ended."""
        if run.failure is not None:
            for final in (False, True):
                self._alert(run.failure, final, run)
        self._report.ended(run)

    def _conclude(self) -> int:
        for shared in self._inputs.values():
            shared.move_offset()
        status = self._report.status
        if INTERRUPT in self._signals.taken and status == 128 + INTERRUPT:
            die_of(INTERRUPT)
        if self._report.printer.reader_gone:
            return DIED_OF_PIPE
        self._report.conclude()
        return status

    def _alert(self, error: CexecError, final: bool, run: WorkerRun | None = None) -> None:
        """Tells the loggers of a failure; docs/protocol.md section 5.2."""
        from cexec.client.search.failure_alert import FailedAttempt, send_alert  # jobs that succeed need none

        if run is None:
            failed = FailedAttempt(self._job_id, 1, None, monotonic() - self._started)
        else:
            job_id = own_job_id(self._job_id, run.winner.hello.instance)
            failed = FailedAttempt(job_id, 1, run.winner, monotonic() - run.started)
        send_alert(self._request.key, self._announcer, failed, error, final=final)
