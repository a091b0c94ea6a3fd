"""Datagrams between the processes of one host: who is believed, and what one user can do to another."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cexec.net import host_link
from cexec.net.groups import LOOPBACK_BROADCAST
from cexec.net.host_link import HostLink
from cexec.net.socket_owners import owners
from cexec.protocol.datagrams import datagram, forwarded
from tests.environment import ROOT
from tests.needs import NOBODY, require_second_user, require_tool
from tests.second_user import readable_python

PORT = 34_567
PREFIX = f"\0cexec-1/{PORT}/".encode()
WRAPPED = forwarded.wrap(datagram.PREFIX + bytes([datagram.CLAIM]) + bytes(60), ("10.0.0.9", 5000))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract AF_UNIX sockets")

# Sends what it is told to every socket of a port, as any local user can.
STRANGER = """
import sys
from cexec.net.host_link import HostLink
link = HostLink()
link.follow([int(sys.argv[1])])
link.send([bytes.fromhex(sys.argv[2])], int(sys.argv[1]), 0.0)
"""

# Opens many sockets whose names say that they are root's, until its standard input ends.
SQUATTER = """
import os, socket, sys
kept = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(int(sys.argv[2]))]
for number, one in enumerate(kept):
    one.bind(f"\\0cexec-1/{sys.argv[1]}/0/{os.getuid():08x}{number:08x}")
print("ready", flush=True)
sys.stdin.read()
"""
SQUATTED = 5 * host_link.MAXIMUM_PEERS
OTHER_USER = 54_321

Open = Callable[..., HostLink]


@pytest.fixture
def link() -> Iterator[Open]:
    opened: list[HostLink] = []

    def make(*ports: int) -> HostLink:
        opened.append(HostLink())
        opened[-1].follow(ports or (PORT,))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def ready(one: HostLink) -> bool:
    return bool(select.select(one.filenos(), [], [], 5)[0])


def test_the_others_of_a_port_get_a_datagram_and_believe_it(link: Open) -> None:
    sender, others, elsewhere = link(), [link(), link(PORT, PORT + 1)], link(PORT + 1)
    assert sender.send([WRAPPED], PORT, 0.0) is None
    for one in others:
        assert ready(one)
        assert one.receive() == [(WRAPPED, PORT, True)]
    assert sender.receive() == elsewhere.receive() == []


def test_a_burst_fits_although_few_messages_may_wait(link: Open) -> None:
    """The kernel lets ten messages wait by default, so a message holds many datagrams."""
    sender, receiver = link(), link()
    burst = [WRAPPED + number.to_bytes(2, "big") + bytes(1000) for number in range(256)]
    sender.send(burst, PORT, 0.0)
    assert ready(receiver)
    assert [data for data, _, _ in receiver.receive()] == burst


def test_who_comes_and_goes_is_noticed(link: Open) -> None:
    sender = link()
    sender.send([WRAPPED], PORT, 0.0)
    late = link()
    sender.send([WRAPPED], PORT, host_link.PEERS_KEPT / 2)
    assert late.receive() == []
    sender.send([WRAPPED], PORT, host_link.PEERS_KEPT)
    assert ready(late)
    late.close()
    assert sender.send([WRAPPED], PORT, 2 * host_link.PEERS_KEPT) is None


def test_a_reader_that_has_stopped_holds_nobody_up(link: Open) -> None:
    sender, stopped, other = link(), link(), link()
    for _ in range(2000):
        sender.send([WRAPPED], PORT, 0.0)
    assert ready(stopped)
    assert ready(other)


def test_ports_are_followed(link: Open) -> None:
    one = link(PORT)
    one.follow([PORT + 1])
    sender = link(PORT, PORT + 1)
    sender.send([WRAPPED], PORT, 0.0)
    sender.send([WRAPPED], PORT + 1, 0.0)
    assert ready(one)
    assert one.receive() == [(WRAPPED, PORT + 1, True)]
    one.close()
    one.close()
    assert one.filenos() == []


def test_older_processes_hear_it_over_udp(link: Open) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as old:
        old.bind((LOOPBACK_BROADCAST, 0))
        old.setblocking(False)
        link().send([WRAPPED], old.getsockname()[1], 0.0)
        assert select.select([old], [], [], 5)[0]
        assert old.recvfrom(2000)[0] == WRAPPED


@contextmanager
def squatted(place: Path, user: int, count: int) -> Iterator[None]:
    """Another user has so many sockets."""
    require_second_user()
    require_tool("setpriv")
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    argv = [*readable_python(place), *become, sys.executable, "-c", SQUATTER, str(PORT), str(count)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.communicate("")


def test_names_of_another_user_push_no_true_peer_out(link: Open, tmp_path: Path) -> None:
    """Regression: each of them got one datagram in five while 320 sockets of another user pretended to be of root."""
    with squatted(tmp_path, NOBODY, SQUATTED):
        sender, others = link(), [link(), link(), link()]
        known = owners(PREFIX)
        assert known is not None
        for _ in range(20):
            found = [known[name] for name in host_link.names(PORT)]
            assert len(found) == host_link.MAXIMUM_PEERS and found.count(os.getuid()) == 4
        sender.send([WRAPPED], PORT, 0.0)
        for one in others:
            assert ready(one)
            assert one.receive() == [(WRAPPED, PORT, True)]


def test_each_user_has_places_however_many_names_another_one_has(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with squatted(tmp_path / "one", NOBODY, SQUATTED), squatted(tmp_path / "two", OTHER_USER, 2):
        known = owners(PREFIX)
        assert known is not None
        for _ in range(20):
            assert [known[name] for name in host_link.names(PORT)].count(OTHER_USER) == 2


def test_what_it_takes_to_look_for_names_is_bounded(link: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may have a million of sockets, through all of which the kernel goes."""
    sender = link()
    spent = iter(range(100))
    looks: list[int] = []

    def names(port: int) -> list[bytes]:
        looks.append(port)
        return []

    monkeypatch.setattr(host_link, "thread_time", lambda: float(next(spent)))  # a look takes a second
    monkeypatch.setattr(host_link, "names", names)
    for second in range(100):
        sender.send([WRAPPED], PORT, float(second))
    assert len(looks) == 100 / host_link.LOOK_FACTOR


