"""N2 and N3 for outputs, clause by clause: which bytes may be taken back, and which are cut at the end."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir
from threading import Timer

import pytest

from cexec.client.attempt.descriptors import Descriptor
from cexec.client.attempt.outputs import Outputs
from cexec.errors import LocalError
from cexec.protocol.connection.options import READS, WRITES
from cexec.system.io.fds import Sink
from cexec.system.process import open_files
from tests.needs import require_tool

pytestmark = pytest.mark.usefixtures("process_end")

NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
Open = Callable[..., int]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens files as descriptors, which are closed when the test ends."""
    fds: list[int] = []

    def keep(what: Path | int, flags: int = NEW) -> int:
        fds.append(os.open(what, flags, 0o600) if isinstance(what, Path) else what)
        return fds[-1]

    yield keep
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "output"


def described(fd: int, number: int | None = None, *, append: bool = False, directions: int = WRITES) -> Descriptor:
    """Returns the descriptor `fd`; tests of standard error give it the number 2."""
    status = os.fstat(fd)
    descriptor = Descriptor(
        fd, directions, status.st_mode, (status.st_dev, status.st_ino), os.O_APPEND if append else 0
    )
    if number is not None:
        descriptor.fd = descriptor.same_as = number
    return descriptor


def written(outputs: Outputs, fd: int, data: bytes) -> None:
    assert outputs.sinks()[fd].write(memoryview(data)) == len(data)


def outputs(*descriptors: Descriptor, hold: bool = False) -> Outputs:
    return Outputs(list(descriptors), hold=hold)


# outputs that can be taken back


def test_a_new_file_is_taken_back(path: Path, opened: Open) -> None:
    fd = opened(path)
    made = outputs(described(fd))
    written(made, fd, b"half")
    assert (made.obstacle(), made.irrevocable) == ("", False)
    made.take_back()
    assert path.read_bytes() == b""
    written(made, fd, b"whole")
    assert path.read_bytes() == b"whole"


def test_a_file_is_cut_back_to_where_we_began_at_its_end(path: Path, opened: Open) -> None:
    fd = opened(path)
    os.write(fd, b"older ")
    made = outputs(described(fd))
    written(made, fd, b"half")
    made.take_back()
    assert path.read_bytes() == b"older "
    assert os.lseek(fd, 0, os.SEEK_CUR) == 6


def test_nothing_written_is_nothing_to_take_back(path: Path, opened: Open) -> None:
    path.write_bytes(b"older")
    fd = opened(path, os.O_WRONLY)
    made = outputs(described(fd))
    made.sinks()
    assert (made.obstacle(), made.irrevocable) == ("", False)
    made.take_back()
    assert path.read_bytes() == b"older"


def test_what_went_to_dev_null_is_no_obstacle(opened: Open) -> None:
    fd = opened(Path(os.devnull), os.O_WRONLY)
    made = outputs(described(fd))
    written(made, fd, b"half")
    assert (made.obstacle(), made.irrevocable) == ("", False)
    made.take_back()


def test_what_went_to_another_device_is() -> None:
    main, terminal = os.openpty()
    made = outputs(described(terminal))
    written(made, terminal, b"half")
    refused(made, "which is no file")
    os.close(main)
    os.close(terminal)


# outputs that cannot, a clause each


def refused(made: Outputs, reason: str, *, at_once: bool = True) -> None:
    """Asserts an obstacle, which is known `at_once` or only found by looking."""
    assert reason in made.obstacle()
    assert made.irrevocable == at_once


def test_a_pipe_cannot(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading)
    made = outputs(described(opened(writing)))
    written(made, writing, b"half")
    refused(made, f"4 bytes have been written to descriptor {writing}, which is no file")
    made.take_back()
    assert os.read(reading, 10) == b"half"


def test_a_file_that_is_appended_to_cannot(path: Path, opened: Open) -> None:
    path.write_bytes(b"older ")
    fd = opened(path, os.O_WRONLY | os.O_APPEND)
    made = outputs(described(fd, append=True))
    written(made, fd, b"half")
    refused(made, "which is appended to")
    made.take_back()
    assert path.read_bytes() == b"older half"


def test_a_file_that_went_on_behind_us_cannot(path: Path, opened: Open) -> None:
    path.write_bytes(b"0123456789")
    fd = opened(path, os.O_WRONLY)
    made = outputs(described(fd))
    written(made, fd, b"half")
    refused(made, "which did not end where we began")
    made.take_back()
    assert path.read_bytes() == b"half456789"


def test_a_file_that_is_read_and_written_through_one_descriptor_is_not_written_at_the_wrong_place(
    path: Path, opened: Open
) -> None:
    """Regression: bytes that belong behind those that the program had read overwrote the beginning."""
    path.write_bytes(b"0123456789")
    fd = opened(path, os.O_RDWR)
    made = outputs(described(fd, directions=READS | WRITES))
    with pytest.raises(OSError) as caught:
        written(made, fd, b"half")
    assert str(made.cannot_write(fd, caught.value.errno or 0)) == (
        f"cannot write to descriptor {fd}: the program reads this file too, and where it has got to is not known here; "
        "open it for one of both"
    )
    assert path.read_bytes() == b"0123456789"


