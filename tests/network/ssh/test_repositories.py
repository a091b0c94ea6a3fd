"""Programs that keep histories, over cexec-ssh between two hosts: git, borg, Subversion, Mercurial."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.needs import require_tool
from tests.shell_host import ShellHost

WHO = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "n"), ("EMAIL", "n@example.org"))
}
COMMITS = 5


def git(far: ShellHost, directory: Path, *words: str, **changes: str) -> str:
    own = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_SSH_COMMAND": "cexec-ssh", **WHO, **changes}
    return far.do("git", "-C", os.fspath(directory), *words, changes=own)


@pytest.fixture
def repository(far: ShellHost, tmp_path: Path) -> Path:
    """With some commits, the last of which is tagged."""
    require_tool("git")
    made = tmp_path / "made"
    made.mkdir()
    git(far, made, "init", "-q", "-b", "main")
    for number in range(COMMITS):
        (made / f"file {number}").write_text(f"{number}\n" * 1000)
        git(far, made, "add", ".")
        git(far, made, "commit", "-q", "-m", f"commit {number}")
    git(far, made, "tag", "last")
    return made


def test_git(far: ShellHost, repository: Path, tmp_path: Path) -> None:
    bare, clone, shallow = tmp_path / "bare.git", tmp_path / "clone", tmp_path / "shallow"
    git(far, tmp_path, "init", "-q", "--bare", "-b", "main", os.fspath(bare))
    git(far, repository, "remote", "add", "origin", f"w:{bare}")
    git(far, repository, "push", "-q", "--tags", "origin", "main")
    git(far, tmp_path, "clone", "-q", f"ssh://{far.account}@w{bare}", os.fspath(clone))
    git(far, clone, "fsck", "--full", "--strict")
    assert git(far, clone, "rev-parse", "HEAD") == git(far, repository, "rev-parse", "HEAD")

    (repository / "more").write_text("more")
    git(far, repository, "add", ".")
    git(far, repository, "commit", "-q", "-m", "more")
    git(far, repository, "push", "-q", "origin", "main")
    git(far, clone, "fetch", "-q")
    git(far, clone, "merge", "-q", "--ff-only", "origin/main")
    assert (clone / "more").read_text() == "more"

    git(far, tmp_path, "clone", "-q", "--depth", "2", f"w:{bare}", os.fspath(shallow))
    assert git(far, shallow, "rev-list", "--count", "HEAD") == "2\n"
    git(far, shallow, "fetch", "-q", "--unshallow")
    assert git(far, shallow, "rev-list", "--count", "HEAD") == f"{COMMITS + 1}\n"
    git(far, shallow, "fsck", "--full", "--strict")
    assert git(far, shallow, "ls-remote", "--tags", "origin").count("refs/tags/last") == 1


def test_git_finds_out_by_itself_that_options_of_ssh_are_known(far: ShellHost, repository: Path) -> None:
    """It calls -G, and then passes its protocol's version by SendEnv."""
    changes = {"GIT_SSH": "cexec-ssh", "GIT_TRACE": "1", "GIT_TRACE_PACKET": "1", "GIT_CONFIG_NOSYSTEM": "1"}
    traced = far.run("git", "ls-remote", f"w:{repository}", changes=changes, text=True)
    assert traced.returncode == 0
    assert "SendEnv=GIT_PROTOCOL" in traced.stderr and "version 2" in traced.stderr


def test_git_tells_of_a_repository_that_is_not_there(far: ShellHost, tmp_path: Path) -> None:
    require_tool("git")
    ended = far.run("git", "clone", "w:/does/not/exist", tmp_path / "x", changes={"GIT_SSH_COMMAND": "cexec-ssh"})
    assert ended.returncode == 128 and b"does not appear to be a git repository" in ended.stderr


def test_borg(far: ShellHost, tmp_path: Path) -> None:
    require_tool("borg")
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"{number}").write_bytes(os.urandom(20_000))
    (source / "new\nline").write_text("x")
    changes = {
        "BORG_RSH": "cexec-ssh", "BORG_BASE_DIR": os.fspath(tmp_path / "state"), "BORG_PASSPHRASE": "secret",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }  # fmt: skip
    store = f"ssh://{far.account}@w{tmp_path}/store"
    far.do("borg", "init", "--encryption=repokey", store, changes=changes)
    far.do("borg", "create", f"{store}::one", "source", changes=changes, cwd=tmp_path)
    far.do("borg", "check", "--verify-data", store, changes=changes)
    back = tmp_path / "back"
    back.mkdir()
    far.do("borg", "extract", f"{store}::one", changes=changes, cwd=back)
    assert subprocess.run(["diff", "-r", source, back / "source"], capture_output=True).returncode == 0


def test_subversion(far: ShellHost, tmp_path: Path) -> None:
    require_tool("svn", "svnadmin", "svnserve")
    subprocess.run(["svnadmin", "create", tmp_path / "store"], check=True)
    changes = {"SVN_SSH": "cexec-ssh -q", "HOME": os.fspath(tmp_path)}
    copy, again = tmp_path / "copy", tmp_path / "again"
    url = f"svn+ssh://w{tmp_path}/store"
    far.do("svn", "checkout", "-q", url, os.fspath(copy), changes=changes)
    (copy / "file").write_text("text")
    far.do("svn", "add", "-q", "file", changes=changes, cwd=copy)
    far.do("svn", "commit", "-q", "-m", "a message", changes=changes, cwd=copy)
    ended = far.run("svn", "checkout", "-q", url, os.fspath(again), changes=changes)
    assert (ended.returncode, ended.stderr) == (0, b"")  # it ends cexec-ssh by SIGTERM, which is no news
    assert (again / "file").read_text() == "text"


def test_mercurial(far: ShellHost, tmp_path: Path) -> None:
    require_tool("hg")
    made, clone = tmp_path / "made", tmp_path / "clone"
    changes = {"HGRCPATH": "", "HGUSER": "n", "HGPLAIN": "1"}
    hg = ("hg", "--config", "ui.ssh=cexec-ssh")
    far.do(*hg, "init", os.fspath(made), changes=changes)
    (made / "file").write_text("text")
    far.do(*hg, "commit", "-q", "-A", "-m", "one", changes=changes, cwd=made)
    far.do(*hg, "clone", "-q", f"ssh://w/{made}", os.fspath(clone), changes=changes)
    (clone / "file").write_text("other")
    far.do(*hg, "commit", "-q", "-m", "two", changes=changes, cwd=clone)
    far.do(*hg, "push", "-q", changes=changes, cwd=clone)
    assert "checked 2 changesets" in far.do(*hg, "verify", changes=changes, cwd=made)
