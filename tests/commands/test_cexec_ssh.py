"""cexec-ssh on this machine: what a command there finds, what comes back, and what is said when it cannot run."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec import __version__
from tests.conftest import StartService
from tests.environment import ROOT, command, local_environment
from tests.service import Application
from tests.shell_host import ShellHost
from tests.test_startup_imports import FORBIDDEN, loaded_modules
from tests.waiting import wait_until

EVERY_BYTE = bytes(range(256)) * 16
ALL_SLOTS = 100
STANDSTILL = 10.0  # seconds


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShellHost]:
    worker = ShellHost(tmp_path_factory.mktemp("shell"))
    yield worker
    worker.close()


# The command and its environment


def test_a_command_runs_as_after_a_login(host: ShellHost) -> None:
    names = ["HOME", "LOGNAME", "MAIL", "PATH", "PWD", "SHELL", "USER"]
    found = host.do("cexec-ssh", "w", f"pwd; printf '%s\\n' {' '.join(f'${name}' for name in names)}").splitlines()
    home, account = os.fspath(host.home), host.account
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert found == [home, home, account, f"/var/mail/{account}", path, home, "/bin/bash", account]


def test_nothing_of_the_services_own_environment_is_there(host: ShellHost) -> None:
    lines = host.do("cexec-ssh", "w", "env").splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert "PYTHONPATH" not in names and "TERM" not in names
    of_jobs = "CEXEC_JOB CEXEC_ATTEMPT CEXEC_CLIENT CEXEC_RUN REMOTE_ADDR REMOTE_PORT SERVER_ADDR SERVER_PORT"
    of_logins = "HOME LOGNAME MAIL PATH PWD SHELL USER SSH_CLIENT SSH_CONNECTION SHLVL _"
    assert names == {*of_jobs.split(), *of_logins.split()}


def test_the_connection_is_named_as_by_sshd(host: ShellHost) -> None:
    script = "echo $SSH_CONNECTION; echo $SSH_CLIENT; echo $REMOTE_ADDR $REMOTE_PORT $SERVER_ADDR $SERVER_PORT"
    connection, client, plain = host.do("cexec-ssh", "w", script).splitlines()
    assert connection == plain and connection.split()[0] == "127.0.0.1"
    assert client.split() == [*plain.split()[:2], plain.split()[3]]


def test_only_variables_that_sshd_takes_arrive(host: ShellHost) -> None:
    changes = {"LANG": "C", "LC_TIME": "C", "GIT_PROTOCOL": "version=2", "SECRET": "1"}
    words = ["-oSendEnv=LANG LC_* SECRET", "-oSendEnv=GIT_PROTOCOL", "-oSetEnv=LC_ALL=C OTHER=2", "w"]
    printed = host.do("cexec-ssh", *words, "env", changes=changes)
    found = {
        line for line in printed.splitlines() if line.startswith(("LANG", "LC_", "GIT", "SECRET", "OTHER", "PEER"))
    }
    assert found == {"LANG=C", "LC_TIME=C", "GIT_PROTOCOL=version=2", "LC_ALL=C"}
    assert "LANG" not in host.do("cexec-ssh", "w", "env", changes=changes)


def test_a_variable_that_has_no_name_for_a_shell_is_passed_over(host: ShellHost) -> None:
    """Regression: a name that is no UTF-8 ended in a traceback, and for the others the worker refused the call."""
    names = [b"LC_\xff", "LC_\xdc".encode(), b"LC_A B", b"LC_A-B", b"LC_" + b"A" * 100, b"LC_OK"]
    environment = {**{os.fsencode(name): os.fsencode(value) for name, value in host.environment().items()}}
    ended = host.ssh("-oSendEnv=LC_*", "-oSetEnv=LC_%=1", "w", "env", env=environment | dict.fromkeys(names, b"x"))
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert [line for line in ended.stdout.splitlines() if line.startswith(b"LC_")] == [b"LC_OK=x"]


def test_words_are_joined_with_one_space_for_the_shell(host: ShellHost) -> None:
    words = ["printf '[%s]'", "a", "'b  c'", "", "$((1+1))", "d;", "echo"]
    assert host.do("cexec-ssh", "w", *words) == "[a][b  c][2][d]\n"
    assert host.do("cexec-ssh", "w", "echo $0 $#").strip() == "bash 0"


def test_a_command_is_8_bit_clean(host: ShellHost) -> None:
    word = bytes(range(0x80, 0x100))
    ended = host.ssh("w", "printf %s", b"'" + word + b"'")  # type: ignore[arg-type]
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, word, b"")


def test_input_and_outputs_are_8_bit_clean(host: ShellHost) -> None:
    ended = host.ssh("w", "tee /dev/stderr", input=EVERY_BYTE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, EVERY_BYTE, EVERY_BYTE)


def test_without_a_command_a_login_shell_reads_its_input(host: ShellHost) -> None:
    (host.home / ".bash_profile").write_text("GREETING=hello\n")
    try:
        for words in (["w"], ["-T", "w", ""]):
            ended = host.ssh(*words, input=b"echo $GREETING $0; exit 4\n")
            assert (ended.returncode, ended.stdout) == (4, b"hello -bash\n"), ended.stderr
    finally:
        (host.home / ".bash_profile").unlink()


# What comes back


@pytest.mark.parametrize("status", [100, 111, 255])  # which are those of our own failures, too
def test_the_exit_status_is_the_commands(host: ShellHost, status: int) -> None:
    ended = host.ssh("w", f"exit {status}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, b"", b"")


def test_a_command_that_a_signal_has_ended_is_255_as_with_ssh(host: ShellHost) -> None:
    ended = host.ssh("w", "kill -9 $$")
    assert (ended.returncode, ended.stdout) == (255, b"")
    assert ended.stderr == b"cexec-ssh: the command was ended by signal 9\n"


def test_a_reader_that_leaves_is_no_news(host: ShellHost) -> None:
    script = "cexec-ssh w yes | head -n 1; echo ${PIPESTATUS[0]}"
    ended = host.run("bash", "-c", script)
    assert (ended.stdout, ended.stderr) == (b"y\n255\n", b"")


def name_of(file: Path) -> str:
    """That of the program whose number is in the file; empty as long as there is none."""
    try:
        return Path(f"/proc/{int(file.read_text())}/comm").read_text().strip()
    except (OSError, ValueError):
        return ""


def test_a_signal_reaches_the_command_and_ends_us_without_a_word(host: ShellHost, tmp_path: Path) -> None:
    """Regression: after USR1, by which rsync ends its ssh when it fails, a line told of the command's death."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        started = tmp_path / f"started-{number}"
        # An interrupt is lost in a shell that is about to become another program.
        with host.popen("cexec-ssh", "w", f"echo $$ >{started}; exec sleep 60", stderr=subprocess.PIPE) as client:
            wait_until(lambda: name_of(started) == "sleep")  # noqa: B023
            client.send_signal(number)
            assert client.communicate(timeout=30) == (None, b"")
            assert client.returncode == -number


