"""Measures programs that were made for ssh over cexec-ssh and over ssh, in one interleaved run.

    make bench BENCH=benchmarks/bench_ssh.py

On the loopback, beside an sshd of its own: rsync of 5,000 small files (goal: at most 1.2 times ssh's time), git clone
of a repository of 50 MB (at ssh's rate), 12,000 questions and answers of sftp (-B 5 -R 1; goal P2a), and `true` from
start to exit (goal P3, as `bench_start.py`).  On 20 hosts that are network namespaces, each with a worker and an sshd:
an Ansible play of three commands with pipelining (goals: not slower than ssh without masters, at most 1.5 times the
time of ssh with open ones).  All hosts share this machine's CPUs.  Both sides' accounts have an empty home and /bin/sh.
Environment: BENCH_ROUNDS (5), BENCH_HOSTS (20), BENCH_FILES (5,000), BENCH_MEGABYTES (50), BENCH_TRIPS (12,000), and
BENCH_PARTS, some of `rsync git sftp start ansible`.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.bench_start import Cpus
from benchmarks.common import Case, Unfit, Workplace, goal, interleaved, needed, rounds, skipped, table, timed
from benchmarks.farm import GROUP, Servers, open_masters, start_sshd
from benchmarks.peers import Ssh, write_passwd
from cexec.worker.jobs.shell import SFTP_SERVERS
from tests.lab import Host, Lab

FILES = int(os.environ.get("BENCH_FILES", 5000))
MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", 50))
TRIPS = int(os.environ.get("BENCH_TRIPS", 12_000))
HOSTS = int(os.environ.get("BENCH_HOSTS", 20))
PARTS = os.environ.get("BENCH_PARTS", "rsync git sftp start ansible").split()
CEXEC, SSH, MASTER, PASS = "cexec-ssh", "ssh", "ssh, open ControlMaster", "python -c pass"
PIECE = 5  # bytes of one answer of sftp
MOUNTED = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.command: "true"
    - ansible.builtin.copy: {content: text, dest: "{{ inventory_hostname }}.copied"}
    - ansible.builtin.command: "true"
"""


def with_shell(place: Workplace) -> list[str]:
    """Returns the words that start a shell service called `w`, whose account has an empty home."""
    passwd = write_passwd(place.directory)
    service = place.command("cservice", "--name", "w", "--shell", "--speed", "1", place.secret)
    return [needed("unshare"), "-m", "sh", "-c", MOUNTED, "sh", os.fspath(passwd), *service]


def make_launcher(place: Workplace) -> Path:
    """Makes a cexec-ssh that programs can call."""
    path = place.directory / "cexec-ssh"
    words = place.command("cexec-ssh")
    if len(words) == 1:
        path.symlink_to(words[0])
    else:
        text = Path(words[1]).read_text().partition("\n")[2]
        path.write_text(f"#!{words[0]}\n{text}")
        path.chmod(0o755)
    return path


