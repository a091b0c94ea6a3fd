"""The client's listener and the worker's connection, on the loopback."""

from __future__ import annotations

import _socket
import errno
import os
import select
from collections.abc import Iterator

import pytest

from cexec.errors import LocalError, ProtocolError, UsageError
from cexec.net import sockets as module
from cexec.net.connecting import connect_result, start_connect
from cexec.net.sockets import TcpListener, open_listener, parse_ports, plain_address, ports_from_environment, with_port


@pytest.fixture
def listener() -> Iterator[TcpListener]:
    made = open_listener()
    yield made
    made.close()


def connect(sockaddr: tuple[object, ...]) -> _socket.socket:
    """An established connection."""
    connecting = start_connect(sockaddr)
    select.select([], [connecting], [], 5)
    assert connect_result(connecting) is None
    return connecting


def accept(listener: TcpListener) -> tuple[_socket.socket, tuple[object, ...]] | None:
    """The next connection, which the listener may hear of a little later than its other end."""
    select.select(listener.filenos(), [], [], 5)
    return listener.accept()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, for a moment."""
    opened = [open_listener() for _ in range(count)]
    numbers = [one.port for one in opened]
    for one in opened:
        one.close()
    return numbers


@pytest.mark.parametrize(("text", "ports"), [
    ("4000", [4000]),
    ("1024", [1024]),
    ("65535", [65535]),
    ("4002,4000,4001", [4002, 4000, 4001]),
    ("4000:4003", [4000, 4001, 4002, 4003]),
    (" 5000 , 4000 : 4001,5000", [5000, 4000, 4001]),
    ("4000:4000", [4000]),
])  # fmt: skip
def test_ports_are_lists_and_ranges(text: str, ports: list[int]) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["1023", "0", "80,4000", "4000,22:5000"])
def test_a_port_below_the_lowest_is_refused_with_the_lowest(text: str) -> None:
    with pytest.raises(UsageError, match=r"CEXEC_PORT .*lowest allowed port is 1024"):
        parse_ports(text, "CEXEC_PORT")


@pytest.mark.parametrize("text", ["", ",", "4000,", "x", "4000-4010", "65536", "4000:", ":4000", "4000:4001:4002",
                                  "-4000", "+4000", "٤٠٠٠", "4 000"])  # fmt: skip
def test_what_is_no_port_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match=r"CEXEC_PORT .*must be ports or ranges"):
        parse_ports(text, "CEXEC_PORT")


def test_a_range_the_wrong_way_round_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="'4001:4000', whose first port is above its last"):
        parse_ports("4001:4000")


@pytest.mark.parametrize(("environ", "ports"), [
    ({}, None),
    ({"CEXEC_LISTEN_PORTS": ""}, None),
    ({"CEXEC_PORT": "4003"}, [4003]),
    ({"CEXEC_PORT": "4003", "CEXEC_PORTS": "4002"}, [4002]),
    ({"CEXEC_PORT": "4003", "CEXEC_PORTS": "4002", "CEXEC_LISTEN_PORT": "4001"}, [4001]),
    ({"CEXEC_PORTS": "4002", "CEXEC_LISTEN_PORT": "4001", "CEXEC_LISTEN_PORTS": "4000"}, [4000]),
])  # fmt: skip
def test_the_newest_name_of_the_ports_variable_counts(environ: dict[str, str], ports: list[int] | None) -> None:
    assert ports_from_environment(environ) == ports


def test_a_mistake_names_the_variable_that_has_it() -> None:
    with pytest.raises(UsageError, match="CEXEC_LISTEN_PORT has port 80"):
        ports_from_environment({"CEXEC_LISTEN_PORT": "80"})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_port_serves_both_families(host: str, listener: TcpListener) -> None:
    worker = connect((host, listener.port) if host != "::1" else (host, listener.port, 0, 0))
    accepted = accept(listener)
    assert accepted is not None
    client, peer = accepted
    assert peer == plain_address(worker.getsockname())
    assert peer[0] == host
    assert listener.accept() is None
    client.send(b"x")
    select.select([worker], [], [], 5)
    assert worker.recv(10) == b"x"
    client.close()
    worker.close()


def test_a_connection_is_non_blocking_and_closed_on_exec(listener: TcpListener) -> None:
    worker = connect(("127.0.0.1", listener.port))
    accepted = accept(listener)
    assert accepted is not None
    for one in (worker, accepted[0]):
        assert not one.getblocking() and not os.get_inheritable(one.fileno())
        one.close()
    assert not any(os.get_inheritable(number) for number in listener.filenos())


def test_a_dead_peer_is_noticed_within_15_seconds_on_both_sides(listener: TcpListener) -> None:
    worker = connect(("127.0.0.1", listener.port))
    accepted = accept(listener)
    assert accepted is not None
    for one in (worker, accepted[0]):
        assert one.getsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE)
        assert one.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY)
        options = (_socket.TCP_KEEPIDLE, _socket.TCP_KEEPINTVL, _socket.TCP_KEEPCNT)
        idle, interval, count = (one.getsockopt(_socket.IPPROTO_TCP, option) for option in options)
        assert idle + interval * count <= 15
        one.close()


def test_a_loopback_listener_is_on_the_loopback_only() -> None:
    listener = open_listener(loopback=True)
    names = {_socket.socket(fileno=os.dup(number)).getsockname()[:2] for number in listener.filenos()}
    assert names == {("127.0.0.1", listener.port), ("::1", listener.port)}
    for address in [("127.0.0.1", listener.port), ("::1", listener.port, 0, 0)]:
        connect(address).close()
        assert accept(listener) is not None
    listener.close()


def test_a_listener_without_ipv6_has_one_socket() -> None:
    listener = open_listener(loopback=True, ipv6=False)
    [number] = listener.filenos()
    assert _socket.socket(fileno=os.dup(number)).getsockname() == ("127.0.0.1", listener.port)
    listener.close()


@pytest.mark.parametrize("loopback", [True, False])
def test_a_kernel_without_ipv6_gets_an_ipv4_listener(loopback: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.listen_on

    def listen(family: int, *rest: object) -> _socket.socket:
        if family == _socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return original(family, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "listen_on", listen)
    listener = open_listener(loopback=loopback)
    connect(("127.0.0.1", listener.port)).close()
    assert accept(listener) is not None
    listener.close()


@pytest.mark.parametrize("loopback", [True, False])
def test_the_first_free_port_of_the_list_is_taken(loopback: bool) -> None:
    first, second = free_ports(2)
    taken = open_listener([first], loopback=loopback)
    listener = open_listener([first, second], loopback=loopback)
    assert (taken.port, listener.port) == (first, second)
    taken.close()
    listener.close()


def test_a_port_with_an_old_connection_in_time_wait_can_be_used_again() -> None:
    [port] = free_ports(1)
    listener = open_listener([port])
    worker = connect(("127.0.0.1", port))
    accepted = accept(listener)
    assert accepted is not None
    accepted[0].close()  # the side that closes first keeps the port in TIME_WAIT
    worker.close()
    listener.close()
    open_listener([port]).close()


def test_when_all_ports_are_taken_it_says_which_and_what_to_do() -> None:
    numbers = free_ports(2)
    taken = [open_listener([number]) for number in numbers]
    with pytest.raises(LocalError) as caught:
        open_listener(numbers)
    assert f"all of ports {numbers[0]}, {numbers[1]} taken" in str(caught.value)
    assert "CEXEC_LISTEN_PORTS" in str(caught.value)
    for one in taken:
        one.close()


def test_a_long_list_of_taken_ports_is_told_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[_socket.socket]:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(module, "bind_families", refuse)
    with pytest.raises(LocalError, match=r"all of ports 4000 to 4999 \(1000 of them\) taken"):
        open_listener(range(4000, 5000))


def test_a_loopback_pair_of_sockets_tries_again_when_only_one_half_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    original, refused = module.listen_on, [1, 2, 3]

    def listen(family: int, *rest: object) -> _socket.socket:
        if family == _socket.AF_INET6 and refused:
            refused.pop()
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return original(family, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "listen_on", listen)
    listener = open_listener(loopback=True)
    assert len(listener.filenos()) == 2 and not refused
    listener.close()


def test_running_out_of_descriptors_is_told(listener: TcpListener, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", 4000

        def _accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    exhausted = TcpListener([Exhausted()])  # type: ignore[list-item]
    with pytest.raises(LocalError, match="too many open files; raise ulimit -n"):
        exhausted.accept()


def test_a_closed_listener_refuses(listener: TcpListener) -> None:
    port = listener.port
    listener.close()
    listener.close()
    assert listener.accept() is None and listener.filenos() == []
    connecting = start_connect(("127.0.0.1", port))
    select.select([], [connecting], [], 5)
    assert connect_result(connecting) == "connection refused"
    connecting.close()


@pytest.mark.parametrize("sockaddr", [
    ("127.0.0.1", 1023),
    ("127.0.0.1", 22),
    ("127.0.0.1", 0),
    ("127.0.0.1", 65536),
    ("127.0.0.1", -4000),
    ("127.255.255.255", 4000),
    ("255.255.255.255", 4000),
    ("224.0.0.1", 4000),
    ("239.255.255.255", 4000),
    ("240.0.0.1", 4000),
    ("0.0.0.0", 4000),
    ("0.1.2.3", 4000),
    ("::", 4000, 0, 0),
    ("ff02::1", 4000, 0, 1),
    ("::ffff:127.0.0.1", 4000, 0, 0),
    ("::ffff:224.0.0.1", 4000, 0, 0),
    ("localhost", 4000),
    ("", 4000),
    ("127.1", 4000),
    ("127.0.0.1\0", 4000),
    ("fe80::1%lo", 4000, 0, 0),
])  # fmt: skip
def test_a_worker_connects_to_nothing_that_is_no_clients(sockaddr: tuple[object, ...]) -> None:
    with pytest.raises(ProtocolError):
        start_connect(sockaddr)


def test_a_worker_gives_up_soon(listener: TcpListener) -> None:
    worker = connect(("127.0.0.1", listener.port))
    assert worker.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_SYNCNT) == 2
    worker.close()


def test_running_out_of_descriptors_is_the_workers_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_socket, "socket", refuse)
    with pytest.raises(LocalError, match="too many open files"):
        start_connect(("127.0.0.1", 4000))


@pytest.mark.parametrize(("sockaddr", "expected"), [
    (("10.0.0.1", 7), ("10.0.0.1", 4000)),
    (("fe80::1", 7, 0, 3), ("fe80::1", 4000, 0, 3)),
])  # fmt: skip
def test_a_reply_port_keeps_the_rest_of_the_address(sockaddr: tuple[object, ...], expected: tuple[object, ...]) -> None:
    assert with_port(sockaddr, 4000) == expected
