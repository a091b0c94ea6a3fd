"""Which of the hosts that multicast DNS has found get a datagram: a stranger can make it find whatever he likes."""

from __future__ import annotations

import _socket

import pytest

from cexec.net.destinations import Destination
from cexec.net.found_hosts import (
    AT_ONCE,
    FORGOTTEN_FOR,
    MAXIMUM_HOSTS,
    MAXIMUM_PORTS,
    MOST_UNANSWERED,
    TOTAL_BURST,
    FoundHosts,
)
from cexec.net.interfaces import Interface, on_link

UP, LOOPBACK_UP = 0x1043, 0x49


def place(host: str = "10.0.0.7", port: int = 3010) -> Destination:
    return Destination(_socket.AF_INET, (host, port), host)


def found(*places: Destination, patient: bool = False) -> FoundHosts:
    hosts = FoundHosts(patient=patient, now=0.0)
    for one in places or (place(),):
        hosts.add(one, 0.0)
    return hosts


def times(hosts: FoundHosts, until: float, step: float = 0.25) -> list[float]:
    """When a sender that sends all the time sends something there."""
    return [number * step for number in range(int(until / step)) if hosts.due(number * step)]


def test_a_host_that_does_not_answer_gets_few_datagrams_and_is_forgotten() -> None:
    """A stranger's instances made one waiting client of 0.1.0 send 119 KB to a victim; now it is six datagrams."""
    hosts = found()
    sent = times(hosts, 60)
    assert len(sent) == MOST_UNANSWERED
    assert sent == [0.0, 0.25, 1.25, 3.25, 7.25, 15.25]
    assert len(times(hosts, FORGOTTEN_FOR)) == 0


def test_it_is_remembered_again_each_time_later() -> None:
    hosts = found()
    assert len(times(hosts, 3 * 3600, step=1.0)) <= 6 * MOST_UNANSWERED


def test_a_host_that_has_answered_gets_everything() -> None:
    hosts = found()
    hosts.answered("10.0.0.9")
    hosts.answered("10.0.0.7%eth0")
    assert len(times(hosts, 60)) == 240


def test_new_ones_get_a_datagram_at_once() -> None:
    hosts = found()
    assert hosts.new(0.0) == hosts.parting(0.0) == [*hosts.parting(0.0)]
    assert hosts.new(0.0) == []
    hosts.add(place("10.0.0.8"), 1.0)
    assert [one.label for one in hosts.new(1.0)] == ["10.0.0.8"]


def test_coming_and_going_is_no_fresh_start() -> None:
    hosts = found()
    sent = 0
    for number in range(1000):
        sent += len(hosts.new(number / 100)) + len(hosts.due(number / 100))
        hosts.remove(place().sockaddr)
        assert len(hosts) == 0
        hosts.add(place(), number / 100)
    assert sent <= MOST_UNANSWERED


def test_many_ports_of_one_host_are_one_host() -> None:
    hosts = found(*(place(port=number) for number in range(2000, 3000)))
    assert len(hosts) == MAXIMUM_PORTS
    assert sum(len(hosts.due(number / 4)) for number in range(1000)) == MOST_UNANSWERED


def test_all_hosts_that_do_not_answer_share_a_rate() -> None:
    places = [place(f"10.0.{number // 250}.{number % 250 + 1}") for number in range(1000)]
    hosts = found(*places)
    assert len(hosts.due(0.0)) == TOTAL_BURST
    hosts.answered(places[-1].sockaddr[0])
    assert places[-1] in hosts.due(0.0)


def test_no_more_hosts_are_remembered_than_fit() -> None:
    hosts = found(*(place(f"10.0.{number // 250}.{number % 250 + 1}") for number in range(2 * MAXIMUM_HOSTS)))
    assert len(hosts) == MAXIMUM_HOSTS
    hosts.remove(("10.0.0.1", 3010))
    hosts.add(place("10.9.9.9"), 0.0)
    assert len(hosts) == MAXIMUM_HOSTS


def test_a_patient_sender_goes_on_at_a_low_rate() -> None:
    hosts = found(patient=True)
    assert len(times(hosts, 300)) == MOST_UNANSWERED + 10  # one in 30 s
    hosts.answered("10.0.0.7")
    assert len(times(hosts, 60)) == 240


def test_who_was_told_of_a_job_is_told_of_its_end() -> None:
    hosts = found(place(), place("10.0.0.8"))
    assert hosts.parting(0.0) == []
    assert len(hosts.due(0.0)) == 2
    assert len(hosts.parting(0.0)) == 2
    assert AT_ONCE == 2


@pytest.mark.parametrize(
    ("host", "scope", "expected"),
    [
        ("10.0.0.9", 0, True), ("10.0.0.1", 0, True), ("10.0.0.255", 0, False), ("10.0.1.9", 0, False),
        ("8.8.8.8", 0, False), ("192.168.7.1", 0, False), ("127.0.0.1", 0, True), ("127.255.255.255", 0, False),
        ("10.0.0.9", 3, False), ("fe80::9", 2, True), ("fe80::9", 3, False), ("fd00::77", 0, True),
        ("fd01::77", 0, False), ("2001:db8::1", 0, False),
    ],
)  # fmt: skip
def test_only_neighbours_are_on_the_link(host: str, scope: int, expected: bool) -> None:
    lo, eth0, down = Interface("lo", 1, LOOPBACK_UP), Interface("eth0", 2, UP), Interface("eth1", 3, 0)
    lo.add_ipv4("127.0.0.1", 8, None)
    eth0.add_ipv4("10.0.0.1", 24, "10.0.0.255")
    eth0.add_ipv6("fe80::1", 64)
    eth0.add_ipv6("fd00::1", 64)
    down.add_ipv4("192.168.7.9", 24, "192.168.7.255")
    assert on_link(host, scope, [lo, eth0, down]) is expected
