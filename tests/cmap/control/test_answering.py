"""Asking and answering over the socket of a journal: by its user, by strangers, and by those who only take time."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest

from cexec.cmap.control import answering, asking, control_place
from cexec.cmap.control.asking import ask
from cexec.cmap.control.control_messages import (
    REPLY_LIMIT,
    REQUEST_LIMIT,
    ControlAction,
    ControlRefusal,
    ControlRequest,
    ControlStatus,
    encode_request,
    parse_reply,
)
from cexec.errors import (
    CexecError,
    LocalError,
    NoRunError,
    NotAllowedError,
    NotFollowedError,
    ProtocolError,
    SilentPeerError,
    UsageError,
)
from cexec.system.storage.lockfile import Lock
from tests.waiting import one_turn, until

STATUS = ControlStatus(
    pid=1, paused=False, paused_seconds=0.0, ending=False, weight=1, running=0, given=0, waiting=5, leases=0, workers=0
)  # fmt: skip
HOW_IT_STANDS = ControlRequest(ControlAction.STATUS)
STRANGER = 12_345  # a uid
SHORT = 0.1  # seconds
Play = Callable[[str], Awaitable[None]]


@pytest.fixture
def journal(tmp_path: Path) -> str:
    (tmp_path / "journal").touch()
    return os.fspath(tmp_path / "journal")


class Answers:
    """Keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[ControlRequest] = []
        self.reply: ControlStatus | ControlRefusal = STATUS

    def __call__(self, request: ControlRequest) -> ControlStatus | ControlRefusal:
        self.asked.append(request)
        return self.reply


def played(journal: str, answer: answering.Answer, play: Play) -> None:
    """Plays while the requests of a journal are answered."""

    async def run() -> None:
        async with answering.listening(journal, answer):
            await play(journal)

    asyncio.run(run())
    assert not os.path.exists(control_place.control_path(journal))


async def asked(journal: str, request: ControlRequest = HOW_IT_STANDS, timeout: float = 30.0) -> ControlStatus:
    return await asyncio.to_thread(ask, journal, request, timeout)


async def connected(journal: str) -> socket.socket:
    """A connection, once there is room in the queue of the socket."""
    while True:
        try:
            return connected_at_once(journal)
        except BlockingIOError:
            await one_turn()


