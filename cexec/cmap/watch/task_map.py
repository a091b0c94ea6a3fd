"""The state of every task of a run in little space, for those who draw it.

Contract: a `TaskMap` has a byte for each row, up to MOST_TASKS; tasks beyond are not on the map.  `codes` gives the
states of a part of it, or of cells of several rows, as text: `120d3fw` is 120 tasks that are done, 3 that have failed
and one that waits.  A row that is none of the run's is `n`.  Pure.

A journal knows a task when its turn comes.  The others of a run of all rows wait; which rows are those of a run of some
(--rows) is not known before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.cmap.results.journal_format import DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_TASKS = 10_000_000  # (ours)
_NONE, _DONE, _WAITING, _RUNNING, _FAILED = range(5)  # of several in a cell, the greatest is what the cell shows
_OF_STATE = {DONE: _DONE, FAILED: _FAILED}
_LETTERS = bytes.maketrans(bytes(range(5)), b"ndwrf")
_UNKNOWN_WAIT = bytes.maketrans(bytes((_NONE,)), bytes((_WAITING,)))
_ALIKE = re.compile(rb"n+|d+|w+|r+|f+")


class TaskMap:
    def __init__(self) -> None:
        self._states = bytearray()
        self._total = 0

    def __len__(self) -> int:
        return len(self._states)

    def set(self, number: object, state: object) -> bool:
        """Notes a state of the journal's for the task of this row, from 1; returns False if it was known."""
        if type(number) is not int or not 0 < number <= MOST_TASKS:
            return False
        self._reach(number)
        found = _OF_STATE.get(state, _WAITING) if isinstance(state, int) else _WAITING
        changed = self._states[number - 1] != found
        self._states[number - 1] = found
        return changed

    def expect(self, total: int) -> None:
        """Says how many tasks the run has; 0 if nobody knows."""
        self._total = total
        self._reach(min(total, MOST_TASKS))

    def counts(self, running: Iterable[int] = ()) -> dict[str, int]:
        """Returns how many tasks are done, failed, running and waiting."""
        runs = len({number for number in running if self._waits(number)})
        return {
            "done": self._states.count(_DONE),
            "failed": self._states.count(_FAILED),
            "running": runs,
            "waiting": max(0, self._states.count(_WAITING) + max(0, self._total - self._known) - runs),
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
        states = self._states[first - 1 : first - 1 + count]
        if len(self._states) <= self._total:
            states = states.translate(_UNKNOWN_WAIT)
        for number in running:
            if self._waits(number) and 0 <= number - first < len(states):
                states[number - first] = _RUNNING
        if cell > 1:
            states = bytearray(max(states[at : at + cell]) for at in range(0, len(states), cell))
        return "".join(_code(group[0]) for group in _ALIKE.finditer(states.translate(_LETTERS)))

    @property
    def _known(self) -> int:
        return len(self._states) - self._states.count(_NONE)

    def _reach(self, number: int) -> None:
        self._states += bytes(max(0, number - len(self._states)))

    def _waits(self, number: int) -> bool:
        return 0 < number <= len(self._states) and self._states[number - 1] in (_NONE, _WAITING)


def _code(group: bytes) -> str:
    letter = chr(group[0])
    return letter if len(group) == 1 else f"{len(group)}{letter}"
