"""Nothing that a client or a job's process says ends cservice, and with it the jobs of all others.

Regression: a BROKEN of 1 KB of control characters, and a GO with 80 long names of platforms, became a report that the
parent could not read; cservice ended with a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cexec.protocol.base.limits import FRAME_HEADER, MAXIMUM_DATA, MAXIMUM_GO, MAXIMUM_TEXT
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import LARGEST_SIGNAL, LIMITED
from cexec.worker.jobs.reports import Free, encode
from tests.fake_client import ON_TERMINAL, FakeClient
from tests.holders import Authority, Holder
from tests.service import Service, Shell
from tests.worker.jobs.scene import Scene, finished

LONG_TEXT = b"\x01" * MAXIMUM_TEXT  # JSON makes six bytes of each
LARGEST = b"\xff" * 8
WORST = {
    "BROKEN of control characters": frames.frame(frames.BROKEN, LONG_TEXT),
    "BROKEN of wide characters": frames.frame(frames.BROKEN, "\U0010ffff".encode() * (MAXIMUM_TEXT // 4)),
    "BROKEN that is too long": frames.frame(frames.BROKEN, b"x" * (MAXIMUM_TEXT + 1)),
    "BROKEN that is no text": frames.frame(frames.BROKEN, b"\xff\xfe"),
    "BROKEN of a file": frames.frame(frames.BROKEN, LONG_TEXT, frames.FIRST_FILE),
    "SIGNAL 0": frames.frame(frames.SIGNAL, b"\0"),
    "SIGNAL of the highest number": frames.frame(frames.SIGNAL, bytes([LARGEST_SIGNAL])),
    "SIGNAL 255": frames.frame(frames.SIGNAL, b"\xff"),
    "SIGNAL without a number": frames.frame(frames.SIGNAL),
    "WINDOW of the largest size": frames.frame(frames.WINDOW, LARGEST[:4]),
    "WINDOW that is too long": frames.frame(frames.WINDOW, LARGEST),
    "END at an impossible count": frames.frame(frames.END, LARGEST),
    "END of an unknown stream": frames.frame(frames.END, bytes(8), 999),
    "CLOSED at an impossible count": frames.frame(frames.CLOSED, LARGEST, 1),
    "CREDIT of everything": frames.frame(frames.CREDIT, LARGEST[:4], 1),
    "CREDIT for an unknown stream": frames.frame(frames.CREDIT, LARGEST[:4], 999),
    "DATA beyond the window": frames.frame(frames.DATA, bytes(MAXIMUM_DATA)),
    "DATA of an unknown stream": frames.frame(frames.DATA, b"x", 999),
    "GO that cannot be read": frames.frame(frames.GO, LARGEST * 100),
    "GO of the largest size": frames.frame(frames.GO, b"\xff" * MAXIMUM_GO),
    "the worker's CONFIRM": frames.frame(frames.CONFIRM),
    "the worker's WITHDRAW": frames.frame(frames.WITHDRAW, LONG_TEXT),
    "the worker's STARTED": frames.frame(frames.STARTED, b"\xff"),
    "the worker's REFUSED": frames.frame(frames.REFUSED, b"\x01" + LONG_TEXT),
    "the worker's PROGRAM": frames.frame(frames.PROGRAM, LONG_TEXT),
    "the worker's EXIT": frames.frame(frames.EXIT, LARGEST * 100),
    "the worker's WANTED": frames.frame(frames.WANTED),
    "WANTED with a body": frames.frame(frames.WANTED, LONG_TEXT),
    "CANCEL": frames.frame(frames.CANCEL),
    "CANCEL with a body": frames.frame(frames.CANCEL, LONG_TEXT),
    "RELEASE": frames.frame(frames.RELEASE),
    "PING": frames.frame(frames.PING),
    "PONG": frames.frame(frames.PONG),
    "a type that is unknown": b"\xff" + bytes(FRAME_HEADER - 1) + LONG_TEXT,
}
PLATFORMS = {f"program-linux-{'x' * 200}{number}": "0" * 64 + " 1" for number in range(80)}
GOES: dict[str, dict[str, object]] = {
    "80 long names of platforms": {"options": {"program-stream": "256", **PLATFORMS}},
    "an option of control characters": {"options": {"\x01" * 200: "\x01" * 200}},
    "a limit of control characters": {"options": {"time-limit": "\x01" * 200}},
    "an order to say WANTED that is nonsense": {"options": {"tell-wanted": "\x01" * 200}},
    "an order to say WANTED": {"options": {"tell-wanted": "yes"}},
    "a terminal of control characters": {"options": {"terminal": "\x01" * 200}},
    "a terminal without its streams": {"options": {"terminal": "24 80 x"}},
    "a terminal that is too large": {"options": {"terminal": "65535 65535 x"}, "streams": ON_TERMINAL},
    "a terminal with nonsense for settings": {
        "options": {"terminal": "0 0 x a=0 eof=0 erase=255 intr=255 utf8=7 z=9"},
        "streams": ON_TERMINAL,
    },
    "a variable of control characters": {"environment": {"\x01" * 200: b"\x01" * 1000}},
    "many variables": {"environment": {f"V{number}": b"\x01" * 100 for number in range(1000)}},
    "arguments": {"arguments": [b"\x01" * 1000] * 100},
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    worker = Shell(tmp_path_factory.mktemp("shell"), ["-j", "4"])
    yield worker
    worker.close()


def serves(shell: Shell) -> None:
    """It is the process that it was, and others' jobs are done."""
    assert shell.service.process.poll() is None, shell.service.lines[-20:]
    assert shell.run("cat", input=b"an honest job").stdout == b"an honest job"


