"""A shell service for tests: an account with an empty home, and programs that reach it by cexec-ssh.

Contract: `ShellHost` runs `cservice --shell` on a host of a lab or here.  The account's home, which is in /etc/passwd,
is a directory of the test: a mount namespace shows another file in its place, so nothing of the developer's home is
read.  `environment()` is that of a program that finds cexec-ssh, and `ssh`, `scp` and `sftp` as cexec-ssh makes them.
Needs root, because only root may mount.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.environment import ROOT, clean_environment, command, local_environment
from tests.lab import Host
from tests.needs import NOBODY, require_tool, skip_for_want_of
from tests.second_user import readable_python
from tests.service import Application, Service

PATIENCE = 120.0  # seconds: programs start cexec-ssh several times, and the machine may be busy
_MOUNTED = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
# The other user may enter the home there only, because those of pytest are closed to others.
_MOUNTED_FOR_USER = """
mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && mount --bind "$3" "$4" && shift 4 && exec "$@"
"""
USER = "alice"  # the other user
GROUPS = {"alice": NOBODY, "crew": 4242}  # hers; the first one is her own
_PLACE = "/mnt"  # where her home is


class ShellHost:
    """`cservice --shell --name NAME`, on `host` or else here; its client is `client` or else here."""

    def __init__(
        self,
        directory: Path,
        *,
        host: Host | None = None,
        client: Host | None = None,
        name: str = "w",
        options: Sequence[str] = (),
        application: Application | None = None,
        environment: Mapping[str, str] | None = None,
        home: bool = True,
        other_user: bool = False,
    ) -> None:
        """`home`: False if the account's home does not exist.  `other_user`: root starts the service for USER."""
        require_tool("unshare", "mount")
        if os.geteuid() != 0:
            skip_for_want_of("the right to mount")
        self.account = USER if other_user else pwd.getpwuid(0).pw_name
        self.directory = directory
        self.name = name
        self.home = directory / f"home-{name}"
        if home:
            self.home.mkdir()
        self.client = client
        self.application = application or Application(directory, "shell")
        passwd = directory / f"passwd-{name}"
        passwd.write_text(self._accounts())
        launcher = ["unshare", "-m", "sh", "-c", _MOUNTED, "sh", os.fspath(passwd), *command("cservice")]
        options = ["--name", name, "--shell", *options]
        if other_user:
            launcher = self._launcher_for_user(passwd)
            options += ["--user", USER]
        self.service = Service(self.application, [], options, host, environment, launcher=launcher)
        self._links = directory / f"links-{name}"
        self._make_links()

    def _accounts(self) -> str:
        """The accounts of this machine, ours with our home and a shell that reads no files there."""
        number, home = (NOBODY, _PLACE) if self.account == USER else (0, self.home)
        lines = Path("/etc/passwd").read_text().splitlines()
        others = [line for line in lines if line.split(":")[2] != str(number)]
        return "\n".join([f"{self.account}:x:{number}:{number}:{self.account}:{home}:/bin/bash", *others, ""])

    def _launcher_for_user(self, passwd: Path) -> list[str]:
        place = self.directory / f"python-{self.name}"
        place.mkdir()
        groups = self.directory / f"group-{self.name}"
        lines = Path("/etc/group").read_text().splitlines()
        others = [line for line in lines if line.split(":")[2] not in map(str, GROUPS.values())]
        groups.write_text("\n".join([*(f"{name}:x:{number}:{USER}" for name, number in GROUPS.items()), *others, ""]))
        os.chown(self.home, NOBODY, NOBODY)
        paths = [passwd, groups, self.home, _PLACE]
        mounted = ["sh", "-c", _MOUNTED_FOR_USER, "sh", *map(str, paths), *command("cservice")]
        return [*(readable_python(place) or ["unshare", "-m"]), *mounted]

    def _make_links(self) -> None:
        """An executable cexec-ssh that needs no installation, and the programs that call it."""
        self._links.mkdir()
        launcher = self._links / "cexec-ssh"
        source = (ROOT / "bin" / "cexec-ssh").read_text().partition("\n")[2]
        launcher.write_text(f"#!{sys.executable}\n{source}")
        launcher.chmod(0o755)
        argv = [os.fspath(launcher), "--links", os.fspath(self._links)]
        made = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=PATIENCE)
        if made.returncode:
            require_tool("scp", "sftp")
        assert made.returncode == 0, made.stderr

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a program at the client."""
        path = f"{self._links}:{os.environ['PATH']}"
        own = {"PATH": path, "HOME": os.fspath(self.directory), "CEXEC_SSH_KEY": os.fspath(self.application.public)}
        make = clean_environment if self.client is not None else local_environment
        return make({**own, **(changes or {})})

    def run(
        self, *argv: str | os.PathLike[str], changes: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Runs a program at the client to its end."""
        options = {"capture_output": True, "timeout": PATIENCE, "env": self.environment(changes), **options}
        if "stdin" not in options and "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        if self.client is not None:
            return self.client.run(argv, **options)
        return subprocess.run(argv, **options)

    def popen(
        self, *argv: str | os.PathLike[str], changes: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Starts a program at the client."""
        words = [os.fspath(word) for word in argv]
        inside = words if self.client is None else self.client.inside(words)
        return subprocess.Popen(inside, env=self.environment(changes), **options)

    def do(self, *argv: str | os.PathLike[str], changes: Mapping[str, str] | None = None, **options: Any) -> str:
        """Runs a program that has to succeed; returns what it prints."""
        ended = self.run(*argv, changes=changes, text=True, **options)
        assert ended.returncode == 0, f"{argv}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return str(ended.stdout)

    def ssh(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Runs `cexec-ssh WORDS...`."""
        return self.run("cexec-ssh", *words, **options)

    def close(self) -> None:
        self.service.close()
