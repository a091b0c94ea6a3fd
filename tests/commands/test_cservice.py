"""cservice as its user meets it: words, settings, its first line, what a job inherits.  Real processes, here only."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from cexec import __version__
from cexec.protocol.base.keys import OwnerKey, encode_key
from cexec.system.host.load import usable_cpus
from tests import preloaded
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.service import Application
from tests.waiting import PATIENCE

JOB_VARIABLES = {
    "CEXEC_JOB",
    "CEXEC_ATTEMPT",
    "CEXEC_SLOTS",
    "CEXEC_CLIENT",
    "CEXEC_RUN",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SERVER_ADDR",
    "SERVER_PORT",
}


def cservice(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`cservice WORDS...`, which ends by itself because something is wrong."""
    return preloaded.run_text(command("cservice", *words), env=local_environment(environment), timeout=30)


def message(ended: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that cservice said when it failed, without its name."""
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (status, "", 1), ended.stderr
    assert ended.stderr.startswith("cservice: ") and not ended.stderr.endswith(".\n")
    return ended.stderr[len("cservice: ") : -1]


def test_two_hyphens_before_the_program_are_passed_over(application: Application, service: StartService) -> None:
    """As they stand behind the key of cexec."""
    service("--", "printf", "%s", "--")
    assert application.run().stdout == b"--"


# Wrong use


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "missing argument 'APP'; see cservice --help"),
        (("app",), "missing argument 'EXE'; see cservice --help"),
        (("--frobnicate", "app", "true"), "no such option '--frobnicate'"),
        (("-j", "0", "app", "true"), "invalid value for '-j' / '--slots': 0 is not in the range 1<=x<=4096"),
        (("-j", "many", "app", "true"), "invalid value for '-j' / '--slots': 'many' is not a whole number; see"),
        (("--log", "xml", "app", "true"), "invalid value for '--log': 'xml' is not one of 'text', 'json'"),
        (("--speed", "0", "app", "true"), "--speed is '0', but must be a number from 0.01 to 100"),
        (("--speed", "nan", "app", "true"), "--speed is 'nan', but must be a number from 0.01 to 100"),
        (("--time-limit", "nan", "app", "true"), "--time-limit is 'nan', but must be a number of seconds, or a time"),
        (("--memory-limit", "1K", "app", "true"), "--memory-limit is '1K', but must be at least 1M"),
        (("--disk-limit", "1K", "app", "true"), "--disk-limit is '1K', but must be at least 1M"),
        (("--per-client", "", "app", "true"), "--per-client is empty; is a variable of the shell not set?"),
        (("--per-client", "0", "app", "true"), "--per-client jobs is '0', but must be a whole number from 1 to 4096"),
        (("--per-client", "places=x", "app", "true"), "--per-client places is 'x', but must be a whole number from 1"),
        (("--per-client", "files=1", "app", "true"), "--per-client files is '1', but must be at least 1M"),
        (("--per-client", "cars=1", "app", "true"), "--per-client is 'cars=1', but must be such as 4, or jobs=4,"),
        (("--max-weight", "0", "app", "true"), "invalid value for '--max-weight': 0 is not in the range 1<=x<=65535"),
        (("--name", "a b", "app", "true"), "--name 'a b': up to 64 letters, digits, dots, - and _"),
        (("--label", "a=b,c", "app", "true"), "--label 'a=b,c': NAME or NAME=VALUE, without commas and spaces"),
        (("--label", "a=", "app", "true"), "--label 'a=': NAME or NAME=VALUE, without commas and spaces"),
        (("--label", "=a", "app", "true"), "--label '=a': NAME or NAME=VALUE, without commas and spaces"),
        (("--label", "a=\x1b", "app", "true"), "--label 'a=\\x1b': NAME or NAME=VALUE, without commas and spaces"),
        (("--label", "arch=mine", "app", "true"), "--label 'arch=mine': every worker has arch by itself"),
        (("--label", f"a={'b' * 250}", "--label", f"c={'d' * 250}", "app", "true"), "labels are too long"),
        (("--label", f"a={'b' * 300}", "app", "true"), "labels are too long"),
        (("app", "no-such-program"), "no-such-program is not found in the PATH "),
        (("app", "cat | sort"), "there is no program 'cat | sort'; for a pipeline: cservice app sh -c 'cat | sort'"),
        (
            ("app", "wc -l", "file"),
            "there is no program 'wc -l'; for a command line of the shell: cservice app sh -c 'wc -l file'",
        ),
        (("app", "./app"), "./app is not executable; type: chmod +x ./app"),
        (("app", "./missing"), "./missing is not found; give the program's full path or install it on this machine"),
        (("app", "/"), "/ is a directory; name a program in it"),
    ],
    ids=str,
)
def test_wrong_words_are_status_100_and_one_line(
    words: Sequence[str], expected: str, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(application.secret.parent)
    assert message(cservice(*words), 100).startswith(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CONCURRENCY", "0", "CONCURRENCY is '0', but must be a whole number from 1 to 4096"),
        ("CONCURRENCY", "two", "CONCURRENCY is 'two', but must be a whole number from 1 to 4096"),
        ("BOOST", "-1", "BOOST, in microseconds, is '-1', but must be a whole number from 0 to 1000000000"),
        ("CEXEC_UDP_PORT", "x", "CEXEC_UDP_PORT is 'x', but must be a port number from 1 to 65535"),
        ("CEXEC_GROUP", "127.255.255.255,10.0.0.300", "bad group entry '10.0.0.300'"),
    ],
)
def test_a_wrong_setting_is_status_100_and_names_the_variable(
    name: str, value: str, expected: str, application: Application
) -> None:
    assert message(cservice(application.secret, "true", **{name: value}), 100).startswith(expected)


@pytest.mark.parametrize("kind", ["client", "relay", "damaged", "absent"])
def test_a_file_that_is_no_workers_key_is_status_111(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    owner = OwnerKey(bytes(32))
    needed = "cservice needs the private key that ckeygen made, APP, or an APP.worker"
    text, expected = {
        "client": (encode_key(owner.client_key()), f"app is a client key; {needed}"),
        "relay": (encode_key(owner.relay_key()), f"app is a relay key; {needed}"),
        "damaged": (encode_key(owner)[:-30], "app is damaged: "),
        "absent": ("", "app does not exist, here or in "),
    }[kind]
    if text:
        Path("app").write_text(text)
        Path("app").chmod(0o600)
    assert message(cservice("app", "true"), 111).startswith(expected)


def test_a_key_that_others_may_read_is_refused(application: Application) -> None:
    application.secret.chmod(0o604)
    expected = f"{application.secret} can be read by others; type: chmod 600 {application.secret}"
    assert message(cservice(application.secret, "true"), 111) == expected


def test_version_and_help_go_to_standard_output() -> None:
    version, text = cservice("--version"), cservice("--help")
    assert (version.returncode, version.stderr) == (0, "") and __version__ in version.stdout
    assert (text.returncode, text.stderr) == (0, "")
    assert text.stdout.startswith("Usage: cservice [OPTIONS] APP EXE [ARG]...\n")


# Starting


def test_the_first_line_says_fingerprint_slots_addresses_and_what_clients_type(
    application: Application, service: StartService
) -> None:
    first = service("true", options=["-j", "3"]).lines[0]
    assert re.fullmatch(
        rf"cservice: serving {application.fingerprint} with 3 slots, "
        r"listening on [0-9a-f.:, %lo]*127\.255\.255\.255[^;]*; jobs are held by process tree[^;]*; "
        rf"run a job with: cexec {application.public}",
        first,
    )


def test_the_first_line_of_a_pool_says_what_its_key_is_worth(application: Application, service: StartService) -> None:
    first = service(sys.executable, "-m", "cexec.pool", options=["-j", "3"]).lines[0]
    account = pwd.getpwuid(os.geteuid()).pw_name
    assert first.endswith(
        f"; whoever holds {application.public} has this account, {account}; "
        f'use it in Python: cexec.Executor("{application.public}")'
    )


def test_a_job_finds_the_number_of_slots(application: Application, service: StartService) -> None:
    service("sh", "-c", "echo $CEXEC_SLOTS", options=["-j", "3"], environment={"CEXEC_SLOTS": "8"})
    assert application.run("-n").stdout == b"3\n"


def test_the_first_line_of_one_that_hears_nothing_says_why(service: StartService) -> None:
    first = service("true", environment={"CEXEC_GROUP": "239.1.2.3%no-such0"}).lines[0]
    assert " listening on nothing (239.1.2.3%no-such0: no interface no-such0); jobs are held by " in first


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (["-j", "1"], {}, "1 slot,"),
        (["--slots", "3"], {"CONCURRENCY": "7"}, "3 slots,"),
        ([], {"CONCURRENCY": "7"}, "7 slots,"),
        ([], {"CONCURRENCY": " "}, None),
        ([], {}, None),
    ],
    ids=str,
)
def test_slots_are_the_options_or_concurrency_or_the_cpus(
    options: list[str], environment: dict[str, str], expected: str | None, service: StartService
) -> None:
    count = max(1, round(usable_cpus()))  # a container may have a quota of less than a CPU
    expected = expected or (f"{count} slot," if count == 1 else f"{count} slots,")
    assert f" with {expected}" in service("true", options=options, environment=environment).lines[0]


def test_options_end_at_app(application: Application, service: StartService) -> None:
    service("echo", "-j", "0", "--name", "x")
    assert application.run().stdout == b"-j 0 --name x\n"


def test_a_program_is_looked_for_once_at_the_start(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        directory.mkdir()
        program = directory / "program"
        program.write_text(f"#!/bin/sh\necho $0 {directory.name}\n")
        program.chmod(0o700)
    service("program", environment={"PATH": f"{directories[1]}:{os.environ['PATH']}"})
    (directories[0] / "program").rename(tmp_path / "program")
    ended = application.run()
    assert ended.stdout.split()[1:] == [b"two"]


def test_a_program_that_vanishes_later_is_a_refusal_and_no_status(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    broken = service(str(program), options=["--name", "w1"])
    program.unlink()
    argv, environment = application.client()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, env=environment, **pipes) as client:  # type: ignore[call-overload]
        assert 'reason="cannot start program: no such file or directory"' in broken.wait_for(" refused ")
        broken.signal(signal.SIGTERM)
        service("echo", "elsewhere")
        assert (client.communicate(timeout=PATIENCE), client.returncode) == ((b"elsewhere\n", b""), 0)


def test_standard_descriptors_that_are_closed_at_the_start_do_no_harm(application: Application) -> None:
    argv = command("cservice", application.secret, "cat")
    script = 'exec "$@" <&- >&- 2>&-'
    with subprocess.Popen(["sh", "-c", script, "sh", *argv], env=local_environment()) as worker:
        try:
            assert application.run(input=b"text").stdout == b"text"
            worker.terminate()
            assert worker.wait(PATIENCE) == 0
        finally:
            worker.kill()


# What a job inherits


def test_the_worker_precedes_its_jobs_for_the_cpu_where_it_may(application: Application, service: StartService) -> None:
    """Regression: 200 clients that started at once kept the worker from the CPU, and waited 3 s for an answer."""
    worker = service(sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert application.run().stdout == f"{own}\n".encode()
    urgent = max(own - 10, -20)
    probe = f"import os; os.setpriority(os.PRIO_PROCESS, 0, {urgent})"
    allowed = subprocess.run([sys.executable, "-c", probe], stderr=subprocess.DEVNULL).returncode == 0
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == (urgent if allowed else own)


SHOW = (
    sys.executable,
    "-c",
    "import json, os; print(json.dumps([dict(os.environ), os.getcwd(), os.getsid(0), os.getpid()]))",
)


def shown(ended: subprocess.CompletedProcess[bytes]) -> tuple[dict[str, str], str, int, int]:
    environment, directory, session, pid = json.loads(ended.stdout)
    environment.pop("LC_CTYPE", None)  # Python's own
    return environment, directory, session, pid


def test_a_job_inherits_the_environment_without_what_is_cexecs(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    removed = {
        "CEXEC_TIMEOUT_ACCEPT": "5", "CEXEC_OF_TOMORROW": "x", "GROUP": "127.0.0.1", "BOOST": "1", "CONCURRENCY": "2",
        "MAXFD": "9", "PEER_OLD": "x",
    }  # fmt: skip
    worker = service(*SHOW, environment={**removed, "GREETING": "hällo wörld", "HOME": str(tmp_path)})
    found, _, _, _ = shown(application.run("NEW=1"))
    inherited = {
        name: value
        for name, value in psutil.Process(worker.pid).environ().items()
        if name not in removed and not name.startswith("CEXEC_")
    }
    assert inherited["GREETING"] == "hällo wörld" and inherited["HOME"] == str(tmp_path)
    own = {name: found.pop(name) for name in JOB_VARIABLES}
    assert found.pop("PEER_NEW") == "1"
    inherited.pop("LC_CTYPE", None)
    assert found == inherited
    assert re.fullmatch("[0-9a-f]{32}", own["CEXEC_JOB"])
    assert (own["CEXEC_ATTEMPT"], own["CEXEC_CLIENT"]) == ("1", "default")
    assert (own["REMOTE_ADDR"], own["SERVER_ADDR"]) == ("127.0.0.1", "127.0.0.1")
    assert own["REMOTE_PORT"] != own["SERVER_PORT"]
    assert all(1024 <= int(own[name]) < 65536 for name in ("REMOTE_PORT", "SERVER_PORT"))


def test_clean_env_leaves_only_the_minimum(application: Application, service: StartService) -> None:
    service(*SHOW, options=["--clean-env"], environment={"SECRET": "x", "TZ": "UTC", "LANG": "C.UTF-8"})
    found, _, _, _ = shown(application.run("A=1"))
    allowed = {name for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ} | {"TZ", "LANG"}
    assert set(found) == allowed | JOB_VARIABLES | {"PEER_A"}


def test_each_job_has_an_id_of_its_own(application: Application, service: StartService) -> None:
    service(*SHOW)
    assert len({shown(application.run())[0]["CEXEC_JOB"] for _ in range(3)}) == 3


def test_a_job_runs_in_cservices_directory_and_a_session_of_its_own(
    application: Application, service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service(*SHOW)
    monkeypatch.chdir("/")
    _, directory, session, pid = shown(application.run())
    assert directory == str(tmp_path)
    assert session == pid


def test_a_job_has_the_signals_of_a_fresh_program(application: Application, service: StartService) -> None:
    service("grep", "^Sig[BI]", "/proc/self/status")
    lines = dict(line.split(b":\t") for line in application.run().stdout.splitlines())
    ordinary = (1 << 31) - 1  # signals 1 to 31; the C library has uses of its own for the next two
    assert {name: int(mask, 16) & ordinary for name, mask in lines.items()} == {b"SigBlk": 0, b"SigIgn": 0}


def test_a_job_has_no_descriptor_of_cservices(application: Application, service: StartService) -> None:
    service("ls", "/proc/self/fd")
    assert application.run().stdout.split() == [b"0", b"1", b"2", b"3"]  # the last is ls's own
