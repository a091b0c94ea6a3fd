"""A small session with one bit flipped, or with its end, at every byte of both directions: never a success.

docs/protocol.md sections 4.1 and 4.4: a connection that ends without an authenticated exit frame is a failure.
"""

from __future__ import annotations

from typing import Any

import pytest

from cexec.errors import CexecError, DisconnectedError, ProtocolError
from cexec.protocol.base.limits import FIRST_REVISION, SECOND_REVISION
from tests.protocol.wires import APPLICATION, Damage, Wire, join

DIRECTIONS = ("to_client", "to_worker")
each_direction = pytest.mark.parametrize("direction", DIRECTIONS)


class Setting:
    """An announcement, and the revision of the connections that answer it."""

    def __init__(self, revision: int) -> None:
        self.sealed = APPLICATION.announce()
        self.revision = revision


def played(setting: Setting, direction: str = "to_client", **damage: int) -> Wire:
    """The session, with damage to one direction."""
    damaged: dict[str, Any] = {direction: Damage(**damage)}
    return join(sealed=setting.sealed, revision=setting.revision, robots=True, **damaged).flow()


@pytest.fixture(scope="module", params=[FIRST_REVISION, SECOND_REVISION])
def setting(request: pytest.FixtureRequest) -> Setting:
    return Setting(request.param)


@pytest.fixture(scope="module")
def whole(setting: Setting) -> Wire:
    """The session without damage: it succeeds, so that the failures below have a cause."""
    wire = played(setting).raise_errors()
    assert [result.exit_status for result in wire.client.exits] == [3]
    return wire


def carried(wire: Wire, direction: str) -> int:
    damage: Damage = getattr(wire, direction)
    return len(damage.carried)


@each_direction
def test_a_flipped_bit_anywhere_is_never_an_exit(setting: Setting, whole: Wire, direction: str) -> None:
    assert carried(whole, direction) > 150
    for offset in range(carried(whole, direction)):
        wire = played(setting, direction, flip=offset)
        assert wire.client.exits == [], offset
        errors: list[CexecError | None] = [wire.client.error, wire.worker.error]
        # A length that has become larger makes its reader wait; everything else is noticed at once.
        assert errors == [None, None] or any(isinstance(error, ProtocolError) for error in errors), offset


@each_direction
def test_an_end_anywhere_is_never_an_exit(setting: Setting, whole: Wire, direction: str) -> None:
    for size in range(carried(whole, direction)):
        wire = played(setting, direction, cut=size)
        assert wire.client.exits == [], size
        assert isinstance(wire.client.error, DisconnectedError) or isinstance(wire.worker.error, DisconnectedError)


def test_an_end_after_the_exit_frame_is_too_late_to_hurt(setting: Setting, whole: Wire) -> None:
    wire = played(setting, "to_client", cut=carried(whole, "to_client"))
    assert [result.exit_status for result in wire.client.exits] == [3]
