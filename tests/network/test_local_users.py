"""What another user of a worker's host can make it do to hosts that have nothing to do with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import UDP_PORT
from cexec.protocol.datagrams import forwarded
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.system.storage.keyfile import read_key
from tests.conftest import MakeLab, StartService
from tests.environment import command
from tests.lab import Host
from tests.needs import NOBODY, require_second_user, require_tool
from tests.second_user import AS_NOBODY, readable_python
from tests.service import Application

ANNOUNCEMENTS = 200  # that the attacker has recorded
# Sends each line, a datagram in hexadecimal digits, in both ways in which processes of a host pass datagrams on.
ATTACK = """
import re, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
udp.bind(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
names = re.findall(r"@(cexec-1/[^ \\n]*)$", open("/proc/net/unix").read(), re.MULTILINE)
for line in sys.stdin:
    data = bytes.fromhex(line)
    udp.sendto(data, ("127.255.255.255", int(sys.argv[1])))
    for name in names:
        unix.sendto(len(data).to_bytes(2, "big") + data, "\\0" + name)
print(len(names))
"""


@pytest.mark.parametrize("source", ["10.77.0.2", "10.77.0.255"])
def test_a_local_user_cannot_turn_a_worker_against_another_host(
    source: str, application: Application, lab: MakeLab, service: StartService, tmp_path: Path
) -> None:
    """Announcements that a user has recorded, passed on to a worker of root as if they had come from a victim.

    0.1.0 sent 126 SYNs and 1,027 datagrams to the victim, also if its address was the broadcast address.
    """
    require_second_user()
    require_tool("nft", "setpriv")
    attacked, victim = lab(2).hosts
    worker = service("cat", options=["-j", "2"], host=attacked)
    victim.drop(100, "tcp dport 4000")  # so that each connection is tried as often as possible
    count(attacked)
    key = read_key(os.fspath(application.public), (ClientKey,))
    lines = [
        forwarded.wrap(recorded(key, number).datagram(copy, 4000, 8), (source, 5000 + copy)).hex()
        for number in range(ANNOUNCEMENTS)
        for copy in range(5)
    ]
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    argv = [*readable_python(tmp_path), *become, sys.executable, "-c", ATTACK, str(UDP_PORT)]
    attack = attacked.run(argv, input="\n".join(lines), capture_output=True, text=True, timeout=30)
    assert (attack.returncode, attack.stdout) == (0, "1\n"), attack.stderr
    honest = application.run(input=b"honest", host=attacked)  # comes after all of that has been heard
    assert (honest.returncode, honest.stdout) == (0, b"honest"), worker.lines
    syns, datagrams = counted(attacked)
    assert syns == 0  # nothing but a PROVE goes to a source that a user may have invented
    assert datagrams <= (0 if source.endswith(".255") else ANNOUNCEMENTS)


def recorded(key: ClientKey, number: int) -> SealedAnnouncement:
    return SealedAnnouncement(key, job_id=number.to_bytes(16, "big"), attempt=1, wanted_for=600)


def count(host: Host) -> None:
    """Counts connections to the port of the recorded client, and datagrams to the ports that it sent from."""
    host.nft(
        "add table inet count",
        "add counter inet count syns",
        "add counter inet count datagrams",
        "add chain inet count output { type filter hook output priority 0; }",
        "add rule inet count output tcp dport 4000 tcp flags & (syn | ack) == syn counter name syns",
        "add rule inet count output udp dport 5000-5004 counter name datagrams",
    )


def counted(host: Host) -> tuple[int, int]:
    listed = host.run(["nft", "list", "counters"], stdout=subprocess.PIPE, text=True).stdout
    found = dict(re.findall(r"counter (\w+) \{\s*packets (\d+)", listed))
    return int(found["syns"]), int(found["datagrams"])


@pytest.mark.parametrize("users", [("root", "nobody"), ("nobody", "root")], ids=" before ".join)
def test_workers_of_two_users_on_one_host_hear_what_is_sent_to_the_host_alone(
    users: tuple[str, str], lab: MakeLab, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives each datagram to one of them.  If the other one is root's, it asks for a proof of its source."""
    require_second_user()
    require_tool("setpriv")
    client, worker = lab(2).hosts
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        applications = [Application(directory, user) for user in users]
        started = []
        for user, application in zip(users, applications, strict=True):
            options: dict[str, Any] = {"host": worker, "application": application}
            if user == "nobody":
                os.chown(application.secret, NOBODY, -1)
                monkeypatch.setattr("tests.service.command", lambda *words: [*AS_NOBODY, *command(*words)])
                options["environment"] = {"HOME": name, "XDG_RUNTIME_DIR": ""}
            started.append(service("cat", **options))
            monkeypatch.undo()
        for application in [*applications, *applications]:
            ended = application.run(input=b"x", host=client, environment={"CEXEC_GROUP": worker.address})
            assert (ended.returncode, ended.stdout) == (0, b"x"), [one.lines for one in started]
        for one in started:
            one.close()
