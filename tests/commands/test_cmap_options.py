"""Options of cmap as click reads them: values, not texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import click
import pytest

from cexec.cmap.inputs.shell_commands import Call
from cexec.cmap.inputs.sources import RANDOM
from cexec.cmap.run.policy import Halt, Placement, Rate, TimeLimit
from cexec.cmap.run_options import Options
from cexec.commands.cmap_options import call_of, cmap_options, options_from
from cexec.errors import UsageError


def read(*words: str) -> Mapping[str, Any]:
    """What the command's function is given."""
    found: dict[str, Any] = {}

    @click.command("cmap")
    @cmap_options
    def command(**values: Any) -> None:
        found.update(values)

    command.main(list(words), standalone_mode=False)
    return found


def test_without_options_there_are_the_defaults() -> None:
    assert options_from(read()) == Options()
    assert read()["weight"] == 1


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--array", "1-9:4,3"), "array", [range(1, 10, 4), range(3, 4)]),
        (("--slices", "3"), "slices", 3),
        (("--rows", "2,8-10"), "rows", [range(2, 3), range(8, 11)]),
        (("--order", "random"), "order", RANDOM),
        (("-n", "2"), "max_args", 2),
        (("--block", "64K"), "block", 65536),
        (("--recend", r"\0"), "recend", b"\0"),
        (("--recend", ""), "recend", b""),
        (("--retries", "0"), "retries", 0),
        (("--timeout", "1m30s"), "timeout", TimeLimit(90.0)),
        (("--timeout", "150%"), "timeout", TimeLimit(fraction=1.5)),
        (("--halt", "now,fail=2"), "halt", Halt("now", "fail", 2, text="now,fail=2")),
        (("--halt", "never"), "halt", None),
        (("--term-seq", "INT,100"), "term_seq", [(2, 0.1)]),
        (("--crash-limit", "0"), "crash_limit", 0),
        (("-j", "50%"), "jobs", Placement(fraction=0.5)),
        (("-j", "-1"), "jobs", Placement(-1)),
        (("--delay", "500ms"), "delay", 0.5),
        (("--rate", "600/m"), "rate", Rate(600, 60.0)),
        (("-a", "one", "-a", "two"), "arg_file", ("one", "two")),
        (("--stdin-text", ""), "stdin_text", ""),
    ],
)
def test_options_are_values(words: tuple[str, ...], name: str, value: object) -> None:
    options = options_from(read(*words))
    assert getattr(options, name) == value
    others = [field.name for field in fields(Options) if field.name != name]
    assert all(getattr(options, other) == getattr(Options(), other) for other in others)


def test_whatever_changes_what_runs_is_an_option_of_the_commands_of_a_dry_run() -> None:
    assert call_of("app.pub", read(), "") == Call("app.pub")
    values = read(
        "--need", "os=linux", "--need", "gpu,mem=4G", "--on", "a,b", "--on", "c", "--not", "d", "--weight", "3",
        "--program", "any=./w", "--program", "linux-x86_64=./x", "--timeout", "1m0.5s",
        "--progress-timeout", "1m",
    )  # fmt: skip
    assert call_of("app.pub", values, "in").options == (
        "--need", "os=linux,gpu,mem=4G", "--on", "a,b,c", "--not", "d", "--program", "any=./w",
        "--program", "linux-x86_64=./x", "--weight", "3", "--progress-timeout", "60",
        "--time-limit", "60.5",
    )  # fmt: skip
    assert call_of("app.pub", read("--timeout", "200%"), "").options == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("--array", "x"), ("--slices", "0"), ("--rows", "3-1"), ("--order", "reverse"), ("-n", "10001"),
        ("--block", "0"), ("--retries", "-1"), ("--timeout", "0"), ("--halt", "2"), ("--term-seq", "TERM"),
        ("--progress-timeout", "0.5"),
        ("--crash-limit", "x"), ("-j", "1.5"), ("--weight", "0"), ("--delay", "1e3"), ("--rate", "0"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_such_value_is_told_with_the_options_name(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name} (?:is ['\"]?)?{text}"):
        read(name, text)
