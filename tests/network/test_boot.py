"""cboot against sshd's in namespaces: hosts that serve, hosts that cannot, and nothing left of either afterwards.

Every host has a home, mounts, process numbers and an sshd of its own.  What a host's files are afterwards is compared
with a listing from before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cexec.protocol.base.keys import WorkerKey, decode_key
from tests.conftest import MakeLab
from tests.environment import command
from tests.needs import require_tool
from tests.service import Application
from tests.ssh_hosts import SshHost, SshHosts, require_sshd
from tests.waiting import comes_true

ROOM = 8  # hosts of a lab, and one machine where cboot runs
PATIENCE = ("--patience", "4")  # seconds, for hosts that never will
GONE = 40.0  # seconds after which nothing may be left of a cboot that was killed
NOISE = "#!/bin/sh\necho Welcome to node9\nprintf 'and no end of line'\nexec /bin/sh \"$@\"\n"
# Starts and ends the unit as a user's manager would; nobody's session lingers here.
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> calls
unit=$HOME/.config/systemd/user/$3
case "$2" in
    enable) mkdir -p "$HOME/.config/systemd/user/default.target.wants"
        ln -sf "$unit" "$HOME/.config/systemd/user/default.target.wants/" ;;
    disable) rm -f "$HOME/.config/systemd/user/default.target.wants/$3" ;;
    restart) script=$(sed -n 's/^ExecStart=.bin.sh "\\(.*\\)"$/\\1/p' "$unit")
        log=$(sed -n 's/^StandardError=append://p' "$unit")
        setsid sh "$script" >> "$log" 2>&1 < /dev/null &
        echo $! > unit.pid ;;
    stop) kill "$(cat unit.pid)" ;;
    is-active) test -e "/proc/$(cat unit.pid)" ;;
esac
"""
CLOSED = "#!/bin/sh\necho This account is currently not available.\nexit 1\n"


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return Application(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def hosts(lab: MakeLab, tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[SshHosts]:
    require_sshd()
    found = SshHosts(lab(ROOM + 1), tmp_path_factory.mktemp("b"), wheels)  # short: names of sockets are
    yield found
    found.close()


def states(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What --json says of each host: its failure, else its state."""
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return {line["host"]: line["failure"] or line["state"] for line in lines}


def connections(hosts: SshHosts, number: int) -> int:
    """How often somebody has logged in at a host."""
    return (hosts.directory / f"h{number}" / "sshd.log").read_text().count("Accepted publickey")


def test_a_room_of_which_half_cannot_serve(hosts: SshHosts, application: Application) -> None:
    """Eight hosts: good, two that share a home, refusing, without Python, wrong key, no space, printing."""
    good, first = hosts.start(2), hosts.start(3)
    second = hosts.start(4, home=first.home)
    hosts.start(6, path=hosts.without_python())
    hosts.start(7, known=False)
    small = hosts.start(8, size="8m")
    noisy = hosts.start(9, shell=NOISE)
    before = [host.listing() for host in (good, first, noisy)]
    serving = "10.77.0.[2-4,9]"

    ended = hosts.cboot("--json", *PATIENCE, "-w", "10.77.0.[2-9]", application.secret, "--", "cat")
    assert ended.returncode == 1, ended.stderr
    assert states(ended) == {
        "10.77.0.2": "serving", "10.77.0.3": "serving", "10.77.0.4": "serving", "10.77.0.5": "refused",
        "10.77.0.6": "python", "10.77.0.7": "host-key", "10.77.0.8": "space", "10.77.0.9": "serving",
    }  # fmt: skip
    assert [connections(hosts, number) for number in (2, 3, 4, 9)] == [1, 1, 1, 1]
    said = {line["host"]: line for line in map(json.loads, ended.stdout.splitlines())}
    assert (
        "nobody listens there: ssh: connect to host 10.77.0.5 port 22: Connection refused" in said["10.77.0.5"]["words"]
    )
    assert said["10.77.0.6"]["words"] == "it has no python3; cexec needs 3.11 or later"
    assert "ssh-keygen -R 10.77.0.7, then log in once by hand" in said["10.77.0.7"]["words"]
    assert f"MB are free in {small.home}" in said["10.77.0.8"]["words"]
    assert "prints 'Welcome to node9 and no end of line', which is passed over" in said["10.77.0.9"]["words"]
    assert said["10.77.0.5"]["tries"] > 1 and said["10.77.0.6"]["tries"] == 1
    assert [said["10.77.0.3"]["words"], said["10.77.0.4"]["words"]].count("") == 1, "one of them has installed"
    assert small.inside(["find", str(small.home)]).split() == [str(small.home)]

    # One release in the home that two share, with two workers; each has a key of its own, and nobody the owner's.
    place = first.home / ".local/share/cexec/boot"
    assert len(list((place / "releases").iterdir())) == 1 and len(list((place / "workers").iterdir())) == 2
    keys = [decode_key(path.read_bytes()) for path in place.glob("workers/*/*.worker")]
    assert {key.identity.certificate.name for key in keys if isinstance(key, WorkerKey)} == {"10.77.0.3", "10.77.0.4"}
    secret = Path(application.secret).read_bytes()
    for host in (good, first):
        assert not [path for path in host.home.rglob("*") if path.is_file() and secret in path.read_bytes()]

    again = hosts.cboot("--json", *PATIENCE, "-w", serving, application.secret, "--", "cat")
    assert again.returncode == 0 and "all 4 hosts serve, nothing was changed" not in again.stdout
    assert not [line for line in map(json.loads, again.stdout.splitlines()) if line["changed"]]

    status = hosts.cboot("--status", *PATIENCE, "-w", serving, application.secret)
    assert status.returncode == 0 and "all 4 hosts serve\n" in status.stderr
    removed = hosts.cboot("--remove", "-w", serving)
    assert removed.returncode == 0, removed.stderr
    assert [host.listing() for host in (good, first, noisy)] == before
    assert [host.processes() for host in (good, first, second, noisy)] == [[], [], [], []]


def test_a_worker_through_its_life(hosts: SshHosts, application: Application, tmp_path: Path) -> None:
    """Dry run, start, other words, stop, status, start again, upgrade, and removal that keeps what is not cboot's."""
    host = hosts.start(2, environment={"LANG": "C.UTF-8"})
    before = host.listing()
    one = ["-w", f"3/{host.address}"]
    secret = application.secret

    planned = hosts.cboot("--dry-run", *one, secret, "--", "cat")
    assert planned.returncode == 0 and "would copy" in planned.stdout and "start cservice detached" in planned.stdout
    assert host.listing() == before

    assert hosts.cboot(*one, secret, "--", "--allow-programs", "sh", "-c", "{program}").returncode == 0
    assert [line for line in host.processes() if "-j 3" in line and "boot/programs" in line]
    planned = hosts.cboot("--dry-run", *one, secret, "--", "--allow-programs", "sh", "-c", "{program}")
    assert "nothing would be changed" in planned.stdout
    changed = hosts.cboot("--json", *one, secret, "--", "tr", "a", "b")
    assert changed.returncode == 0 and json.loads(changed.stdout)["changed"]
    ended = application.run(host=hosts.client, input=b"banana")
    assert ended.stdout == b"bbnbnb", ended.stderr

    wrong = hosts.cboot(*PATIENCE, *one, secret, "--", "no-such-program")
    assert (
        wrong.returncode == 1 and "worker: cservice did not start" in wrong.stdout and "no-such-program" in wrong.stdout
    )
    assert hosts.cboot(*one, secret, "--", "cat").returncode == 0
    stopped = hosts.cboot("--stop", *one, secret)
    assert stopped.returncode == 0 and host.processes() == []
    assert "the host has stopped, nothing was changed" in hosts.cboot("--stop", *one, secret).stderr
    status = hosts.cboot("--status", "--json", *one, secret)
    assert status.returncode == 1 and json.loads(status.stdout)["state"] == "stopped"
    upgraded = hosts.cboot("--upgrade", "--json", *one, secret)
    assert upgraded.returncode == 0 and json.loads(upgraded.stdout)["state"] == "serving"
    again = hosts.cboot("--upgrade", "--json", *one, secret)
    assert again.returncode == 0 and not json.loads(again.stdout)["changed"]

    programs = host.home / ".local/share/cexec/boot/programs"
    programs.mkdir(exist_ok=True)
    (programs / "one").write_text("x")
    mine = host.home / ".local/share/cexec/mine.txt"
    mine.write_text("mine")
    kept = hosts.cboot("--remove", "--keep-programs", *one, secret)
    assert kept.returncode == 0 and (programs / "one").exists() and host.processes() == []
    assert hosts.cboot("--remove", *one, secret).returncode == 0
    assert [name for name in host.listing() if name not in before] == [
        ".local", ".local/share", ".local/share/cexec", ".local/share/cexec/mine.txt",
    ]  # fmt: skip


def test_run_ends_with_the_status_of_its_command(hosts: SshHosts, application: Application) -> None:
    """On three hosts, end to end: cmap's tasks run there, and nothing is left."""
    room = [hosts.start(number) for number in (2, 3, 4)]
    before = [host.listing() for host in room]
    (hosts.directory / "in").write_text("".join(f"{number}\n" for number in range(1, 31)))
    cmap = " ".join(command("cmap", "--pipe", "--block", "10", application.public))
    script = f"{cmap} < in | sort -n > out; test $(wc -l < out) = 30 && exit 7"
    ended = hosts.cboot("-w", "10.77.0.[2-4]", "--run", script, application.secret, "--", "cat")
    assert ended.returncode == 7, ended.stderr
    assert (hosts.directory / "out").read_text() == (hosts.directory / "in").read_text()
    assert ended.stdout == "" and "all 3 hosts serve\n" in ended.stderr
    assert [host.listing() for host in room] == before
    assert [host.processes() for host in room] == [[], [], []]


def test_a_host_with_systemd_gets_a_unit(hosts: SshHosts, application: Application) -> None:
    """With a systemctl of ours, which is first on the host's PATH; no systemd is asked."""
    tools = hosts.directory / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(SYSTEMCTL.replace("#!/bin/sh\n", f"#!/bin/sh\ncd {tools} || exit 1\n"))
    (tools / "loginctl").write_text("#!/bin/sh\necho no\n")
    for path in tools.iterdir():
        path.chmod(0o755)
    host = hosts.start(2, before_path=str(tools))
    before = host.listing()
    ended = hosts.cboot("--json", "-w", host.address, application.secret, "--", "cat")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["state"], found["runs"]) == ("serving", "unit")
    assert (
        "lingering is off: it ends when you have logged out there; type there: loginctl enable-linger" in found["words"]
    )
    (unit,) = host.home.glob(".config/systemd/user/cexec-boot-*.service")
    assert "ConditionHost=node2\n" in unit.read_text()
    calls = (tools / "calls").read_text().splitlines()
    assert calls.index(f"--user enable {unit.name}") < calls.index(f"--user restart {unit.name}")
    again = hosts.cboot("--json", "-w", host.address, application.secret, "--", "cat")
    assert again.returncode == 0 and not json.loads(again.stdout)["changed"]
    changed = hosts.cboot("--json", "--detached", "-w", host.address, application.secret, "--", "cat")
    assert json.loads(changed.stdout)["runs"] == "detached" and not unit.exists()
    assert hosts.cboot("-w", host.address, application.secret, "--", "cat").returncode == 0 and unit.exists()
    assert hosts.cboot("--remove", "-w", host.address).returncode == 0
    assert host.listing() == before and host.processes() == []


def test_a_host_that_lets_no_session_share_a_connection(hosts: SshHosts, application: Application) -> None:
    """MaxSessions 1: there are two connections at most, the one that is held and one for the present step."""
    host = hosts.start(2, settings="MaxSessions 1\n")
    process = started(hosts, "-w", host.address, "--ephemeral", application.secret, "--", "cat")
    wait_for_line(process, "Ctrl-C ends")
    log = (hosts.directory / "h2" / "sshd.log").read_text()
    now = largest = 0
    for line in log.splitlines():
        now += line.startswith("Accepted publickey") - line.startswith(
            ("Disconnected from user", "Connection closed by")
        )
        largest = max(largest, now)
    assert largest == 2 and connections(hosts, 2) > 2
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0 and everything([host]) == []


def test_hosts_that_come_while_the_command_runs_join(hosts: SshHosts, application: Application) -> None:
    first = hosts.start(2)
    cps = " ".join(command("cps", application.public))
    script = f"until test $({cps} | wc -l) = 3; do sleep 0.2; done"
    room = ("-w", "10.77.0.[2-3]", "--keep-trying")
    process = started(hosts, *room, *PATIENCE, "--run", script, application.secret, "--", "cat")
    wait_for_line(process, "1 of 2 hosts serve; failed: refused 1")
    second = hosts.start(3)
    process.communicate()
    assert process.returncode == 0 and everything([first, second]) == []


def test_a_worker_that_cannot_be_heard_is_told(hosts: SshHosts, application: Application) -> None:
    """A packet filter on the host lets ssh pass, and no datagram."""
    require_tool("nft")
    host = hosts.start(2)
    host.host.drop(100)
    words = ("-w", host.address, str(application.secret), "--", "cat")
    ended = hosts.cboot("--json", "--patience", "5", *words)
    found = json.loads(ended.stdout)
    assert ended.returncode == 1 and found["failure"] == "silence" and found["temporary"]
    status = hosts.cboot("--json", "--status", "-w", host.address, application.secret)
    assert status.returncode == 1 and json.loads(status.stdout)["failure"] == "silence"
    host.host.clear_rules()
    again = hosts.cboot("--json", *words)
    assert again.returncode == 0 and not json.loads(again.stdout)["changed"]


def test_a_failure_here_ends_the_run_in_words(hosts: SshHosts, tmp_path: Path) -> None:
    own = Application(tmp_path)
    Path(f"{own.secret}.issued").mkdir()
    host = hosts.start(2)
    ended = hosts.cboot("-w", host.address, own.secret, "--", "cat")
    assert ended.returncode == 111 and ended.stderr.splitlines()[-1].startswith(
        f"cboot: cannot write {own.secret}.issued"
    )
    assert "Traceback" not in ended.stderr and host.processes() == []


def test_run_with_no_host_does_not_run(hosts: SshHosts, application: Application) -> None:
    ended = hosts.cboot(*PATIENCE, "-w", "10.77.0.5", "--run", "echo ran", application.secret, "--", "cat")
    assert (ended.returncode, ended.stdout) == (111, "") and "refused" in ended.stderr


def everything(room: list[SshHost]) -> list[str]:
    return [text for host in room for text in (*host.listing(), *host.processes())]


def clients_of(hosts: SshHosts) -> list[int]:
    """The processes of ssh that cboot has started for these hosts."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(hosts.config) in (process.info["cmdline"] or [])
    ]


def started(hosts: SshHosts, *arguments: str | os.PathLike[str]) -> subprocess.Popen[str]:
    return hosts.popen(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return
    pytest.fail(f"cboot has ended without {words!r}: {''.join(lines)}")


def test_a_killed_ephemeral_run_leaves_nothing(hosts: SshHosts, application: Application) -> None:
    """kill -9 while it serves on three hosts, and of another one while it installs; 40 seconds later all is gone."""
    room = [hosts.start(number) for number in (2, 3, 4, 5)]
    stubborn = ["sh", "-c", "trap '' TERM; echo begun; exec sleep 1000"]
    serving = started(hosts, "-w", "10.77.0.[2-4]", "--ephemeral", application.secret, "--", *stubborn)
    wait_for_line(serving, "all 3 hosts serve; Ctrl-C ends and removes them")
    job = hosts.client.popen(command("cexec", application.public), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert job.stdout is not None and job.stdout.readline() == b"begun\n"
    installing = started(hosts, "-w", "10.77.0.5", "--ephemeral", application.secret, "--", "cat")
    place = room[3].home / ".local/share/cexec/boot"
    # As a rule in releases/.new-*, which a machine that has no time for this test may have renamed already.
    assert comes_true(lambda: list(place.glob("releases/*/*")))
    assert all(host.processes() for host in room)
    for process in (serving, installing):
        process.send_signal(signal.SIGKILL)
    begin = time.monotonic()
    for process in (serving, installing):
        process.communicate()
    assert comes_true(lambda: not clients_of(hosts)), "ssh has to end with cboot"
    assert comes_true(lambda: not everything(room), GONE, pause=0.5), everything(room)[:10]
    job.terminate()  # it looks for another worker
    job.communicate()
    assert time.monotonic() - begin > 20, "a connection that breaks for a moment must not end the workers"


def test_an_ephemeral_run_lives_through_a_broken_connection(hosts: SshHosts, application: Application) -> None:
    """The connections of one host are ended: it is reached again, and its worker has never stopped."""
    host = hosts.start(2)
    process = started(hosts, "-w", host.address, "--ephemeral", application.secret, "--", "cat")
    wait_for_line(process, "Ctrl-C ends")
    worker = [line for line in host.processes() if "cservice" in line]
    pid = (next(host.home.glob(".local/share/cexec/boot/workers/*/pid"))).read_text()
    host.inside(
        ["sh", "-c", "for p in $(ps -eww -o pid=,args= | awk '/^ *[0-9]+ sshd: root/ {print $1}'); do kill $p; done"]
    )
    wait_for_line(process, "connection: the connection was lost")
    wait_for_line(process, "serving")
    assert [line for line in host.processes() if "cservice" in line] == worker
    assert (next(host.home.glob(".local/share/cexec/boot/workers/*/pid"))).read_text() == pid
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 0 and everything([host]) == []


def test_a_host_that_comes_late_is_waited_for(hosts: SshHosts, application: Application) -> None:
    process = started(hosts, "--patience", "50", "-w", "10.77.0.2", application.secret, "--", "cat")
    wait_for_line(process, "refused")
    host = hosts.start(2)
    _, said = process.communicate()
    assert process.returncode == 0 and "10.77.0.2: serving now" in said
    assert hosts.cboot("--remove", "-w", host.address, application.secret).returncode == 0


def test_an_interrupted_run_says_so_and_leaves_nothing_running(hosts: SshHosts, application: Application) -> None:
    hosts.start(2, authorized=False)
    process = hosts.popen("--keep-trying", "-w", "10.77.0.[2,5]", application.secret, "--", "cat",
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    wait_for_line(process, "authentication")
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 111 and "cboot: interrupted" in said
    assert "authentication: it does not let you in: root@10.77.0.2: Permission denied" in out


def test_a_shell_that_lets_nobody_in_is_quoted(hosts: SshHosts, application: Application) -> None:
    hosts.start(2, shell=CLOSED)
    ended = hosts.cboot(*PATIENCE, "-w", "10.77.0.2", application.secret, "--", "cat")
    assert ended.returncode == 1
    assert (
        "shell: its login shell prints 'This account is currently not available.' and ends with status 1"
        in ended.stdout
    )


def test_hosts_come_from_standard_input(hosts: SshHosts, application: Application) -> None:
    ended = hosts.cboot(*PATIENCE, "-", application.secret, "--", "cat", input="# nobody is here\n10.77.0.[5-6]\n")
    assert ended.returncode == 1 and "0 of 2 hosts serve; failed: refused 2" in ended.stderr
