"""How a worker runs on a host: as a systemd user unit where the user has a manager, else detached with a pid file.

Contract: `find_manager()` says if `systemctl --user` works here; it sets XDG_RUNTIME_DIR if only that is missing.  A
`Unit` and a `Detached` have the same methods: `start`, `stop(grace)`, `running`, `forget`.  `forget` removes what
`start` has written.  `stop` sends SIGTERM, again after `grace` seconds so that jobs end too, and then SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from cexec.boot.remote.place import RemoteError, write_whole

LAST_GRACE = 10.0  # seconds (ours) from the second SIGTERM to SIGKILL
PAUSE = 0.05  # seconds (ours) between two looks
COMMAND_PATIENCE = 30.0  # seconds (ours) that systemctl may take
UNIT_DIRECTORY = ".config/systemd/user"
WANTS_DIRECTORY = "default.target.wants"  # where `systemctl enable` puts its link
UNIT = """\
# Written by cboot; `cboot --remove` removes it.
[Unit]
Description=cexec worker {name}
ConditionHost={host}

[Service]
ExecStart=/bin/sh {script}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec={patience}
Delegate=yes
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=100
StandardOutput=append:{log}
StandardError=append:{log}

[Install]
WantedBy=default.target
"""


def find_manager() -> bool:
    """Returns True if this user has a systemd manager that can be spoken to."""
    if shutil.which("systemctl") is None:
        return False
    usual = f"/run/user/{os.getuid()}"
    if "XDG_RUNTIME_DIR" not in os.environ and os.path.isdir(usual):
        os.environ["XDG_RUNTIME_DIR"] = usual  # sshd without PAM does not set it
    return _systemctl("show-environment").returncode == 0


def lingers() -> bool:
    """Returns True if this user's manager goes on when he has logged out."""
    argv = ["loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value"]
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.stdout.strip() == "yes"


class Unit:
    """A user unit that is enabled, and refuses to start on another host that has the same home."""

    def __init__(self, home: Path, name: str, host: str) -> None:
        self.unit = f"cexec-boot-{name}.service"
        self.path = home / UNIT_DIRECTORY / self.unit
        self._name = name
        self._host = host

    @property
    def files(self) -> list[Path]:
        """Returns what `start` makes: the unit, and the link by which it is enabled."""
        return [self.path, self.path.parent / WANTS_DIRECTORY / self.unit]

    def start(self, script: Path, log: Path, grace: float) -> None:
        text = UNIT.format(
            name=self._name,
            host=self._host,
            script=in_unit(str(script)),
            log=str(log).replace("%", "%%"),
            patience=round(grace + LAST_GRACE),
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, text.encode(), 0o644)
        self._must("daemon-reload")
        self._must("enable", self.unit)
        self._must("restart", self.unit)

    def running(self) -> bool:
        return _systemctl("is-active", "--quiet", self.unit).returncode == 0

    def stop(self, grace: float) -> None:
        """systemd's own SIGKILL comes after TimeoutStopSec."""
        _systemctl("stop", "--no-block", self.unit)
        if not _comes_true(lambda: not self.running() and not self._stopping(), grace):
            _systemctl("kill", "--kill-who=main", self.unit)  # the second SIGTERM
            if not _comes_true(lambda: not self._stopping(), LAST_GRACE):
                _systemctl("kill", "--signal=SIGKILL", self.unit)
                _comes_true(lambda: not self._stopping(), LAST_GRACE)

    def forget(self) -> None:
        _systemctl("disable", self.unit)
        for path in self.files:
            path.unlink(missing_ok=True)
        _systemctl("daemon-reload")
        _systemctl("reset-failed", self.unit)

    def _stopping(self) -> bool:
        return str(_systemctl("is-active", self.unit).stdout).strip() == "deactivating"

    def _must(self, *words: str) -> None:
        ended = _systemctl(*words)
        if ended.returncode:
            raise RemoteError("remote", f"systemctl --user {words[0]} failed: {ended.stderr.strip()[-300:]}")


class Detached:
    """A process of its own session, known by its pid and the time of its start."""

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def files(self) -> list[Path]:
        return []  # the pid file is in the worker's own directory

    def start(self, script: Path, log: Path, grace: float) -> None:
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                ["/bin/sh", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )
        write_whole(self._pid_file, f"{self._child.pid} {start_time(self._child.pid)}\n".encode(), 0o600)

    def running(self) -> bool:
        return self._pid() != 0

    def stop(self, grace: float) -> None:
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGTERM, LAST_GRACE), (signal.SIGKILL, LAST_GRACE)):
            pid = self._pid()
            if not pid:
                return
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            if _comes_true(lambda: not self._pid(), patience):
                return

    def forget(self) -> None:
        self._pid_file.unlink(missing_ok=True)

    def _pid(self) -> int:
        """Returns the process, or 0 if it has ended; another process with its number does not count."""
        if self._child is not None and self._child.poll() is not None:
            return 0
        try:
            pid, _, began = self._pid_file.read_text().strip().partition(" ")
            return int(pid) if start_time(int(pid)) == began != "" else 0
        except (OSError, ValueError):
            return 0


def start_time(pid: int) -> str:
    """Returns when a process began, in the words of the system; empty if there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if os.path.isdir("/proc/self"):
            return ""
        argv = ["ps", "-o", "lstart=", "-p", str(pid)]
        return "_".join(subprocess.run(argv, capture_output=True, text=True).stdout.split())
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def in_unit(text: str) -> str:
    """Returns a word of a command line as systemd reads it (systemd.service, "COMMAND LINES")."""
    for letter, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(letter, written)
    return f'"{text}"'


def _systemctl(*words: str) -> subprocess.CompletedProcess[Any]:
    argv = ["systemctl", "--user", *words]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 1, "", str(error))


def _comes_true(condition: Any, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True
