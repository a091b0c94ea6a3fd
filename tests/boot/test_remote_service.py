"""Workers as systemd units, with a systemctl of ours on the PATH, and as detached processes, which are real.

No test speaks to the systemd of this machine: what is checked of units is the file, the decision and the calls.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.boot.remote import service
from cexec.boot.remote.place import RemoteError
from cexec.boot.remote.service import Detached, Unit, find_manager, in_unit, lingers, start_time
from tests.needs import find_tool
from tests.waiting import wait_until

# Writes its arguments into the file calls; the file state says if the unit is active.
FAKE = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> calls
test "$2" = "$(cat broken 2>/dev/null)" && { echo "Failed to $2: no bus" >&2; exit 1; }
case "$2" in
    restart) echo active > state ;;
    stop) test -f stubborn && echo deactivating > state || echo inactive > state ;;
    kill) rm -f stubborn; echo inactive > state ;;
    is-active) test "$3" = --quiet || cat state; test "$(cat state)" = active; exit ;;
esac
exit 0
"""


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a systemctl and a loginctl."""
    directory = tmp_path / "fake"
    directory.mkdir()
    (directory / "systemctl").write_text(FAKE)
    (directory / "loginctl").write_text('#!/bin/sh\ncat "$(dirname "$0")/linger"\n')
    for name in ("systemctl", "loginctl"):
        (directory / name).chmod(0o755)
    (directory / "state").write_text("inactive\n")
    monkeypatch.setenv("PATH", f"{directory}:{os.defpath}")
    monkeypatch.setattr(service, "LAST_GRACE", 0.3)
    return directory


def calls(directory: Path) -> list[str]:
    return (directory / "calls").read_text().splitlines()


def test_a_manager_that_answers_is_used(systemd: Path) -> None:
    assert find_manager()
    assert calls(systemd) == ["--user show-environment"]
    (systemd / "broken").write_text("show-environment")
    assert not find_manager()


def test_without_systemctl_there_is_no_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not find_manager() and not lingers()


@pytest.mark.parametrize(("text", "expected"), [("yes\n", True), ("no\n", False), ("", False)])
def test_lingering_is_asked_for(text: str, expected: bool, systemd: Path) -> None:
    (systemd / "linger").write_text(text)
    assert lingers() is expected


def test_a_unit_is_written_enabled_started_and_forgotten(systemd: Path, tmp_path: Path) -> None:
    home = tmp_path / "home 50%"
    unit = Unit(home, "0fe5-08ec-node1", "node1.example")
    script = home / "start"
    unit.start(script, home / "log", 7.0)
    text = unit.path.read_text()
    assert unit.path == home / ".config/systemd/user/cexec-boot-0fe5-08ec-node1.service"
    assert f'\nExecStart=/bin/sh "{tmp_path}/home 50%%/start"\n' in text
    assert f"\nStandardError=append:{tmp_path}/home 50%%/log\n" in text
    for line in ("ConditionHost=node1.example", "KillMode=mixed", "Delegate=yes", "Restart=on-failure",
                 "RestartPreventExitStatus=100", "WantedBy=default.target", "TimeoutStopSec=7"):  # fmt: skip
        assert f"\n{line}\n" in text
    assert unit.running()
    name = unit.path.name
    assert calls(systemd)[:3] == ["--user daemon-reload", f"--user enable {name}", f"--user restart {name}"]
    assert unit.path in unit.files and unit.files[1].parent.name == "default.target.wants"
    unit.stop(5.0)
    assert not unit.running()
    unit.forget()
    assert not unit.path.exists() and f"--user disable {name}" in calls(systemd)


def test_a_real_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """Its verifier reads the file, and speaks to nobody."""
    verifier = find_tool("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd is no package of ours")
    text = service.UNIT.format(name="n", host="h", script=in_unit("/bin/true"), log="/tmp/log", patience=3)
    (tmp_path / "cexec-boot-n.service").write_text(text)
    ended = subprocess.run([verifier, "verify", str(tmp_path / "cexec-boot-n.service")], capture_output=True, text=True)
    assert "Unknown" not in ended.stderr and "Invalid" not in ended.stderr


def test_jobs_that_go_on_get_a_second_signal(systemd: Path, tmp_path: Path) -> None:
    unit = Unit(tmp_path, "n", "h")
    unit.start(tmp_path / "start", tmp_path / "log", 0.1)
    (systemd / "stubborn").write_text("")
    unit.stop(0.1)
    assert not unit.running()
    assert f"--user kill --kill-who=main {unit.path.name}" in calls(systemd)


def test_a_systemctl_that_refuses_is_quoted(systemd: Path, tmp_path: Path) -> None:
    (systemd / "broken").write_text("enable")
    with pytest.raises(RemoteError, match="systemctl --user enable failed: Failed to enable: no bus"):
        Unit(tmp_path, "n", "h").start(tmp_path / "start", tmp_path / "log", 1.0)


@pytest.mark.parametrize(
    ("text", "written"), [("/a b", '"/a b"'), ('/a"b', '"/a\\"b"'), ("/a\\b", '"/a\\\\b"'), ("/$a%b", '"/$$a%%b"')]
)
def test_a_word_in_a_unit_is_quoted(text: str, written: str) -> None:
    assert in_unit(text) == written


@pytest.fixture
def detached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Detached]:
    monkeypatch.setattr(service, "LAST_GRACE", 5.0)
    found = Detached(tmp_path / "pid")
    yield found
    found.stop(0.0)


def script(directory: Path, text: str) -> Path:
    path = directory / "start"
    path.write_text(text)
    return path


def test_a_detached_process_is_known_by_its_pid_file(detached: Detached, tmp_path: Path) -> None:
    detached.start(script(tmp_path, "echo here; exec sleep 100\n"), tmp_path / "log", 1.0)
    pid = int((tmp_path / "pid").read_text().split()[0])
    assert detached.running() and os.getsid(pid) == pid
    another = Detached(tmp_path / "pid")  # as the next agent sees it
    assert another.running()
    wait_until(lambda: (tmp_path / "log").read_text() == "here\n")
    detached.stop(5.0)
    assert not another.running()
    another.forget()
    assert not (tmp_path / "pid").exists()


def test_a_process_that_ignores_sigterm_is_killed_at_last(detached: Detached, tmp_path: Path) -> None:
    service.LAST_GRACE = 0.3
    detached.start(script(tmp_path, "trap '' TERM; echo ready; while :; do sleep 1; done\n"), tmp_path / "log", 1.0)
    wait_until(lambda: (tmp_path / "log").read_text() == "ready\n")
    detached.stop(0.2)
    assert not detached.running()


def test_another_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (tmp_path / "pid").write_text(f"{stranger.pid} 12345\n")
        found = Detached(tmp_path / "pid")
        assert not found.running()
        found.stop(0.1)
        assert stranger.poll() is None
        (tmp_path / "pid").write_text(f"{stranger.pid} {start_time(stranger.pid)}\n")
        assert found.running()
        stranger.communicate(b"\n")
    assert not found.running()


@pytest.mark.parametrize("text", ["", "x y", "999999999 1", "1", "-1 x"])
def test_a_damaged_pid_file_names_nobody(text: str, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(text)
    assert not Detached(tmp_path / "pid").running()


def test_a_process_that_has_ended_has_no_start() -> None:
    ended = subprocess.Popen(["true"])
    wait_until(lambda: start_time(ended.pid) == "")  # a zombie has none either
    ended.wait()
    assert start_time(os.getpid()) != "" and signal.SIGTERM
