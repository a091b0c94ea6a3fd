"""The logger's loop without a network: alerts in, lines and acknowledgements out, with a clock of the test's own."""

from __future__ import annotations

import signal
import socket
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.logger import logger
from cexec.logger.allowances import OLD_LINES, REPEATED, TELLING_INTERVAL
from cexec.logger.log_output import LogOutput
from cexec.logger.logger import UNKNOWN_INTERVAL, LoggedApplication, Logger
from cexec.net.group_receiver import GroupReceiver
from cexec.protocol.base.keys import WorkerKey
from cexec.protocol.base.revocation import RevocationList, encode_list
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Alert
from cexec.system.storage.revocations import LOOK_INTERVAL, Revocations
from tests.protocol.wires import APPLICATION, STRANGERS

WORKER_ADDRESS = ("10.0.0.3", 3010)
SERIES = b"s" * 16
GAP_TIME = 61.0  # seconds after which a missing number is given up


class FakeGroups:
    """The sockets of a group; `heard` is what comes next."""

    def __init__(self) -> None:
        self.via = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.heard: list[bytes] = []
        self.source = WORKER_ADDRESS
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.refreshed = 0
        self.dropped = 0

    def receive(self, *, prefix: bytes) -> list[tuple[bytes, tuple[str, int], socket.socket, bool]]:
        heard, self.heard = self.heard, []
        return [(data, self.source, self.via, False) for data in heard if data.startswith(prefix)]

    def receive_forwarded(self) -> list[tuple[bytes, socket.socket, bool]]:
        return []

    def send_to(self, data: bytes, address: tuple[str, int], via: socket.socket) -> None:
        assert via is self.via
        self.sent.append((data, address))

    def drops(self) -> int:
        return self.dropped

    def filenos(self) -> list[int]:
        return []

    def refresh(self) -> None:
        self.refreshed += 1

    def close(self) -> None:
        self.via.close()


class Rig:
    """A logger of one application that writes to a file."""

    def __init__(self, path: Path, *, statistics: bool = False) -> None:
        self.path = path
        self.list = path.with_name("app.revoked")
        self.groups = FakeGroups()
        self.now = time.monotonic()
        key = APPLICATION.client
        receiver = GroupReceiver(self.groups, [key.mac1_key], self.now, keep_strangers=True)  # type: ignore[arg-type]
        wakeup = signal.set_wakeup_fd(-1)
        caught = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        handlers = [(number, signal.getsignal(number)) for number in caught]
        self.logger = Logger(
            [LoggedApplication("app.pub", key, self._revocations())],
            groups=self.groups,  # type: ignore[arg-type]
            receiver=receiver,
            output=LogOutput(str(path), as_json=False),
            statistics=statistics,
        )
        for number, handler in handlers:
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)

    def _revocations(self) -> Revocations:
        authority = APPLICATION.client.authority_public
        return Revocations(str(self.list), authority, directory=str(self.path.with_name("state")))

    def revoke(self, key: WorkerKey) -> None:
        """The owner's list comes."""
        certificate, owner = key.identity.certificate, APPLICATION.owner
        revoked = {certificate.serial: certificate.name}
        made = RevocationList(owner.authority_public, owner.fingerprint, 1, revoked)
        self.list.write_text(encode_list(made, owner.authority_seed))
        self.list.chmod(0o600)
        self.now += LOOK_INTERVAL

    def hear(self, *datagrams: bytes) -> list[str]:
        """What is written when these have come."""
        self.groups.heard += datagrams
        self.logger.receive(self.now)
        return self.written()

    def later(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.written()

    def written(self) -> list[str]:
        before = self.path.read_text()
        self.logger.handle_timeouts(self.now)
        return self.path.read_text().removeprefix(before).splitlines()

    def acknowledged(self) -> list[tuple[list[int], tuple[str, int]]]:
        sent, self.groups.sent = self.groups.sent, []
        found = []
        for data, address in sent:
            parsed = datagram.parse(data, [APPLICATION.client.mac1_key])
            assert parsed is not None and parsed.kind == datagram.ACKNOWLEDGEMENT
            found.append((alert.open_acknowledgement(APPLICATION.worker, parsed.inner).sequences, address))
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "log")
    yield made
    made.logger.close()


