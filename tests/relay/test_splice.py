"""Two connections joined to one: ends, resets, backpressure and bytes are as on one connection."""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median

import pytest

from cexec.relay import splice as relay_splice
from cexec.relay.buffers import Buffers, MemoryBuffer, PipeBuffer
from cexec.relay.poller import Poller
from cexec.relay.splice import CLOSED, Splice, reset
from tests.environment import ROOT
from tests.refusing import NUMBERS, refusing
from tests.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("process_end")

QUIET = 0.3  # seconds in which nothing may happen
TRIES = 20  # in vain, to send more: on a busy machine there may have been time for none in these seconds


def connected(buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over the loopback, with small buffers if asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.socket()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF) if buffer else ():
            one.setsockopt(socket.SOL_SOCKET, option, buffer)
            listener.setsockopt(socket.SOL_SOCKET, option, buffer)  # those that it accepts have it too
        one.connect(listener.getsockname())
        other, _ = listener.accept()
    one.settimeout(PATIENCE)
    return one, other


class Joined:
    """A worker and a client, and the splice between them, driven whenever `until` is called."""

    def __init__(self, *, splice: bool, head: bytes = b"", buffer: int = 0) -> None:
        self.worker, near_worker = connected(buffer)
        self.client, near_client = connected(buffer)
        self.near = (near_worker, near_client)
        for one in self.near:
            one.setblocking(False)
        self.buffers = Buffers(splice=splice)
        self.splice = Splice(near_worker, near_client, head, self.buffers)
        self.wakeups = 0
        self._poller = Poller()
        self._watched: list[int] = []

    def step(self, seconds: float) -> None:
        masks = self.splice.masks()
        for fd in self._watched:
            if fd not in masks:
                self._poller.forget(fd, self)
        for fd, mask in masks.items():
            self._poller.watch(fd, mask, self)
        self._watched = list(masks)
        due = self.splice.next_timeout()
        until = time.monotonic() + seconds
        events, _ = self._poller.wait(until if due is None else min(due, until))
        if events:
            self.wakeups += 1
            self.splice.advance(events, time.monotonic())
        self.splice.handle_timeout(time.monotonic())

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "nothing happens"
            self.step(0.02)

    def ended(self) -> str:
        self.until(lambda: bool(self.splice.ending))
        return self.splice.ending

    def wait(self) -> None:
        """Nothing is expected to happen."""
        deadline = time.monotonic() + QUIET
        while time.monotonic() < deadline:
            self.step(0.05)

    def read(self, one: socket.socket, size: int) -> bytes:
        """So many bytes, or less at the end."""
        data = bytearray()

        def receive() -> bool:
            while len(data) < size and select.select([one], [], [], 0)[0]:
                part = one.recv(size - len(data))
                if not part:
                    return True
                data.extend(part)
            return len(data) == size

        self.until(receive)
        return bytes(data)

    def close(self) -> None:
        for one in (self.worker, self.client, *self.near):
            one.close()
        self.splice.cut("over")
        self.buffers.close()


MakeJoined = Callable[..., Joined]


@pytest.fixture(params=[True, False], ids=["pipes", "memory"])
def join(request: pytest.FixtureRequest) -> Iterator[MakeJoined]:
    with ExitStack() as stack:

        def make(**options: int | bytes) -> Joined:
            joined = Joined(splice=request.param, **options)  # type: ignore[arg-type]
            stack.callback(joined.close)
            return joined

        yield make


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def state_of(one: socket.socket) -> str:
    """What the peer of `one` has done: end, reset, or neither."""
    if not select.select([one], [], [], 0)[0]:
        return "open"
    try:
        return "data" if one.recv(1, socket.MSG_PEEK) else "end"
    except ConnectionResetError:
        return "reset"


def test_what_has_been_read_already_goes_first(join: MakeJoined) -> None:
    joined = join(head=b"\xcexec")
    joined.worker.sendall(b" and more")
    assert joined.read(joined.client, 13) == b"\xcexec and more"
    assert joined.splice.counts == (13, 0)


def test_bytes_pass_in_both_directions_at_once(join: MakeJoined) -> None:
    joined = join()
    one, other = random.Random(1).randbytes(300_000), random.Random(2).randbytes(300_000)
    joined.worker.sendall(one[:100_000])
    joined.client.sendall(other[:100_000])
    assert joined.read(joined.client, 100_000) == one[:100_000]
    joined.worker.sendall(one[100_000:])
    assert joined.read(joined.worker, 100_000) == other[:100_000]
    joined.client.sendall(other[100_000:])
    assert joined.read(joined.client, 200_000) == one[100_000:]
    assert joined.read(joined.worker, 200_000) == other[100_000:]
    assert joined.splice.counts == (300_000, 300_000)


