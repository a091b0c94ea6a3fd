"""Programs that copy files over cexec-ssh, between two hosts: rsync, scp, sftp, sshfs, unison, rdiff-backup."""

from __future__ import annotations

import filecmp
import os
import random
import signal
import subprocess
from pathlib import Path

import psutil

from tests.needs import require_tool, skip_for_want_of
from tests.shell_host import ShellHost
from tests.waiting import wait_until

RSYNC = ("rsync", "-aHAXS", "--delete", "-e", "cexec-ssh")
LARGE = 8 << 20  # bytes


def tree(directory: Path) -> Path:
    """A directory with all that rsync has to keep: hard links, holes, attributes, links, times, modes, odd names."""
    directory.mkdir()
    below = directory / "below"
    below.mkdir()
    for number in range(60):
        (below / f"file {number}").write_text(f"{number}\n" * number)
    os.link(below / "file 1", directory / "hard link")
    (directory / "link").symlink_to("below/file 2")
    with (directory / "holes").open("wb") as file:
        file.seek(LARGE)
        file.write(b"end")
    (directory / "file\twith \N{SNOWMAN} 'quotes'").write_bytes(bytes(range(256)))
    (directory / "file 3").write_text("x")
    os.chmod(directory / "file 3", 0o4750)
    os.utime(directory / "file 3", (1e9, 1e9))
    try:
        os.setxattr(directory / "file 3", "user.colour", b"green")
    except OSError:
        skip_for_want_of("a file system with extended attributes")
    return directory


def test_rsync_there_and_back(far: ShellHost, tmp_path: Path) -> None:
    require_tool("rsync")
    source, target, back = tree(tmp_path / "source"), tmp_path / "target", tmp_path / "back"
    far.do(*RSYNC, f"{source}/", f"w:{target}/")
    assert (target / "hard link").samefile(target / "below" / "file 1")
    assert (target / "holes").stat().st_size == LARGE + 3 and (target / "holes").stat().st_blocks < 1000
    assert os.getxattr(target / "file 3", "user.colour") == b"green"
    assert os.readlink(target / "link") == "below/file 2"
    found = (target / "file 3").stat()
    assert (found.st_mode & 0o7777, found.st_mtime) == (0o4750, 1e9)

    (target / "not here").write_text("x")
    (source / "below" / "file 7").unlink()
    (source / "below" / "file 8").write_text("changed")
    far.do(*RSYNC, f"{source}/", f"w:{target}/")
    assert not (target / "not here").exists() and not (target / "below" / "file 7").exists()
    assert far.do(*RSYNC, "--dry-run", "--itemize-changes", "--checksum", f"{source}/", f"w:{target}/") == ""

    far.do(*RSYNC, f"{far.account}@w:{target}/", f"{back}/")
    assert far.do(*RSYNC, "--dry-run", "--itemize-changes", "--checksum", f"w:{target}/", f"{back}/") == ""
    compared = filecmp.dircmp(source, back)
    assert not compared.left_only and not compared.right_only and not compared.diff_files


def test_rsync_goes_on_with_a_file_after_a_kill(far: ShellHost, tmp_path: Path) -> None:
    require_tool("rsync")
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(1).randbytes(LARGE))
    target.mkdir()
    words = ("rsync", "--partial", "--inplace", "-e", "cexec-ssh", os.fspath(source), f"w:{target}/")
    with far.popen(*words, "--bwlimit=1500", stderr=subprocess.DEVNULL) as interrupted:
        wait_until(lambda: (target / "source").exists() and (target / "source").stat().st_size > 1 << 20)
        interrupted.send_signal(signal.SIGKILL)
    wait_until(lambda: not rsync_servers())
    kept = (target / "source").stat().st_size
    assert 1 << 20 < kept < LARGE
    stated = far.do(*words, "--stats", "--no-whole-file")
    (line,) = (line for line in stated.splitlines() if line.startswith("Literal data: "))
    assert int(line.split()[2].replace(",", "")) <= LARGE - kept + 100_000  # all but a block or so of what was there
    assert (target / "source").read_bytes() == source.read_bytes()
    assert far.do(*words, "--dry-run", "--itemize-changes", "--checksum") == ""


def rsync_servers() -> list[psutil.Process]:
    """The processes of rsync that a worker has started."""
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if {"rsync", "--server"} <= {*(one.info["cmdline"] or [])}]


def test_rsync_tells_of_failures(far: ShellHost, tmp_path: Path) -> None:
    require_tool("rsync")
    (tmp_path / "file").write_text("x")
    ended = far.run("rsync", "-e", "cexec-ssh", tmp_path / "file", f"w:{tmp_path}/missing/below/")
    assert ended.returncode in (3, 11, 12) and b"No such file" in ended.stderr
    ended = far.run("rsync", "-e", "cexec-ssh -oConnectTimeout=1", tmp_path / "file", f"elsewhere:{tmp_path}/")
    assert ended.returncode in (12, 255) and b"cexec-ssh: elsewhere: " in ended.stderr  # 12 if it sees the end first


