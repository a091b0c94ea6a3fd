"""What is started for a job, as the system call gets it.  `test_job.py` has the same with real programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

from cexec.system.process import process
from cexec.system.process.resource_limits import Limits
from cexec.worker.jobs.command import name_of
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.program_start import Order, spawn
from cexec.worker.jobs.sent_programs import PLACE
from cexec.worker.jobs.workplace import Workplace
from tests.protocol.wires import job

if TYPE_CHECKING:
    from cexec.net.pump import Pump
    from cexec.system.process.sandbox import Sandbox
    from cexec.worker.jobs.disk_quota import DiskQuota

PID = 4711
ENDS = {0: 20, 1: 21}


class Box:
    """Plays a sandbox."""

    def command(self, words: Sequence[bytes | str], directory: str, *, private: bool) -> list[bytes | str]:
        return [b"/bin/box", directory, str(private), *words]


class Started:
    """What `process.spawn` was called with."""

    def __init__(self) -> None:
        self.executable = ""
        self.arguments: list[bytes | str] = []
        self.environment: Mapping[bytes, bytes] = {}
        self.descriptors: Mapping[int, int] = {}
        self.prepare: Callable[[], None] | None = None

    def spawn(self, executable: str, arguments: Any, environment: Any, descriptors: Any, prepare: Any = None) -> int:
        self.executable, self.arguments, self.environment = executable, arguments, environment
        self.descriptors, self.prepare = descriptors, prepare
        return PID


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    made = Started()
    monkeypatch.setattr(process, "spawn", made.spawn)
    return made


def start(limits: Limits | None = None, executable: str = "/usr/bin/echo", sandbox: Box | None = None) -> int:
    program = Program(
        executable=executable,
        arguments=["-n"],
        environment={b"HOME": b"/h", b"PEER_A": b"0"},
        allow_arguments=True,
        sandbox=cast("Sandbox | None", sandbox),
    )
    order = Order(job(arguments=[b"\xff"]), program, {b"PEER_A": b"1"})
    workplace = Workplace(cast("Pump", None), None, cast("DiskQuota", None))  # no directory, and no program is brought
    return spawn(order, limits or Limits(), workplace, ENDS)


def test_a_program_gets_its_workers_words_then_its_clients(started: Started) -> None:
    assert start() == PID
    assert (started.executable, started.arguments) == ("/usr/bin/echo", ["echo", "-n", b"\xff"])
    assert started.environment == {b"HOME": b"/h", b"PEER_A": b"1"}  # what is the job's own counts
    assert (started.descriptors, started.prepare) == (ENDS, None)


def test_a_new_process_is_prepared_only_for_limits_that_it_inherits(started: Started) -> None:
    start(Limits(time=5.0))
    assert started.prepare is None
    start(Limits(nice=5))
    assert started.prepare is not None


def test_a_sandbox_is_started_in_the_place_of_its_program(started: Started) -> None:
    start(sandbox=Box())
    assert started.executable == "/bin/box"
    assert started.arguments == [b"/bin/box", os.getcwd(), "False", "/usr/bin/echo", "-n", b"\xff"]


def test_a_program_that_the_client_brings_has_a_name_for_messages() -> None:
    program = Program(executable=PLACE, arguments=[], environment={}, allow_arguments=False)
    assert name_of(program) == "program"
