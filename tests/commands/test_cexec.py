"""cexec as its user meets it: words, environment, messages, statuses.  Real processes on this machine only."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cexec import __version__
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_CLIENT, Certificate, Identity
from cexec.protocol.base.keys import ClientKey, OwnerKey, encode_key
from tests.conftest import StartService
from tests.environment import ABSENT_NAME, command, local_environment
from tests.needs import require_isolation
from tests.service import Application, Shell
from tests.waiting import PATIENCE

Run = subprocess.CompletedProcess[bytes]
ELSEWHERE = "127.0.0.9"  # a group of its own on this machine, that no worker of these tests hears
SOON = {"CEXEC_TIMEOUT_ACCEPT": "0.3"}


def cexec(*words: str | Path, **environment: str) -> Run:
    """`cexec WORDS...`, which nobody answers."""
    settings = local_environment({"CEXEC_GROUP": ELSEWHERE, **SOON, **environment})
    return subprocess.run(command("cexec", *words), env=settings, capture_output=True, timeout=30, input=b"")


def message(ended: Run, status: int) -> str:
    """The one line that cexec said when it failed, without its name."""
    text = ended.stderr.decode()
    assert (ended.returncode, ended.stdout, text.count("\n")) == (status, b"", 1), text
    assert text.startswith("cexec: ") and not text.endswith(".\n")
    return text[len("cexec: ") : -1]


# Wrong use


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "missing argument 'APP.pub'; see cexec --help"),
        (("--frobnicate", "app.pub"), "no such option '--frobnicate'"),
        (
            ("app.pub", "input.wav"),
            "the program's own arguments come after --: cexec app.pub -- input.wav",
        ),
        (("app.pub", "-", "A=1"), "the program's own arguments come after --: cexec app.pub -- '-' 'A=1'"),
        (("app.pub", "ls", "-l"), "the program's own arguments come after --: cexec app.pub -- ls -l"),
        (
            ("-n", "a.pub", "B=1", "ls", "-n"),
            "the program's own arguments come after --: cexec [OPTIONS] a.pub 'B=1' -- ls",
        ),
        (
            ("--need", "gpu", "app.pub", "ls", "-l", "a b"),
            "the program's own arguments come after --: cexec --need gpu app.pub -- ls -l 'a b'",
        ),
        (
            ("app.pub", "--tme-limit", "5"),
            "no such option '--tme-limit'; did you mean --time-limit? "
            "the program's own arguments come after --: cexec app.pub -- --tme-limit 5",
        ),
        (("--al", "app.pub"), "no such option '--al'; did you mean --all? See cexec --help"),
        (("--on",), "--on needs a value; see cexec --help"),
        (("--on", "--all", "app.pub"), "--on needs a value, but the option --all follows it"),
        (("app.pub", "A-B=1"), "'A-B' cannot be a variable's name: letters, digits and _, at most 64 of them"),
        (("app.pub", "1A=1"), "'1A' cannot be a variable's name"),
        (("app.pub", "=1"), "'' cannot be a variable's name"),
        (("app.pub", "Ä=1"), "'Ä' cannot be a variable's name"),
        (("app.pub", "A" * 65 + "=1"), "cannot be a variable's name"),
        (("",), "the name of the key is empty"),
    ],
    ids=str,
)
def test_wrong_words_are_status_100_and_one_line(
    words: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Application(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert expected in message(cexec(*words), 100)


@pytest.mark.parametrize("output", ["app.pub", "link", "hard", "out"])
def test_a_file_that_is_fetched_replaces_neither_the_key_nor_an_output(tmp_path: Path, output: str) -> None:
    key = Application(tmp_path).public
    before = key.read_bytes()
    (tmp_path / "link").symlink_to(key)
    (tmp_path / "hard").hardlink_to(key)
    settings = local_environment({"CEXEC_GROUP": ELSEWHERE, **SOON})
    with open(tmp_path / "out", "wb") as out:
        argv = command("cexec", "app.pub", "--fetch", f"x={output}")
        ended = subprocess.run(argv, cwd=tmp_path, env=settings, stdout=out, stderr=subprocess.PIPE, timeout=30)
    what = "the file of standard output" if output == "out" else "the key"
    assert (ended.returncode, ended.stderr.decode()) == (100, f"cexec: cannot fetch into {output}: it is {what}\n")
    assert key.read_bytes() == before


def test_a_variable_that_the_kernel_would_refuse_is_wrong_use(application: Application) -> None:
    name = "PEER_A="
    longest = "x" * (131_071 - len(name))
    assert "no worker" in message(cexec(application.public, f"A={longest}"), 111)
    said = message(cexec(application.public, f"A={longest}x"), 100)
    assert said == "variable PEER_A is 131065 bytes and can be 131064; give the rest as standard input"


@pytest.mark.parametrize("options", [[], ["--all"]], ids=["one", "all"])
def test_more_than_a_worker_can_be_told_is_wrong_use_before_anybody_is_asked(
    application: Application, options: list[str]
) -> None:
    half = "x" * 100_000
    said = message(cexec(*options, application.public, f"A={half}", "--", half), 100)
    assert re.fullmatch(
        r"arguments, variables and file names are 2000\d\d bytes and at most 196608 fit; "
        r"give the rest as standard input",
        said,
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CEXEC_LISTEN_PORTS", "1023", "CEXEC_LISTEN_PORTS has port 1023, but the lowest allowed port is 1024"),
        ("CEXEC_LISTEN_PORT", "80:90", "CEXEC_LISTEN_PORT has port 80, but the lowest allowed port is 1024"),
        ("CEXEC_PORTS", "4000,22", "CEXEC_PORTS has port 22, but the lowest allowed port is 1024"),
        ("CEXEC_PORT", "http", "CEXEC_PORT has 'http', but must be ports or ranges as in 4000,4001,5000:5009"),
        ("CEXEC_UDP_PORT", "70000", "CEXEC_UDP_PORT is '70000', but must be a port number from 1 to 65535"),
        ("CEXEC_GROUP", "10.0.0.300", "bad group entry '10.0.0.300'"),
        ("CEXEC_TIMEOUT_ACCEPT", "soon", "CEXEC_TIMEOUT_ACCEPT is 'soon', but must be a number of seconds"),
        ("CEXEC_TIMEOUT_ACCEPT", "-1", "CEXEC_TIMEOUT_ACCEPT is '-1', but must be a number of seconds"),
        ("CEXEC_TIMEOUT_PINGPONG", "x", "CEXEC_TIMEOUT_PINGPONG is 'x', but must be a number of seconds"),
        ("CEXEC_MAXFD", "256", "CEXEC_MAXFD is '256', but must be a whole number from 0 to 255"),
        ("CEXEC_TIMEOUT_ACCEPT", "inf", "CEXEC_TIMEOUT_ACCEPT is 'inf', but must be a number of seconds, or a time"),
        ("CEXEC_SPOOL", "-1", "CEXEC_SPOOL is '-1', but must be a size such as 65536, 64K, 500M or 1.5G"),
        ("MAXFD", "all", "MAXFD is 'all', but must be a whole number from 0 to 255"),
        ("CEXEC_FD_FOR_ERRORS", "32", "CEXEC_FD_FOR_ERRORS is '32', but must be a descriptor above MAXFD, which is 32"),
        ("CEXEC_FD_FOR_ERRORS", "errors", "CEXEC_FD_FOR_ERRORS is 'errors', but must be a descriptor above MAXFD"),
        ("CEXEC_FD_FOR_ERRORS", "40", "CEXEC_FD_FOR_ERRORS is 40, but that descriptor is not open; add 40>FILE"),
    ],
)
def test_a_wrong_setting_is_status_100_and_names_the_variable(
    name: str, value: str, expected: str, application: Application
) -> None:
    assert message(cexec(application.public, **{name: value}), 100).startswith(expected)


def test_version_and_help_go_to_standard_output(application: Application) -> None:
    version, text = cexec("--version"), cexec("--help")
    assert (version.returncode, version.stderr) == (0, b"") and __version__ in version.stdout.decode()
    assert (text.returncode, text.stderr) == (0, b"")
    assert text.stdout.startswith(b"Usage: cexec [OPTIONS] APP.pub [KEY=VALUE...] [-- ARG...]\n")


# Keys


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Writes a key file, or any text, into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, key: object) -> None:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(key if isinstance(key, str) else encode_key(key))  # type: ignore[arg-type]
        Path(name).chmod(0o600)

    return write


WriteKey = Callable[[str, object], None]
OWNER = OwnerKey(bytes(range(32)))
NOBODY_ANSWERS = f"no worker of {OWNER.fingerprint} answered in 0.3 s"


@pytest.mark.parametrize("called", ["app.pub", "app", "./app", "there/app.pub"])
def test_app_or_app_pub_finds_the_client_key_beside_the_private_one(called: str, keys: WriteKey) -> None:
    for directory in ("", "there/"):
        keys(f"{directory}app", OWNER)
        keys(f"{directory}app.pub", OWNER.client_key())
    assert message(cexec(called), 111).startswith(NOBODY_ANSWERS)


def test_a_client_key_may_have_any_name(keys: WriteKey) -> None:
    keys("ogg", OWNER.client_key())
    assert message(cexec("ogg"), 111).startswith(NOBODY_ANSWERS)


def test_a_file_of_the_exact_name_goes_before_one_with_pub(keys: WriteKey) -> None:
    keys("ogg", OWNER.client_key())
    keys("ogg.pub", OwnerKey(bytes(32)).client_key())
    assert message(cexec("ogg"), 111).startswith(NOBODY_ANSWERS)


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("app", OWNER, "app is a private key; cexec needs the client key that ckeygen wrote beside it (APP.pub)"),
        ("app.pub", OWNER.worker_key("w"), "app.pub is a worker key; cexec needs the client key"),
        ("app.pub", OWNER.relay_key(), "app.pub is a relay key; cexec needs the client key"),
        ("app.pub", "# hello\n", "app.pub is damaged: "),
        ("app.pub", "", "app.pub is damaged: "),
        ("app.pub", encode_key(OWNER.client_key())[:-20], "app.pub is damaged: "),
        ("app.pub", "x" * 100_000, "app.pub is damaged: it is longer than 16384 bytes"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_a_file_that_is_no_client_key_is_told_at_once(name: str, key: object, expected: str, keys: WriteKey) -> None:
    keys(name, key)
    began = time.monotonic()
    assert message(cexec(name, CEXEC_TIMEOUT_ACCEPT="60"), 111).startswith(expected)
    assert time.monotonic() - began < 50


def test_every_flipped_bit_of_a_key_file_is_damage(keys: WriteKey) -> None:
    text = encode_key(OWNER.client_key())
    where = text.rindex("\n", 0, -1) - 3
    damaged = text[:where] + ("A" if text[where] != "A" else "B") + text[where + 1 :]
    keys("app.pub", damaged)
    assert message(cexec("app.pub"), 111).startswith("app.pub is damaged: ")


def test_a_key_that_is_not_there_says_how_to_get_one(keys: WriteKey, tmp_path: Path) -> None:
    make = "copy app.pub from its owner or make it with: ckeygen app"
    expected = f"neither app nor app.pub exists, here or in {tmp_path}/cexec; {make}"
    assert message(cexec("app", XDG_CONFIG_HOME=str(tmp_path)), 111) == expected
    here = make.replace("app", "./app")
    assert message(cexec("./app"), 111) == f"neither ./app nor ./app.pub exists; {here}"


def test_a_key_of_nearly_this_name_is_asked_for(keys: WriteKey, tmp_path: Path) -> None:
    keys("convert.pub", OWNER.client_key())
    said = message(cexec("convrt", XDG_CONFIG_HOME=str(tmp_path)), 111)
    assert said.startswith(
        f"neither convrt nor convrt.pub exists, here or in {tmp_path}/cexec; did you mean convert.pub?"
    )


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_a_key_that_others_may_read_or_change_is_refused(mode: int, keys: WriteKey) -> None:
    keys("my app.pub", OWNER.client_key())
    Path("my app.pub").chmod(mode)
    verb = "read" if mode & 0o004 else "changed"
    said = message(cexec("my app.pub"), 111)
    assert said == f"my app.pub can be {verb} by others; type: chmod 600 'my app.pub'"


def test_a_key_that_the_group_may_read_is_fine(keys: WriteKey) -> None:
    keys("app.pub", OWNER.client_key())
    Path("app.pub").chmod(0o640)
    assert message(cexec("app.pub"), 111).startswith(NOBODY_ANSWERS)


def dated_key(not_before: int | None, not_after: int | None) -> ClientKey:
    """A client key with dates, as the application's owner can issue it."""
    plain, seed = OWNER.client_key(), b"\x05" * 32
    certificate = Certificate.issue(
        OWNER.authority_seed, ROLE_CLIENT, "guest", 7, sodium.signing_public_key(seed), not_before, not_after
    )
    return ClientKey(plain.worker_public, plain.psk, plain.authority_public, Identity(certificate, seed))