@pytest.mark.parametrize("name", WORST)
def test_no_frame_of_a_client_ends_cservice(shell: Shell, name: str) -> None:
    with FakeClient(shell.application) as before:
        before.hear(frames.CONFIRM)
        before.say(WORST[name]).ended()
    with FakeClient(shell.application) as running:
        running.give(environment={"RUN": b"cat"}).hear(frames.STARTED)
        running.say(WORST[name]).ended()
    with FakeClient(shell.application) as between:  # a lease whose first job has ended
        between.give(environment={"RUN": b"true"}, options={"lease": "yes"}).hear(frames.EXIT)
        between.say(WORST[name]).ended()
    serves(shell)


@pytest.mark.parametrize("name", GOES)
def test_no_job_of_a_client_ends_cservice(shell: Shell, name: str) -> None:
    for lease in ({}, {"lease": "yes"}):
        fields = {"environment": {"RUN": b"true"}, **GOES[name]}
        fields["options"] = {**lease, **fields.get("options", {})}  # type: ignore[dict-item]
        with FakeClient(shell.application) as client:
            client.give(**fields)  # type: ignore[arg-type]
            client.hear(frames.REFUSED, frames.STARTED)
            client.ended()
    serves(shell)


def test_no_client_of_a_terminal_ends_cservice(shell: Shell) -> None:
    """Sizes and keys without end, keys after the end, and then nothing more."""
    with FakeClient(shell.application) as client:
        request = {"terminal": "24 80 x"}
        client.give(environment={"RUN": b"stty -icanon; sleep 60"}, options=request, streams=ON_TERMINAL)
        client.hear(frames.STARTED)
        for number in range(500):
            client.say(frames.frame(frames.WINDOW, number.to_bytes(2, "big") + b"\xff\xff"))
        client.say(frames.frame(frames.DATA, b"\x03\x1a\x11\x13\0\xff" * 10_000))
        client.say(frames.frame(frames.SIGNAL, b"\2"))
        client.say(frames.frame(frames.END, (60_000).to_bytes(8, "big")))
        client.say(frames.frame(frames.WINDOW, bytes(4)))
        client.say(frames.frame(frames.CLOSED, bytes(8), 1))
    serves(shell)


def test_a_lease_goes_on_after_a_job_on_a_terminal(shell: Shell) -> None:
    with FakeClient(shell.application) as client:
        request = {"terminal": "24 80 x", "lease": "yes"}
        client.give(environment={"RUN": b"stty size"}, options=request, streams=ON_TERMINAL).hear(frames.EXIT)
        for script in (b"test -t 1 && exit 1; exit 0", b"test -t 1; exit 3"):
            client.give(environment={"RUN": script}, options={"lease": "yes"})
            told = client.hear(frames.EXIT).exit
            assert told is not None and told.status == (3 if script.endswith(b"3") else 0)
    serves(shell)


