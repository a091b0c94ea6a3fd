"""The state of every task of a run in little space, for those who draw it.

Contract: a `TaskMap` has a byte for each task, up to MOST_TASKS; tasks beyond are not on the map.  `codes`
gives the states of a part of it, or of cells of several tasks, as text: `120d3fw` is 120 tasks that are done, 3 that
have failed and one that waits.  Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.cmap.results.journal_format import DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_TASKS = 10_000_000  # (ours)
_DONE, _WAITING, _RUNNING, _FAILED = range(4)  # of several tasks in a cell, the greatest is what the cell shows
_OF_STATE = {DONE: _DONE, FAILED: _FAILED}
_LETTERS = bytes.maketrans(bytes(range(4)), b"dwrf")
_ALIKE = re.compile(rb"d+|w+|r+|f+")


class TaskMap:
    def __init__(self) -> None:
        self._states = bytearray()

    def __len__(self) -> int:
        return len(self._states)

    def set(self, number: object, state: object) -> bool:
        """Notes a state of the journal's for the task of this row, from 1; returns False if it was known."""
        if type(number) is not int or not 0 < number <= MOST_TASKS:
            return False
        if number > len(self._states):
            self.grow(number)
        found = _OF_STATE.get(state, _WAITING) if isinstance(state, int) else _WAITING
        changed = self._states[number - 1] != found
        self._states[number - 1] = found
        return changed

    def grow(self, total: int) -> None:
        """Makes room for so many tasks: the new ones wait."""
        more = min(total, MOST_TASKS) - len(self._states)
        if more > 0:
            self._states += bytes((_WAITING,)) * more

    def counts(self, running: Iterable[int] = ()) -> dict[str, int]:
        """Returns how many tasks are done, failed, running and waiting."""
        runs = len({number for number in running if self._waits(number)})
        return {
            "done": self._states.count(_DONE),
            "failed": self._states.count(_FAILED),
            "running": runs,
            "waiting": self._states.count(_WAITING) - runs,
        }

    def failed(self, after: int, most: int) -> list[int]:
        """Returns the numbers of at most so many failed tasks behind the task `after`."""
        found: list[int] = []
        place = self._states.find(_FAILED, max(0, after))
        while place >= 0 and len(found) < most:
            found.append(place + 1)
            place = self._states.find(_FAILED, place + 1)
        return found

    def codes(self, first: int, count: int, cell: int, running: Iterable[int] = ()) -> str:
        """Returns the states of `count` tasks from `first` on, each `cell` of them as one."""
        states = bytearray(self._states[first - 1 : first - 1 + count])
        for number in running:
            if self._waits(number) and 0 <= number - first < len(states):
                states[number - first] = _RUNNING
        if cell > 1:
            states = bytearray(max(states[at : at + cell]) for at in range(0, len(states), cell))
        return "".join(_code(group[0]) for group in _ALIKE.finditer(states.translate(_LETTERS)))

    def _waits(self, number: int) -> bool:
        return 0 < number <= len(self._states) and self._states[number - 1] == _WAITING


def _code(group: bytes) -> str:
    letter = chr(group[0])
    return letter if len(group) == 1 else f"{len(group)}{letter}"
