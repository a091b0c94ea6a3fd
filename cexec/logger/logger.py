"""The logger: hears alerts and writes what became of every job.

Contract: `Logger.run()` is one poll loop; it returns on SIGTERM or Ctrl-C, after writing what it knows, and raises
`LocalError` when that cannot be written or the reader of standard output has gone.  Every started
job gets one closing line, every failed attempt one `rats out` line, every number that never came is reported in a gap
line.  SIGHUP opens the output again, SIGUSR1 writes the statistics.  docs/protocol.md section 5.2, crat(1).
"""

from __future__ import annotations

import os
import select
import signal
from time import monotonic

from cexec.errors import CexecError, ProtocolError
from cexec.logger.reporter import Reporter
from cexec.net.group_sockets import REFRESH_INTERVAL
from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Acknowledgement, Alert
from cexec.protocol.decisions.alert_delivery import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from cexec.logger.log_output import LogOutput
    from cexec.net.group_receiver import GroupReceiver
    from cexec.net.group_sockets import GroupSockets
    from cexec.net.groups import Sockaddr
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.datagram import Datagram

UNKNOWN_INTERVAL = 60.0  # seconds (ours) between two lines about the same unknown key from the same host
MAXIMUM_UNKNOWN = 1000  # (ours) unknown keys and hosts that are told apart


class Logger:
    """One crat.  `keys` and `names` go together: what each application's key file is called."""

    def __init__(
        self,
        *,
        keys: list[ClientKey],
        names: list[str],
        groups: GroupSockets,
        receiver: GroupReceiver,
        output: LogOutput,
        statistics: bool,
    ) -> None:
        self._keys = keys
        self._names = names
        self._groups = groups
        self._receiver = receiver
        self._output = output
        self._statistics = statistics
        self._ledger = Ledger()
        self._journal = Reporter()
        self._unknown: dict[tuple[str, str], float] = {}
        self._next_refresh = monotonic() + REFRESH_INTERVAL
        self._running = True
        self._wakeup = _catch_signals()

    def run(self) -> None:
        wakeup = self._wakeup
        while self._running:
            ready = self._wait(wakeup)
            now = monotonic()
            if wakeup in ready:
                self._follow_signals(wakeup)
            self._hear(now)
            for gap in self._ledger.gaps(now):
                self._output.write(self._journal.gap(gap))
            for line in self._journal.due(now):
                self._output.write(line)
            if now >= self._next_refresh:
                self._next_refresh = now + REFRESH_INTERVAL
                self._groups.refresh()
            self._output.flush(now)
        if self._statistics:
            self._output.write_table(self._journal.table())
        self._groups.close()
        self._output.close()

    def _wait(self, wakeup: int) -> set[int]:
        poll = select.poll()
        for fd in (wakeup, *self._groups.filenos()):
            poll.register(fd, select.POLLIN)
        times = [
            self._next_refresh,
            self._ledger.next_timeout(),
            self._journal.next_timeout(),
            self._output.next_timeout(),
        ]
        seconds = max(0.0, min(time for time in times if time is not None) - monotonic())
        return {fd for fd, _ in poll.poll(seconds * 1000 + (0.999 if seconds else 0))}

    def _follow_signals(self, wakeup: int) -> None:
        for number in os.read(wakeup, 64):
            if number == signal.SIGHUP:
                self._output.reopen()
            elif number == signal.SIGUSR1:
                self._output.write_table(self._journal.table())
            else:
                self._running = False

    def _hear(self, now: float) -> None:
        heard: dict[tuple[int, bytes], tuple[list[int], Sockaddr, _socket.socket]] = {}
        for parsed, source, via in self._receiver.receive(now):
            if parsed.kind != datagram.ALERT:
                continue
            try:
                told = alert.open_alert(self._keys[parsed.key], parsed.inner)
            except ProtocolError:
                continue
            self._take(parsed, told, source, now)
            if told.sequence:
                heard.setdefault((parsed.key, told.series), ([], source, via))[0].append(told.sequence)
        for (key, series), (sequences, source, via) in heard.items():
            self._acknowledge(self._keys[key], series, sequences, source, via)
        for data, source in self._receiver.take_strangers():
            if data[datagram.KIND_AT] == datagram.ALERT:
                self._stranger(alert.tag_of(data[datagram.INNER_START :]), str(source[0]), now)

    def _take(self, parsed: Datagram, told: Alert, source: Sockaddr, now: float) -> None:
        if told.sequence and not self._ledger.heard(told.series, told.sequence, told.running, told.worker_name, now):
            return
        for line in self._journal.take(told, self._names[parsed.key], str(source[0]), now):
            self._output.write(line)

    def _acknowledge(
        self, key: ClientKey, series: bytes, sequences: list[int], source: Sockaddr, via: _socket.socket
    ) -> None:
        for start in range(0, len(sequences), alert.MAXIMUM_ACKNOWLEDGED):
            some = sequences[start : start + alert.MAXIMUM_ACKNOWLEDGED]
            try:
                said = Acknowledgement(certificate=key.identity.certificate, series=series, sequences=some)
                self._groups.send_to(alert.encode_acknowledgement(key, said, MAXIMUM_HOPS), source, via)
            except CexecError:
                continue

    def _stranger(self, tag: str, host: str, now: float) -> None:
        """An alert under a key that we do not have: said now and then."""
        if now < self._unknown.get((tag, host), 0.0):
            return
        if len(self._unknown) >= MAXIMUM_UNKNOWN:
            self._unknown.clear()
        self._unknown[(tag, host)] = now + UNKNOWN_INTERVAL
        self._output.write(self._journal.unknown(tag, host))


def _catch_signals() -> int:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, stack: None)
    return reading