def test_a_slot_that_is_reserved_for_a_client_without_a_job_goes_to_one_that_waits(tmp_path: Path) -> None:
    """It had the slot for a second, and then again: the others waited 0.8 s for each of their jobs."""
    authority = Authority(tmp_path)
    worker = Service(authority.application, ["true"], ["-j", "1"])
    holders = [authority.client(name) for name in ("one", "other")]
    confirmed: list[Holder] = []

    def come(holder: Holder, tries: int = 5) -> str:
        """Announces and waits for the slot; the first that has it says nothing, and is told why it loses it.

        The worker may connect to both and find then that it has one slot: the other one announces anew.
        """
        try:
            with FakeClient(holder) as client:
                client.hear(frames.CONFIRM)
                first = not confirmed
                confirmed.append(holder)
                return client.hear(frames.WITHDRAW).text if first else ""
        except AssertionError as error:
            if holder in confirmed or tries == 1 or "hung up" not in str(error):
                raise
        return come(holder, tries - 1)

    try:
        with ThreadPoolExecutor(2) as threads:  # both at once, so that the second waits when the first gets the slot
            told = sorted(threads.map(come, holders))
        assert told == ["", "another client needs the slot"]
    finally:
        worker.close()


# A client that has a slot, and does nothing with it but answer PING: the limit of time is what bounds it.

LONGEST_LINE = 8 * 1024  # bytes of a line of the log: a text of 1 KiB, of which each character may be escaped


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Shell]:
    """A worker of one slot, whose jobs have two seconds."""
    worker = Shell(tmp_path, ["-j", "1", "--time-limit", "2"])
    yield worker
    worker.close()


def test_a_client_that_gives_no_input_for_ever_has_its_slot_until_the_time_limit(single: Shell) -> None:
    with FakeClient(single.application) as silent:
        silent.give(environment={"RUN": b"cat"}).hear(frames.STARTED)
        serves(single)  # its job has waited for the slot
        found = silent.hear(frames.EXIT).exit
        assert found is not None and (found.kind, found.message) == (LIMITED, "ended after its time limit of 2 s")


def test_a_client_that_never_reads_its_exit_frame_keeps_no_slot(single: Shell) -> None:
    """What it keeps is a process without a slot, of which there are 64 at most, for 30 s: `lingering`."""
    clients = [FakeClient(single.application) for _ in range(1)]
    for _ in range(5):
        clients[-1].give(environment={"RUN": b"echo output"})
        serves(single)
        clients.append(FakeClient(single.application))
    for client in clients:
        client.close()


def test_what_a_client_says_makes_few_and_short_lines(tmp_path: Path) -> None:
    worker = Shell(tmp_path, ["-j", "4"])
    try:
        for name in WORST:
            before = len(worker.service.lines)
            with FakeClient(worker.application) as running:
                running.give(environment={"RUN": b"cat"}).hear(frames.STARTED)
                for _ in range(20):
                    try:
                        running.say(WORST[name])
                    except OSError:
                        break  # it has hung up
                running.ended()
            serves(worker)
            lines = worker.service.lines[before:]
            assert len(lines) <= 10, lines
            for line in lines:
                assert line.isprintable() and len(line.encode()) <= LONGEST_LINE, line
    finally:
        worker.close()


NO_REPORTS = [b"\xff\xfe", b"null", b"\x03\xff\xff\xff\xff"]  # tests/worker/jobs/test_reports.py has more


@pytest.mark.parametrize("data", NO_REPORTS)
def test_a_process_that_sends_what_is_no_report_is_ended_alone(data: bytes) -> None:
    with Scene(slots=2) as scene:
        other, actor = scene.running(1), scene.running(2)
        scene.say_bytes(actor, data, encode(Free()))  # what comes afterwards does not count either
        assert scene.events()[-1] == "started"
        assert actor.killed
        scene.die(actor)
        assert (scene.lines()[-1]["event"], len(scene.jobs)) == ("broken", 1)
        assert "it sent a" in scene.lines()[-1]["reason"]
        scene.say(other, finished())
        assert scene.events()[-1] == "finished"
