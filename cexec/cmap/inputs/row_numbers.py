"""The numbers of chosen rows: ascending, each once, and never in a list, however many they are.

Contract: pure; a `RowNumbers` takes as much memory as it has ranges.  Ranges that overlap may have different steps.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class RowNumbers(Collection[int]):
    """The members of all ranges, which ascend themselves and are not empty."""

    def __init__(self, ranges: Iterable[range]) -> None:
        self._groups = [_merged(group) for group in _overlapping(ranges)]
        self._size = sum(
            len(group[0]) if len(group) == 1 else sum(1 for _ in _members(group)) for group in self._groups
        )

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(map(_members, self._groups))

    def __contains__(self, number: object) -> bool:
        return any(number in members for group in self._groups for members in group)


def _members(group: list[range]) -> Iterator[int]:
    """Yields the numbers of one group in their order, each once."""
    if len(group) == 1:
        return iter(group[0])
    return map(itemgetter(0), groupby(heapq.merge(*group)))


def _merged(group: list[range]) -> list[range]:
    """Makes one range of those that leave nothing out."""
    if any(members.step > 1 for members in group) and len(group) > 1:
        return group
    return [range(group[0].start, max(members.stop for members in group), group[0].step)]


def _overlapping(ranges: Iterable[range]) -> list[list[range]]:
    """Returns groups of ranges in their order; no two groups have numbers between those of one another."""
    groups: list[list[range]] = []
    last = 0
    for members in sorted(ranges, key=lambda members: members.start):
        if groups and members.start <= last:
            groups[-1].append(members)
        else:
            groups.append([members])
        last = max(last, members[-1])
    return groups
