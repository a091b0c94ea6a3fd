"""Workers that win jobs and drop them: they lose their share, and have it back when they are healthy.

Those that only seem to drop jobs keep it: clients lie, or all connections are lost at once.

Real processes on hosts of the lab; benchmarks/simulate_placement.py has the exact numbers.  docs/placement.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from cexec.net.announcer import Announcer
from cexec.net.groups import parse_groups
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import IDENTITY_SIZE, UDP_PORT
from cexec.protocol.datagrams import alert
from cexec.protocol.datagrams.alert import Alert
from cexec.system.storage.keyfile import read_key
from tests.conftest import MakeLab, StartService
from tests.environment import LOOPBACK_GROUP, clean_environment, command, local_environment
from tests.loggers import Crat
from tests.needs import require_tool
from tests.service import Application, Service
from tests.waiting import wait_until

IDLE = ("--load-command", "echo 0")
SLOTS = 2
# While the file is there the process that serves the job is killed, as by the kernel when memory is short.
SCRIPT = 'test -e "$1" && kill -9 $PPID && sleep 5; sleep 0.3; echo "$0"'


class Cluster:
    """Four workers, n2 to n5, on hosts of their own, of which n2 drops what it wins while `fault` exists."""

    def __init__(self, lab: MakeLab, service: StartService, application: Application, directory: Path) -> None:
        self.client, *hosts = lab(5).hosts
        self.fault = directory / "fault"
        self.fault.touch()
        self._application = application
        files = [self.fault, *[directory / "none"] * 3]
        self.dropper, *_ = [
            service(
                "sh", "-c", SCRIPT, f"n{host.number}", os.fspath(file),
                host=host, options=["-j", str(SLOTS), "--name", f"n{host.number}", *IDLE],
            )
            for host, file in zip(hosts, files, strict=True)
        ]  # fmt: skip

    def run(self, jobs: int) -> Counter[str]:
        """Eight at a time, as many as there are slots: who did them."""
        return Counter(self._application.run_many(self.client, jobs, 8, timeout=100))


CHATTER = 'while test -n "$PEER_CHATTER"; do echo x; sleep 0.05; done; echo done'  # so that a reset is noticed at once


@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_after_all_connections_were_reset_the_next_job_is_done_at_once(
    lab: MakeLab, service: StartService, application: Application, measured: bool
) -> None:
    """Regression: every worker rested for the sake of rivals that rested, too: 26.8 s on an idle cluster."""
    require_tool("nft")
    client, *hosts = lab(5).hosts
    workers = [service("sh", "-c", CHATTER, host=host, options=["-j", str(SLOTS), *IDLE]) for host in hosts]
    slots = SLOTS * len(workers)
    application.run_many(client, 4 * slots, slots)  # each has completed some
    argv = command("cexec", "-n", "--retries", "0", application.public, "CHATTER=1")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    clients = [client.popen(argv, env=clean_environment(), **pipes) for _ in range(slots)]
    before = {worker: len(lines(worker, "started")) for worker in workers}
    wait_until(lambda: sum(len(lines(worker, "started")) for worker in workers) == 5 * slots, explain=lambda: before)
    client.nft(
        "add table inet lab",
        "add chain inet lab input { type filter hook input priority 0; }",
        "add rule inet lab input meta l4proto tcp reject with tcp reset",
    )
    wait_until(lambda: sum(len(lines(worker, "broken")) for worker in workers) == slots)
    client.clear_rules()
    assert [one.wait(timeout=60) for one in clients] == [111] * slots  # their kernels ask after a silence of 5 s
    wait_until(lambda: all(lines(worker, "slowed") for worker in workers))
    begin = time.monotonic()
    assert application.run(host=client, timeout=60).stdout == b"done\n"
    took = time.monotonic() - begin
    assert took < (2.0 if measured else 10.0)  # FIRST_REST is a second, and the rest was 24


def lines(worker: Service, *kinds: str) -> list[str]:
    """Which of these events it has logged, in their order."""
    return [line.split()[1] for line in worker.lines if line.split()[1] in kinds]


@pytest.mark.parametrize("jobs", [40, pytest.param(200, marks=[pytest.mark.campaign, pytest.mark.timeout(300)])])
def test_a_worker_that_wins_and_drops_loses_its_share_within_two_attempts_and_all_jobs_succeed(
    lab: MakeLab, service: StartService, application: Application, tmp_path: Path, jobs: int
) -> None:
    cluster = Cluster(lab, service, application, tmp_path)
    logger = Crat(tmp_path, application.public, host=cluster.client)
    won = cluster.run(jobs)
    assert won.total() == jobs and not won["n2"]
    dropped = lines(cluster.dropper, "accepted").count("accepted")
    # While the first complaint is on its way each slot may be won once more; a busy machine needs longer for that.
    assert 1 <= dropped <= max(2 * SLOTS, 0.05 * (jobs + dropped))
    assert lines(cluster.dropper, "accepted", "slowed").index("slowed") <= 2 * SLOTS
    logger.wait_for("completed by", jobs)
    logger.wait_for("rats out 10.77.0.2 for", dropped)
    logger.close()
    assert sum("rats out 10.77.0.2 for" in line for line in logger.lines()) == dropped


@pytest.mark.campaign
@pytest.mark.timeout(400)
def test_a_worker_that_dropped_has_its_share_back_when_it_is_healed(
    lab: MakeLab, service: StartService, application: Application, tmp_path: Path
) -> None:
    cluster = Cluster(lab, service, application, tmp_path)
    cluster.run(60)
    cluster.fault.unlink()
    deadline = time.monotonic() + 150
    while not lines(cluster.dropper, "recovered"):
        assert time.monotonic() < deadline, cluster.dropper.lines
        cluster.run(40)
    won = cluster.run(200)
    assert won["n2"] == pytest.approx(50, rel=0.3), won


def test_invented_complaints_count_for_nothing(service: StartService, application: Application) -> None:
    """The complaints are genuine, but none is about a job that this worker was given."""
    local = {"CEXEC_GROUP": LOOPBACK_GROUP}
    worker = service("true", environment=local)
    key = read_key(os.fspath(application.public), (ClientKey,))
    listed = subprocess.run(
        command("cps", "--json", application.public), env=local_environment(local), stdout=subprocess.PIPE
    )
    instance = bytes.fromhex(json.loads(listed.stdout)["instance"])
    announcer = Announcer(parse_groups(LOOPBACK_GROUP), UDP_PORT)
    for _ in range(300):
        told = Alert(
            outcome=alert.COMPLAINT,
            certificate=key.identity.certificate,
            job_id=os.urandom(IDENTITY_SIZE),
            attempt=1,
            client_name="default",
            client_address="127.0.0.1",
            worker_name="n",
            worker_address="127.0.0.1",
            instance=instance,
        )
        announcer.send(alert.encode_alert(key, told, 8))
    announcer.close()
    for _ in range(3):
        assert application.run(environment=local).returncode == 0
    wait_until(lambda: len(lines(worker, "finished")) == 3)
    assert lines(worker, "slowed", "recovered") == []