def completed(sequence: int, key: WorkerKey = APPLICATION.worker, *, series: bytes = SERIES, age: float = 0) -> bytes:
    """The alert of a worker, made `age` seconds ago."""
    told = Alert(
        outcome=alert.COMPLETED, certificate=key.identity.certificate, job_id=sequence.to_bytes(16, "big"), attempt=1,
        client_name="alice", client_address="10.0.0.6", worker_name=key.identity.certificate.name,
        worker_address="10.0.0.3", series=series, sequence=sequence, clock=int((time.time() - age) * 1000),
    )  # fmt: skip
    return alert.encode_alert(key, told, 8)


def test_an_alert_is_written_once_and_acknowledged_every_time(rig: Rig) -> None:
    data = completed(1)
    (line,) = rig.hear(data)
    assert line.startswith("10.0.0.6 completed by 10.0.0.3 for app.pub exit code 0")
    assert rig.acknowledged() == [([1], WORKER_ADDRESS)]
    assert rig.hear(data) == []
    assert rig.acknowledged() == [([1], WORKER_ADDRESS)]


def test_alerts_that_come_together_are_acknowledged_together(rig: Rig) -> None:
    count = alert.MAXIMUM_ACKNOWLEDGED + 3
    assert len(rig.hear(*(completed(number) for number in range(1, count + 1)))) == count
    expected = list(range(1, count + 1))
    first, second = rig.acknowledged()
    assert first[0] == expected[: alert.MAXIMUM_ACKNOWLEDGED] and second[0] == expected[alert.MAXIMUM_ACKNOWLEDGED :]


def test_a_number_that_never_comes_is_a_gap(rig: Rig) -> None:
    assert len(rig.hear(completed(1), completed(3))) == 2
    assert rig.logger.next_timeout() <= rig.now + GAP_TIME
    (line,) = rig.later(GAP_TIME)
    assert line.startswith("gap: 1 alert of honest did not arrive") and "first=2 last=2" in line


def test_a_revoked_worker_is_not_believed_and_reported_now_and_then(rig: Rig) -> None:
    (line,) = rig.hear(completed(1))
    assert " completed by " in line and len(rig.acknowledged()) == 1
    rig.revoke(APPLICATION.worker)
    (line,) = rig.hear(completed(2))
    assert line.startswith("10.0.0.3 alerts for app.pub with a revoked certificate ")
    certificate = APPLICATION.worker.identity.certificate
    assert f" revoked={certificate.name} serial={certificate.serial}" in line
    assert rig.hear(completed(3)) == [] and rig.acknowledged() == []
    rig.now += UNKNOWN_INTERVAL
    assert len(rig.hear(completed(3))) == 1
    assert rig.later(GAP_TIME) == []


def test_an_unknown_key_is_reported_now_and_then(rig: Rig) -> None:
    data = completed(1, STRANGERS.worker)
    (line,) = rig.hear(data)
    assert line.startswith(f"10.0.0.3 alerts for unknown key (0x{STRANGERS.client.alert_tag.hex()})")
    assert rig.hear(data) == []
    rig.now += UNKNOWN_INTERVAL
    assert len(rig.hear(data)) == 1
    assert rig.acknowledged() == []


def test_a_forged_alert_is_neither_written_nor_acknowledged(rig: Rig) -> None:
    inner = b"x" * 300
    mac1 = datagram.compute_mac1(APPLICATION.client.mac1_key, datagram.ALERT, inner)
    assert rig.hear(datagram.encode(datagram.ALERT, mac1, inner, hops=8)) == []
    assert rig.acknowledged() == []


def test_the_interfaces_are_looked_at_now_and_then(rig: Rig) -> None:
    rig.later(100.0)
    rig.later(0.1)
    assert rig.groups.refreshed == 1


