"""What is said before the first task starts."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

from cexec.cmap.inputs.checks import check_block_task, check_blocks, check_rows
from cexec.cmap.inputs.result_checks import ResultRules
from cexec.cmap.inputs.sources import Reading, table_from
from cexec.cmap.inputs.tables import Table
from cexec.cmap.inputs.task_plan import Plan, Work
from cexec.cmap.inputs.tasks import Task
from cexec.errors import UsageError


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(*given: str) -> Table:
    return table_from(inputs=[(":::", list(given))])


def check(work: Work, table: Table, numbers: list[int] | None = None) -> None:
    check_rows(Plan(work, table), numbers or range(1, len(table) + 1))


def refused(message: str, work: Work, table: Table, numbers: list[int] | None = None) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        check(work, table, numbers)
    assert caught.value.exit_status == 100


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)


def test_what_is_right_is_let_through() -> None:
    make("a.wav", "b.wav")
    check(Work(stdin="{}", stdout="{.}.ogg", stderr="{.}.err", arguments=["{/}"]), words("a.wav", "b.wav"))
    check(Work(), words("a", "b"))
    check(Work(), words())


def test_names_of_files_as_standard_input_are_hardly_meant() -> None:
    make("a.wav", "b.wav")
    refused("(a.wav)", Work(), words("a.wav", "b.wav"))
    refused("add --stdin '{}' for the content", Work(stdout="{.}.ogg"), words("a.wav", "b.wav"))
    check(Work(), words("a.wav", "no file"))
    check(Work(stdin_text="{}"), words("a.wav", "b.wav"))
    check(Work(arguments=["{}"]), words("a.wav", "b.wav"))
    check(Work(), words("with\0nul"))


def test_an_input_that_cannot_be_read_is_told_with_its_row() -> None:
    make("a", "b", "d/x")
    refused("row 3: cannot read c: no such file or directory", Work(stdin="{}"), words("a", "b", "c"))
    refused("row 2: cannot read d: is a directory", Work(stdin="{}"), words("a", "d"))
    refused("row 2: cannot read c: no such file", Work(arguments=["x"], sends=["{}"]), words("a", "c"))
    refused("row 1: the name of an input file is empty", Work(stdin="{}"), words(""))
    refused("row 1: the name of an input file cannot contain a NUL byte", Work(stdin="{}"), words("a\0b"))
    refused("row 1: cannot read same", Work(stdin="same", arguments=["{}"]), words("a", "b"))


def test_an_input_that_may_not_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    make("a")
    os.chmod("a", 0)
    if os.access("a", os.R_OK):  # root may read everything: only the system can say no to it
        monkeypatch.setattr(os, "access", lambda *_: False)
        monkeypatch.setattr("builtins.open", _denied)
    refused("row 1: cannot read a: permission denied", Work(stdin="{}"), words("a"))


def _denied(*_: object) -> None:
    raise PermissionError(13, "")


def test_an_input_that_is_the_same_for_all_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    make("same")
    looked: list[object] = []
    access = os.access

    def noted(path: str, mode: int) -> bool:
        looked.append(path)
        return access(path, mode)

    monkeypatch.setattr(os, "access", noted)
    check(Work(stdin="same", arguments=["{}"]), words("a", "b", "c"))
    assert looked == ["same"]


def test_two_rows_with_one_result_are_told() -> None:
    make("d/x", "x/y")
    refused("rows 1 and 3 have the same result d/a.out", Work(stdout="d/{/.}.out"), words("x/a", "b", "y/a"))
    refused("rows 1 and 2 have the same result fixed", Work(stdout="fixed"), words("a", "b"))
    refused("rows 1 and 2 have the same result ./a (also called a)", Work(stdout="{1}"), words("a", "./a"))
    refused("rows 1 and 2 have the same result d//a (also called d/a)", Work(stdout="{1}"), words("d/a", "d//a"))
    refused("row 1 has the result a.x twice", Work(stdout="{}.x", stderr="{}.x"), words("a"))
    refused("rows 1 and 2 have the same result x.b", Work(stdout="{}.b", fetches=["f={//}.b"]), words("x", "x/c"))
    check(Work(stdout="fixed"), words("a"))


def test_names_that_show_no_cell_need_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    make("a", "2.out")
    table = table_from(params="-", stdin=io.BytesIO(b"id,name\n1,a\n2,b\n"))
    work = Work(stdin="a", stdout="{#}.out", arguments=["{id}"])
    refused("row 2: result 2.out exists already", work, table)
    monkeypatch.setattr(table, "row", None)
    check(work, table, [1])
    refused("rows 1 and 2 have the same result 1", Work(stdout="1", arguments=["{id}"]), table)
    with pytest.raises(TypeError):
        check(Work(stdout="{#}-{id}", arguments=["{id}"]), table)


def test_rows_that_are_not_chosen_do_not_count() -> None:
    table = words("a", "a", "b")
    check(Work(stdout="{}.out"), table, [2, 3])
    refused("rows 1 and 2", Work(stdout="{}.out"), table, [1, 2])


def test_different_names_with_one_hash_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cexec.cmap.inputs.result_checks.hash", lambda _: 1, raising=False)
    check(Work(stdout="{}.out"), words("a", "b", "c"))
    refused("rows 2 and 3", Work(stdout="{}.out"), words("a", "b", "b"))


def test_a_result_that_is_there_is_told_with_its_row() -> None:
    make("b.out", "d/c")
    refused("row 2: result b.out exists already; remove it, or add --overwrite", Work(stdout="{}.out"), words("a", "b"))
    refused("row 1: result d/c exists already", Work(fetches=["x=d/{}"], arguments=["{}"]), words("c"))
    os.symlink("nowhere", "link")
    refused("row 1: result link exists already", Work(stdout="{}"), words("link"))


def test_a_result_that_is_there_is_right_where_a_journal_knows_its_task() -> None:
    make("a.out", "b.out")
    plan = Plan(Work(stdout="{}.out"), words("a", "b"))
    asked: list[int] = []

    def finished(task: Task) -> bool:
        asked.append(task.number)
        return task.label == "a"

    with pytest.raises(UsageError, match=r"row 2: result b\.out exists already"):
        check_rows(plan, [1, 2], ResultRules(finished=finished))
    assert asked == [1, 2]


def test_a_directory_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    make("file")
    refused("row 2: result no/b: there is no directory no; make it first", Work(stdout="{}"), words("a", "no/b"))
    refused("row 1: result file/b: there is no directory file", Work(stdout="{}"), words("file/b"))
    os.mkdir("closed")
    monkeypatch.setattr(os, "access", lambda path, _: path != "closed")
    message = "row 1: result closed/a: directory closed cannot be written: permission denied"
    refused(message, Work(stdout="closed/{}"), words("a"))


def test_a_result_needs_the_name_of_a_file() -> None:
    for name in ("", "d/", ".", "d/..", "a\0b"):
        refused("is no name for a file", Work(stdout="{}"), words(name))


def test_arguments_that_no_job_can_be_given() -> None:
    table = table_from(stdin=io.BytesIO(b"ok\na\0b\n"))
    refused("row 2: an argument cannot contain a NUL byte", Work(arguments=["{}"]), table)
    refused("row 2: an argument cannot contain a NUL byte", Work(peers=["A={}"]), table)
    check(Work(), table)
    long = words("x", "y" * 200_000)
    refused("row 2: its arguments are 200005 bytes and at most", Work(arguments=["-{}"]), long)
    refused("row 1: argument 2 is 150000 bytes and can be 131071", Work(arguments=["a", "{}"]), words("y" * 150_000))
    refused("row 1: its arguments are", Work(arguments=["{}", "y" * 200_000]), words("x"))
    check(Work(arguments=["{#}"], stdin_text="{}"), long)


LONGEST = 131_071  # bytes of an argument, or of NAME=VALUE, without the NUL at its end


def test_what_the_kernel_refuses_as_an_argument_is_told() -> None:
    """Regression: execve failed with E2BIG on each worker."""
    check(Work(arguments=["{}"]), words("y" * LONGEST))
    refused(
        "argument 1 is 131072 bytes and can be 131071; use --stdin-text",
        Work(arguments=["{}"]),
        words("y" * (LONGEST + 1)),
    )
    value = "y" * (LONGEST - len("PEER_N="))
    check(Work(peers=["N={}"]), words(value))
    refused("row 1: variable PEER_N is 131065 bytes and can be 131064", Work(peers=["N={}"]), words(value + "y"))


def test_a_row_that_no_program_here_can_be_given_is_told() -> None:
    """Regression: --validate rejected each result of such a row with `argument list too long`."""
    data = b"text,b\n%s,1\n%s,1\n" % (b"x" * (LONGEST - len("PARAM_text=")), b"x" * LONGEST)
    table = table_from(params="-", stdin=io.BytesIO(data))
    plan = Plan(Work(stdin_text="{text}"), table)
    check_rows(plan, [1], has_variables=True)
    check_rows(plan, [1, 2])
    with pytest.raises(
        UsageError, match=r"row 2: variable PARAM_text is 131071 bytes and can be 131060, so neither --val"
    ):
        check_rows(plan, [1, 2], has_variables=True)
    columns = [f"c{number}" for number in range(100)]
    data = b"\t".join(name.encode() for name in columns) + b"\n" + b"\t".join([b"x" * 100_000] * 100) + b"\n"
    plan = Plan(Work(stdin_text="{c1}"), table_from(params="-", stdin=io.BytesIO(data)))
    with pytest.raises(UsageError, match=r"row 1: variables are \d+ bytes together and can be \d+, so neither"):
        check_rows(plan, [1], has_variables=True)


def test_names_of_files_on_the_worker() -> None:
    make("d/a", "e/a", "t")
    refused("row 1: two files of the job are called a", Work(sends=["{1}", "{2}"]), _linked(["d/a"], ["e/a"]))
    refused("row 1: two files of the job are called a", Work(sends=["{}"], inputs=["a=t"]), words("d/a"))
    refused("row 1: '../x' cannot be a file of a job", Work(fetches=["../{}=o{}"]), words("x"))
    refused("row 1: '/x' cannot be a file of a job", Work(fetches=["/{}=o{}"]), words("x"))
    refused("row 2: '' cannot be a file of a job", Work(fetches=["{}=o{#}"]), words("x", ""))
    refused("cannot be called stdout or stderr", Work(fetches=["stdout=o{#}"]), words("x"))
    refused("row 2: two files of the job are called c", Work(fetches=["{}=1{#}", "c=2{#}"]), words("b", "c"))
    check(Work(sends=["{}"], fetches=["a=o"]), words("d/a"))


def test_names_that_no_worker_takes_are_told() -> None:
    """Regression: `internal error: UnicodeEncodeError`, after the run had begun."""
    make("d/a", "t", "x" * 255)
    Path("f\udcff").touch()
    refused("row 1: 'f\\udcff' cannot be a file of a job: it is not UTF-8", Work(sends=["{}"]), words("f\udcff"))
    refused("row 1: 'f\\udcff' cannot be a file of a job: it is not UTF-8", Work(fetches=["{}=o"]), words("f\udcff"))
    refused("cannot be a file of a job: at most 255 bytes", Work(inputs=["{}=t"]), words("x" * 256))
    check(Work(sends=["{}"]), words("x" * 255))


def test_more_files_than_a_job_can_have_are_told() -> None:
    """Regression: `internal error`, after the run had begun."""
    os.mkdir("d")
    names = [f"d/{number}".ljust(200, "x") for number in range(800)]
    make(*names)
    for count, message in ((767, ""), (768, "row 1: at most 767 files can go with a job; pack them with tar")):
        table = table_from(inputs=[(":::", names[:count])], reading=Reading(group=1000))
        if message:
            refused(message, Work(sends=["{}"]), table)
        else:
            check(Work(sends=["{}"]), table)
    long = [f"d/{number}".ljust(252, "x") for number in range(700)]
    make(*long)
    table = table_from(inputs=[(":::", long)], reading=Reading(group=1000))
    refused(
        "row 1: its arguments and the names of its files are too long",
        Work(sends=["{}"], arguments=["a" * 15_000]),
        table,
    )


def _linked(*columns: list[str]) -> Table:
    first, *others = columns
    return table_from(inputs=[(":::", first), *((":::+", other) for other in others)])


def test_results_of_blocks_need_the_number() -> None:
    check_blocks(Plan(Work(stdout="{#}.out"), None))
    check_blocks(Plan(Work(), None))
    with pytest.raises(UsageError, match="'out' would be the result of every block"):
        check_blocks(Plan(Work(stdout="out"), None))
    with pytest.raises(UsageError, match="there is no directory no"):
        check_blocks(Plan(Work(stdout="no/{#}"), None))


def test_the_result_of_a_block_that_is_there_is_told() -> None:
    make("2.out")
    plan = Plan(Work(stdout="{#}.out"), None)
    check_block_task(plan.block_task(1, b"x"), ResultRules())
    with pytest.raises(UsageError, match=r"block 2: result 2\.out exists already"):
        check_block_task(plan.block_task(2, b"x"), ResultRules())