def test_scp_in_both_of_its_protocols(far: ShellHost, further: ShellHost, tmp_path: Path) -> None:
    require_tool("scp")
    source = tree(tmp_path / "source")
    for number, option in enumerate(("-s", "-O")):
        there, back, third = (f"{tmp_path}/{name}{number}" for name in ("there", "back", "third"))
        far.do("scp", "-S", "cexec-ssh", "-q", option, "-r", "-p", os.fspath(source), f"w:{there}")
        far.do("scp", "-S", "cexec-ssh", "-q", option, "-r", f"{far.account}@w:{there}", back)
        far.do("scp", "-S", "cexec-ssh", "-q", option, "-3", "-r", f"w:{there}", f"v:{third}")
        for copy in (there, back, third):
            assert subprocess.run(["diff", "-r", os.fspath(source), copy], capture_output=True).returncode == 0
    ended = far.run("scp", "-S", "cexec-ssh", "w:/does/not/exist", tmp_path)
    assert ended.returncode != 0 and b"No such file or directory" in ended.stderr


def test_sftp(far: ShellHost, tmp_path: Path) -> None:
    require_tool("sftp")
    (tmp_path / "one").write_bytes(random.Random(2).randbytes(3 << 20))
    batch = (
        f"lcd {tmp_path}\nmkdir {tmp_path}/d\ncd {tmp_path}/d\nput one\nrename one two\nget two three\nls -l\nrm two\n"
    )
    printed = far.do("sftp", "-S", "cexec-ssh", "-q", "-b", "-", "w", input=batch)
    assert "two" in printed
    assert (tmp_path / "three").read_bytes() == (tmp_path / "one").read_bytes()
    assert list((tmp_path / "d").iterdir()) == []
    ended = far.run("sftp", "-S", "cexec-ssh", "-b", "-", "w", input=b"get /does/not/exist\n")
    assert ended.returncode == 1 and b"not found" in ended.stderr


def test_sftp_with_many_small_requests(far: ShellHost, tmp_path: Path) -> None:
    require_tool("sftp")
    content = random.Random(3).randbytes(2000)
    (tmp_path / "one").write_bytes(content)
    words = ("sftp", "-S", "cexec-ssh", "-q", "-B", "5", "-R", "1", "-b", "-", "w")
    far.do(*words, input=f"get {tmp_path}/one {tmp_path}/two\nput {tmp_path}/one {tmp_path}/three\n")
    assert (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes() == content


def test_unison(far: ShellHost, tmp_path: Path) -> None:
    require_tool("unison")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "one").write_text("1")
    (there / "two").write_text("2")
    changes = {"UNISON": os.fspath(tmp_path / "state")}
    words = ("unison", "-sshcmd", "cexec-ssh", "-batch", "-ui", "text", os.fspath(here), f"ssh://w/{there}")
    far.do(*words, changes=changes)
    assert {path.name for path in here.iterdir()} == {path.name for path in there.iterdir()} == {"one", "two"}


def test_rdiff_backup(far: ShellHost, tmp_path: Path) -> None:
    require_tool("rdiff-backup")
    source, copy, restored = tree(tmp_path / "source"), tmp_path / "copy", tmp_path / "restored"
    schema = ("rdiff-backup", "--remote-schema", "cexec-ssh %s rdiff-backup --server")
    far.do(*schema, os.fspath(source), f"w::{copy}")
    far.do(*schema, "-r", "now", f"w::{copy}", os.fspath(restored))
    assert subprocess.run(["diff", "-r", source, restored], capture_output=True).returncode == 0


def test_restic(far: ShellHost, tmp_path: Path) -> None:
    require_tool("restic")
    source = tree(tmp_path / "source")
    words = ("restic", "-q", "--no-cache", "-o", "sftp.command=cexec-ssh w -s sftp", "-r", f"sftp:w:{tmp_path}/store")
    changes = {"RESTIC_PASSWORD": "x"}
    far.do(*words, "init", changes=changes)
    far.do(*words, "backup", os.fspath(source), changes=changes)
    far.do(*words, "check", "--read-data", changes=changes)
    far.do(*words, "restore", "latest", "--target", f"{tmp_path}/restored", changes=changes)
    restored = f"{tmp_path}/restored{source}"
    assert subprocess.run(["diff", "-r", source, restored], capture_output=True).returncode == 0


def test_sshfs(far: ShellHost, tmp_path: Path) -> None:
    require_tool("sshfs", "fusermount3", "unshare")
    if not os.path.exists("/dev/fuse"):
        skip_for_want_of("/dev/fuse")
    source, place = tree(tmp_path / "source"), tmp_path / "place"
    place.mkdir()
    script = f"""set -e
sshfs -o ssh_command=cexec-ssh w:{source} {place}
cat '{place}/below/file 5' > {tmp_path}/read
echo written > {place}/new
fusermount3 -u {place}
"""
    far.do("unshare", "-m", "sh", "-c", script)
    assert (tmp_path / "read").read_text() == "5\n" * 5
    assert (source / "new").read_text() == "written\n"
