"""Hosts that are known by ssh: namespaces of a `Lab`, each with an sshd, a home and process numbers of its own.

Contract: `SshHosts(lab, directory)` uses host 1 of the lab as the machine where cboot runs; `start(number, ...)` makes
a host of one of the others.  The machine's own sshd, keys and home are never touched: a host has a passwd, a /run and a
home of its own, in a mount namespace.  Everything on a host ends with `close`, or with the test run.  Needs
`require_sshd()`.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cexec.boot.dummy_command import HostFacts, parse, script
from tests.environment import clean_environment, command
from tests.lab import Host, Lab
from tests.needs import find_tool, require_namespaces, require_second_user, require_tool
from tests.waiting import wait_until

USER = "root"
# The hosts have the Python of these tests, because the wheels are made of what is installed for it.
PYTHON = os.path.realpath(sys.executable)
TOOLS = ("cat", "sh")  # all that a host without Python has
SETTINGS = """\
Port 22
HostKey {keys}/{name}
AuthorizedKeysFile {keys}/user.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
PidFile none
MaxStartups 100
SetEnv PATH={path}
SetEnv XDG_RUNTIME_DIR={runtime}
"""
SCRIPT = """\
mount --make-rprivate / && mount --bind {passwd} /etc/passwd && mount -t tmpfs tmpfs /run && mkdir /run/sshd || exit 1
{extra}
hostname {hostname}
{sshd} -D -e -f {settings} &
exec 3<&0
trap exit TERM
(cat <&3 >/dev/null; kill -TERM 1) &
while :; do wait; sleep 60 & wait; done
"""
CLIENT = """\
Host *
    User {user}
    IdentityFile {keys}/user
    IdentitiesOnly yes
    UserKnownHostsFile {keys}/known_hosts
    GlobalKnownHostsFile /dev/null
"""


def require_sshd() -> None:
    """This process may run sshd in namespaces, and ssh."""
    require_namespaces()
    require_second_user()
    require_tool("sshd", "ssh", "ssh-keygen", "mount", "hostname")


class SshHost:
    """One host."""

    def __init__(self, host: Host, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.host = host
        self.home = home
        self.process = process

    @property
    def address(self) -> str:
        return self.host.address

    def listing(self) -> list[str]:
        """All paths of the home, from outside; it may change meanwhile."""
        walk = os.walk(self.home)
        return sorted(os.path.relpath(f"{top}/{name}", self.home) for top, *both in walk for name in both[0] + both[1])

    def inside(self, argv: Sequence[str]) -> str:
        """The output of a command that sees the host's mounts and processes."""
        nsenter = find_tool("nsenter") or "nsenter"
        (init,) = _children(self.process.pid)
        words = [nsenter, "--mount", "--pid", "--uts", "--net", "--target", str(init), "--", *argv]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    def processes(self) -> list[str]:
        """The command lines of the host's processes but for those of its sshd and our own."""
        lines = self.inside(["ps", "-eww", "-o", "pid=,args="]).splitlines()
        found = [line.split(None, 1) for line in lines]
        return [
            args
            for pid, args in found
            if pid != "1"
            and not args.startswith(("sshd:", "ps ", "sleep ", "[", "cat", "sh -c mount", "/usr/sbin/sshd"))
        ]

    def close(self) -> None:
        """Ends everything on it."""
        for init in _children(self.process.pid):
            os.kill(init, signal.SIGKILL)  # with the first process all others of the host end; unshare ignores SIGTERM
        self.process.communicate()


