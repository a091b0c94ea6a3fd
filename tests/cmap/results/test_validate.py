"""--validate and --collect with a program or a function."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from cexec.cmap.inputs.tasks import NOTHING, Task, TaskInput
from cexec.cmap.results.attempt_files import FileOutput, Output
from cexec.cmap.results.validate import Validator, Verdict
from cexec.errors import LocalError, UsageError

pytestmark = pytest.mark.usefixtures("process_end")

MODULE = "validators_of_this_test"


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / f"{MODULE}.py").write_text(
        "from pathlib import Path\n"
        "def good(parameters, directory):\n"
        "    return Path(directory, 'stdout').read_text() == parameters['id']\n"
        "def raising(parameters, directory):\n"
        "    raise ValueError('too dark')\n"
        "class Holder:\n"
        "    always = staticmethod(lambda parameters, directory: True)\n"
        "number = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop(MODULE, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def validated(text: str, stdout: bytes = b"7", extra: dict[str, str] | None = None, **files: bytes) -> Verdict:
    outputs = {"stdout": Output(), "stderr": Output()}
    outputs["stdout"].append(stdout)
    for name, content in files.items():
        path = Path(f".cmap-{name}")
        outputs[f"sub/{name}"] = FileOutput(str(path), str(path))
        outputs[f"sub/{name}"].append(content)
    task = Task(3, stdin=TaskInput(NOTHING), parameters={"id": "7", "a name": "x y"})
    return Validator(text, "--validate").check(task, outputs, extra)


def said(verdict: Verdict) -> bytes:
    return b"".join(verdict.output.pieces())


def test_a_command_that_exits_with_0_accepts() -> None:
    assert validated("true").accepted
    assert not validated("false").accepted
    assert validated("exit 3").reason == "--validate exited with 3"
    assert validated("kill -9 $$").reason == "--validate died of signal 9"


def test_what_a_command_says_is_part_of_the_reason() -> None:
    assert validated("echo too dark >&2; exit 1").reason == "--validate exited with 1: too dark"
    assert len(validated("yes | head -c 100000 >&2; exit 1").reason) < 300


def test_a_command_gets_results_and_row() -> None:
    command = 'cat stdout sub/picture; echo "$PARAM_id $PARAM_a_name $CMAP_TASK $MORE"'
    verdict = validated(command, picture=b"!", extra={"MORE": "m"})
    assert verdict.accepted
    assert said(verdict) == b"7!7 x y 3 m\n"


def test_a_command_reads_nothing_of_our_standard_input_and_may_write_a_lot() -> None:
    assert said(validated("cat; head -c 3000000 /dev/zero")) == bytes(3_000_000)


def test_nothing_is_left_of_the_directory() -> None:
    directory = said(validated("pwd; echo x > made")).decode().strip()
    assert os.path.basename(directory).startswith("cexec-results-")
    assert not os.path.exists(directory)


def test_a_file_is_not_copied_and_not_removed() -> None:
    verdict = validated("test -L sub/picture && cat sub/picture", picture=b"content")
    assert said(verdict) == b"content"
    assert Path(".cmap-picture").read_bytes() == b"content"


def test_a_function() -> None:
    assert validated(f"{MODULE}:good").accepted
    assert validated(f"{MODULE}:good", b"8").reason == f"--validate {MODULE}:good said no"
    assert validated(f"{MODULE}:raising").reason == f"--validate {MODULE}:raising: ValueError: too dark"
    assert validated(f"{MODULE}:Holder.always").accepted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such_module_here:f", "--validate no_such_module_here:f: ModuleNotFoundError"),
        (f"{MODULE}:nothing", "AttributeError"),
        (f"{MODULE}:number", f"--validate {MODULE}:number is no function"),
    ],
)
def test_a_function_that_is_not_there_is_told_at_once(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Validator(text, "--validate")


def test_a_row_that_is_too_long_for_an_environment_is_told() -> None:
    task = Task(1, stdin=TaskInput(NOTHING), parameters={"id": "x" * 10_000_000})
    verdict = Validator("true", "--validate").check(task, {"stdout": Output()})
    assert verdict.reason == "--validate: argument list too long"


def test_a_command_that_cannot_be_started_says_nothing_about_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: where pids.max was reached, tasks counted as failed and were tried again."""

    def no_room(*_: object, **__: object) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", no_room)
    with pytest.raises(LocalError, match=r"^cannot run the command of --validate: resource temporarily unavailable$"):
        validated("true")
