"""Whose turn is next, of what waits for one source."""

from __future__ import annotations

from cexec.protocol.decisions.boots import MAXIMUM_BOOTS, Boots


class Entry:
    """An entry with a name."""

    def __init__(self, name: str, clock: int, came: float = 0.0) -> None:
        self.name = name
        self.newness = clock, came


def order(boots: Boots[Entry]) -> list[str]:
    """Returns the names in the order of their turns."""
    found = []
    while boots:
        found.append(boots.pop(boots.next_of(boots)).name)
        boots.end_turn()
    return found


def test_every_second_turn_is_for_the_newest_and_the_others_for_whoever_has_waited_longest() -> None:
    boots: Boots[Entry] = Boots()
    for boot, clock in enumerate([5, 9, 1, 7, 3]):
        assert boots.put(boot, Entry(f"{clock}", clock)) is None
    assert order(boots) == ["9", "5", "7", "1", "3"]


def test_only_the_newest_of_a_boot_waits_and_takes_the_turn_of_the_older_one() -> None:
    boots: Boots[Entry] = Boots()
    old, new, older = Entry("old", 5), Entry("new", 6), Entry("older", 4)
    assert boots.put(1, old) is None
    assert boots.put(2, Entry("other", 5)) is None
    assert boots.put(1, new) is old
    assert boots.put(1, older) is older
    assert list(boots) == [1, 2] and boots[1] is new


def test_of_equal_clocks_the_one_that_came_later_is_newer() -> None:
    boots: Boots[Entry] = Boots()
    first, second = Entry("first", 5, 1.0), Entry("second", 5, 2.0)
    boots.put(1, second)
    assert boots.put(1, first) is first
    assert boots.is_newest(2, Entry("third", 5, 3.0)) and not boots.is_newest(2, second)
    assert boots.is_newest(1, first)  # there is no other boot
    assert boots.is_newest(1, Entry("without a clock", 0))


def test_if_there_are_too_many_boots_only_the_newest_of_all_gets_a_place() -> None:
    boots: Boots[Entry] = Boots()
    for boot in range(MAXIMUM_BOOTS):
        assert boots.put(boot, Entry(f"{boot}", 1)) is None
    assert MAXIMUM_BOOTS == 64
    same, newer = Entry("same", 1), Entry("newer", 2)
    assert boots.put(100, same) is same
    last = boots[MAXIMUM_BOOTS - 1]
    assert boots.put(100, newer) is last
    assert len(boots) == MAXIMUM_BOOTS and list(boots)[-1] == 100
    again = Entry("again", 1, 1.0)
    assert boots.put(0, again) is not again and boots[0] is again  # a boot that has a place keeps it
