"""Programs that run commands on many hosts, over cexec-ssh between two hosts: parallel, Ansible, execnet and others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.needs import require_module, require_tool
from tests.shell_host import ShellHost

INPUTS = 1000
PYTHON = "/usr/bin/python3"


def parallel(far: ShellHost, *words: str, **options: object) -> str:
    require_tool("parallel", "rsync")
    changes = {"PARALLEL_HOME": os.fspath(far.directory / "parallel"), "PARALLEL_SSH": "cexec-ssh"}
    return far.do("parallel", "--will-cite", *words, changes=changes, **options)


def test_parallel_with_a_thousand_inputs(far: ShellHost) -> None:
    """In bundles of 100 words, so that the time goes into work and not into the starts of perl and Python."""
    lines = "".join(f"{number} \N{SNOWMAN}'$\n" for number in range(INPUTS))
    printed = parallel(far, "-S", "8/w", "-n", "100", "printf '%s\\n'", input=lines)
    assert Counter(printed.splitlines()) == Counter(lines.splitlines())


def test_parallel_keeps_order_and_counts_failures(far: ShellHost) -> None:
    require_tool("parallel")
    changes = {"PARALLEL_HOME": os.fspath(far.directory / "parallel"), "PARALLEL_SSH": "cexec-ssh"}
    ended = far.run(
        "parallel", "--will-cite", "-k", "-S", "4/w", "echo {}; exit {}", ":::", "0", "1", "0", "3",
        changes=changes, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout.split()) == (2, ["0", "1", "0", "3"])


def test_parallel_pipe(far: ShellHost) -> None:
    lines = "".join(f"{number}\n" for number in range(10_000))
    printed = parallel(far, "--pipe", "-N", "2500", "-S", "4/w", "cat", input=lines)
    assert sorted(map(int, printed.split())) == [*range(10_000)]


def test_parallel_transfers_files_there_and_back(far: ShellHost, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"in{number}").write_text(f"text {number}")
    words = ("-S", "2/w", "--transferfile", "{}", "--return", "{}.out", "--cleanup", "rev {} > {}.out", ":::")
    parallel(far, *words, "in0", "in1", "in2", cwd=tmp_path)
    assert [(tmp_path / f"in{number}.out").read_text() for number in range(3)] == [f"{n} txet" for n in range(3)]
    assert not [path for path in far.home.rglob("in?*")]  # nothing is left on the other side


def test_parallel_counts_processors_with_the_key_in_its_usual_place(far: ShellHost, tmp_path: Path) -> None:
    """It asks with a bare environment, of which HOME is left: docs/ssh.md."""
    require_tool("parallel")
    place = tmp_path / ".config" / "cexec"
    place.mkdir(parents=True)
    (place / "shell.pub").symlink_to(far.application.public)
    changes = {
        "HOME": os.fspath(tmp_path), "CEXEC_SSH_KEY": "", "PARALLEL_SSH": "cexec-ssh",
        "PARALLEL_HOME": os.fspath(tmp_path / "parallel"),
    }  # fmt: skip
    ended = far.run("parallel", "--will-cite", "-S", "w", "echo", ":::", "1", changes=changes, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n", "")


def ansible(far: ShellHost, directory: Path, playbook: str, *options: str, **changes: str) -> str:
    require_tool("ansible-playbook")
    (directory / "book.yml").write_text(playbook)
    settings = {
        "ANSIBLE_SSH_EXECUTABLE": "cexec-ssh", "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
        "ANSIBLE_HOME": os.fspath(directory / "ansible"), "ANSIBLE_LOCAL_TEMP": os.fspath(directory / "local"),
        "ANSIBLE_REMOTE_TEMP": os.fspath(directory / "remote"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    inventory = directory / "hosts"
    inventory.write_text(f"w ansible_python_interpreter={PYTHON} colour=green\n")
    return far.do("ansible-playbook", *options, "-i", os.fspath(inventory), os.fspath(directory / "book.yml"),
                  changes={**settings, **changes})  # fmt: skip


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {{src: {0}/plain, dest: {0}/copied, mode: "0640"}}
      tags: copy
    - ansible.builtin.template: {{src: {0}/template.j2, dest: {0}/filled}}
    - ansible.builtin.command: cat {0}/filled
      register: said
      changed_when: false
    - ansible.builtin.assert: {{that: said.stdout == "green"}}
    - ansible.builtin.fetch: {{src: {0}/filled, dest: {0}/fetched, flat: true}}
"""