class SshHosts:
    """The hosts of one test."""

    def __init__(self, lab: Lab, directory: Path, cache: Path | None = None) -> None:
        """`cache`: where the wheels are kept, which take a while to make."""
        self.directory = directory
        self.client = lab.host(1)
        self._lab = lab
        self._keys = directory / "keys"
        self._keys.mkdir()
        self._started: list[SshHost] = []
        self._make_key("user")
        self.config = directory / "ssh_config"
        self.config.write_text(CLIENT.format(user=USER, keys=self._keys))
        self.environment = clean_environment(
            {
                "HOME": str(self._directory("client-home")),
                "XDG_CACHE_HOME": str(cache or self._directory("cache")),
                "XDG_STATE_HOME": str(self._directory("state")),
                "XDG_RUNTIME_DIR": str(self._directory("run")),
            }
        )

    def start(
        self,
        number: int,
        *,
        home: Path | None = None,
        size: str = "",
        shell: str = "",
        path: str | None = None,
        before_path: str = "",
        known: bool = True,
        authorized: bool = True,
        environment: Mapping[str, str] | None = None,
        settings: str = "",
    ) -> SshHost:
        """Starts host `number`.

        `home`: one that exists, for hosts that share it; `size`: of a tmpfs that is the home; `shell`: the text of a
        script that is the login shell; `path`: directories of programs, `before_path`: one before the usual ones;
        `known`: our known_hosts has its host key; `settings`: lines of sshd_config.
        """
        host = self._lab.host(number)
        own = self._directory(f"h{number}")
        home = home or self._directory(f"h{number}/home")
        self._make_key(f"host{number}")
        self._know(number, f"host{number}" if known else "user")
        login = "/bin/sh"
        if shell:
            (own / "shell").write_text(shell)
            (own / "shell").chmod(0o755)
            login = str(own / "shell")
        others = [f"{':'.join(map(str, entry))}\n" for entry in pwd.getpwall() if entry.pw_name != USER]
        (own / "passwd").write_text(f"{USER}:x:0:0::{home}:{login}\n{''.join(others)}")
        runtime = self._directory(f"h{number}/run")
        keys = self._keys
        text = SETTINGS.format(keys=keys, name=f"host{number}", path=path or self._path(before_path), runtime=runtime)
        text += "".join(f"SetEnv {name}={value}\n" for name, value in (environment or {}).items())
        text += settings
        if not authorized:
            text = text.replace(f"{keys}/user.pub", "none")
        (own / "sshd_config").write_text(_together(text))
        extra = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(home))}" if size else ""
        script = SCRIPT.format(
            passwd=own / "passwd",
            extra=extra,
            hostname=f"node{number}",
            sshd=find_tool("sshd"),
            settings=own / "sshd_config",
        )
        log = own / "sshd.log"
        unshare = find_tool("unshare") or "unshare"
        words = [unshare, "-m", "-u", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        with log.open("wb") as output:
            process = host.popen(words, stdin=subprocess.PIPE, stdout=output, stderr=output, env=clean_environment())
        started = SshHost(host, home, process)
        self._started.append(started)
        wait_until(lambda: b"Server listening" in log.read_bytes(), explain=log.read_text)
        return started

    def without_python(self) -> str:
        """A PATH without python3."""
        directory = self._directory("bare")
        for name in TOOLS:
            link = directory / name
            if not link.exists():
                link.symlink_to(shutil.which(name) or name)
        return str(directory)

    def argv(self, *arguments: str | os.PathLike[str]) -> list[str]:
        """The words that run cboot with our ssh."""
        return command("cboot", "--ssh", f"ssh -F {self.config}", *arguments)

    def cboot(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs cboot on the client to its end."""
        environment = {**self.environment, **options.pop("environment", {})}
        settings = {"capture_output": True, "text": True, "timeout": 200, "env": environment, "cwd": self.directory}
        return self.client.run(self.argv(*arguments), **{**settings, **options})

    def popen(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """Starts cboot on the client."""
        settings = {"text": True, "env": self.environment, "cwd": self.directory}
        return self.client.popen(self.argv(*arguments), **{**settings, **options})

    def close(self) -> None:
        for host in self._started:
            host.close()

    def _path(self, first: str) -> str:
        directory = self._directory("bin")
        if not (directory / "python3").exists():
            (directory / "python3").symlink_to(PYTHON)
        return f"{first}{':' if first else ''}{directory}:/usr/local/bin:/usr/bin:/bin"

    def _directory(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _make_key(self, name: str) -> None:
        argv = [find_tool("ssh-keygen") or "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._keys / name)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

    def _know(self, number: int, key: str) -> None:
        public = (self._keys / f"{key}.pub").read_text()
        with (self._keys / "known_hosts").open("a") as file:
            file.write(f"{self._lab.host(number).address} {public}")


def _together(text: str) -> str:
    """sshd takes the first SetEnv only, with all variables in it."""
    lines = text.splitlines()
    variables = [line.removeprefix("SetEnv ") for line in lines if line.startswith("SetEnv ")]
    return "\n".join([*(line for line in lines if not line.startswith("SetEnv ")), f"SetEnv {' '.join(variables)}", ""])


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def facts_of_this_python() -> HostFacts:
    """What the dummy command says of the Python of these tests."""
    mark = "the-mark"
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    said = subprocess.run(
        ["sh"], input=script(mark), capture_output=True, text=True, check=True, env=environment
    ).stdout
    return parse([line.removeprefix(mark) for line in said.splitlines() if line.startswith(mark)])
