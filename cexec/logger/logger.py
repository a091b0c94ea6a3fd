"""The logger: receives alerts and writes how every job ended.

Contract: `Logger.run()` is one poll loop.  It returns on SIGTERM or Ctrl-C after writing all that it knows, and raises
`LocalError` if that cannot be written or the reader of standard output has gone.  Every started job gets one closing
line and every failed attempt one `rats out` line; a gap line reports every number that never came, and what was left
alone because it came too fast (`allowances`).  SIGHUP opens the output again, SIGUSR1 writes the statistics.  `step` is
one turn of the loop; `receive` and `handle_timeouts` are its parts, with the time as an argument.  docs/protocol.md
section 5.2, crat(1).
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from select import POLLIN
from time import monotonic, thread_time
from typing import TYPE_CHECKING

from cexec.errors import CexecError, ProtocolError, VerifyError
from cexec.logger.allowances import TOO_FAST, Allowances, fresh
from cexec.logger.reporter import Reporter
from cexec.net.group_sockets import REFRESH_INTERVAL
from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Acknowledgement, Alert
from cexec.protocol.decisions.ledger import Ledger
from cexec.system.io.wakeup import Wakeup, wait_ready

if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

    from cexec.logger.log_output import LogOutput
    from cexec.net.group_receiver import GroupReceiver
    from cexec.net.group_sockets import GroupSockets
    from cexec.net.groups import Sockaddr
    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.system.storage.revocations import Revocations

UNKNOWN_INTERVAL = 60.0  # seconds (ours) between two lines about the same unknown or revoked key from the same host
MAXIMUM_UNKNOWN = 1000  # (ours) such keys and hosts that are told apart
MAXIMUM_COPIES = 16_384  # (ours) alerts whose copies are known without opening them


@dataclass(frozen=True, slots=True)
class LoggedApplication:
    """An application whose alerts are read; `name` is the name of its key file, `revocations` its list."""

    name: str
    key: ClientKey
    revocations: Revocations


class _Heard:
    """Alerts that came together, by application and series, and where an acknowledgement of them goes."""

    def __init__(self) -> None:
        self.series: dict[tuple[int, bytes, Sockaddr], tuple[list[int], _socket.socket]] = {}

    def add(self, key: int, series: bytes, sequence: int, source: Sockaddr, via: _socket.socket) -> None:
        self.series.setdefault((key, series, source), ([], via))[0].append(sequence)


class Logger:
    """One crat.  The keys of `receiver` are those of `applications`, in the same order."""

    def __init__(
        self,
        applications: Sequence[LoggedApplication],
        *,
        groups: GroupSockets,
        receiver: GroupReceiver,
        output: LogOutput,
        statistics: bool,
    ) -> None:
        self._applications = applications
        self._groups = groups
        self._receiver = receiver
        self._output = output
        self._statistics = statistics
        self._ledger = Ledger()
        self._allowances = Allowances(monotonic())
        self._copies: dict[bytes, tuple[bytes, int]] = {}  # by mac1: series and number of alerts that were opened
        self._drops = 0  # datagrams that the kernel has thrown away, of which was told
        self._reporter = Reporter()
        self._unknown: dict[tuple[str, str], float] = {}
        self._next_refresh = monotonic() + REFRESH_INTERVAL
        self._running = True
        self._wakeup = _catch_signals()

    def run(self) -> None:
        """Logs until told to stop."""
        while self._running:
            self.step()
        self.close()

    def step(self) -> None:
        """Waits until something has happened, and handles it."""
        ready = self._wait()
        now = monotonic()
        if self._wakeup.fileno() in ready:
            self._follow_signals()
        self.receive(now)
        self.handle_timeouts(now)

    def receive(self, now: float) -> None:
        """Takes the alerts that have come, and acknowledges those of workers."""
        heard = _Heard()
        for parsed, source, via in self._receiver.receive(now):
            if parsed.kind == datagram.ALERT:
                self._hear(parsed, source, via, heard, now)
        for (key, series, source), (sequences, via) in heard.series.items():
            self._acknowledge(self._applications[key].key, series, sequences, source, via)
        for data, source in self._receiver.take_strangers():
            if data[datagram.KIND_AT] == datagram.ALERT:
                self._report_stranger(alert.tag_of(data[datagram.INNER_START :]), str(source[0]), now)

    def next_timeout(self) -> float:
        """When `handle_timeouts` is to be called."""
        times = (
            self._next_refresh,
            self._ledger.next_timeout(),
            self._reporter.next_timeout(),
            self._allowances.next_timeout(),
            self._output.next_timeout(),
        )
        return min(time for time in times if time is not None)

    def handle_timeouts(self, now: float) -> None:
        """Reports gaps and jobs that vanished, writes the lines that wait, and looks at the interfaces."""
        for gap in self._ledger.gaps(now):
            self._output.write(self._reporter.gap(gap))
        for line in self._reporter.due(now):
            self._output.write(line)
        for left_alone in self._allowances.told(now):
            self._output.write(self._reporter.left_alone(left_alone))
        if now >= self._next_refresh:
            self._next_refresh = now + REFRESH_INTERVAL
            self._groups.refresh()
            drops = self._groups.drops()
            if drops > self._drops:
                self._allowances.leave_alone("", TOO_FAST, now, drops - self._drops)
                self._drops = drops
        self._output.flush(now)

    def close(self) -> None:
        """Writes the rest, and closes what `step` waits for."""
        if self._statistics:
            self._output.write_table(self._reporter.table())
        self._groups.close()
        self._wakeup.close()
        self._output.close()

    def _wait(self) -> set[int]:
        masks = {**dict.fromkeys((self._wakeup.fileno(), *self._groups.filenos()), POLLIN), **self._output.masks()}
        return wait_ready(masks, self.next_timeout() - monotonic())

    def _follow_signals(self) -> None:
        for number in self._wakeup.take():
            if number == signal.SIGHUP:
                self._output.reopen()
            elif number == signal.SIGUSR1:
                self._output.write_table(self._reporter.table())
            else:
                self._running = False

    def _hear(self, parsed: Datagram, source: Sockaddr, via: _socket.socket, heard: _Heard, now: float) -> None:
        """Opens an alert, unless it is a copy of one that was opened, and takes it."""
        host = str(source[0])
        copy = self._copies.get(parsed.mac1)
        if copy is None:
            if not self._allowances.may_open(host, now):
                return
            start = thread_time()
            try:
                told, news = self._open(parsed, host, now)
                if news:
                    self._take(told, self._applications[parsed.key].name, host, now)
            except ProtocolError:
                return
            finally:
                self._allowances.opened(host, thread_time() - start, now)
            copy = self._remember(parsed.mac1, told)
            sure = news and not parsed.doubted and fresh(told)
        else:
            sure = False
        series, sequence = copy
        # An acknowledgement goes where the datagram seems to come from: that of a copy may be invented.
        if sequence and (sure or self._allowances.may_repeat(host, now)):
            heard.add(parsed.key, series, sequence, source, via)

    def _open(self, parsed: Datagram, host: str, now: float) -> tuple[Alert, bool]:
        """Returns an alert, and whether it is news; `ProtocolError` if it is forged, or its author is revoked."""
        key = self._applications[parsed.key].key
        told, author = alert.unseal_alert(key, parsed.inner)
        # What is not fresh has an account of its own: recorded numbers, sent again, make no gaps in those of today.
        account = b"%d %d " % (parsed.key, fresh(told)) + told.certificate.name.encode() + told.series
        if told.sequence and self._ledger.knows(account, told.sequence):
            return told, False
        author.prove(key)
        if self._revoked(parsed.key, told.certificate, host, now):
            raise VerifyError("alert is of a revoked author")
        worker = told.certificate.name
        return told, not told.sequence or self._ledger.heard(account, told.sequence, told.running, worker, now)

    def _take(self, told: Alert, name: str, host: str, now: float) -> None:
        if self._allowances.may_write(told, host, now):
            for line in self._reporter.take(told, name, host, now):
                self._output.write(line)

    def _remember(self, mac1: bytes, told: Alert) -> tuple[bytes, int]:
        if len(self._copies) >= MAXIMUM_COPIES:
            del self._copies[next(iter(self._copies))]
        copy = self._copies[mac1] = told.series, told.sequence
        return copy

    def _acknowledge(
        self, key: ClientKey, series: bytes, sequences: list[int], source: Sockaddr, via: _socket.socket
    ) -> None:
        for start in range(0, len(sequences), alert.MAXIMUM_ACKNOWLEDGED):
            some = sequences[start : start + alert.MAXIMUM_ACKNOWLEDGED]
            try:
                said = Acknowledgement(certificate=key.identity.certificate, series=series, sequences=some)
                self._groups.send_to(alert.encode_acknowledgement(key, said, MAXIMUM_HOPS), source, via)
            except CexecError:
                continue  # the worker sends its alert again

    def _revoked(self, key: int, certificate: Certificate, host: str, now: float) -> bool:
        """Says that the signer of an alert is revoked: it is neither believed nor acknowledged, and reported."""
        revocations = self._applications[key].revocations
        revocations.refresh(now)
        if not revocations.revoked(certificate):
            return False
        if self._is_due(f"{key} {certificate.serial}", host, now):
            self._output.write(self._reporter.revoked(certificate, self._applications[key].name, host))
        return True

    def _report_stranger(self, tag: str, host: str, now: float) -> None:
        """Reports an alert of an unknown application."""
        if self._is_due(tag, host, now):
            self._output.write(self._reporter.unknown(tag, host))

    def _is_due(self, who: str, host: str, now: float) -> bool:
        """Returns True, but not more often than every UNKNOWN_INTERVAL for one signer and host."""
        if now < self._unknown.get((who, host), 0.0) or not self._allowances.may_tell_unknown(host, now):
            return False
        if len(self._unknown) >= MAXIMUM_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        self._unknown.pop((who, host), None)
        self._unknown[(who, host)] = now + UNKNOWN_INTERVAL
        return True


def _catch_signals() -> Wakeup:
    made = Wakeup()
    made.start((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))
    return made
