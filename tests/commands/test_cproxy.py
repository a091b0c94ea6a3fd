"""cproxy(1): its words, its settings, its exit statuses; what it relays is in tests/network."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from cexec import __version__
from cexec.commands import cproxy
from tests import preloaded
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.needs import require_isolation
from tests.relaying import Proxy
from tests.service import Application
from tests.waiting import PATIENCE

LOOPBACK = ("127.0.0.1", "127.0.0.255")  # SELF and a TARGET that never leave the machine


@pytest.fixture
def relay_key(application: Application) -> Path:
    subprocess.run(command("ckeygen", "--relay", application.secret), check=True, capture_output=True)
    return application.secret.with_name("app.relay")


def call(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """A cproxy that ends at once, because something is wrong: exit status and what it says."""
    ended = preloaded.run_text(command("cproxy", *arguments), env=clean_environment(environment), timeout=PATIENCE)
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "missing argument 'SELF'"),
        (("relay.example",), "'relay.example' is neither an address of this host nor DEVICE:ADDRESS"),
        (("127.0.0.1", "10.0.0.0/8"), "bad group entry '10.0.0.0/8'"),
        (("--max-hops", "9", *LOOPBACK), "invalid value for '--max-hops'"),
        (("--max-hops", "-1", *LOOPBACK), "invalid value for '--max-hops'"),
        (("--hop-delay", "11", *LOOPBACK), "--hop-delay is '11', but must be at most 10.0 s"),
        (("--hop-delay", "nan", *LOOPBACK), "--hop-delay is 'nan', but must be a number of seconds"),
        (("--rate", "nan", *LOOPBACK), "--rate is 'nan', but must be a number from 1 to 100000"),
        (("--rate", "0", *LOOPBACK), "--rate is '0', but must be a number from 1 to 100000"),
        (("--unknown", *LOOPBACK), "no such option '--unknown'"),
        (("127.0.0.1", "127.255.255.255"), "the target 127.255.255.255 is the group itself"),
    ],
)
def test_wrong_use_is_refused_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    status, errors = call(*arguments)
    assert status == 100
    assert errors.startswith(f"cproxy: {message}") and errors.count("\n") == 1


def test_an_address_of_another_host_is_a_temporary_failure() -> None:
    status, errors = call("192.0.2.77", "127.0.0.255")
    assert status == 111
    assert errors.startswith("cproxy: 192.0.2.77 is no address of this host, whose addresses are: 127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [("CEXEC_GROUP", "10.0.0.0/8", 100), ("CEXEC_UDP_PORT", "none", 100), ("CEXEC_LISTEN_PORTS", "80", 100)],
)
def test_settings_that_are_wrong_are_refused(name: str, value: str, status: int) -> None:
    ended, errors = call(*LOOPBACK, environment={name: value})
    assert ended == status and value in errors


def test_only_takes_a_relays_key(application: Application, relay_key: Path, tmp_path: Path) -> None:
    for wrong in (application.secret, application.public):
        status, errors = call("--only", wrong, *LOOPBACK)
        assert status == 111
        assert "cproxy --only needs the file that ckeygen --relay made" in errors
    assert call("--only", tmp_path / "none", *LOOPBACK)[0] == 111
    os.chmod(relay_key, 0o644)
    status, errors = call("--only", relay_key, *LOOPBACK)
    assert status == 111 and f"chmod 600 {relay_key}" in errors


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cproxy.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert cproxy.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("--only", "--hop-delay", "--max-hops", "--rate", "--log", "SELF", "TARGET"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success(number: int) -> None:
    require_isolation()
    process = subprocess.Popen(command("cproxy", *LOOPBACK), env=clean_environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "relaying every application between 127.255.255.255 (at 127.0.0.1) and 127.0.0.255" in (
        process.stderr.readline()
    )
    process.send_signal(number)
    assert "stopping jobs=0" in process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0


def test_events_can_be_json(relay_key: Path) -> None:
    require_isolation()
    argv = command("cproxy", "--log", "json", "--only", relay_key, *LOOPBACK)
    process = subprocess.Popen(argv, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    ready = json.loads(process.stderr.readline())
    process.terminate()
    assert json.loads(process.communicate(timeout=PATIENCE)[1])["event"] == "stopping"
    assert (ready["event"], ready["near"], ready["far"]) == ("ready", ["127.255.255.255"], ["127.0.0.255"])
    assert len(ready["applications"]) == 1


def test_ports_for_workers_are_those_that_the_firewall_lets_through(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    made = lab([(1, 2), (2, 3)])
    relay = Proxy(made.host(2), "10.77.0.2", "10.77.1.255", environment={"CEXEC_LISTEN_PORTS": "41000:41010"})
    worker = service("cat", host=made.host(3))
    assert application.run(input=b"x", host=made.host(1)).stdout == b"x"
    assert "client=10.77.1.2:410" in worker.wait_for("accepted")
    relay.close()


@pytest.mark.parametrize("most", [7, 9, 12])
def test_too_few_descriptors_are_told_before_any_is_needed(most: int) -> None:
    """Regression: with few of them this host seemed to have no address, or a port to be taken."""
    ended = subprocess.run(
        command("cproxy", *LOOPBACK),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most, most)),
    )
    assert (ended.returncode, ended.stdout) == (111, "")
    assert ended.stderr == f"cproxy: only {most} descriptors may be open, and 64 are needed; raise ulimit -n\n"
