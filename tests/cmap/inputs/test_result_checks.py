"""No result of a row replaces anything: another row's, what is there, an input, another output of the run."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from cexec.cmap.inputs.checks import check_block_task, check_rows
from cexec.cmap.inputs.named_files import NamedFiles
from cexec.cmap.inputs.result_checks import ResultRules
from cexec.cmap.inputs.sources import table_from
from cexec.cmap.inputs.tables import Table
from cexec.cmap.inputs.task_plan import Plan, Work
from cexec.errors import UsageError


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("d")
    os.symlink("d", "link")


OUT = Work(stdout="{}", arguments=["{}"])


def words(*given: str) -> Table:
    return table_from(inputs=[(":::", list(given))])


def check(work: Work, table: Table, **rules: object) -> None:
    check_rows(Plan(work, table), range(1, len(table) + 1), ResultRules(**rules))  # type: ignore[arg-type]


def refused(message: str, work: Work, table: Table, **rules: object) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        check(work, table, **rules)


def test_rows_whose_results_meet_through_a_link_to_a_directory_are_told() -> None:
    """Regression: the later row replaced the result of the earlier one."""
    refused("rows 1 and 2 have the same result link/a (also called d/a)", OUT, words("d/a", "link/a"))
    refused("have the same result", OUT, words("a", f"{os.getcwd()}/d/../a"))
    refused("row 1 has the result link/x twice", Work(stdout="d/x", stderr="link/x"), words("a"))
    os.symlink(os.getcwd(), "d/back")
    refused("have the same result", Work(stdout="{}/x"), words("d", "link/back/d"))
    check(OUT, words("d/a", "link/b", "a", "b"))


def test_results_that_are_links_to_one_file_are_told() -> None:
    for name in ("one", "two"):
        os.symlink("d/target", name)
    refused("rows 1 and 2 have the same result two", OUT, words("one", "two"), overwrite=True)
    refused("rows 1 and 2 have the same result d/target", OUT, words("one", "d/target"), overwrite=True)


def test_what_is_no_file_is_never_replaced() -> None:
    """A result gets its name when it is complete, so it cannot be written to what is there."""
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
    os.symlink("/dev/null", "null")
    os.symlink("nowhere/at/all", "dangling")
    for name, kind in (("fifo", "a FIFO"), ("socket", "a socket"), ("null", "a device"), ("d", "a directory")):
        for overwrite in (False, True):
            refused(f"row 1: result {name} is {kind}; ", OUT, words(name), overwrite=overwrite)
    refused("is a link that leads nowhere", OUT, words("dangling"), overwrite=True)
    for name in ("/dev/stdout", "/dev/fd/2", "/proc/self/fd/1"):
        refused(f"row 1: result {name} is our own descriptor; ", OUT, words(name))
    check(Work(stdout="/dev/null", stderr="/dev/null"), words("a", "b"))


def test_overwrite_replaces_results_but_never_an_input() -> None:
    for name in ("in", "out", "sent"):
        Path(name).write_text(name)
    os.link("in", "hard")
    os.symlink("in", "soft")
    check(Work(stdin="in", stdout="{}", sends=["sent"]), words("out"), overwrite=True)
    for name, path in (("in", "in"), ("hard", "in"), ("soft", "in"), ("sent", "sent")):
        message = f"row 1: input {path} is also the result of row 1"
        refused(message, Work(stdin="in", stdout="{}", sends=["sent"]), words(name), overwrite=True)
    refused("row 2: input out is also the result of row 1", Work(stdin="{1}", stdout="{2}"), _pairs(), overwrite=True)


def _pairs() -> Table:
    return table_from(inputs=[(":::", ["in", "out"]), (":::+", ["out", "new"])])


def test_a_result_is_no_other_file_of_the_run() -> None:
    Path("key.pub").write_text("key")
    os.link("key.pub", "d/hard")
    Path("log").write_text("")
    files = NamedFiles()
    files.reads("the key", "key.pub")
    files.writes("--joblog", "log")
    files.writes("--state", "d/state")
    for overwrite in (False, True):
        for name, role in (
            ("key.pub", "the key key.pub"), ("link/hard", "the key key.pub"), ("log", "--joblog log"),
            ("link/state", "--state d/state"),
        ):  # fmt: skip
            refused(f"result {name} is the same file as {role}", OUT, words(name), files=files,
                    overwrite=overwrite)  # fmt: skip
    refused("input log is the same file as --joblog log", Work(stdin="{}"), words("log"), files=files)
    refused("input ./log is the same file as --joblog log", Work(sends=["./log"]), words("x"), files=files)
    check(Work(stdin="{}", arguments=["x"]), words("key.pub"), files=files)


def test_a_result_is_not_among_those_of_the_directory_of_results() -> None:
    refused("result link/7 would be among those of --results", Work(stdout="link/{}"), words("7"), kept_in="d")
    check(Work(stdout="d/{}.out"), words("7"), kept_in="d")


def test_an_input_is_not_among_the_results_that_are_removed() -> None:
    os.makedirs("d/1")
    Path("d/1/stdout").write_text("x")
    Path("d/2").write_text("x")
    work = Work(stdin="{}")
    for name in ("d/1/stdout", "link/1/stdout"):
        refused(f"row 1: input {name} is among the results that --overwrite removes", work, words(name), kept_in="d",
                overwrite=True)  # fmt: skip
        check(work, words(name), kept_in="d")
    check(work, words("d/2"), kept_in="d", overwrite=True)


def test_after_an_input_was_touched_resume_is_not_the_advice() -> None:
    """Regression: with --resume the message said: go on with --state FILE --resume."""
    Path("out").write_text("x")
    with pytest.raises(
        UsageError, match=r"the journal knows no such task.*input or command may have changed"
    ) as caught:
        check(OUT, words("out"), resumed=True)
    assert "--resume" not in str(caught.value)
    assert "--overwrite" in str(caught.value)
    check(OUT, words("out"), resumed=True, overwrite=True)


def test_blocks_are_looked_at_one_by_one() -> None:
    for name in ("2.out", "3.out"):
        Path(name).write_text("x")
    os.mkfifo("4.out")
    files = NamedFiles()
    files.writes("--joblog", "3.out")
    twice = Plan(Work(stdout="d/{#}", stderr="link/{#}"), None)
    with pytest.raises(UsageError, match="block 1 has the result link/1 twice; names must differ"):
        check_block_task(twice.block_task(1, b"x"), ResultRules())
    files.writes("--report", "5.out")
    with pytest.raises(UsageError, match=r"block 5: result 5\.out is the same file as --report 5\.out"):
        check_block_task(Plan(Work(stdout="{#}.out"), None).block_task(5, b"x"), ResultRules(files=files))
    plan, rules = Plan(Work(stdout="{#}.out"), None), ResultRules(files=files, overwrite=True)
    check_block_task(plan.block_task(2, b"x"), rules)
    for number, message in ((3, "is the same file as --joblog 3.out"), (4, "is a FIFO")):
        with pytest.raises(UsageError, match=f"block {number}: result {number}.out {message}"):
            check_block_task(plan.block_task(number, b"x"), rules)
