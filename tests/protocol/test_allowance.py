"""How much may be spent."""

from __future__ import annotations

from cexec.protocol.allowance import Allowance


def spent(allowance: Allowance, now: float, most: int = 100) -> int:
    """How many units are allowed at once."""
    count = 0
    while count < most and allowance.left(now):
        allowance.spend(1.0)
        count += 1
    return count


def test_so_much_at_once_and_so_much_a_second() -> None:
    allowance = Allowance(2.0, 5.0, now=10.0)
    assert spent(allowance, 10.0) == 5
    assert spent(allowance, 10.0) == 0
    assert spent(allowance, 11.0) == 2
    assert spent(allowance, 1000.0) == 5


def test_what_was_spent_too_much_is_missing_later() -> None:
    allowance = Allowance(1.0, 1.0, now=0.0)
    allowance.spend(4.0)
    assert not allowance.left(3.0)
    assert allowance.left(3.5)


def test_a_clock_that_stands_still_gives_nothing() -> None:
    allowance = Allowance(1.0, 1.0, now=5.0)
    allowance.spend(1.0)
    assert not allowance.left(5.0) and not allowance.left(4.0)
