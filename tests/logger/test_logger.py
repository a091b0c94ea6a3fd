"""The logger's loop without a network: alerts in, lines and acknowledgements out, with a clock of the test's own."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.refreshed = 0

    def receive(self, *, prefix: bytes) -> list[tuple[bytes, tuple[str, int], socket.socket, bool]]:
        heard, self.heard = self.heard, []
        return [(data, WORKER_ADDRESS, self.via, False) for data in heard if data.startswith(prefix)]

    def send_to(self, data: bytes, address: tuple[str, int], via: socket.socket) -> None:
        assert via is self.via
        self.sent.append((data, address))

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


def completed(sequence: int, key: WorkerKey = APPLICATION.worker) -> bytes:
    told = Alert(
        outcome=alert.COMPLETED, certificate=key.identity.certificate, job_id=sequence.to_bytes(16, "big"), attempt=1,
        client_name="alice", client_address="10.0.0.6", worker_name="w1", worker_address="10.0.0.3", series=SERIES,
        sequence=sequence,
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
    assert line.startswith("gap: 1 alert of w1 did not arrive") and "first=2 last=2" in line


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
    assert head.split()[:2] == ["worker", "jobs"] and row.split()[:2] == ["w1@10.0.0.3", "1"]
