"""Rates, the clock of tokens, and where cgate may listen: with a time that the test sets."""

from __future__ import annotations

import pytest

from cexec.errors import UsageError
from cexec.gate.access.listening import check_listening, is_loopback
from cexec.gate.access.names import check_applications, check_name
from cexec.gate.access.rates import CallerRates
from cexec.gate.access.steady_clock import SteadyClock


class Times:
    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 50.0

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_a_clock_that_is_set_back_gives_no_token_a_longer_life() -> None:
    times = Times()
    clock = times.clock()
    times.pass_by(100)
    assert clock.now() == 1_000_100
    times.wall -= 86_400
    assert clock.now() == 1_000_100
    times.pass_by(5)
    assert clock.now() == 1_000_105


def test_a_clock_that_jumps_ahead_counts_only_while_it_is_ahead() -> None:
    times = Times()
    clock = times.clock()
    times.wall += 1e6
    assert clock.now() == 2_000_000
    times.wall -= 1e6
    assert clock.now() == 1_000_000


def test_the_time_of_sleep_counts() -> None:
    times = Times()
    clock = times.clock()
    times.wall += 3600  # the monotonic clock stands still while the machine sleeps
    assert clock.now() == 1_003_600


def test_each_caller_has_a_rate_of_his_own() -> None:
    rates = CallerRates(2.0, 3.0)
    assert [rates.admit("a", 0.0) for _ in range(4)] == [None, None, None, 0.5]
    assert rates.admit("b", 0.0) is None
    assert [rates.admit("a", 1.0) for _ in range(3)] == [None, None, 0.5]


def test_callers_without_number_take_no_memory() -> None:
    rates = CallerRates(1.0, 1.0, most=10)
    for number in range(100):
        assert rates.admit(number, 0.0) is None
    assert len(rates) == 10
    assert rates.admit(99, 0.0) is not None  # those that came last are remembered


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback_needs_nothing(address: str) -> None:
    assert is_loopback(address)
    check_listening([address], tls=False, has_tokens=False)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "localhost", ""])
def test_all_else_needs_tls_and_a_token(address: str) -> None:
    assert not is_loopback(address)
    with pytest.raises(UsageError, match="needs TLS there") as refused:
        check_listening(["127.0.0.1", address], tls=False, has_tokens=True)
    assert refused.value.exit_status == 100
    with pytest.raises(UsageError, match="no token is valid yet"):
        check_listening([address], tls=True, has_tokens=False)
    check_listening([address], tls=True, has_tokens=True)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a\n", "ä", "x" * 65, "login", "a\x1b", "who=root "])
def test_names_that_could_confuse_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_applications_are_known_by_their_names() -> None:
    assert check_name("ci@host.example-1") == "ci@host.example-1"
    assert check_applications([]) is None
    assert check_applications(["./keys/app.pub", "render"]) == frozenset({"app", "render"})
    with pytest.raises(UsageError):
        check_applications(["keys/"])