def test_statistics_come_at_the_end(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", statistics=True)
    rig.hear(completed(1))
    rig.logger.close()
    head, row = rig.path.read_text().splitlines()[-2:]
    assert head.split()[:2] == ["worker", "jobs"] and row.split()[:2] == ["honest@10.0.0.3", "1"]


# Floods


def strange(number: int) -> bytes:
    """An alert of a key that nobody knows."""
    inner = number.to_bytes(4, "big") + bytes(300)
    return datagram.encode(datagram.ALERT, bytes(16), inner, hops=8)


def test_random_keys_do_not_fill_the_disk(rig: Rig) -> None:
    """20,000 datagrams with random tags made 0.1.0 write 19,000 lines; now it is at most 30, and their number."""
    lines: list[str] = []
    for start in range(0, 20_000, 100):
        lines += rig.hear(*(strange(number) for number in range(start, start + 100)))
    assert len(lines) <= 5
    lines += rig.later(TELLING_INTERVAL)
    (left_alone,) = [line for line in lines if line.startswith("gap: alerts, ")]
    assert "of unknown keys were not written: they come too fast" in left_alone
    assert len(lines) + int(left_alone.partition("alerts=")[2].split()[0]) == 20_000 + 1


def test_many_hosts_with_random_keys_share_thirty_lines(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    for number in range(1000):
        monkeypatch.setattr(rig.groups, "source", (f"10.1.{number // 250}.{number % 250}", 3010))
        lines += rig.hear(strange(number))
    assert len(lines) == 30


@pytest.mark.parametrize("jobs", [2_000, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_a_burst_of_thousands_of_honest_jobs_is_written_whole(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(logger, "thread_time", lambda: 0.0)  # however slow this machine is
    lines: list[str] = []
    for start in range(1, jobs + 1, 500):
        lines += rig.hear(*(completed(number) for number in range(start, start + 500)))
    assert len(lines) == jobs and not any("gap" in line for line in lines)
    assert sum(len(sequences) for sequences, _ in rig.acknowledged()) == jobs


def test_what_comes_too_fast_to_be_opened_is_told_and_taken_when_it_comes_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1.0 opened whatever came, at 238 microseconds each."""
    clock = iter(range(10**6))
    monkeypatch.setattr(logger, "thread_time", lambda: next(clock) * 1.0)  # each alert takes a second
    burst = [completed(number) for number in range(1, 11)]
    assert len(rig.hear(*burst)) == 4  # seconds of one source
    lines = rig.later(TELLING_INTERVAL)
    assert [line.partition(" time=")[0] for line in lines] == ["gap: alerts, 6 were not read: they come too fast"]
    while len(lines) < 7:
        lines += rig.hear(*burst)
        rig.now += 1.0
    assert sum("completed by" in line for line in lines) == 6


def test_copies_are_not_opened(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    data = completed(1)
    rig.hear(data)
    monkeypatch.setattr(alert, "unseal_alert", None)
    assert rig.hear(*[data] * 50) == []
    assert len(rig.acknowledged()) == 2


def test_copies_are_acknowledged_in_bounds(rig: Rig) -> None:
    """Whoever sends a recorded alert again has the acknowledgement sent where he likes: to few, and seldom."""
    data = completed(1)
    rig.hear(data)
    for _ in range(1000):
        rig.hear(data)
    assert len(rig.acknowledged()) <= 1 + REPEATED.each[1]


def test_recorded_alerts_make_few_lines_and_no_gaps_among_those_of_today(rig: Rig) -> None:
    """A logger that was just started does not know what others have recorded."""
    old = rig.hear(*(completed(number, age=86_400) for number in range(1, 1001)))
    assert len(old) == OLD_LINES.each[1]
    assert len(rig.hear(completed(5000))) == 1
    (told,) = rig.later(GAP_TIME)
    assert told.startswith("gap: alerts, 500 of honest were not written: they are old, or its clock is wrong")
    assert len(rig.acknowledged()) > 0


def test_a_worker_whose_clock_is_wrong_is_logged(rig: Rig) -> None:
    assert len(rig.hear(*(completed(number, age=1e9) for number in (1, 2, 3)))) == 3
    assert rig.hear(completed(2, age=1e9)) == []


def test_a_forged_alert_of_a_key_holder_has_no_place_in_a_series(rig: Rig) -> None:
    """A holder of app.pub can seal an alert of a worker, but not sign it."""
    stolen = Alert.decode(Alert(
        outcome=alert.COMPLETED, certificate=APPLICATION.worker.identity.certificate, job_id=bytes(16), attempt=1,
        client_name="", client_address="", worker_name="honest", worker_address="", series=SERIES, sequence=2**63,
    ).encode())  # fmt: skip
    assert rig.hear(alert.encode_alert(APPLICATION.client, stolen, 8)) == []
    assert rig.later(GAP_TIME) == [] and rig.acknowledged() == []
    assert len(rig.hear(completed(1), completed(2))) == 2


def test_datagrams_that_the_kernel_dropped_are_told(rig: Rig) -> None:
    rig.groups.dropped = 7
    rig.later(100.0)
    (line,) = rig.later(TELLING_INTERVAL)
    assert line.startswith("gap: alerts, 7 were not read: they come too fast")


def test_jumping_numbers_of_many_series_cost_little_memory(rig: Rig) -> None:
    """0.1.0: 5.3 MB for each such alert, never freed."""
    alerts = [
        completed(number, series=series.to_bytes(16, "big")) for series in range(200) for number in (1, 2**64 - 1)
    ]
    tracemalloc.start()
    try:
        rig.hear(*alerts)
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()
