"""docs/ssh.md names each program with its setting, and the tests use these settings."""

from __future__ import annotations

import re

import pytest

from tests.environment import ROOT

PAGE = (ROOT / "docs" / "ssh.md").read_text()
ROWS = dict(re.findall(r"^\| ([^|`]+?) \| ([^|]+?) \| [^|]+ \|$", PAGE, re.MULTILINE))
SOURCES = "".join(path.read_text() for path in sorted((ROOT / "tests" / "network" / "ssh").glob("test_*.py")))
PROGRAMS = (
    "rsync", "git", "GNU parallel", "borg", "Ansible", "scp", "sftp", "clush", "pdsh", "execnet, pytest-xdist",
    "restic", "sshfs", "Subversion", "Mercurial", "unison", "distcc", "rdiff-backup",
)  # fmt: skip
SETTINGS = {  # a part of each setting that has to stand in the tests as well
    "rsync": '"-e", "cexec-ssh"', "git": "GIT_SSH_COMMAND", "GNU parallel": "PARALLEL_SSH", "borg": "BORG_RSH",
    "Ansible": "ANSIBLE_SSH_TRANSFER_METHOD", "scp": '"scp", "-S", "cexec-ssh"', "sftp": '"sftp", "-S", "cexec-ssh"',
    "clush": "ssh_path=cexec-ssh", "pdsh": '"-R", "ssh"', "execnet, pytest-xdist": "ssh=w//python=",
    "restic": "sftp.command=cexec-ssh w -s sftp", "sshfs": "ssh_command=cexec-ssh", "Subversion": "SVN_SSH",
    "Mercurial": "ui.ssh=cexec-ssh", "unison": '"-sshcmd", "cexec-ssh"', "distcc": "DISTCC_SSH",
    "rdiff-backup": "--remote-schema",
}  # fmt: skip


def test_each_program_has_a_row() -> None:
    assert [name for name in PROGRAMS if name not in ROWS] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_setting_of_each_program_is_the_one_that_was_tried(name: str) -> None:
    used = SETTINGS[name]
    assert used in SOURCES
    assert used.replace('", "', " ").strip('"') in ROWS[name].replace("'", "")
