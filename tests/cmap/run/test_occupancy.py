"""How many tasks a worker has, and may have."""

from __future__ import annotations

from cexec.cmap.run.occupancy import Occupancy
from cexec.cmap.run.policy import ALL_SLOTS, Placement


def test_a_worker_has_room_until_it_has_its_limit() -> None:
    occupancy = Occupancy(Placement(count=2))
    occupancy.joined("w", 8)
    assert occupancy.limit("w") == 2 and occupancy.idle("w")
    occupancy.took("w", alone=False)
    assert occupancy.has_room("w") and not occupancy.idle("w")
    occupancy.took("w", alone=False)
    assert not occupancy.has_room("w")
    occupancy.gave_back("w")
    assert occupancy.has_room("w")


def test_a_worker_that_is_not_there_has_no_room() -> None:
    occupancy = Occupancy(ALL_SLOTS)
    assert not occupancy.has_room("w") and occupancy.limit("w") == 0 and occupancy.idle("w")


def test_a_task_alone_leaves_no_room_for_another() -> None:
    occupancy = Occupancy(ALL_SLOTS)
    occupancy.joined("w", 8)
    occupancy.took("w", alone=True)
    assert (occupancy.reserved, occupancy.has_room("w")) == (1, False)
    occupancy.gave_back("w")
    assert (occupancy.reserved, occupancy.has_room("w")) == (0, True)


def test_what_a_worker_has_counts_after_it_has_left_and_come_back() -> None:
    occupancy = Occupancy(ALL_SLOTS)
    occupancy.joined("w", 1)
    occupancy.took("w", alone=False)
    occupancy.left("w")
    assert not occupancy.present
    occupancy.joined("w", 1)
    assert not occupancy.has_room("w")
    occupancy.gave_back("w")
    assert occupancy.has_room("w")
