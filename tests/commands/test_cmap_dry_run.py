"""cmap --dry-run with one real worker: the commands do what cmap does when they are piped into sh and into bash."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests import preloaded
from tests.cluster import DEADLINE, Cluster
from tests.environment import ROOT, command, local_environment
from tests.service import Application, Service

# Tells everything that a program is given: arguments, variables, files of its directory, standard input.
TELL = (
    'for a; do printf "<%s>" "$a"; done; printf "{%s}" "$PEER_ONE"; '
    'for f in .* *; do test ! -f "$f" || { printf "[%s:" "$f"; cat "$f"; printf "]"; }; done; cat; echo err >&2; '
    'echo; test -z "$PEER_FILE" || printf "%s" "$PEER_FILE" > "$PEER_FILE"'
)
FILES = {
    "x=1.dat": b"equals", "a.in": b"first\n", "b.in": b"sec\0ond\n", "-n.in": b"minus\n", "it's a name.in": b"quoted\n",
    "conf": b"{1} = '{#}'\n", "lines": b"one\n-n\n\xff\xfe\nit's $HOME\n\n%s\\n\n", "nul": b"one\0t\nwo\0-\0",
    "table.csv": b'id,name\n1,one\n2,"t ""w"" o"\n',
}  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has a cexec in the PATH."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "cexec"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/bin/cexec" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def run(argv: list[str], directory: Path, stdin: Path) -> tuple[int, bytes, dict[str, bytes]]:
    """Runs in a new directory with FILES; returns status, standard output and the files that are new."""
    directory.mkdir()
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    environment = local_environment()
    with open(stdin, "rb") as file:
        if argv[0] == sys.executable:
            number = file.fileno()
            ended = preloaded.run(argv, cwd=directory, stdin=number, env=environment, timeout=DEADLINE)
        else:
            ended = subprocess.run(
                argv, cwd=directory, stdin=file, capture_output=True, env=environment, timeout=DEADLINE
            )
    new = {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in FILES}
    assert ended.returncode == 0, ended.stderr
    return ended.returncode, ended.stdout, new


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        ((), "lines"),
        (("-0",), "nul"),
        (("-0", "--", "{}", "x"), "lines"),
        (("--", "", "-x", "--", "{}", "{}", ":::", "a b", "", "-n", "it's", "new\nline", "$(exit 3)", "\udcff"), ""),
        (("--peer", "ONE={2} {1}", "--", "{1}", ":::", "a=b", "*", ":::", "1", "~"), ""),
        (("-n", "2", "--", "{}", "{2}", ":::", "1", "2", "3"), ""),
        (("--stdin-text", "", "--", "{}", ":::", "1", "2"), "lines"),
        (("--stdin-text", "-{}\n", ":::", "1", "%s"), "lines"),
        (("--stdin", "{}", "--stdout", "{.}.out", "--stderr", "{/.}.err", ":::", "a.in", "b.in", "-n.in",
          "it's a name.in"), ""),
        (("--send", "./x=1.dat", "--send", "{}", "--", "{}", ":::", "a.in", "./b.in"), ""),
        (("--tee", "--", "{}", ":::", "1", "2"), "b.in"),
        (("--input", "run.ini=conf", "--input", "{}.txt=conf", "--", "{}", ":::", "1=2", "it's"), ""),
        (("--params", "table.csv", "--rows", "2", "--", "{id}", "{name}"), ""),
        (("--array", "1-9:4", "--order", "linear", "--stdin-text", "{}"), ""),
        (("--peer", "FILE={}", "--fetch", "{}=res.{#}", ":::", "k=v", r"a\\=b\=c", "plain"), ""),
        (("--peer", "FILE={}", "--fetch", "{}=/dev/null", ":::", "k=v"), ""),
        (("--stdout", "/dev/null", "--stderr", "/dev/null", ":::", "a"), ""),
        (("--need", "os=linux", "--on", "127.0.0.1", "--not", "nobody", "--weight", "2", "--timeout", "30",
          "--", "{}", ":::", "1"), ""),
    ],
    ids=lambda value: " ".join(map(ascii, value)) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_the_commands_do_what_cmap_does(cluster: Cluster, directory: Path, words: tuple[str, ...], stdin: str) -> None:
    source = directory / "stdin"
    source.write_bytes(FILES.get(stdin, b""))
    at = next((at for at, word in enumerate(words) if word in ("--", ":::")), len(words))
    argv = cluster.argv("-k", "--peer", f"RUN={TELL}", *words[:at])
    argv += words[at:]
    expected = run(argv, directory / "cmap", source)
    script = directory / "script"
    dry = [*argv[:3], "--dry-run", *argv[3:]]
    _, commands, new = run(dry, directory / "dry", source)
    assert not new
    script.write_bytes(commands)
    # The commands are quoted alike for all shells, so bash has those only that quote something.
    for shell in ("sh", "bash") if "'" in commands.decode(errors="replace").partition(" -- ")[2] else ("sh",):
        assert run([shell], directory / shell, script) == expected, commands


MANY = ("--array", "1-100000000", "--rows", "1-50000000")
LIMIT = 1 << 30  # bytes of address space; a list of these rows takes more


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("--dry-run", *MANY, "--", "{}"), None, b"cexec -n %s -- 1\ncexec -n %s -- 2\n"),
        (("-j1", "--halt", "now,done=2", *MANY, "--peer", "RUN=echo $1", "--", "{}"), 0, b"1\n2\n"),
    ],
    ids=["dry", "wet"],
)
def test_many_rows_are_begun_at_once(
    cluster: Cluster, words: tuple[str, ...], status: int | None, expected: bytes
) -> None:
    """Regression: lists of all rows were made, which took minutes and gigabytes."""
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (LIMIT, LIMIT))
    with cluster.start(*words, preexec_fn=limit) as process:
        key = os.fsencode(cluster.application.public)
        assert process.stdout.readline() + process.stdout.readline() == expected.replace(b"%s", key)
        if status is None:
            process.kill()
        else:
            assert process.wait(DEADLINE) == status


def test_a_dry_run_that_goes_on_has_the_tasks_that_are_left(
    cluster: Cluster, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the commands of tasks that were done were printed, too."""
    monkeypatch.chdir(directory)
    words = ("--state", "s", "--peer", "RUN=test $1 != bad; ", "--stdout", "{}.out", "--", "{}", ":::")
    assert cluster.run(*words, "good", "bad").status == 1
    before = Path("s").read_bytes()
    for option, left in (
        ("--resume", ["new"]), ("--resume-failed", ["bad", "new"]), ("--retry-failed", ["bad"]),
    ):  # fmt: skip
        result = cluster.run("--dry-run", option, *words, "good", "bad", "new")
        assert [line.split(" -- ")[1].split()[0] for line in result.out.splitlines()] == left, result.err
    result = cluster.run("--dry-run", "--resume", "--send", "{}", *words, "good", "absent")
    assert (result.status, result.out) == (100, "")
    assert result.err == "cmap: row 1: cannot read good: no such file or directory\n"
    assert Path("s").read_bytes() == before
    assert {path.name for path in directory.iterdir()} == {"bin", "s", "good.out"}


def test_a_program_that_is_brought_along_is_part_of_the_commands(directory: Path) -> None:
    application = Application(directory)
    service = Service(
        application, ["{program}"], ["--allow-programs", "--allow-args", "--program-cache", str(directory / "cache")]
    )
    try:
        program = directory / "a program"
        program.write_text("#!/bin/sh\necho brought $1\n")
        program.chmod(0o755)
        words = ["-k", "--program", f"any={program}", "--", "{}", ":::", "1", "2"]
        source = directory / "stdin"
        source.touch()
        expected = run(command("cmap", application.public, *words), directory / "cmap", source)
        assert expected[1] == b"brought 1\nbrought 2\n"
        _, commands, _ = run(command("cmap", application.public, "--dry-run", *words), directory / "dry", source)
        (directory / "script").write_bytes(commands)
        assert run(["sh"], directory / "sh", directory / "script") == expected
    finally:
        service.close()
