"""Commands of tasks: what they say, and what shells make of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cexec.cmap.inputs.shell_commands import LONGEST_SHARED, Call, shell_command, short_command
from cexec.cmap.inputs.store import Spool
from cexec.cmap.inputs.tasks import BLOCK, DATA, FILE, NOTHING, PATH, SHARED, STDERR, STDOUT, Result, Task, TaskInput
from cexec.errors import UsageError

CALL = Call("app.pub")
# Says its arguments, the files that are sent, and its standard input, which is never the script.
FAKE = r"""#!/bin/sh
for word; do
    case $before in --send) echo "sent ${word##*=}:"; cat "${word%=*}"; echo;; *) printf '<%s>\n' "$word";; esac
    before=$word
done
test "$1" = -n || cat
"""


def task(number: int = 1, **given: object) -> Task:
    given.setdefault("stdin", TaskInput(NOTHING))
    return Task(number, **given)  # type: ignore[arg-type]


@pytest.fixture(params=["sh", "bash"])
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shell that finds the fake cexec in its PATH."""
    monkeypatch.chdir(tmp_path)
    Path("bin").mkdir()
    Path("bin/cexec").write_text(FAKE)
    Path("bin/cexec").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return str(request.param)


def said(shell: str, *commands: str) -> bytes:
    """What the commands write as a script on the shell's standard input."""
    script = b"\n".join(os.fsencode(command) for command in commands) + b"\n"
    return subprocess.run([shell], input=script, capture_output=True, check=True).stdout


def test_a_command_is_a_call_of_cexec() -> None:
    whole = task(
        stdin=TaskInput(PATH, path="in put"),
        arguments=[b"-x", b"a b", b"$HOME"],
        environment={"KEY": b"v w"},
        sends=[("f", "dir/f")],
        texts=[("run.ini", b"x=1")],
        results=[Result(STDOUT, "o;ut"), Result(STDERR, "err"), Result(FILE, "there", "here")],
    )
    assert short_command(whole, "app.pub") == (
        "cexec --send dir/f --fetch here=there --no-fetch-on-failure --input run.ini app.pub 'KEY=v w' "
        "-- -x 'a b' '$HOME' < 'in put' > 'o;ut' 2> err"
    )
    assert shell_command(task(), CALL) == short_command(task(), "app.pub") == "cexec -n app.pub"
    assert short_command(task(3, stdin=TaskInput(BLOCK, data=b"x")), "a") == "cexec a < block-3"
    call = Call("app.pub", ("--need", "gpu,arch=x"))
    assert shell_command(task(), call) == "cexec --need gpu,arch=x -n app.pub"


@pytest.mark.parametrize(
    "data", [b"a 'b' %s\\n\n", b"-n\n", b"a\0b\0", b"-\0%d\\0\xff\n", b"\xff\x81\x88$(x)", b"x" * 300_000, b"\n\n"]
)
def test_standard_input_is_what_it_is_in_cmap(shell: str, data: bytes) -> None:
    command = shell_command(task(stdin=TaskInput(DATA, data=data), arguments=[b"x"]), CALL)
    assert said(shell, command) == b"<app.pub>\n<-->\n<x>\n" + data


@pytest.mark.parametrize("stdin", [TaskInput(NOTHING), TaskInput(DATA)])
def test_a_command_without_input_does_not_read_the_script(shell: str, stdin: TaskInput) -> None:
    """Regression: the first cexec took the other commands for its standard input."""
    commands = [shell_command(task(stdin=stdin, arguments=[word]), CALL) for word in (b"1", b"2")]
    assert said(shell, *commands) == b"".join(b"<-n>\n<app.pub>\n<-->\n<%s>\n" % word for word in (b"1", b"2"))


@pytest.mark.parametrize(
    "word", [b"", b"-x", b"--", b"x'y", b"\xff\x81", b"$(false)", b"a\nb", b"*", b"\\", b"\t", b"a  b", b"~", b"# c"]
)
def test_arguments_stay_as_they_are(shell: str, word: bytes) -> None:
    given = task(arguments=[word, b"end"], environment={"A": word})
    expected = b"<-n>\n<app.pub>\n<A=%s>\n<-->\n<%s>\n<end>\n" % (word, word)
    assert said(shell, shell_command(given, CALL)) == expected


@pytest.mark.parametrize("path", ["plain", "a b", "-x", "it's", "new\nline", "$HOME", "\udcff", "x=1"])
def test_files_of_redirections(shell: str, path: str) -> None:
    Path(path).write_text("content")
    copied = task(stdin=TaskInput(PATH, path=path), results=[Result(STDOUT, f"{path}.out"), Result(STDERR, "err")])
    assert said(shell, shell_command(copied, CALL)) == b""
    assert Path(f"{path}.out").read_text() == "<app.pub>\ncontent"
    assert Path("err").read_bytes() == b""


def test_files_made_from_templates_are_there_and_go_away(shell: str, tmp_path: Path) -> None:
    """Regression: --dry-run printed --input, which cexec has not."""
    texts = [("run.ini", b"size = 1\n"), ("it's", b"\0-\xff"), ("empty", b"")]
    command = shell_command(task(texts=texts, stdin=TaskInput(DATA, data=b"in")), CALL)
    expected = b"<--send>\nsent run.ini:\nsize = 1\n\n<--send>\nsent it's:\n\0-\xff\n<--send>\nsent empty:\n\n"
    assert said(shell, command) == expected + b"<app.pub>\nin"
    assert os.listdir(tmp_path) == ["bin"]


def test_the_status_of_a_command_is_that_of_cexec(shell: str) -> None:
    Path("bin/cexec").write_text("#!/bin/sh\nexit 7\n")
    for given in (task(), task(stdin=TaskInput(DATA, data=b"x")), task(texts=[("a", b"b")])):
        assert subprocess.run([shell, "-c", shell_command(given, CALL)]).returncode == 7


def test_shared_input_is_read_again_or_written_again(shell: str) -> None:
    spool = Spool()
    spool.append(b"da\0ta\n")
    Path("in put").write_bytes(b"file\n")
    shared = task(stdin=TaskInput(SHARED, spool=spool))
    assert said(shell, *[shell_command(shared, CALL)] * 2) == b"<app.pub>\nda\0ta\n" * 2
    assert said(shell, *[shell_command(shared, Call("app.pub", shared="in put"))] * 2) == b"<app.pub>\nfile\n" * 2
    assert short_command(shared, "app.pub") == "cexec app.pub"
    spool.append(bytes(LONGEST_SHARED))
    with pytest.raises(UsageError, match="--dry-run with --tee needs standard input from a file"):
        shell_command(shared, CALL)