def test_names_of_others_cost_little(link: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Anybody can open as many sockets with our names as he likes, also with line breaks in them."""
    real = host_link.SOCKETS
    own = link()
    listing = Path(real).read_text()
    lines = [f"0: 00000002 00000000 00000000 0002 01 1 @cexec-1/{PORT}/1/{number:016x}" for number in range(500)]
    (tmp_path / "unix").write_text(listing + "\n".join([*lines, "@cexec-1/x", f"@cexec-1/{PORT}/1/zz", "@\0\n"]))
    monkeypatch.setattr(host_link, "SOCKETS", str(tmp_path / "unix"))
    assert len(host_link.names(PORT)) == 1  # the kernel knows of no others
    monkeypatch.setattr(host_link, "owners", lambda prefix: None)  # it does not tell
    assert len(host_link.names(PORT)) == host_link.MAXIMUM_PEERS
    mine = b"\0" + f"cexec-1/{PORT}/{os.getuid()}/".encode()
    assert host_link.names(PORT)[0].startswith(mine)  # then names are believed
    assert own.send([WRAPPED], PORT, 10.0) is None
    monkeypatch.setattr(host_link, "SOCKETS", str(tmp_path / "absent"))
    assert host_link.names(PORT) == []


def test_damaged_messages_and_descriptors_are_left_out(link: Open) -> None:
    receiver = link()
    descriptors = len(os.listdir("/proc/self/fd"))
    (name,) = host_link.names(PORT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, open(os.devnull) as file:
        for message in (b"", b"\0", b"\0\5abc", b"\0\0", forwarded.pack([WRAPPED])[0] + b"\xff\xff"):
            sender.sendto(message, name)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, file.fileno().to_bytes(4, sys.byteorder))]
        sender.sendmsg(forwarded.pack([WRAPPED]), rights, 0, name)
    assert [data for data, _, _ in receiver.receive()] == [WRAPPED, WRAPPED]
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_another_user_is_not_believed(link: Open, tmp_path: Path) -> None:
    require_second_user()
    require_tool("setpriv")
    receiver = link()
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*readable_python(tmp_path), *become, sys.executable, "-c", STRANGER, str(PORT), WRAPPED.hex()]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert ready(receiver)
    assert receiver.receive() == [(WRAPPED, PORT, False)]


def test_root_is_believed_and_a_user_only_if_the_kernel_knows_him(monkeypatch: pytest.MonkeyPatch) -> None:
    def credentials(user: int) -> list[tuple[int, int, bytes]]:
        data = b"".join(number.to_bytes(4, sys.byteorder) for number in (1, user, 0))
        return [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, data)]

    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert host_link.is_believed(credentials(0))
    assert host_link.is_believed(credentials(1000))
    assert not host_link.is_believed(credentials(1001))
    assert not host_link.is_believed([])
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    assert host_link.is_believed(credentials(NOBODY)) is whole
