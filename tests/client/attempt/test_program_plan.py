"""--program: the programs that are offered, their needs, and the requests of workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from cexec.client.attempt.program_plan import asked, plan_programs
from cexec.errors import LocalError, ProtocolError, UsageError

pytestmark = pytest.mark.usefixtures("process_end")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "w"
    path.write_bytes(b"#!/bin/sh\n")
    return path


@pytest.mark.parametrize("word", ["w", "linux=w", "=w", "linux-x86_64=", "x y-z=w"])
def test_words_that_are_no_program_are_wrong_use(word: str) -> None:
    with pytest.raises(UsageError, match="PLATFORM=FILE"):
        plan_programs([word], 256)


def test_files_that_are_no_programs(tmp_path: Path, program: Path) -> None:
    (tmp_path / "empty").touch()
    for path, error in [("missing", LocalError), ("empty", UsageError), (".", UsageError)]:
        with pytest.raises(error):
            plan_programs([f"any={tmp_path / path}"], 256)
    with pytest.raises(UsageError, match="twice"):
        plan_programs([f"any={program}"] * 2, 256)


@pytest.mark.parametrize(
    ("platforms", "needs"),
    [
        (["linux-x86_64"], {"os": "linux", "arch": "x86_64"}),
        (["linux-x86_64", "linux-aarch64"], {"os": "linux"}),
        (["linux-x86_64", "darwin-arm64"], {}),
        (["linux-x86_64", "any"], {}),
    ],
)
def test_workers_that_cannot_run_it_are_not_asked(program: Path, platforms: list[str], needs: dict[str, str]) -> None:
    plan = plan_programs([f"{platform}={program}" for platform in platforms], 256)
    assert plan is not None and plan.needs() == {"allow-programs": "", **needs}


def test_a_worker_gets_what_it_was_offered_and_nothing_else(program: Path) -> None:
    plan = plan_programs([f"linux-x86_64={program}"], 256)
    assert plan is not None and plan.options().keys() == {"program-stream", "program-linux-x86_64"}
    for _ in range(2):
        (source,) = asked(plan.at(300), "linux-x86_64").values()
        buffer = memoryview(bytearray(20))
        assert (source.read_into(buffer), source.read_into(buffer)) == (10, 0)
    with pytest.raises(ProtocolError):
        asked(plan, "any")
    with pytest.raises(ProtocolError):
        asked(None, "any")