def test_the_end_of_input_arrives_while_output_goes_on(host: ShellHost) -> None:
    ended = host.ssh("w", "wc -c; echo more; sleep 0.2; echo still", input=b"12345")
    assert ended.stdout == b"5\nmore\nstill\n"


@pytest.mark.parametrize("output", ["", "echo first; "])
def test_the_end_of_output_arrives_while_input_goes_on(host: ShellHost, tmp_path: Path, output: str) -> None:
    taken = tmp_path / "taken"
    script = f"{output}exec 1>&-; cat > {taken}"
    with host.popen("cexec-ssh", "w", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None and client.stdout is not None
        assert client.stdout.read() == (b"first\n" if output else b"")  # which ends although the command runs
        client.stdin.write(b"later")
        client.stdin.close()
        assert client.wait(30) == 0
    assert taken.read_bytes() == b"later"


def test_one_socket_can_be_standard_input_and_output(host: ShellHost, tmp_path: Path) -> None:
    """As rsync and sshfs give it; each direction ends alone."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        host.popen("cexec-ssh", "w", "echo first; exec 1>&-; cat > taken", stdin=theirs, stdout=theirs) as client,
    ):
        theirs.close()
        with ours.makefile("rb") as stream:
            assert stream.read() == b"first\n"
        ours.sendall(b"later")
        ours.shutdown(socket.SHUT_WR)
        assert client.wait(30) == 0
    assert (host.home / "taken").read_bytes() == b"later"


def test_no_input_is_read_with_n(host: ShellHost) -> None:
    assert host.ssh("-n", "w", "wc -c", input=b"12345").stdout == b"0\n"


def test_only_the_standard_descriptors_are_carried(host: ShellHost) -> None:
    reading, writing = os.pipe()
    try:
        ended = host.ssh(
            "w", "for n in $(seq 3 254); do test ! -e /proc/$$/fd/$n || echo $n; done", pass_fds=[reading, writing]
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert (ended.returncode, ended.stdout) == (0, b"")  # 255 is bash's own


def test_a_descriptor_that_is_closed_here_is_dev_null_there_as_with_ssh(host: ShellHost) -> None:
    """Regression: a daemon that starts its programs without standard input made `cat` and others fail there."""
    script = "test ! -t 0 && cat && echo out && echo err >&2 && echo fine >> there"
    ended = host.run("bash", "-c", 'exec "$@" <&- >&- 2>&-', "sh", "cexec-ssh", "w", script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert (host.home / "there").read_text() == "fine\n"


def test_a_descriptor_that_cannot_be_carried_is_dev_null_there(host: ShellHost) -> None:
    """Regression: a listening socket, or /dev/null opened for reading only as an output, made commands fail there."""
    script = "cat && echo out && echo err >&2 && exit 3"
    with socket.socket(socket.AF_UNIX) as listening, open(os.devnull, "rb") as null:
        listening.bind(f"\0{os.getpid()}-listening")
        listening.listen()
        ended = host.ssh("w", script, stdin=listening, capture_output=False, stdout=subprocess.PIPE, stderr=null)
        assert (ended.returncode, ended.stdout) == (3, b"out\n")
        ended = host.ssh("w", script, capture_output=False, stdout=null, stderr=subprocess.PIPE)
        assert (ended.returncode, ended.stderr) == (3, b"err\n")


def test_the_key_on_standard_input_leaves_the_command_dev_null(host: ShellHost) -> None:
    """Regression: descriptor 0 was closed there, so that cat failed."""
    with host.application.public.open("rb") as key:
        ended = host.ssh("w", "cat; exit 3", stdin=key, changes={"CEXEC_SSH_KEY": "/dev/stdin"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"", b"")


def test_what_a_failed_command_has_written_stays(host: ShellHost, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with target.open("wb") as file:
        assert host.ssh("w", "echo partial; exit 3", stdout=file, capture_output=False).returncode == 3
    assert target.read_bytes() == b"partial\n"


def test_what_a_command_leaves_running_is_ended(host: ShellHost) -> None:
    pid = int(host.do("cexec-ssh", "w", "nohup setsid sleep 60 > /dev/null 2>&1 & echo $!"))
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


# The worker and the account


@pytest.mark.parametrize("word", ["W", "127.0.0.1", "localhost", "::1"])  # W: ssh reads names of hosts so
def test_the_host_word_is_a_name_or_an_address(host: ShellHost, word: str) -> None:
    assert host.do("cexec-ssh", word, "echo here") == "here\n"


@pytest.mark.parametrize("word", ["w.", "W.", "localhost.", "::ffff:127.0.0.1", "[::ffff:127.0.0.1]"])
def test_a_host_word_that_ssh_would_resolve_to_the_same_host(host: ShellHost, word: str) -> None:
    """Regression: no worker was called so."""
    assert host.do("cexec-ssh", word, "echo here") == "here\n"


def test_the_accounts_name_may_be_given(host: ShellHost) -> None:
    assert host.do("cexec-ssh", f"ssh://{host.account}@w:22", "id -u") == "0\n"


def test_another_accounts_name_is_refused_with_both_names(host: ShellHost) -> None:
    """`-l` and `-o User` are the same to the parser: test_ssh_options.py."""
    ended = host.ssh("bob@w", "touch ran")
    assert (ended.returncode, ended.stdout) == (255, b"")
    assert f"w: has account={host.account}, not bob".encode() in ended.stderr
    assert ended.stderr.startswith(b"cexec-ssh: w: ") and ended.stderr.count(b"\n") == 1
    assert not (host.home / "ran").exists()


@pytest.mark.parametrize("user", ["\udcff", "x" * 1000])
def test_a_user_who_cannot_be_named_is_not_taken_for_the_worker(host: ShellHost, user: str) -> None:
    """Regression: the message named the host."""
    ended = host.ssh(f"{user}@w", "true")
    assert (ended.returncode, ended.stdout) == (255, b"")
    assert ended.stderr.endswith(b"' cannot be the name of a user\n") and ended.stderr.count(b"\n") == 1


def test_a_worker_that_does_not_answer_is_named_within_5_seconds(host: ShellHost) -> None:
    began = time.monotonic()
    ended = host.ssh("elsewhere", "true")
    took = time.monotonic() - began
    assert (ended.returncode, ended.stdout) == (255, b"")
    assert ended.stderr.startswith(b"cexec-ssh: elsewhere: ") and b"w: is not elsewhere" in ended.stderr
    assert took < 5.0 + start_of_python()


def start_of_python() -> float:
    """What a start costs on this machine at this moment, which is busy: the limit of 5 s is that of an idle one.

    And a moment in which it stands still, so that something else than ConnectTimeout, which is a minute, is noticed.
    """
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import asyncio, json, typing"], check=True)
    return 4 * (time.monotonic() - began) + STANDSTILL


def test_nobody_at_all_is_told_within_5_seconds_too(application: Application) -> None:
    began = time.monotonic()
    environment = local_environment({"CEXEC_SSH_KEY": os.fspath(application.public)})
    ended = subprocess.run(command("cexec-ssh", "w", "true"), env=environment, capture_output=True, timeout=30)
    took = time.monotonic() - began
    assert ended.returncode == 255 and ended.stderr.startswith(b"cexec-ssh: w: no worker of ")
    assert b" answered in 4 s" in ended.stderr  # which leaves a second for the rest
    assert took < 5.0 + start_of_python()


def test_connect_timeout_is_obeyed(application: Application) -> None:
    began = time.monotonic()
    environment = local_environment({"CEXEC_SSH_KEY": os.fspath(application.public)})
    argv = command("cexec-ssh", "-oConnectTimeout=1", "w", "true")
    ended = subprocess.run(argv, env=environment, capture_output=True, timeout=30)
    assert ended.returncode == 255 and b"answered in 1 s" in ended.stderr
    assert time.monotonic() - began < 3.5 + start_of_python()


def test_a_service_that_is_no_shell_is_told_apart(service: StartService, application: Application) -> None:
    service("cat", options=["--name", "w"])
    environment = local_environment({"CEXEC_SSH_KEY": os.fspath(application.public)})
    ended = subprocess.run(command("cexec-ssh", "w", "true"), env=environment, capture_output=True, timeout=30)
    assert ended.returncode == 255 and b"w: offers no shell (cservice --shell)" in ended.stderr


def test_many_calls_at_once(host: ShellHost) -> None:
    script = f"seq {ALL_SLOTS} | xargs -P {ALL_SLOTS} -I{{}} cexec-ssh -n w 'sleep 1; echo {{}}'"
    ended = host.run("sh", "-c", script, text=True)
    assert ended.returncode == 0, ended.stderr
    assert sorted(map(int, ended.stdout.split())) == [*range(1, ALL_SLOTS + 1)]
    assert ended.stderr == ""


# Subsystems, settings, keys


def test_another_subsystem_than_sftp_is_refused(host: ShellHost) -> None:
    ended = host.ssh("-s", "w", "netconf")
    assert ended.returncode == 255 and b"there is no subsystem 'netconf' here, only sftp" in ended.stderr


def test_the_version_goes_to_standard_error(host: ShellHost) -> None:
    ended = host.ssh("-V")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", f"cexec-ssh {__version__}\n".encode())


def test_the_settings_are_printed_as_by_ssh(host: ShellHost) -> None:
    lines = host.do("cexec-ssh", "-G", "-oConnectTimeout=9", "-oSendEnv=LANG", "-tt", "bob@w").splitlines()
    assert {"host w", "hostname w", "user bob", "port 22", "connecttimeout 9", "sendenv LANG", "requesttty force"} <= {
        *lines
    }
    assert all(len(line.split(" ", 1)) == 2 and line.split()[0].islower() for line in lines)


def test_the_settings_name_the_account(host: ShellHost) -> None:
    """Regression: it was its number where cron or a service has set neither LOGNAME nor USER; ssh asks for the name."""
    lines = host.do("env", "-u", "USER", "LOGNAME=eve", "cexec-ssh", "-G", "w").splitlines()
    assert f"user {pwd.getpwuid(os.getuid()).pw_name}" in lines


def test_the_key_is_found_in_the_configuration(host: ShellHost, tmp_path: Path) -> None:
    nobody = {"HOME": os.fspath(tmp_path), "CEXEC_SSH_KEY": ""}
    ended = host.ssh("w", "true", changes=nobody)
    assert ended.returncode == 255
    assert f"there is no {tmp_path}/.config/cexec/shell.pub; ".encode() in ended.stderr
    assert b"CEXEC_SSH_KEY" in ended.stderr
    place = tmp_path / ".config" / "cexec"
    place.mkdir(parents=True)
    (place / "shell.pub").symlink_to(host.application.public)
    assert host.do("cexec-ssh", "w", "echo here", changes=nobody) == "here\n"


@pytest.mark.parametrize(
    "words",
    [["-N", "w"], ["--links"], ["--no"]],  # test_ssh_options.py has all that the parser refuses
)
def test_every_failure_of_its_own_is_255_and_one_line(host: ShellHost, words: list[str]) -> None:
    ended = host.ssh(*words)
    assert (ended.returncode, ended.stdout) == (255, b"")
    assert ended.stderr.startswith(b"cexec-ssh: ") and ended.stderr.count(b"\n") == 1


def test_links_for_programs_that_call_ssh_by_name(host: ShellHost, tmp_path: Path) -> None:
    made = host.do("cexec-ssh", "--links", os.fspath(tmp_path / "a b"))
    assert made == f"made ssh, scp, sftp; programs find them with: PATH='{tmp_path}/a b':$PATH\n"
    path = {"PATH": f"{tmp_path}/a b:{host.environment()['PATH']}"}
    assert host.do("ssh", "w", "echo here", changes=path) == "here\n"
    host.do("cexec-ssh", "--links", os.fspath(tmp_path / "a b"), changes=path)  # again, and scp is not its own script
    (tmp_path / "file").write_text("text")
    host.do("scp", tmp_path / "file", "w:copied", changes=path)
    assert (host.home / "copied").read_text() == "text"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "ssh").write_text("mine")
    ended = host.ssh("--links", os.fspath(tmp_path / "c"))
    assert ended.returncode == 255 and b"is there already" in ended.stderr
    assert (tmp_path / "c" / "ssh").read_text() == "mine"


def test_a_call_loads_nothing_that_is_slow(host: ShellHost) -> None:
    bare, _ = loaded_modules([sys.executable, "-c", "pass"])
    settings = ["-oBatchMode=yes", "-oSendEnv=LANG", "-oConnectTimeout=20"]
    loaded, result = loaded_modules(
        command("cexec-ssh", *settings, f"{host.account}@w", "cat"), b"hello",
        {"CEXEC_SSH_KEY": os.fspath(host.application.public)},
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()
    assert {"cexec.commands.cexec_ssh", "_socket", "nacl._sodium"} <= loaded
    assert not loaded & FORBIDDEN - bare
    plain, _ = loaded_modules([*command("cexec"), os.fspath(host.application.public), "-n"])
    ours = {name for name in loaded - plain if name.startswith("cexec.")}
    of_send_env = {"cexec.system.process", "cexec.system.process.environment"}
    of_slow_jobs = {"cexec.net.carrying", "cexec.system.io.short_waits"}
    assert ours <= {"cexec.commands.cexec_ssh", "cexec.commands.ssh_options", *of_send_env, *of_slow_jobs}


def test_the_launcher_is_that_of_cexec() -> None:
    """Which makes the packages itself and takes nothing of Python apart; tests/test_startup_imports.py."""
    ours, other = ((ROOT / "bin" / name).read_text() for name in ("cexec-ssh", "cexec"))
    assert ours == other.replace("from cexec.commands.cexec import main", "from cexec.commands.cexec_ssh import main")