class Loopback:
    """A shell service and an sshd on this host."""

    def __init__(self, place: Workplace) -> None:
        self.place = place
        self.service = place.start(with_shell(place))
        place.wait_for(self.service, "cservice: serving")
        self.environment = {**place.environment, "CEXEC_SSH_KEY": os.fspath(place.public)}
        self.ways: dict[str, list[str]] = {CEXEC: [os.fspath(make_launcher(place)), "w"]}
        try:
            ssh = Ssh(place)
            self.ways[SSH] = ssh.client("")[:-1]
            ssh.open_master(place)
            self.ways[MASTER] = ssh.client("", master=True)[:-1]
        except Unfit as reason:
            skipped("ssh", str(reason))

    def run(self, argv: Sequence[str], changes: Mapping[str, str] | None = None) -> float:
        return timed(argv, {**self.environment, **(changes or {})}).seconds

    def rsync(self) -> dict[str, Case]:
        rsync, source = needed("rsync"), self.place.directory / "small"
        source.mkdir()
        for number in range(FILES):
            (source / f"{number:05}").write_text(f"{number}\n" * (number % 50))

        def case(way: Sequence[str]) -> float:
            target = self.place.directory / "copied"
            shutil.rmtree(target, ignore_errors=True)
            seconds = self.run([rsync, "-a", "-e", shlex.join(way[:-1]), f"{source}/", f"{way[-1]}:{target}/"])
            if sum(1 for _ in target.iterdir()) != FILES:
                raise Unfit("rsync has not copied all files")
            return seconds

        return {name: lambda way=way: case(way) for name, way in self.ways.items()}  # type: ignore[misc]

    def git(self) -> dict[str, Case]:
        git, made = needed("git"), self.place.directory / "made"
        made.mkdir()
        for number in range(MEGABYTES):
            (made / f"{number}").write_bytes(random.Random(number).randbytes(1 << 20))
        who = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "core.compression=0"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
            subprocess.run([git, "-C", os.fspath(made), *who, *words], check=True)

        def case(way: Sequence[str]) -> float:
            clone = self.place.directory / "clone"
            shutil.rmtree(clone, ignore_errors=True)
            command = shlex.join(way[:-1])
            words = [git, "clone", "-q", "--no-checkout", f"{way[-1]}:{made}", os.fspath(clone)]
            return self.run(words, {"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh"})

        return {name: lambda way=way: case(way) for name, way in self.ways.items()}  # type: ignore[misc]

    def sftp(self) -> dict[str, Case]:
        """Milliseconds of one question and its answer."""
        sftp, directory = needed("sftp"), self.place.directory
        server = next((path for path in SFTP_SERVERS if os.access(path, os.X_OK)), "")
        if not server:
            raise Unfit("sftp-server is not installed (openssh-sftp-server)")
        sizes = {"one": PIECE, "many": PIECE * (TRIPS + 1)}
        for name, size in sizes.items():
            (directory / name).write_bytes(b"x" * size)
            (directory / f"get-{name}").write_text(f"get {directory / name} {directory / 'got'}\n")

        def fetch(way: Sequence[str], name: str) -> float:
            program = directory / "way"  # a script, because -S takes no words
            program.write_text(f'#!/bin/sh\nexec {shlex.join(way[:-1])} "$@"\n')
            program.chmod(0o755)
            batch = os.fspath(directory / f"get-{name}")
            words = [sftp, "-q", "-S", os.fspath(program), "-s", server, "-B", str(PIECE), "-R", "1", "-b", batch]
            seconds = self.run([*words, way[-1]])
            if (directory / "got").stat().st_size != sizes[name]:
                raise Unfit("sftp did not fetch the whole file")
            return seconds

        def case(way: Sequence[str]) -> float:
            return (fetch(way, "many") - fetch(way, "one")) / TRIPS * 1000

        return {name: lambda way=way: case(way) for name, way in self.ways.items()}  # type: ignore[misc]

    def start(self) -> list[dict[str, Case]]:
        """Beside Python, and beside ssh, as in `bench_start.py`."""
        cpus = Cpus(self.service.pid)
        python = cpus.case([os.fspath(self.place.python), "-c", "pass"], self.environment)
        ways = {name: cpus.case([*way, "true"], self.environment) for name, way in self.ways.items()}
        return [{PASS: python, CEXEC: ways[CEXEC]}, ways]