def test_a_file_that_has_nothing_to_read_is_written_through_such_a_descriptor(path: Path, opened: Open) -> None:
    path.write_bytes(b"0123456789")
    at_its_end, appended = opened(path, os.O_RDWR), opened(path, os.O_RDWR | os.O_APPEND)
    os.lseek(at_its_end, 0, os.SEEK_END)
    written(outputs(described(at_its_end, directions=READS | WRITES)), at_its_end, b"abc")
    written(outputs(described(appended, directions=READS | WRITES, append=True)), appended, b"def")
    assert path.read_bytes() == b"0123456789abcdef"


def test_a_file_that_is_an_input_too_cannot(path: Path, opened: Open) -> None:
    fd = opened(path)
    reading = opened(path, os.O_RDONLY)
    made = outputs(described(fd), described(reading, directions=READS))
    written(made, fd, b"half")
    refused(made, "which the job reads too")
    made.take_back()
    assert path.read_bytes() == b"half"


def test_a_file_that_is_open_twice_cannot(path: Path, opened: Open) -> None:
    one, other = opened(path), opened(path, os.O_WRONLY)
    made = outputs(described(one), described(other))
    written(made, one, b"half")
    refused(made, "which is open twice")
    made.take_back()
    assert path.read_bytes() == b"half"


def test_a_file_into_which_others_have_written_cannot(path: Path, opened: Open) -> None:
    fd = opened(path)
    made = outputs(described(fd))
    written(made, fd, b"half")
    os.write(fd, b"theirs")
    refused(made, "to which others have written too", at_once=False)
    made.take_back()
    assert path.read_bytes() == b"halftheirs"


def test_a_file_that_was_cut_by_others_cannot(path: Path, opened: Open) -> None:
    fd = opened(path)
    made = outputs(described(fd))
    written(made, fd, b"half")
    os.ftruncate(fd, 2)
    refused(made, "to which others have written too", at_once=False)
    made.take_back()
    assert path.read_bytes() == b"ha"


def test_a_file_that_another_process_has_open_cannot(path: Path, opened: Open) -> None:
    fd = opened(path)
    made = outputs(described(fd))
    written(made, fd, b"half")
    with subprocess.Popen(["sleep", "60"], stdout=fd) as sleeping:
        refused(made, "which another process has open too", at_once=False)
        made.take_back()
        sleeping.kill()
    assert path.read_bytes() == b"half"
    assert made.obstacle() == ""


