"""Wheels from the package index, by `pip download`.

Contract: `download` puts the wheels of some requirements for a target into a directory; those that the index has not
are missing there afterwards, and the text that it returns says why.  Which index that is, is pip's configuration.  pip
is that of this Python, else of the PATH; where there is none, a virtual environment with one is made.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from cexec.boot.target import WheelTarget

PATIENCE = 300.0  # seconds (ours) that pip may take
NOT_THERE = "the package index has none"
_ALWAYS = ("--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--no-input")


def download(wanted: list[Requirement], target: WheelTarget, directory: Path) -> str:
    """Tries all at once, and, because pip fetches nothing if one is missing, then each alone."""
    pip = find_pip(directory)
    if pip is None:
        return "there is no pip here that could ask the index"
    words = [_without_marker(one) for one in wanted]
    failure = _run(pip, words, target, directory)
    if failure and len(words) > 1:
        failures = [_run(pip, [word], target, directory) for word in words]
        failure = next(filter(None, failures), "")
    return failure


def find_pip(directory: Path) -> list[str] | None:
    """Returns the words that run pip."""
    candidates = [[sys.executable, "-m", "pip"]]
    candidates += [[path] for path in map(shutil.which, ("pip3", "pip")) if path is not None]
    for words in candidates:
        if outcome_of([*words, "--version"]).returncode == 0:
            return words
    made = directory / "pip"
    if outcome_of([sys.executable, "-m", "venv", str(made)]).returncode == 0:
        return [str(made / "bin" / "python"), "-m", "pip"]
    return None


def _run(pip: list[str], words: list[str], target: WheelTarget, directory: Path) -> str:
    """Returns why pip has failed; empty if it has not."""
    ended = outcome_of([*pip, "download", *_ALWAYS, *target.pip_words, "--dest", str(directory), *words])
    if ended.returncode == 0:
        return ""
    lines = [line.strip() for line in ended.stderr.splitlines() if line.startswith("ERROR:")]
    if any("No matching distribution" in line for line in lines):
        return NOT_THERE
    last = (lines or ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"pip failed: {last.removeprefix('ERROR:').strip()[:200]}"


def _without_marker(one: Requirement) -> str:
    """pip would compare the marker with this machine, and we have compared it with the host."""
    return f"{one.name}{one.specifier}"


def outcome_of(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 1, "", str(error))
