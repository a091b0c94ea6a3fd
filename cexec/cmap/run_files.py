"""The files that the options of a run name: which of them may be written, and those that tasks add to.

Contract: `named_files` raises `UsageError` if an output of the run is also an input, the key or another output, or is
something that it cannot be, before anything is opened.  `open_table` opens a file that lines are added to.  It refuses
one that is there, unless the run goes on with it or --overwrite begins it anew, and one that a run of this kind has not
begun.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.cmap.inputs.named_files import NamedFiles
from cexec.cmap.results.appending import AppendFile, cannot_write
from cexec.errors import UsageError
from cexec.system.storage.identity import descriptor_of, identify
from cexec.system.storage.own_files import check_output

if TYPE_CHECKING:
    from cexec.cmap.run_options import Options

TABLES = (".csv", ".jsonl")  # endings of --results that make it one file
STANDARD_INPUT = "-"  # instead of a file's name
JOURNAL_ENDINGS = ("", "-lock", "-journal", "-wal", "-shm")  # files of one journal: ours, and those of SQLite


def results_directory(options: Options) -> str:
    """Returns the directory of --results DIR; empty for a table or nothing."""
    return "" if options.results.endswith(TABLES) else options.results


def named_files(options: Options, key: str) -> NamedFiles:
    """`key` is the path of the key file."""
    files = NamedFiles()
    files.add_standard()
    files.reads("the key", key)
    for path in options.arg_file:
        if path != STANDARD_INPUT:
            files.reads("-a", path)
    if options.params and options.params != STANDARD_INPUT:
        files.reads("--params", options.params)
    for option, words in (("--input", options.input), ("--program", options.program)):
        for word in words:
            files.reads(option, word.partition("=")[2])
    outputs = {"--state": options.state, "--joblog": options.joblog, "--report": options.report}
    if options.results.endswith(TABLES):
        outputs["--results"] = options.results
    given = {option: path for option, path in outputs.items() if path}
    for option, path in given.items():
        _check_kind(option, path)
        for ending in JOURNAL_ENDINGS if option == "--state" else ("",):
            files.writes(option, os.path.realpath(path) + ending if ending else path)
    if directory := results_directory(options):
        files.writes("--results", directory)
        for option, path in given.items():
            if _is_in(path, directory):
                raise UsageError(f"{option} {path} would be the result of a row in --results {directory}")
    return files


def open_table(path: str, option: str, header: bytes, *, overwrite: bool, resumed: bool) -> AppendFile:
    """`header` is the line, or the begin of a line, that such a file begins with."""
    anew = False
    if descriptor_of(path) is None and os.path.isfile(path) and os.path.getsize(path):
        if not overwrite and not resumed:
            raise UsageError(
                f"{option} {path} exists already; remove it, or add --overwrite; --resume goes on with a run that had "
                "--state"
            )
        if resumed and _begin(path, len(header)) != header:
            raise UsageError(f"{option} {path} does not begin as one of this run would; give another name")
        anew = not resumed
    return AppendFile.open(path, header if header.endswith(b"\n") else b"", anew=anew)


def _begin(path: str, size: int) -> bytes:
    try:
        check_output(path)  # before it is opened: a FIFO of another user would be waited for
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise cannot_write(path, error) from None


def _check_kind(option: str, path: str) -> None:
    special = identify(path).special
    if special == "a directory" or (special and option == "--state"):
        raise UsageError(f"{option} {path} is {special}, but must be a file")


def _is_in(path: str, directory: str) -> bool:
    """Returns True for a name that a row's result gets in the directory of --results."""
    whole, place = os.path.realpath(path), os.path.realpath(directory)
    return os.path.dirname(whole) == place and os.path.basename(whole).isdecimal()