def test_a_process_that_had_it_open_for_a_moment_does_not_count(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of our parent's was just starting another command: half an output stayed, once in 1,000 runs."""
    monkeypatch.setattr(open_files, "BRIEFLY_OPEN", 30.0)
    fd = opened(path)
    made = outputs(described(fd))
    written(made, fd, b"half")
    with subprocess.Popen(["sleep", "60"], stdout=fd) as sleeping:
        assert open_files.others_have_open(described(fd).inode)
        Timer(0.05, sleeping.kill).start()
        made.take_back()
    assert path.read_bytes() == b""


def test_a_process_above_us_may_have_it_open_for_it_only_waits(path: Path) -> None:
    require_tool("sh")
    script = (
        "import os; from tests.client.attempt.test_outputs import *\n"
        "made = outputs(described(1))\n"
        "written(made, 1, b'half')\n"
        "assert made.obstacle() == '', made.obstacle()\n"
        "made.take_back()\n"
    )
    with path.open("wb") as file:
        shell = subprocess.run(["sh", "-c", f'{sys.executable} -c "$0"; exit $?', script], stdout=file, timeout=60)
    assert shell.returncode == 0
    assert path.read_bytes() == b""


# standard error


def test_standard_error_of_its_own_is_exempt(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading), opened(writing)
    stderr = described(writing, number=2)
    made = outputs(stderr)
    made.files[stderr.inode].sinks.append(Written(100))
    assert (made.obstacle(), made.irrevocable) == ("", False)


def test_standard_error_that_shares_another_output_s_open_file_is_not(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading), opened(writing)
    stdout, stderr = described(writing, number=1), described(writing, number=2)
    stderr.same_as = 1
    made = outputs(stdout, stderr)
    made.files[stdout.inode].sinks.append(Written(100))
    refused(made, "100 bytes have been written to standard output, which is no file")


def test_standard_error_that_is_another_open_of_an_output_is_not(path: Path, opened: Open) -> None:
    stdout, stderr = described(opened(path), number=1), described(opened(path, os.O_WRONLY), number=2)
    made = outputs(stdout, stderr)
    made.files[stdout.inode].sinks.append(Written(100))
    refused(made, "which is open twice")


class Written(Sink):
    """A sink that has written `count` bytes."""

    def __init__(self, count: int) -> None:
        super().__init__(-1, shared=True)
        self.count = count


# --hold


def test_held_output_is_released_or_dropped(path: Path, opened: Open) -> None:
    fd = opened(path)
    made = outputs(described(fd), hold=True)
    written(made, fd, b"half")
    assert (made.obstacle(), made.irrevocable, path.read_bytes()) == ("", False, b"")
    made.take_back()
    written(made, fd, b"whole")
    assert made.release()
    assert path.read_bytes() == b"whole"


def test_held_output_into_a_pipe_can_be_repeated(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading)
    made = outputs(described(opened(writing)), hold=True)
    written(made, writing, b"half")
    assert (made.obstacle(), made.irrevocable) == ("", False)
    made.take_back()
    written(made, writing, b"whole")
    assert made.release()
    assert os.read(reading, 100) == b"whole"


def test_where_held_output_does_not_fit_is_said(opened: Open) -> None:
    made = outputs(described(opened(os.pipe()[1])), hold=True)
    (number,) = made.sinks()
    message = str(made.cannot_write(number, errno.ENOSPC))
    made.drop_held()
    assert message == f"cannot keep descriptor {number} back in {gettempdir()} (TMPDIR): no space left on device"


def test_a_reader_that_has_gone_before_the_release_is_told_of(opened: Open) -> None:
    reading, writing = os.pipe()
    made = outputs(described(opened(writing)), hold=True)
    written(made, writing, b"whole")
    os.close(reading)
    assert not made.release()


def test_held_output_that_does_not_fit_is_cut_back(tmp_path: Path, opened: Open) -> None:
    """Regression: the part that had fitted stayed."""
    import resource

    path = tmp_path / "output"
    fd = opened(path)
    made = outputs(described(fd), hold=True)
    written(made, fd, bytes(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(LocalError, match=f"cannot write to descriptor {fd}: file too large"):
            made.release()
        assert path.stat().st_size == 50_000
        made.take_back()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == 0


def test_a_disk_that_says_only_at_the_end_that_it_is_full_is_a_failure(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, close reports the error of a write."""
    fd = opened(path)
    made = outputs(described(fd))
    written(made, fd, b"all")
    close = os.close

    def full(number: int) -> None:
        close(number)
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "close", full)
    with pytest.raises(LocalError, match=f"cannot write to descriptor {fd}: no space left on device"):
        made.release()
    monkeypatch.undo()
    os.write(fd, b" and it is still open")


# the end of an output while the job goes on


def test_a_pipe_is_closed_when_the_program_has_closed_it(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading)
    copy = opened(os.dup(opened(writing)))
    descriptor, duplicate = described(writing), described(copy)
    duplicate.same_as = writing
    made = outputs(descriptor, duplicate)
    sink = made.sinks()[writing]
    sink.write(memoryview(b"all"))
    sink.close()
    made.ended(writing, half=False)
    assert (os.read(reading, 10), os.read(reading, 10)) == (b"all", b"")
    assert os.readlink(f"/proc/self/fd/{writing}") == "/dev/null"


def test_a_pipe_without_a_byte_stays_open_for_another_attempt(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading)
    made = outputs(described(opened(writing)))
    made.sinks()[writing].close()
    made.ended(writing, half=False)
    written(made, writing, b"another")
    assert os.read(reading, 10) == b"another"


def test_standard_error_stays_open_for_our_own_words(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading)
    stdout = described(opened(writing))
    stderr = described(writing, number=2)
    stderr.same_as = writing
    made = outputs(stdout, stderr)
    sink = made.sinks()[writing]
    sink.write(memoryview(b"all"))
    made.ended(writing, half=False)
    os.write(writing, b" and more")
    sink.close()
    assert os.read(reading, 20) == b"all and more"


def test_held_output_has_not_ended_before_it_is_released(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(reading)
    made = outputs(described(opened(writing)), hold=True)
    written(made, writing, b"all")
    made.ended(writing, half=False)
    assert made.release()
    assert os.read(reading, 10) == b"all"


@pytest.mark.parametrize("half", [True, False])
def test_a_socket_is_closed_or_half_closed(half: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = theirs.fileno()
        made = outputs(described(fd, directions=READS | WRITES))
        sink = made.sinks()[fd]
        sink.write(memoryview(b"all"))
        sink.close()
        made.ended(fd, half=half)
        assert (ours.recv(10), ours.recv(10)) == (b"all", b"")
        if half:
            ours.sendall(b"answer")
            assert theirs.recv(10) == b"answer"
        else:
            with pytest.raises(BrokenPipeError):
                ours.sendall(b"answer")


def test_a_file_that_the_program_has_closed_can_still_be_taken_back(path: Path, opened: Open) -> None:
    fd = opened(path)
    made = outputs(described(fd))
    written(made, fd, b"half")
    made.ended(fd, half=False)
    made.take_back()
    assert path.read_bytes() == b""