def test_ansible(far: ShellHost, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "template.j2").write_text("{{ colour }}\n")
    playbook = PLAYBOOK.format(tmp_path)
    first = ansible(far, tmp_path, playbook)
    assert "changed=3" in first and "failed=0" in first and "unreachable=0" in first
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "plain").read_bytes()
    assert (tmp_path / "copied").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "filled").read_text() == (tmp_path / "fetched").read_text() == "green\n"
    again = ansible(far, tmp_path, playbook, "--tags", "copy", ANSIBLE_PIPELINING="1")
    assert "ok=1" in again and "changed=0" in again


def test_ansible_calls_a_worker_unreachable_that_does_not_answer(far: ShellHost, tmp_path: Path) -> None:
    require_tool("ansible")
    changes = {"ANSIBLE_SSH_EXECUTABLE": "cexec-ssh", "ANSIBLE_TIMEOUT": "1", "ANSIBLE_HOME": os.fspath(tmp_path)}
    ended = far.run("ansible", "-i", "elsewhere,", "all", "-m", "raw", "-a", "true", changes=changes)
    assert ended.returncode == 4 and b"UNREACHABLE" in ended.stdout and b"cexec-ssh: elsewhere: " in ended.stdout


def test_execnet(far: ShellHost) -> None:
    require_module("execnet")
    script = f"""import execnet
gateway = execnet.makegateway("ssh=w//python={sys.executable}")
source = "import os\\nfor item in channel:\\n    channel.send((item * 2, os.environ['SSH_CLIENT']))"
channel = gateway.remote_exec(source)
for item in (1, "a", b"\\xff" * 100_000):
    channel.send(item)
    doubled, client = channel.receive(timeout=60)
    assert doubled == item * 2
print(client.split()[0])
gateway.exit()
execnet.default_group.terminate(timeout=10)
"""
    assert far.client is not None
    assert far.do(sys.executable, "-c", script) == f"{far.client.address}\n"


def test_pytest_xdist(far: ShellHost, tmp_path: Path) -> None:
    require_module("xdist", "execnet")
    require_tool("rsync")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "test_it.py").write_text(
        "import os\nimport pytest\n\n@pytest.mark.parametrize('n', range(8))\ndef test_it(n):\n"
        "    assert 'SSH_CLIENT' in os.environ\n"
    )
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--dist", "load", "--rsyncdir", os.fspath(package))
    tx = f"ssh=w//python={sys.executable}//chdir=xdist"
    printed = far.do(
        sys.executable, *words, "--tx", tx, os.fspath(package), cwd=tmp_path, changes={"PYTEST_ADDOPTS": ""}
    )
    assert "8 passed" in printed


def test_clush(far: ShellHost, further: ShellHost, tmp_path: Path) -> None:
    require_tool("clush")
    options = ("-S", "-q", "-O", "ssh_path=cexec-ssh", "-O", "scp_path=scp -S cexec-ssh", "-w", "w,v")
    assert sorted(far.do("clush", *options, "pwd").splitlines()) == [f"v: {further.home}", f"w: {far.home}"]
    assert sorted(far.do("clush", *options, "cat", input="text\n").splitlines()) == ["v: text", "w: text"]
    (tmp_path / "file").write_text("text")
    far.do("clush", *options, "--copy", os.fspath(tmp_path / "file"), "--dest", "copied")
    assert (far.home / "copied").read_text() == (further.home / "copied").read_text() == "text"
    assert far.run("clush", *options, "exit 3").returncode == 3


def test_pdsh(far: ShellHost, further: ShellHost) -> None:
    require_tool("pdsh")
    printed = far.do("pdsh", "-R", "ssh", "-w", "w,v", "pwd")
    assert sorted(printed.splitlines()) == [f"v: {further.home}", f"w: {far.home}"]


def test_distcc(far: ShellHost, tmp_path: Path) -> None:
    require_tool("distcc", "distccd", "gcc")
    (tmp_path / "main.c").write_text("int main(void) { return 42; }\n")
    changes = {"DISTCC_SSH": "cexec-ssh", "DISTCC_HOSTS": "@w", "DISTCC_FALLBACK": "0",
               "DISTCC_DIR": os.fspath(tmp_path / "distcc")}  # fmt: skip
    (tmp_path / "distcc").mkdir()
    far.do("distcc", "gcc", "-c", "main.c", "-o", "main.o", changes=changes, cwd=tmp_path)
    subprocess.run(["gcc", "main.o", "-o", "main"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "main"]).returncode == 42