@pytest.mark.parametrize(
    ("not_before", "not_after", "expected"),
    [
        (None, 1_600_000_000, "app.pub: certificate of guest expired on 2020-09-13 and this machine's clock says "),
        (4_000_000_000, None, "app.pub: certificate of guest is not valid before 2096-10-02 and this machine's clock"),
    ],
)
def test_a_certificate_outside_its_dates_is_told_at_once(
    not_before: int | None, not_after: int | None, expected: str, keys: WriteKey
) -> None:
    keys("app.pub", dated_key(not_before, not_after))
    said = message(cexec("app.pub", CEXEC_TIMEOUT_ACCEPT="60"), 111)
    assert said.startswith(expected)
    assert said.endswith(f"{time.strftime('%Y-%m-%d', time.gmtime())}; ask its owner for a new one, or set the clock")


def test_a_certificate_within_its_dates_is_used(keys: WriteKey) -> None:
    keys("app.pub", dated_key(1_600_000_000, 4_000_000_000))
    assert message(cexec("app.pub"), 111).startswith(NOBODY_ANSWERS)


def test_a_key_from_a_pipe_is_used_and_its_descriptor_is_not_the_programs(shell: Shell) -> None:
    argv, environment = shell.client("ls /proc/self/fd")
    script = 'exec "$0" "$1" <(cat "$2") "$3" </dev/null'
    ended = subprocess.run(["bash", "-c", script, *argv], env=environment, capture_output=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.split() == [b"0", b"1", b"2", b"3"]  # the last is ls's own


# Where announcements go


def test_group_counts_only_when_every_entry_is_a_literal_address(application: Application) -> None:
    require_isolation()
    for group, expected in (
        (ELSEWHERE, ELSEWHERE),
        ("staff", "127.255.255.255"),
        ("localhost", "127.255.255.255"),
        (f"{ELSEWHERE},staff", "127.255.255.255"),
    ):
        said = message(cexec(application.public, CEXEC_GROUP="", GROUP=group), 111)
        assert re.search(rf"; sent \d announcements? to {expected}[,;]", said)


def test_a_group_of_names_that_do_not_exist_is_told_at_once(application: Application) -> None:
    """Regression: it took the whole accept timeout."""
    group = f"{ABSENT_NAME},{ABSENT_NAME}:9"
    began = time.monotonic()
    said = message(cexec(application.public, CEXEC_GROUP=group, CEXEC_TIMEOUT_ACCEPT="60"), 111)
    assert time.monotonic() - began < 50
    assert said == (
        f"no worker of {application.fingerprint} can be found: no entry of the group (CEXEC_GROUP) can be used; "
        f"{ABSENT_NAME}: no such name; {ABSENT_NAME}:9: no such name"
    )


def test_that_nobody_can_hear_for_now_is_said_while_it_waits(application: Application) -> None:
    ended = cexec(application.public, CEXEC_GROUP="239.1.2.3%no-such0", CEXEC_TIMEOUT_ACCEPT="3.9")
    early, late = ended.stderr.decode().splitlines()
    reason = r"sent \d announcements? to nobody; 239\.1\.2\.3%no-such0: no interface no-such0;"
    assert re.fullmatch(f"cexec: no worker of {application.fingerprint} has answered; {reason} [0-3] s left", early)
    assert ended.returncode == 111 and re.search(reason, late)


def test_cexec_group_goes_before_group(application: Application) -> None:
    said = message(cexec(application.public, CEXEC_GROUP=ELSEWHERE, GROUP="127.0.0.8"), 111)
    assert f"to {ELSEWHERE};" in said


def test_nobody_answers_says_where_it_asked_and_what_to_check(application: Application) -> None:
    began = time.monotonic()
    said = message(cexec(application.public, CEXEC_TIMEOUT_ACCEPT="0.9"), 111)
    assert time.monotonic() - began >= 0.9
    assert re.fullmatch(
        rf"no worker of {application.fingerprint} answered in 0\.9 s; sent [123] announcements? to {ELSEWHERE}; "
        rf"is cservice running with this key, in the same group \(CEXEC_GROUP\)\? "
        rf"cexec --explain {application.public} tells why",
        said,
    )


def test_why_a_job_waits_is_said_in_a_log_once_after_ten_seconds(application: Application) -> None:
    began = time.monotonic()
    lines = cexec(application.public, CEXEC_TIMEOUT_ACCEPT="13.5").stderr.decode().splitlines()
    assert time.monotonic() - began >= 13.5
    assert len(lines) == 2 and "answered in 13.5 s" in lines[1], lines
    assert lines[0].startswith(f"cexec: no worker of {application.fingerprint} has answered; sent ")
    assert re.search(r"; [0-4] s left$", lines[0])


def test_an_accept_timeout_of_0_waits_until_a_worker_comes(application: Application, service: StartService) -> None:
    argv, environment = application.client(environment={"CEXEC_TIMEOUT_ACCEPT": "0"})
    with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(1.0)
        service("echo", "hello")
        assert client.communicate(timeout=PATIENCE)[0] == b"hello\n"
        assert client.returncode == 0


def test_many_who_wait_on_a_machine_without_a_network_start_no_process_for_mdns(application: Application) -> None:
    """Once each of 200 clients did, and the worker that they waited for got no CPU to answer them."""
    require_isolation()
    argv, environment = application.client(environment={"CEXEC_GROUP": ""})
    with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL) as client:
        time.sleep(1.5)  # without an answer it would begin after a second
        assert client.poll() is None and psutil.Process(client.pid).children() == []
        client.terminate()


def test_a_udp_port_of_ones_own_keeps_two_networks_apart(application: Application, service: StartService) -> None:
    service("echo", "here", environment={"CEXEC_UDP_PORT": "3999"})
    assert application.run(environment={"CEXEC_UDP_PORT": "3999"}).stdout == b"here\n"
    ended = application.run(environment=SOON)
    assert (ended.returncode, ended.stdout) == (111, b"")


@pytest.mark.parametrize("name", ["CEXEC_LISTEN_PORTS", "CEXEC_LISTEN_PORT", "CEXEC_PORTS", "CEXEC_PORT"])
def test_workers_connect_to_the_ports_that_the_user_allows(name: str, shell: Shell) -> None:
    with socket.create_server(("", 21_001)):  # outside the range from which any connection may have one
        ended = shell.run("echo $REMOTE_PORT", environment={name: "21001:21003"})
    assert (ended.stdout, ended.returncode) == (b"21002\n", 0)


def test_no_port_left_is_told(application: Application) -> None:
    with socket.create_server(("", 21_011)):
        said = message(cexec(application.public, CEXEC_LISTEN_PORTS="21011"), 111)
    assert said.startswith(
        "cannot listen for workers: port 21011 taken by other programs; allow more with CEXEC_LISTEN"
    )