def on_this_host() -> None:
    with Workplace(installed=True) as place:
        here = Loopback(place)
        if "rsync" in PARTS:
            found = interleaved(here.rsync(), rounds(5))
            show(f"rsync of {FILES} small files", found, 1, "s")
            compare("cexec-ssh", "rsync of small files, times ssh", found, SSH, 1.2)
        if "git" in PARTS:
            found = interleaved(here.git(), rounds(5))
            show(f"git clone of {MEGABYTES} MB", found, 1, "s")
            compare("cexec-ssh", "git clone, times ssh", found, SSH, 1.0)
        if "sftp" in PARTS:
            found = interleaved(here.sftp(), rounds(5))
            show(f"{TRIPS} questions and answers of sftp", found, 1, "ms each")
            compare("P2a", "times ssh", found, SSH, 1.0)
        if "start" in PARTS:
            beside_python, beside_ssh = (interleaved(cases, 8 * rounds(5)) for cases in here.start())
            show("start to exit of true", beside_python, 1000, "ms")
            show("start to exit of true, beside ssh", beside_ssh, 1000, "ms")
            compare("P3", "times python -c pass", beside_python, PASS, 1.8)
            compare("P3", "share of a fresh ssh", beside_ssh, SSH, 1 / 10)


def on_many_hosts() -> None:
    with Workplace(installed=True) as place, Lab(HOSTS + 1) as lab, ExitStack() as stack:
        client, *hosts = lab.hosts
        launcher = make_launcher(place)
        Servers(stack, hosts, place, "cservice").start(with_shell(place), "cservice: serving")
        cases = {CEXEC: play(place, client, hosts, {"ANSIBLE_SSH_EXECUTABLE": os.fspath(launcher)}, "")}
        try:
            ssh = start_sshd(Servers(stack, hosts, place, "sshd"), place)
            plain = shlex.join([*ssh, "-o", "ControlMaster=no", "-o", "ControlPath=none"])
            cases[SSH] = play(place, client, hosts, {}, plain)
            masters = shlex.join(open_masters(stack, client, hosts, place, ssh))
            cases[MASTER] = play(place, client, hosts, {}, masters)
        except Unfit as reason:
            skipped("ssh", str(reason))
        found = interleaved(cases, rounds(5))
    show(f"an Ansible play of three commands on {HOSTS} hosts, pipelined", found, 1, "s")
    compare("cexec-ssh", "Ansible, times ssh without masters", found, SSH, 1.0)
    compare("cexec-ssh", "Ansible, times ssh with open ones", found, MASTER, 1.5)


def play(place: Workplace, client: Host, hosts: Sequence[Host], changes: Mapping[str, str], ssh: str) -> Case:
    """Returns the seconds of the play; `ssh`: its options."""
    book, inventory = place.directory / "play.yml", place.directory / "hosts"
    book.write_text(PLAY)
    python = "ansible_python_interpreter=/usr/bin/python3"
    inventory.write_text("".join(f"{host.address} {python}\n" for host in hosts))
    environment = {
        **place.environment,
        "CEXEC_GROUP": GROUP,
        "CEXEC_SSH_KEY": os.fspath(place.public),
        "HOME": os.fspath(place.directory),
        "ANSIBLE_HOME": os.fspath(place.directory / "ansible"),
        "ANSIBLE_LOCAL_TEMP": os.fspath(place.directory / "ansible-local"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_SSH_ARGS": ssh.replace("%", "%%"),
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
        "LC_ALL": "C.UTF-8",
        **changes,
    }
    environment.pop("PYTHONPATH", None)
    argv = [needed("ansible-playbook"), "-f", str(HOSTS), "-i", os.fspath(inventory), os.fspath(book)]
    return lambda: timed(client.inside(argv), environment).seconds


def show(title: str, found: Mapping[str, float], factor: float, unit: str) -> None:
    table(f"{title}, medians", {name: f"{value * factor:8.3f} {unit}" for name, value in found.items()})


def compare(name: str, what: str, found: Mapping[str, float], peer: str, limit: float) -> None:
    if {CEXEC, peer} <= found.keys():
        goal(name, what, found[CEXEC] / found[peer], limit)


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("sshd and network namespaces need root: make bench")
    if set(PARTS) - {"ansible"}:
        on_this_host()
    if "ansible" in PARTS:
        try:
            on_many_hosts()
        except Unfit as reason:
            skipped("ansible", str(reason))


if __name__ == "__main__":
    main()
