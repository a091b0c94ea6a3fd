"""The help pages of all commands, and what a command says about words that it does not know."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cexec import __version__
from tests import preloaded
from tests.environment import ROOT, command, local_environment

COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())
MANY_OPTIONS = 8  # from which on a page needs groups


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    first, *others = words
    return preloaded.run_text(command(first, *others), env=local_environment(), timeout=60, cwd=cwd or ".")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_options_for_help_and_version(name: str) -> None:
    short = run(name, "-V")
    told = short.stderr if name == "cexec-ssh" else short.stdout  # ssh -V writes to standard error
    assert told == f"{name} {__version__}\n" == run(name, "--version").stdout
    assert run(name, "-h").stdout == run(name, "--help").stdout != ""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_three_examples_and_groups(name: str) -> None:
    page = run(name, "--help").stdout
    examples = re.search(r"\nExamples:\n((?:  .*\n)+)", page)
    assert examples and len(re.findall(rf"^  {name} ", examples[1], re.MULTILINE)) == 3, page
    assert len(re.findall(r"^ {8}\S", examples[1], re.MULTILINE)) == 3  # what each of them does
    groups = re.findall(r"^([A-Z].*):$", page.partition(examples[0])[2], re.MULTILINE)
    options = re.findall(r"^  -.*", page, re.MULTILINE)
    assert groups[-1] == ("Other" if len(options) > MANY_OPTIONS else "Options"), page
    assert (len(groups) > 3) == (len(options) > MANY_OPTIONS)


@pytest.mark.parametrize("words", [(name,) for name in COMMANDS] + [("cmap", "explain")], ids=" ".join)
def test_a_page_fits_into_80_columns(words: tuple[str, ...]) -> None:
    environment = local_environment({"COLUMNS": "80"})
    page = preloaded.run_text(command(*words, "--help"), env=environment, timeout=60).stdout
    assert page and [line for line in page.splitlines() if len(line) > 80] == []


def test_the_page_of_cmap_names_explain() -> None:
    assert "cmap explain --state FILE" in run("cmap", "--help").stdout
    assert run("cmap", "explain", "-h").stdout.count("\n  cmap explain --state run.journal") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("cmap", "app.pub", "--params", "x.csv", "--seed", "{seed}"),
            "no such option '--seed'; did you mean --send? the program's own arguments come after --: "
            "cmap app.pub --params x.csv -- --seed '{seed}'",
        ),
        (
            ("cmap", "app.pub", "--level={1}", "--tag", ":::", "1", "2"),
            "the program's own arguments come after --: cmap app.pub --tag -- '--level={1}' ::: 1 2",
        ),
        (
            ("cmap", "app.pub", "ls", ":::", "a b"),
            "the program's own arguments come after --: cmap app.pub -- ls ::: 'a b'; "
            "inputs come after :::, and a variable is --peer KEY=VALUE",
        ),
        (("cmap", "--sede", "app.pub"), "no such option '--sede'; did you mean --send? See cmap --help"),
        (("cmap", "app.pub", "--frob", "--", "x"), "no such option '--frob'; see cmap --help"),
        (("cmap", "app.pub", "--stdout", "--tag"), "--stdout needs a value, but the option --tag follows it"),
        (("cmap", "app.pub", "-P", "4"), "no such option '-P': it is -j here"),
        (("cmap", "app.pub", "-S", "host", "--", "x"), "no such option '-S': it is --on, --not and --need here"),
        (
            ("cmap", "--params", "x.csv"),
            "missing argument 'APP.pub', for --params has taken x.csv as its value; see cmap --help",
        ),
        (
            ("cexec", "--on", "app.pub"),
            "missing argument 'APP.pub', for --on has taken app.pub as its value; see cexec --help",
        ),
        (("cexec", "--hold"), "missing argument 'APP.pub'; see cexec --help"),
        (
            ("cservice", "app", "-j", "2", "--once", "cat", "-n"),
            "options come before app: cservice -j 2 --once app cat -n",
        ),
        (("cservice", "app", "-j2", "--name=a b", "cat"), "options come before app: cservice -j2 '--name=a b' app cat"),
        (("cservice", "app", "--version"), "options come before app: cservice --version app"),
        (("cservice", "--name"), "--name needs a value; see cservice --help"),
        (("cps", "--wach"), "no such option '--wach'; did you mean --watch? See cps --help"),
        (("ckeygen", "--shwo", "x"), "no such option '--shwo'; did you mean --show? See ckeygen --help"),
    ],
)
def test_advice_about_a_word_that_is_not_known(words: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    ended = run(*words, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (100, "", f"{words[0]}: {expected}\n")


def test_a_slip_in_the_word_explain_is_no_application(tmp_path: Path) -> None:
    ended = run("cmap", "explian", "--state", "s", cwd=tmp_path)
    assert ended.returncode == 111 and ended.stderr.startswith("cmap: neither explian nor explian.pub exists")
    assert ended.stderr.endswith("; for the account of a run: cmap explain --state FILE\n")
    assert "account" not in run("cmap", "other", cwd=tmp_path).stderr
