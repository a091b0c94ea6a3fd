"""What hosts answer to cboot: their Python, and the agent that it runs there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from cexec.boot import shapes
from cexec.boot.boot_settings import Action
from cexec.boot.dummy_command import parse
from cexec.boot.failures import CONNECTION, HostError, HostFailure
from cexec.boot.host_table import describe, facts, table
from cexec.boot.hosts import Host
from cexec.boot.serve import Application
from cexec.boot.shapes import fits, shaped
from cexec.boot.ssh import Connection, SshSession, read_answer
from cexec.boot.states import Journey, StepFailed
from cexec.boot.target import WheelTarget
from cexec.boot.visit import Tools, Visit
from cexec.system.printable import printable
from cexec.system.terminal import Terminal
from tests.fuzz.target import target
from tests.protocol.wires import APPLICATION as KEYS

SHAPES: tuple[dict[str, Any], ...] = (
    shapes.RECORD, shapes.SEEN, shapes.INSTALLED, shapes.NOTE, shapes.STOPPED, shapes.REMOVED,
)  # fmt: skip
PYTHON = {
    "path": "/usr/bin/python3", "version": [3, 11, 2], "implementation": "cpython", "missing": [], "bits": 64,
    "libc": ["glibc", "2.36"], "system": "linux", "machine": "x86_64", "threads": False, "platform": "linux-x86_64",
    "mac": "", "host": "node1",
}  # fmt: skip
HOST = Host("node1", name="node1")
APPLICATION = Application("app", "app", KEYS.owner, KEYS.client, KEYS.owner.fingerprint)
NOWHERE = Terminal(-1, {})


def lines_of(data: bytes) -> list[str]:
    """The answers of a session, as `SshSession.answer` gives them."""
    return [line.strip() for line in data.decode("utf-8", "replace").split("\n")]


@target(HostError)
def python_of_a_host(data: bytes) -> None:
    """What the Pythons of a host say of themselves, and for which wheels that is."""
    found = WheelTarget.of(parse(lines_of(data)))
    assert found.words and found.environment
    assert found.tags and found.pip_words


@target(HostError)
def answer_of_an_agent(data: bytes) -> None:
    """A line of the agent that cboot runs on a host: it is of one of the shapes, or refused."""
    done = shaped(read_answer(lines_of(data)[0]), {"done": object})["done"]
    for shape in SHAPES:
        if fits(done, shape):
            assert shaped(done, shape) is done
        else:
            with pytest.raises(HostError):
                shaped(done, shape)


class Agent(SshSession):
    """A session whose answers are there already."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.noise = self.errors = b""
        self._answers = iter(answers)

    async def answer(self, patience: float) -> str | None:
        return next(self._answers, None)

    async def lost(self) -> HostFailure:
        return HostFailure(CONNECTION, "the connection was lost", temporary=True)

    async def close(self) -> None:
        pass


class Line(Connection):
    """A connection to a host that gives these answers, one for each request."""

    def __init__(self, answers: Sequence[str]) -> None:
        super().__init__(HOST, [], "/nowhere")
        self._answers = list(answers)

    async def open(self) -> None:
        pass

    async def answers(self, script: str, mark: str) -> list[str]:
        return [json.dumps(PYTHON)]

    async def session(self, python: str, request: dict[str, Any]) -> SshSession:
        return Agent([self._answers.pop(0)] if self._answers else [])


def at_once(steps: Coroutine[Any, Any, object]) -> None:
    """Runs what never waits; an event loop for each input costs more than all else here."""
    try:
        steps.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


async def visit(one: Visit, action: Action) -> None:
    await one.look()
    if action is Action.STATUS:
        await one.show()
    elif action is Action.STOP:
        await one.stop()
    else:
        await one.remove()


@target()
def visit_to_a_host(data: bytes) -> None:
    """Lines of the agent during a visit of cboot, which is told in words whatever they are."""
    actions = [Action.STATUS, Action.STOP, Action.REMOVE]
    number = data[0] if data else 0
    action = actions[number % 3]
    application = APPLICATION if number & 0x80 else None
    nothing = cast("asyncio.Lock", None)
    tools = Tools([HOST, Host("node2", name="node2")], application, None, None, Path("/nowhere"), "run", nothing)
    journey = Journey(HOST)
    try:
        at_once(visit(Visit(HOST, Line(lines_of(data[1:])), tools, journey.apply), action))
    except HostError as error:
        journey.apply(StepFailed(error.failure))
    assert describe(journey, action)
    for line in table([journey], NOWHERE):
        assert printable(line) == line
    json.dumps(facts(journey))