def connected_at_once(journal: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(os.fsencode(control_place.control_path(journal)))
    except BaseException:
        connection.close()
        raise
    return connection


async def heard(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up, even if it does that in anger."""
    data = b""
    try:
        while part := await asyncio.get_running_loop().sock_recv(connection, REPLY_LIMIT):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_every_request_is_answered_and_a_refusal_has_its_reason(journal: str) -> None:
    answers = Answers()
    requests = [HOW_IT_STANDS, ControlRequest(ControlAction.PAUSE), ControlRequest(ControlAction.WEIGHT, 7)]

    async def play(journal: str) -> None:
        for request in requests:
            assert await asked(journal, request) == STATUS
        answers.reply = ControlRefusal("the run is about to end")
        with pytest.raises(NotFollowedError, match=r"^the run is about to end$"):
            await asked(journal)

    played(journal, answers, play)
    assert answers.asked == [*requests, HOW_IT_STANDS]


def test_a_stranger_is_told_so_and_asks_nothing(journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    monkeypatch.setattr(answering, "peer_of", lambda connection: STRANGER)

    async def play(journal: str) -> None:
        for _ in range(2 * answering.MOST_CONNECTIONS):
            with pytest.raises(NotAllowedError, match="only the user who has started this cmap"):
                await asked(journal)
        monkeypatch.setattr(answering, "peer_of", lambda connection: control_place.ROOT)
        assert await asked(journal) == STATUS

    played(journal, answers, play)
    assert answers.asked == [HOW_IT_STANDS]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "no JSON"),
        (b'{"action":"stop"}\n', "cannot understand this request"),
        (encode_request(HOW_IT_STANDS) * 2, "more than one line"),
        (b"x" * REQUEST_LIMIT, f"longer than {REQUEST_LIMIT} bytes"),
        (b"x" * 10 * REQUEST_LIMIT, f"longer than {REQUEST_LIMIT} bytes"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(journal: str, data: bytes, reason: str) -> None:
    answers = Answers()

    async def play(journal: str) -> None:
        with await connected(journal) as connection:
            await asyncio.get_running_loop().sock_sendall(connection, data)
            reply = parse_reply((await heard(connection))[:-1])
            assert isinstance(reply, ControlRefusal) and reason in reply.reason and not reply.denied

    played(journal, answers, play)
    assert not answers.asked


def test_those_who_say_nothing_or_dribble_or_do_not_read_take_no_place_for_long(
    journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "DEADLINE", 10 * SHORT)  # which the one who asks has, too

    async def play(journal: str) -> None:
        idle = [await connected(journal) for _ in range(answering.MOST_CONNECTIONS)]
        others = [await connected(journal) for _ in range(answering.MOST_CONNECTIONS // 2)]
        idle[0].send(b"{")
        idle[1].shutdown(socket.SHUT_WR)
        idle[2].close()
        assert await asked(journal) == STATUS, "they have lost their places"
        for connection in (idle[0], *idle[3:], *others):
            assert await heard(connection) == b""
        for connection in (*idle, *others):
            connection.close()

    played(journal, Answers(), play)


def test_no_more_than_the_places_are_accepted_at_once(journal: str) -> None:
    answered = Answers()

    async def play(journal: str) -> None:
        tasks = len(asyncio.all_tasks())
        all_of_them = [await connected(journal) for _ in range(answering.MOST_CONNECTIONS + 3)]
        await until(lambda: len(asyncio.all_tasks()) == tasks + answering.MOST_CONNECTIONS)
        for connection in all_of_them:
            connection.send(encode_request(HOW_IT_STANDS))
        assert [len(await heard(connection)) > 2 for connection in all_of_them] == [True] * len(all_of_them)
        for connection in all_of_them:
            connection.close()

    played(journal, answered, play)
    assert len(answered.asked) == answering.MOST_CONNECTIONS + 3


def test_want_of_descriptors_is_waited_for_without_a_busy_loop(journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "REST", SHORT)
    tries = []

    def none_left(self: socket.socket) -> tuple[socket.socket, object]:
        tries.append(1)
        raise OSError(errno.EMFILE, "too many open files")

    async def play(journal: str) -> None:
        began = monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", none_left)
            with pytest.raises(SilentPeerError):
                await asked(journal, timeout=4 * SHORT)
            await until(lambda: len(tries) >= 2)
        assert len(tries) <= (monotonic() - began) / SHORT + 2
        assert await asked(journal) == STATUS

    played(journal, Answers(), play)


def test_the_socket_goes_with_the_run_however_that_ends(journal: str) -> None:
    async def fail(journal: str) -> None:
        (await connected(journal)).close()
        raise LocalError("the disk is full")

    async def end(journal: str) -> None:
        with await connected(journal) as connection:
            connection.send(b"{")
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            await asyncio.sleep(60.0)

    with pytest.raises(LocalError, match="the disk is full"):
        played(journal, Answers(), fail)
    with pytest.raises(asyncio.CancelledError):
        played(journal, Answers(), end)
    assert sorted(os.listdir(os.path.dirname(journal))) == ["journal"]


# asking where nobody answers as cmap does


@contextmanager
def somebody(journal: str, says: bytes | None, *, reads: bool = True) -> Iterator[None]:
    """Listens in the place of cmap and says something else; None: nothing, and it does not hang up."""
    place = socket.socket(socket.AF_UNIX)
    place.bind(os.fsencode(control_place.control_path(journal)))
    place.listen(1)
    over = threading.Event()

    def serve() -> None:
        connection, _ = place.accept()
        with connection:
            connection.recv(REQUEST_LIMIT)
            if says is None:
                over.wait()
            else:
                connection.sendall(says)

    server = threading.Thread(target=serve)
    if reads:
        server.start()
    try:
        yield
    finally:
        over.set()
        if reads:
            server.join()
        place.close()


@pytest.mark.parametrize(
    ("says", "error", "words"),
    [
        (None, SilentPeerError, "has not answered within 0.1 s"),
        (b"", NoRunError, "has ended meanwhile: it has hung up"),
        (b"{}\n", ProtocolError, "cannot understand this reply"),
        (b"x" * REPLY_LIMIT, ProtocolError, "longer than"),
        (b"\x1b[2J\n\n", ProtocolError, "more than one line"),
    ],
)
def test_what_answers_otherwise_is_an_error(
    journal: str, says: bytes | None, error: type[CexecError], words: str
) -> None:
    with somebody(journal, says), pytest.raises(error, match=words):
        ask(journal, HOW_IT_STANDS, SHORT if says is None else 30.0)


def test_a_cmap_that_is_stopped_is_not_waited_for(journal: str) -> None:
    with somebody(journal, None, reads=False):
        waiting = []
        with pytest.raises(SilentPeerError, match="has not answered within"):
            ask(journal, HOW_IT_STANDS, SHORT)
        try:
            while True:  # until the queue is full
                waiting.append(connected_at_once(journal))
        except BlockingIOError:
            pass
        with pytest.raises(SilentPeerError, match="takes no questions now"):
            ask(journal, HOW_IT_STANDS, SHORT)
        for connection in waiting:
            connection.close()


def test_a_socket_of_another_user_in_the_place_of_cmaps_is_not_spoken_to(
    journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers()

    async def play(journal: str) -> None:
        monkeypatch.setattr(asking, "peer_of", lambda connection: STRANGER)
        with pytest.raises(NoRunError, match="another user listens at"):
            await asked(journal)
        os.chown(journal, STRANGER, -1)  # then it is the owner's cmap, which may refuse
        assert await asked(journal) == STATUS

    if os.geteuid() != 0:
        pytest.skip("for want of root")
    played(journal, answers, play)
    assert answers.asked == [HOW_IT_STANDS]


def test_where_nobody_runs(journal: str, tmp_path: Path) -> None:
    place = Path(control_place.control_path(journal))
    with pytest.raises(UsageError, match=r"there is no journal .*/none; give the --state of the run"):
        ask(os.fspath(tmp_path / "none"), HOW_IT_STANDS)
    with pytest.raises(NoRunError, match=r"^no cmap runs with"):
        ask(journal, HOW_IT_STANDS)
    with closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(os.fspath(place))
    with pytest.raises(NoRunError, match=r"^no cmap runs with"):
        ask(journal, HOW_IT_STANDS)
    with closing(Lock(journal)), pytest.raises(NoRunError, match=rf"is process {os.getpid()} on .*, which does not"):
        ask(journal, HOW_IT_STANDS)
    place.unlink()
    for target in (None, __file__):
        if target is None:
            place.write_text("")
        else:
            place.symlink_to(target)
        with pytest.raises(NoRunError, match="is no socket"):
            ask(journal, HOW_IT_STANDS)
        place.unlink()