def test_a_small_record_is_not_kept_back(join: MakeJoined) -> None:
    joined = join()
    took = []
    for number in range(20):
        started = time.monotonic()
        joined.client.sendall(b"%02d" % number)
        assert joined.read(joined.worker, 2) == b"%02d" % number
        joined.worker.sendall(b"ok")
        assert joined.read(joined.client, 2) == b"ok"
        took.append(time.monotonic() - started)
    assert median(took) < 0.04  # seconds, which a delayed segment costs at least


def test_the_end_of_one_direction_leaves_the_other_open(join: MakeJoined) -> None:
    joined = join()
    joined.worker.sendall(b"last words")
    joined.worker.shutdown(socket.SHUT_WR)
    assert joined.read(joined.client, 100) == b"last words"
    joined.wait()
    assert (state_of(joined.client), state_of(joined.worker), joined.splice.ending) == ("end", "open", "")
    joined.client.sendall(b"an answer")
    assert joined.read(joined.worker, 9) == b"an answer"
    joined.client.close()
    assert joined.read(joined.worker, 1) == b""
    assert joined.ended() == CLOSED


def test_a_half_closed_connection_costs_nothing_while_it_waits(join: MakeJoined) -> None:
    joined = join()
    joined.worker.shutdown(socket.SHUT_WR)
    assert joined.read(joined.client, 1) == b""
    before = joined.wakeups
    joined.wait()
    assert joined.wakeups == before


def test_a_full_connection_costs_nothing_while_it_waits_even_if_its_writer_has_gone(join: MakeJoined) -> None:
    joined = join(buffer=8192)
    fill(joined)
    joined.client.shutdown(socket.SHUT_WR)
    assert joined.read(joined.worker, 1) == b""
    joined.worker.shutdown(socket.SHUT_WR)
    joined.wait()
    before = joined.wakeups
    joined.wait()
    assert joined.wakeups - before <= 1


def fill(joined: Joined) -> int:
    """The worker sends until nothing more fits anywhere; how many bytes that were."""
    sent = 0
    joined.worker.setblocking(False)
    last, tries = time.monotonic(), 0
    while time.monotonic() - last < QUIET or tries < TRIES:
        try:
            sent += joined.worker.send(bytes(10_000))
            last, tries = time.monotonic(), 0
        except BlockingIOError:
            tries += 1
        joined.step(0.01)
    joined.worker.settimeout(PATIENCE)
    return sent


def test_a_slow_reader_stops_the_writer(join: MakeJoined) -> None:
    joined = join(buffer=16384)
    sent = fill(joined)
    assert sent < 1_000_000
    assert joined.read(joined.client, sent) == bytes(sent)
    joined.worker.sendall(b"again")
    assert joined.read(joined.client, 5) == b"again"


@pytest.mark.parametrize("direction", ["to the client", "to the worker"])
def test_a_reset_is_never_a_clean_end(join: MakeJoined, direction: str) -> None:
    joined = join()
    one, other = (joined.worker, joined.client) if direction == "to the client" else (joined.client, joined.worker)
    one.sendall(b"half a rec")
    assert joined.read(other, 10) == b"half a rec"
    reset(one)
    assert joined.ended().endswith(": connection reset by peer")
    assert state_of(other) == "reset"


