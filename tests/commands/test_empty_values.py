"""Every option and every argument of every command refuses an empty text, but for those that are named here."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

# Options whose empty value means something, with the reason.
ALLOWED = {
    ("cmap", "--recend"): "the input may be cut anywhere",
    ("cmap", "--stdin-text"): "a text may be empty",
    ("cservice", "ARG"): "a program may take an empty argument",
}
BLANK = {("cmap", "--colsep"): "columns may be separated by a space or a tab"}  # not empty, but of white space alone
MODULES = {  # where each command calls `run_click`
    "cexec": "cexec.commands.cexec_options",
    "ckeygen": "cexec.commands.ckeygen",
    "cmap": "cexec.commands.cmap",
    "cmap explain": "cexec.commands.cmap_watch",
    "cproxy": "cexec.commands.cproxy",
    "cps": "cexec.commands.cps",
    "crat": "cexec.commands.crat",
    "cservice": "cexec.commands.cservice",
}
NEEDED = {  # what the other arguments and options are
    "cexec": ["app"],
    "ckeygen": ["app"],
    "cmap": ["app"],
    "cmap explain": ["--state", "s"],
    "cproxy": ["127.0.0.1"],
    "cps": [],
    "crat": [],
    "cservice": ["app", "cat"],
}


def run(name: str, argv: list[str]) -> int:
    command, *more = name.split()
    main = importlib.import_module(f"cexec.commands.{command}").main
    status: int = main([*more, *argv])
    return status


def click_command(name: str) -> click.Command:
    """What the command gives to click."""
    found: list[click.Command] = []

    def note(command: click.Command, *_: object, **__: object) -> int:
        found.append(command)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{MODULES[name]}.run_click", note)
        run(name, ["--help"])
    return found[0]


def parameters(kind: type[click.Parameter]) -> list[tuple[str, str]]:
    return [
        (name, " ".join(parameter.opts) if kind is click.Option else (parameter.name or "").upper())
        for name in MODULES
        for parameter in click_command(name).params
        if isinstance(parameter, kind) and not getattr(parameter, "is_flag", False)
    ]


OPTIONS = parameters(click.Option)
ARGUMENTS = parameters(click.Argument)


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory where nothing can be run, because there is no key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    assert not os.listdir()


def test_there_are_options_to_look_at() -> None:
    assert len(OPTIONS) >= 70
    assert ALLOWED.keys() | BLANK.keys() <= {*OPTIONS, *ARGUMENTS}


@pytest.mark.parametrize(("name", "option"), [found for found in OPTIONS if found not in ALLOWED])
def test_an_empty_option_is_refused(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Regression: 17 options of cmap took an empty text for an option that is not given: --validate accepted all."""
    for text in ("",) if (name, option) in BLANK else ("", " "):
        assert run(name, [option.split()[0], text, *NEEDED[name]]) == 100
        said = capsys.readouterr().err
        assert said.startswith(f"{name}: ") and said.count("\n") == 1
        assert any(one in said for one in option.split())


@pytest.mark.parametrize(("name", "argument"), [found for found in ARGUMENTS if found not in ALLOWED])
def test_an_empty_argument_is_refused(name: str, argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    order = [found for command, found in ARGUMENTS if command == name]
    before = [] if name == "cmap explain" else NEEDED[name][: order.index(argument)]
    options = NEEDED[name] if name == "cmap explain" else []
    after = ["cat"] if argument == "APP" and name == "cservice" else []
    assert run(name, [*options, *before, "", *after]) == 100
    assert "empty" in (said := capsys.readouterr().err) or "''" in said


@pytest.mark.parametrize(("name", "option"), [found for found in ALLOWED if found in OPTIONS])
def test_an_option_that_may_be_empty_is_let_through(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, [option, "", *NEEDED[name]]) == 111  # there is no such key
    assert "neither app nor app.pub exists" in capsys.readouterr().err


@pytest.mark.parametrize("text", [" ", "\t"])
@pytest.mark.parametrize(("name", "option"), BLANK)
def test_an_option_that_may_be_blank_is_let_through(
    name: str, option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: `--colsep ' '`, and a tab that the shell has written, were said to be empty."""
    assert run(name, [option, text, *NEEDED[name]]) == 111  # there is no such key
    assert "neither app nor app.pub exists" in capsys.readouterr().err
