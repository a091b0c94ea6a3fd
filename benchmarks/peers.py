"""The programs that cexec is compared with, each on a loopback port with a configuration of its own.

Contract: each class starts its server in a `Workplace` and returns argv of clients; `Unfit` says why a program cannot
be used.  The machine's own sshd is never touched.  Ours has its own keys and configuration.  It also has, in a mount
namespace of its own, an empty home and a passwd in which the user's shell is /bin/sh, because a long .bashrc would be
timed too.
"""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.common import START_PATIENCE, Unfit, Workplace, needed, timed

BLOCK = "131072"  # bytes: socat is fastest with this; its default of 8 KiB halves its figures
DEFAULT_KEX = ""
CURVE = "curve25519-sha256"
SSHD_SETTINGS = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
PidFile none
"""
# The directories that sshd expects below /run are made in a mount namespace, where nobody else sees them.
SSHD_SCRIPT = """\
mount --make-rprivate / && mount --bind {directory}/passwd /etc/passwd && mount -t tmpfs tmpfs /run &&
mkdir /run/sshd && exec {sshd} -D -e -f {directory}/sshd_config
"""


class Ssh:
    """An sshd, and clients with a cipher or a key exchange of one's choice."""

    def __init__(self, place: Workplace) -> None:
        sshd = needed("sshd")
        self._ssh = needed("ssh")
        self._directory = place.directory
        self._port = free_port()
        self._user = pwd.getpwuid(os.getuid()).pw_name
        write_ssh_files(place.directory)
        (place.directory / "sshd_config").write_text(SSHD_SETTINGS.format(port=self._port, directory=place.directory))
        script = SSHD_SCRIPT.format(directory=shlex.quote(str(place.directory)), sshd=sshd)
        server = place.start([needed("unshare"), "-m", "sh", "-c", script])
        place.wait_for(server, "Server listening")
        timed(self.client("true"), place.environment)

    def client(self, program: str, *, cipher: str = "", kex: str = DEFAULT_KEX, master: bool = False) -> list[str]:
        options = ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        if cipher:
            options.append(f"Ciphers={cipher}")
        if kex:
            options.append(f"KexAlgorithms={kex}")
        if master:
            options.append(f"ControlPath={self._directory}/master")
        settings = [word for option in options for word in ("-o", option)]
        key = os.fspath(self._directory / "user_key")
        return [
            self._ssh, "-F", "none", "-p", str(self._port), "-i", key, *settings, f"{self._user}@127.0.0.1", program
        ]  # fmt: skip

    def open_master(self, place: Workplace) -> None:
        """One connection that later clients share."""
        argv = self.client("true", master=True)
        place.start([*argv[:-2], "-o", "ControlMaster=yes", "-N", argv[-2]])
        wait_for_path(self._directory / "master")


def write_ssh_files(directory: Path) -> None:
    """Makes the keys of a server and of a user, and a passwd."""
    keygen = needed("ssh-keygen")
    for name in ("host_key", "user_key"):
        argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/{name}"]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    write_passwd(directory)


def write_passwd(directory: Path) -> Path:
    """Makes an /etc/passwd that gives the user an empty home and /bin/sh, if it is not there; returns its path."""
    path, home = directory / "passwd", directory / "home"
    if path.exists():
        return path
    user = pwd.getpwuid(os.getuid())
    home.mkdir()
    changed = f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}::{home}:/bin/sh\n"
    others = [f"{':'.join(map(str, entry))}\n" for entry in pwd.getpwall() if entry.pw_name != user.pw_name]
    path.write_text(changed + "".join(others))
    return path


class Socat:
    """socat as server and client, over plain TCP or OpenSSL."""

    def __init__(self, place: Workplace, program: str, *, tls: bool) -> None:
        self._socat = needed("socat")
        self._port = free_port()
        options = "reuseaddr,fork,bind=127.0.0.1"
        if tls:
            both = place.directory / "certificate.pem"
            if not both.exists():
                make_certificate(place, os.fspath(both))
            address = f"OPENSSL-LISTEN:{self._port},{options},cert={both},verify=0"
            self._address = f"OPENSSL:127.0.0.1:{self._port},verify=0"
        else:
            address = f"TCP-LISTEN:{self._port},{options}"
            self._address = f"TCP:127.0.0.1:{self._port}"
        place.start([self._socat, "-b", BLOCK, address, f"SYSTEM:{program}"])
        wait_for_port(self._port)

    def client(self, *, one_way: bool = False) -> list[str]:
        # -t: wait for the other side's output after our end, as the other programs do
        return [self._socat, "-b", BLOCK, *(["-u"] if one_way else ["-t", "60"]), "-", self._address]


class Ncat:
    """ncat over plain TCP, one way only: with both directions in use it stalls."""

    def __init__(self, place: Workplace, program: str) -> None:
        self._ncat = needed("ncat")
        self._port = free_port()
        place.start([self._ncat, "-l", "127.0.0.1", str(self._port), "-k", "--sh-exec", program])
        wait_for_port(self._port)

    def client(self) -> list[str]:
        return [self._ncat, "--send-only", "127.0.0.1", str(self._port)]


def make_certificate(place: Workplace, path: str) -> None:
    key, certificate = place.directory / "tls.key", place.directory / "tls.crt"
    argv = [needed("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    with open(path, "wb") as file:
        file.write(key.read_bytes() + certificate.read_bytes())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Waits until something listens there.  It only looks, because the server would serve a connection."""
    wanted = f":{port:04X} 00000000:0000 0A"
    _wait_until(lambda: wanted in open("/proc/net/tcp").read(), f"nobody listens on port {port}")  # noqa: SIM115


def wait_for_path(path: os.PathLike[str]) -> None:
    _wait_until(lambda: os.path.exists(path), f"{path} did not appear")


def _wait_until(condition: object, complaint: str) -> None:
    deadline = time.monotonic() + START_PATIENCE
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise Unfit(complaint)
        time.sleep(0.02)