def test_what_came_before_a_reset_is_delivered_before_it(join: MakeJoined) -> None:
    joined = join(buffer=16384)
    acknowledged = fill(joined)
    acknowledged -= int.from_bytes(fcntl.ioctl(joined.worker, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    reset(joined.worker)
    joined.wait()
    assert not joined.splice.ending  # the client has not read it yet
    assert len(joined.read(joined.client, acknowledged)) == acknowledged > 20_000
    assert joined.ended() == "worker: connection reset by peer"
    assert state_of(joined.client) == "reset"


def test_a_reset_is_passed_on_in_the_end_to_one_who_does_not_read(
    join: MakeJoined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_splice, "RESET_DEADLINE", 0.5)
    joined = join(buffer=16384)
    fill(joined)
    reset(joined.worker)
    started = time.monotonic()
    assert joined.ended().startswith("worker")
    assert time.monotonic() - started > 0.4
    with pytest.raises(ConnectionResetError):
        while joined.client.recv(65536):
            pass


def test_a_reset_after_the_end_of_its_own_direction_is_passed_on(join: MakeJoined) -> None:
    joined = join()
    joined.worker.shutdown(socket.SHUT_WR)
    assert joined.read(joined.client, 1) == b""
    reset(joined.worker)
    assert joined.ended().startswith("worker")
    assert ready(joined.client, select.POLLHUP)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        joined.client.sendall(b"anybody there?")


def test_who_closes_with_bytes_unread_resets_the_writer_behind_the_relay(join: MakeJoined) -> None:
    joined = join()
    joined.client.sendall(b"never read")
    joined.until(lambda: joined.splice.counts[1] == 10)
    assert ready(joined.worker, select.POLLIN)
    joined.worker.close()
    assert joined.ended().startswith("worker")
    assert state_of(joined.client) == "reset"


def test_a_reset_that_a_write_has_seen_is_no_clean_end_to_the_next_read(join: MakeJoined) -> None:
    """The kernel tells an error once; after that a read says that the peer has ended."""
    joined = join()
    joined.client.sendall(b"before")
    reset(joined.client)
    near_worker, near_client = joined.near
    assert ready(near_client, select.POLLHUP)
    joined.worker.sendall(b"to nobody")
    assert ready(near_worker, select.POLLIN)
    joined.splice.advance({near_worker.fileno(): select.POLLIN}, time.monotonic())  # so the write sees the reset first
    assert joined.read(joined.worker, 6) == b"before"
    assert joined.ended().startswith("client")
    assert state_of(joined.worker) == "reset"


def ready(one: socket.socket, mask: int) -> bool:
    """True once the kernel reports one of these events."""
    poll = select.poll()
    poll.register(one, select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if any(events & mask for _, events in poll.poll(20)):
            return True
    return False


def test_a_machine_that_does_not_answer_resets_the_other_end(join: MakeJoined, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = join()
    monkeypatch.setattr("cexec.net.liveness.unacknowledged", lambda connection: (True, 1000.0))
    joined.client.sendall(b"to a dead machine")
    joined.until(lambda: joined.splice.counts[1] > 0)
    due = joined.splice.next_timeout()
    assert due is not None and due - time.monotonic() <= 5
    joined.splice.handle_timeout(due)
    joined.splice.handle_timeout(due + 15.5)  # not 15: `due + 15 - due` may be less than that
    assert joined.ended() == "worker: machine does not answer"
    assert state_of(joined.client) == "reset"


def test_an_idle_connection_has_no_timer_and_no_buffer(join: MakeJoined) -> None:
    joined = join()
    before = open_descriptors()
    joined.client.sendall(bytes(100_000))
    assert len(joined.read(joined.worker, 100_000)) == 100_000

    def idle() -> bool:
        if joined.splice.next_timeout() is not None:
            joined.splice.handle_timeout(1e12)
        return joined.splice.next_timeout() is None

    joined.until(idle)
    joined.buffers.close()
    assert open_descriptors() == before


def test_a_cut_resets_both(join: MakeJoined) -> None:
    joined = join()
    joined.splice.cut("because")
    assert (state_of(joined.worker), state_of(joined.client), joined.ended()) == ("reset", "reset", "because")


@pytest.mark.parametrize("seed", range(6))
def test_random_traffic_arrives_whole_and_in_order(join: MakeJoined, seed: int) -> None:
    source = random.Random(seed)
    joined = join(buffer=source.choice([0, 4096, 32768]))
    texts = [source.randbytes(source.randrange(600_000)) for _ in range(2)]
    peers = [joined.worker, joined.client]
    sent, received, closed = [0, 0], [bytearray(), bytearray()], [False, False]
    for one in peers:
        one.setblocking(False)
    deadline = time.monotonic() + 30
    while not joined.splice.ending or any(len(received[i]) < len(texts[1 - i]) for i in range(2)):
        assert time.monotonic() < deadline
        for index, one in enumerate(peers):
            if not closed[index]:
                part = texts[index][sent[index] : sent[index] + source.randrange(1, 70_000)]
                try:
                    sent[index] += one.send(part) if part else 0
                except BlockingIOError:
                    pass
                if sent[index] == len(texts[index]):
                    one.shutdown(socket.SHUT_WR)
                    closed[index] = True
            if source.random() < 0.5:
                try:
                    received[index] += one.recv(source.randrange(1, 100_000))
                except BlockingIOError:
                    pass
        joined.step(0.001)
    assert [bytes(part) for part in received] == texts[::-1]
    assert joined.splice.ending == CLOSED
    assert joined.splice.counts == (len(texts[0]), len(texts[1]))


def test_without_descriptors_for_a_pipe_bytes_pass_through_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", no_more)
    assert isinstance(Buffers().take(), MemoryBuffer)


PASSED = """
import socket
from cexec.relay.buffers import Buffers
one, other = socket.socketpair()
one.sendall(b"hello")
buffer = Buffers().take()
buffer.fill(other)
buffer.drain(other)
print(one.recv(5).decode())
"""


@pytest.mark.skipif(not NUMBERS, reason="the numbers of system calls on this machine")
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_where_splice_is_forbidden_bytes_pass_through_memory(error: str) -> None:
    """Regression: in a container whose filter of system calls lacks it each connection through `cproxy` ended."""
    argv = refusing("splice", error, [sys.executable, "-c", PASSED])
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_an_empty_pipe_is_used_again_and_a_full_one_is_not() -> None:
    buffers = Buffers(splice=True)
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"x")
        first = buffers.take()
        buffers.give_back(first)
        again = buffers.take()
        assert again is first and isinstance(first, PipeBuffer)
        before = open_descriptors()
        assert again.fill(other) == 1
        buffers.give_back(again)
        assert open_descriptors() == before - 2
        assert buffers.take() is not first
