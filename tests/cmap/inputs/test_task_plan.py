"""Options and a row become a task."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.inputs.shell_commands import Call
from cexec.cmap.inputs.sources import Reading, table_from
from cexec.cmap.inputs.store import Spool
from cexec.cmap.inputs.tables import Table
from cexec.cmap.inputs.task_plan import Plan, Work, dry_run
from cexec.cmap.inputs.tasks import BLOCK, DATA, NOTHING, PATH, SHARED
from cexec.errors import UsageError


def words(*given: str) -> Table:
    return table_from(inputs=[(":::", list(given))])


def parameters(text: str) -> Table:
    return table_from(params="-", stdin=io.BytesIO(text.encode()))


def test_everything_that_a_job_is_given_is_filled_in(tmp_path: Path) -> None:
    template = tmp_path / "template.ini"
    template.write_text("[run]\nx = {x}\nname = {{x}} {#}\n")
    work = Work(
        arguments=["--x", "{x}", "a {y} b"],
        stdin="in/{y}.dat",
        peers=["KEY={x}", "OTHER=a=b"],
        sends=["data/{y}"],
        inputs=[f"run-{{x}}.ini={template}"],
        stdout="{#}.out",
        stderr="{y}.err",
        fetches=["picture.png=results/{x}.png"],
    )
    task = Plan(work, parameters("x,y\n1,one\n2,two\n")).task(2)
    assert task.number == 2
    assert task.arguments == [b"--x", b"2", b"a two b"]
    assert (task.stdin.kind, task.stdin.path) == (PATH, "in/two.dat")
    assert task.environment == {"KEY": b"2", "OTHER": b"a=b"}
    assert task.sends == [("two", "data/two")]
    assert task.texts == [("run-2.ini", b"[run]\nx = 2\nname = {x} 2\n")]
    assert [(r.kind, r.name, r.path) for r in task.results] == [
        ("stdout", "", "2.out"), ("stderr", "", "two.err"), ("file", "picture.png", "results/2.png"),
    ]  # fmt: skip
    assert task.parameters == {"x": "2", "y": "two"}
    assert task.label == "2,two"


def test_each_placeholder_stays_one_argument_whatever_is_in_it() -> None:
    nasty = "a b; rm -rf $HOME `x` 'y' \"z\" * \udcff\n"
    task = Plan(Work(arguments=["{}", "x{}", "{1}"]), words(nasty)).task(1)
    data = nasty.encode("utf-8", "surrogateescape")
    assert task.arguments == [data, b"x" + data, data]


def test_several_inputs_become_several_arguments() -> None:
    table = table_from(inputs=[(":::", ["a b", "c", "d"])], reading=Reading(group=2))
    plan = Plan(Work(arguments=["-f", "{}"], sends=["{}"]), table)
    assert plan.task(1).arguments == [b"-f", b"a b", b"c"]
    assert plan.task(2).arguments == [b"-f", b"d"]
    assert plan.task(1).sends == [("a b", "a b"), ("c", "c")]
    assert plan.task(1).label == "a b c"


def test_the_input_is_standard_input_when_nothing_else_uses_it() -> None:
    for work in (Work(), Work(arguments=["-v"]), Work(stdout="{}.out"), Work(peers=["A=b"])):
        plan = Plan(work, words("one", "two words"))
        assert plan.lines_are_stdin
        assert (plan.task(2).stdin.kind, plan.task(2).stdin.data) == (DATA, b"two words\n")


@pytest.mark.parametrize(
    "work",
    [
        Work(arguments=["{}"]),
        Work(arguments=["x{#}"]),
        Work(peers=["A={1}"]),
        Work(sends=["{}"]),
        Work(fetches=["{}.out={}.result"]),
    ],
)
def test_standard_input_is_empty_when_something_uses_the_input(work: Work) -> None:
    plan = Plan(work, words("a"))
    assert not plan.lines_are_stdin
    assert plan.task(1).stdin.kind == NOTHING


def test_what_the_input_itself_is() -> None:
    assert (
        Plan(Work(), table_from(stdin=io.BytesIO(b"a\nb\0c\0"), reading=Reading(null=True))).task(1).stdin.data
        == b"a\nb\0"
    )
    assert (
        Plan(Work(), table_from(stdin=io.BytesIO(b"a\nb\nc\n"), reading=Reading(group=2))).task(1).stdin.data
        == b"a\nb\n"
    )
    assert Plan(Work(), parameters('a,b\n1,"x\ny"\n')).task(1).stdin.data == b'1,"x\ny"\n'
    assert Plan(Work(), parameters('{"a": 1}\n')).task(1).stdin.data == b'{"a": 1}\n'
    assert Plan(Work(), table_from(slices=3)).task(2).stdin.data == b"2 3\n"
    assert Plan(Work(), table_from(array_members=[range(5, 7)])).task(2).stdin.data == b"6\n"


def test_standard_input_may_be_a_text() -> None:
    task = Plan(Work(stdin_text="{x}\n{y}"), parameters("x,y\n1,2\n")).task(1)
    assert (task.stdin.kind, task.stdin.data) == (DATA, b"1\n2")


def test_standard_input_may_be_the_same_for_all() -> None:
    spool = Spool()
    plan = Plan(Work(arguments=["{}"]), words("a", "b"), shared=spool, shared_hash=b"hash")
    assert (plan.task(1).stdin.kind, plan.task(1).stdin.data) == (SHARED, b"hash")
    assert plan.task(1).stdin.spool is plan.task(2).stdin.spool is spool
    assert not Plan(Work(), words("a"), shared=spool).lines_are_stdin


def test_blocks() -> None:
    task = Plan(Work(arguments=["{#}"], stdout="{#}.out"), None).block_task(4, b"data")
    assert (task.number, task.arguments, task.results[0].path) == (4, [b"4"], "4.out")
    assert (task.stdin.kind, task.stdin.data) == (BLOCK, b"data")


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (Work(arguments=["{y}"]), "{y}: there is no such column; the columns are 1"),
        (Work(stdout="{z}"), "{z}: there is no such column"),
        (Work(stdin="a", stdin_text="b"), "--stdin and --stdin-text cannot be used together"),
        (Work(peers=["KEY"]), "--peer is 'KEY', but must be KEY=TEXT"),
        (Work(peers=["9K=x"]), "--peer is '9K=x'"),
        (Work(peers=["=x"]), "--peer is '=x'"),
        (Work(peers=["K" * 65 + "=x"]), "--peer is"),
        (Work(fetches=["name"]), "--fetch is 'name', but must be NAME=FILE"),
        (Work(fetches=["=x"]), "--fetch is '=x'"),
        (Work(inputs=["name="]), "--input is 'name=', but must be NAME=TEMPLATE-FILE"),
        (Work(inputs=["name=/nonexistent"]), "cannot read /nonexistent: no such file"),
    ],
)
def test_mistakes_are_told(work: Work, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Plan(work, words("a"))


def test_contradictions_about_standard_input() -> None:
    with pytest.raises(UsageError, match="--stdin and --tee cannot be used together"):
        Plan(Work(stdin="a"), words("a"), shared=Spool())
    with pytest.raises(UsageError, match="--stdin-text and --pipe cannot be used together"):
        Plan(Work(stdin_text="a"), None)
    with pytest.raises(UsageError, match=r"only \{#\} has a meaning"):
        Plan(Work(arguments=["{}"]), None)


def test_a_template_file_with_an_unknown_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("{nothing}")
    with pytest.raises(UsageError, match=f"{re.escape(str(path))}: .nothing.: there is no such column"):
        Plan(Work(inputs=[f"a={path}"]), words("a"))


def test_a_template_file_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"\xff\r\n{}\n")
    assert Plan(Work(inputs=[f"a={path}"]), words("x")).task(1).texts == [("a", b"\xff\r\nx\n")]


def test_a_dry_run_has_a_line_for_each_task() -> None:
    plan = Plan(Work(arguments=["{}"]), words("a b", "c"))
    lines = ["cexec -n app.pub -- 'a b'", "cexec -n app.pub -- c"]
    assert list(dry_run(plan, [1, 2], Call("app.pub"))) == lines


def test_the_slot_of_a_task() -> None:
    """It is filled in when the task is given to a worker, and does not count for the task's identity."""
    plan = Plan(Work(arguments=["-s{%}", "{}"], peers=["SLOT={%}"], stdin_text="{%}"), words("a", "b"))
    task = plan.task(2)
    assert (task.arguments, task.environment, task.stdin.data) == ([b"-s{%}", b"b"], {"SLOT": b"{%}"}, b"{%}")
    given = plan.with_slot(task, 5)
    assert (given.arguments, given.environment, given.stdin.data) == ([b"-s5", b"b"], {"SLOT": b"5"}, b"5")
    without = Plan(Work(arguments=["{}"]), words("a"))
    assert without.with_slot(task, 5) is task
    block = Plan(Work(arguments=["{%}"]), None)
    assert block.with_slot(block.block_task(1, b"data"), 2).arguments == [b"2"]


def test_a_task_that_sees_its_slot_alone_has_its_input_as_standard_input() -> None:
    assert Plan(Work(arguments=["{%}"]), words("a")).task(1).stdin.data == b"a\n"


@pytest.mark.parametrize("options", [{"stdout": "out{%}"}, {"sends": ["{%}"]}, {"tag": "{%}"}, {"fetches": ["a=b{%}"]}])
def test_the_slot_cannot_be_in_names(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="it can stand in arguments, --peer and --stdin-text only"):
        Plan(Work(**options), words("a"))


def test_the_tag_of_a_task() -> None:
    assert Plan(Work(arguments=["{}"]), words("a b")).task(1).tag == "a b"
    task = Plan(Work(arguments=["{}"], tag="{#}: {1.}"), words("x.y")).task(1)
    assert (task.tag, task.label) == ("1: x", "x.y")
