"""Whatever a program does with its descriptors locally it does through cexec, with the same bytes and the same status.

The tests with the marker `campaign` are the same ones with the full times and sizes.
"""

from __future__ import annotations

import array
import hashlib
import io
import math
import os
import signal
import socket
import subprocess
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.needs import require_tool
from tests.service import STOPPED, Shell
from tests.terminal import SUSPEND, Terminal
from tests.waiting import PATIENCE, wait_until

MEGABYTE = 1_000_000


def full(short: float, whole: float) -> pytest.MarkDecorator:
    """The parameter `amount`: `short` in every run, `whole` in a campaign."""
    return pytest.mark.parametrize(
        "amount", [short, pytest.param(whole, marks=[pytest.mark.campaign, pytest.mark.timeout(900)])]
    )


def bash(
    shell: Shell, script: str, program: str, directory: Path | None = None, timeout: float = 100, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs a script of bash in which "$@" is the client whose worker runs `program`."""
    argv, whole = shell.client(program, environment=environment)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, "bash", *argv],
        env=whole,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=directory,
        timeout=timeout,
    )


def attempts(shell: Shell) -> int:
    """How many jobs the worker has accepted."""
    return sum(" accepted " in line for line in shell.service.lines)


@contextmanager
def one_attempt(shell: Shell) -> Iterator[None]:
    before = attempts(shell)
    yield
    shell.service.lines_with(" accepted ", before + 1)
    assert attempts(shell) == before + 1


# Unmodified programs


def a_sound() -> bytes:
    """Half a minute of a tone that slides."""
    rate, seconds = 8000, 30
    samples = array.array("h", (round(9000 * math.sin(i * (1 + i / 99_000) / 7)) for i in range(rate * seconds)))
    result = io.BytesIO()
    with wave.open(result, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return result.getvalue()


def a_program() -> bytes:
    functions = (f"int f{n}(int x) {{ return x * {n} + f{n - 1}(x - 1); }}\n" for n in range(1, 300))
    return ("int f0(int x) { return x; }\n" + "".join(functions)).encode()


def some_sql() -> bytes:
    rows = "".join(f"insert into t values ({n}, '{n * 7919 % 10007}');\n" for n in range(2000))
    return f"create table t (a, b);\nbegin;\n{rows}commit;\nselect b, count(*), sum(a) from t group by b;\n".encode()


def some_lines() -> bytes:
    return b"".join(b"%d\n" % (n * 7919 % 1_000_003) for n in range(200_000))


def an_archive() -> bytes:
    return subprocess.run(["tar", "-cf", "-", "-C", "/etc", "passwd", "group"], capture_output=True, check=True).stdout


PROGRAMS: dict[str, Callable[[], bytes]] = {
    "oggenc -Q -s 1 -o - -": a_sound,
    "flac --silent --stdout -": a_sound,
    "ffmpeg -v error -f wav -i - -fflags +bitexact -flags:a +bitexact -f flac -": a_sound,
    "gcc -O2 -x c -S -o - -": a_program,
    "zstd -q -9 -c": some_lines,
    "sort -n": some_lines,
    "sqlite3 :memory:": some_sql,
    "tar -xOf - group": an_archive,
    "tar -cf - --mtime=@0 -C /etc passwd group": lambda: b"",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_gives_the_bytes_of_a_local_run(program: str, shell: Shell) -> None:
    require_tool(program.split()[0])
    input = PROGRAMS[program]()
    local = subprocess.run(program.split(), input=input, capture_output=True, timeout=60)
    assert local.returncode == 0 and len(local.stdout) > 500, local.stderr
    with one_attempt(shell):
        ended = shell.run(program, input=input)
    assert (ended.returncode, ended.stderr) == (0, local.stderr)
    assert ended.stdout == local.stdout


# Streams that wait for one another

ZEROS = "head -c {size} /dev/zero"


def sha256_of_zeros(size: int) -> bytes:
    digest = hashlib.sha256()
    for _ in range(size // MEGABYTE):
        digest.update(bytes(MEGABYTE))
    return digest.hexdigest().encode() + b"  -\n"


@full(20, 100)
def test_a_program_may_read_one_descriptor_to_its_end_before_another(amount: int, shell: Shell) -> None:
    size = amount * MEGABYTE
    feed = ZEROS.format(size=size)
    ended = bash(shell, f'"$@" < <({feed}) 5< <({feed})', "sha256sum <&5; sha256sum")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == 2 * sha256_of_zeros(size)


@full(20, 100)
def test_megabytes_of_standard_error_after_standard_output_was_closed(amount: int, shell: Shell) -> None:
    size = amount * MEGABYTE
    ended = bash(shell, '"$@" 2> >(sha256sum)', f"echo out; exec >&-; {ZEROS.format(size=size)} >&2")
    assert (ended.returncode, ended.stdout) == (0, b"out\n" + sha256_of_zeros(size))


@full(20, 100)
def test_a_reader_that_leaves_standard_error_does_not_stop_standard_output(amount: int, shell: Shell) -> None:
    size = amount * MEGABYTE
    zeros = ZEROS.format(size=size)
    argv, environment = shell.client(f"(exec 1>&2; {zeros}) & {zeros}; exec >&-; wait")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, env=environment, **pipes) as client:  # type: ignore[call-overload]
        assert client.stdout.read() == bytes(size)
        assert client.stderr.read() == bytes(size)
        assert client.wait(20) == 0


def test_input_that_is_left_unread(shell: Shell) -> None:
    ended = bash(shell, f'{ZEROS.format(size=50 * MEGABYTE)} | "$@"; echo ${{PIPESTATUS[*]}}', "echo enough")
    assert (ended.stdout, ended.stderr) == (b"enough\n141 0\n", b"")


@full(4, 60)
def test_a_reader_that_begins_late(amount: float, shell: Shell) -> None:
    size = 30 * MEGABYTE
    with one_attempt(shell):
        ended = bash(shell, f'"$@" | (sleep {amount}; sha256sum)', ZEROS.format(size=size))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, sha256_of_zeros(size), b"")


@full(3, 60)
def test_ctrl_z_stops_both_sides_and_fg_continues_both(amount: float, shell: Shell, tmp_path: Path) -> None:
    lines = 60
    argv, environment = shell.client(f"echo begun >&2; for i in $(seq {lines}); do echo $i; sleep 0.05; done; cat")
    (tmp_path / "in").write_bytes(b"the end\n")
    redirections = {0: str(tmp_path / "in"), 1: str(tmp_path / "out")}
    with one_attempt(shell), Terminal(argv, environment, redirections) as terminal:
        terminal.wait_for(b"begun")
        terminal.type(SUSPEND)
        terminal.stopped()
        wait_until(lambda: shell.states() <= STOPPED, explain=shell.programs)
        stopped_at = (tmp_path / "out").read_bytes()
        time.sleep(amount)  # as long as the person looks at something else
        assert (tmp_path / "out").read_bytes() == stopped_at
        assert stopped_at.count(b"\n") < lines
        terminal.foreground()
        assert terminal.wait() == 0
    expected = "".join(f"{number}\n" for number in range(1, lines + 1)) + "the end\n"
    assert (tmp_path / "out").read_text() == expected


@full(3, 60)
def test_a_client_that_is_stopped_for_a_while_goes_on(amount: float, shell: Shell) -> None:
    """SIGSTOP cannot be caught, so the program runs on until its output is not taken any more."""
    size = 30 * MEGABYTE
    argv, environment = shell.client(f"echo begun >&2; {ZEROS.format(size=size)}")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with one_attempt(shell), subprocess.Popen(argv, env=environment, **pipes) as client:  # type: ignore[call-overload]
        assert client.stderr.readline() == b"begun\n"
        client.send_signal(signal.SIGSTOP)
        time.sleep(amount)  # as long as it is stopped
        client.send_signal(signal.SIGCONT)
        assert client.communicate(timeout=60) == (bytes(size), b"")
        assert client.returncode == 0


@full(4, 30)
def test_a_worker_that_is_stopped_for_a_while_goes_on(amount: float, shell: Shell) -> None:
    size = 30 * MEGABYTE
    argv, environment = shell.client("sha256sum")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with one_attempt(shell), subprocess.Popen(argv, env=environment, **pipes) as client:  # type: ignore[call-overload]
        client.stdin.write(bytes(size // 2))
        client.stdin.flush()
        service = shell.service
        stopped = [service.pid, service.supervisor.pid, *(process.pid for process in service.started())]
        assert len(stopped) >= 4  # cservice, its supervisor, the job's process, the program
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(amount)  # as long as it is stopped
        for pid in reversed(stopped):  # the supervisor ends a job's process that it finds stopped
            os.kill(pid, signal.SIGCONT)
        output, errors = client.communicate(bytes(size // 2), timeout=60)
    assert (client.returncode, output, errors) == (0, sha256_of_zeros(size), b"")


# Descriptors


def test_descriptors_beyond_standard_error(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "dict").write_bytes(b"a word\n" * 100_000)
    ended = bash(shell, '"$@" 3<dict 4>report', "cat <&3 >&4; echo done", tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"done\n", b"")
    assert (tmp_path / "report").read_bytes() == b"a word\n" * 100_000


OPEN = "for i in 0 1 2 3 4 7 40; do test -e /proc/$$/fd/$i && list=$list$i; done; echo $list >&${OUT:-1}"


def test_the_program_has_exactly_the_descriptors_that_we_have(shell: Shell, tmp_path: Path) -> None:
    script = '"$@" 3</dev/null 7>&1 40>&1'
    assert bash(shell, script, OPEN).stdout == b"01237\n"  # 40 is above MAXFD
    assert bash(shell, script, OPEN, CEXEC_MAXFD="50").stdout == b"0123740\n"
    assert bash(shell, script, OPEN, MAXFD="4").stdout == b"0123\n"


def test_a_closed_descriptor_is_closed_for_the_program_too(shell: Shell) -> None:
    assert bash(shell, '"$@" <&-', OPEN).stdout == b"12\n"
    assert bash(shell, '"$@" 2>&-', OPEN).stdout == b"01\n"
    assert bash(shell, '"$@" >&-', f"OUT=2; {OPEN}").stderr == b"02\n"
    assert bash(shell, '"$@" <&- >&-', f"OUT=2; {OPEN}").stderr == b"2\n"


def test_a_failure_with_standard_error_closed_is_still_a_failure(shell: Shell) -> None:
    ended = bash(shell, '"$@" 2>&-; echo $?', "echo out; echo lost >&2 && exit 4; exit 5")
    assert ended.stdout == b"out\n5\n"


def test_two_descriptors_of_one_open_file_are_one_for_the_program(shell: Shell, tmp_path: Path) -> None:
    program = "for i in 1 2 3 4; do echo $i; echo $i >&2; echo $i >&5; done"
    bash(shell, '"$@" >out 2>&1 5>&1', program, tmp_path)
    assert (tmp_path / "out").read_bytes() == b"1\n1\n1\n2\n2\n2\n3\n3\n3\n4\n4\n4\n"


def test_named_pipes(shell: Shell, tmp_path: Path) -> None:
    """Regression: when the writer had gone before the job began the end of its bytes was never seen."""
    os.mkfifo(tmp_path / "p")
    assert bash(shell, 'echo hello >p & "$@" <p', "cat", tmp_path, timeout=20).stdout == b"hello\n"
    assert bash(shell, 'cat p & "$@" >p; wait', "echo hello", tmp_path, timeout=20).stdout == b"hello\n"


def test_a_file_that_is_read_and_written_through_one_descriptor(shell: Shell, tmp_path: Path) -> None:
    """Whoever reads it shares an offset with the writer, which cannot be carried."""
    (tmp_path / "f").write_bytes(b"abcdef")
    ended = bash(shell, '"$@" 3<>f', "head -c 3 <&3", tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"abc", b"")
    ended = bash(shell, '"$@" 3<>f', "head -c 3 <&3 >/dev/null; echo xyz >&3", tmp_path)
    assert (ended.returncode, (tmp_path / "f").read_bytes()) == (111, b"abcdef")
    assert ended.stderr.startswith(b"cexec: cannot write to descriptor 3: the program reads this file too")
    assert bash(shell, '"$@" 3<>new', "cat <&3; echo xyz >&3", tmp_path).returncode == 0
    assert (tmp_path / "new").read_bytes() == b"xyz\n"


def test_input_is_used_as_far_as_the_program_reads_it(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"0123456789")
    assert bash(shell, '("$@"; cat) <in', "dd bs=1 count=4 2>/dev/null", tmp_path).stdout == b"0123456789"
    assert bash(shell, '("$@"; cat) <in', "head -c 4; exec <&-; sleep 0.2", tmp_path).stdout == b"0123456789"
    assert bash(shell, '("$@"; cat) <in', "true", tmp_path).stdout == b"0123456789"
    assert bash(shell, '("$@"; echo; cat) <in', "cat", tmp_path).stdout == b"0123456789\n"


def test_a_socket_goes_both_ways(shell: Shell) -> None:
    with talking(shell, 'while read line <&5; do echo "got $line" >&5; done; echo end >&5') as (ours, client):
        for word in (b"one", b"two"):
            ours.sendall(word + b"\n")
            assert read_line(ours) == b"got " + word + b"\n"
        ours.shutdown(socket.SHUT_WR)
        assert read_line(ours) == b"end\n"
        assert ours.recv(1) == b""
        assert client.wait(20) == 0


def test_a_half_closed_socket_still_goes_the_other_way(shell: Shell) -> None:
    program = (
        "python3 -c \"import socket; s = socket.socket(fileno=5); s.sendall(b'question'); s.shutdown(1); "
        'print(s.recv(100).decode())"'
    )
    with talking(shell, program) as (ours, client):
        got = b""
        while piece := ours.recv(100):
            got += piece
        assert got == b"question"
        ours.sendall(b"answer")
        output, _ = client.communicate(timeout=20)
        assert (output, client.returncode) == (b"answer\n", 0)


def test_a_socket_that_we_share_can_be_used_when_the_job_is_over(shell: Shell) -> None:
    """The program closes what it has when it ends, which is no half-close: others have it still."""
    kept: list[socket.socket] = []
    with talking(shell, "echo hello >&5", kept) as (ours, client), kept[0]:
        assert read_line(ours) == b"hello\n"
        assert client.wait(20) == 0
        kept[0].sendall(b"and more\n")
        assert read_line(ours) == b"and more\n"


@contextmanager
def talking(
    shell: Shell, program: str, kept: list[socket.socket] | None = None
) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """Our end of a socket whose other end is the program's descriptor 5; `kept` gets one that we share with it."""
    ours, theirs = socket.socketpair()
    if kept is not None:
        kept.append(theirs.dup())
    argv, environment = shell.client(program)
    with ours, theirs:
        script = f'exec "$@" 5<&{theirs.fileno()} {theirs.fileno()}<&-'
        client = subprocess.Popen(
            ["bash", "-c", script, "bash", *argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        ours.settimeout(PATIENCE)
        try:
            yield ours, client
        finally:
            client.kill()
            client.communicate()


def read_line(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(1)
        assert piece, line
        line += piece
    return line


def test_a_terminal_as_standard_input_and_output(shell: Shell) -> None:
    argv, environment = shell.client('read line; echo "got $line"')
    with Terminal(argv, environment) as terminal:
        terminal.type(b"hello\n")
        terminal.wait_for(b"got hello")
        assert terminal.wait() == 0
