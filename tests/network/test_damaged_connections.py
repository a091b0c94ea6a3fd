"""A small session between a real client and a real worker that ends, or has one bit flipped, at every byte.

Never a success, unless all of the session had passed.  The session's bytes are those of docs/protocol.md sections 3 and
4; tests/protocol/connection/test_damage.py does the same to the machines alone.  The campaign has every offset.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cexec.errors import CexecError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import FRAME_HEADER, FRAME_LENGTH, RECORD_HEADER
from tests.environment import LOOPBACK_GROUP
from tests.fake_worker import Connection, FakeWorker, HungUpError
from tests.service import Application, Service
from tests.tampering import DIRECTIONS, TO_CLIENT, TO_WORKER, Damage, Tamperer

WORKER_PORT = 3498
INPUT = b"a few bytes of input"
STATUS, OUTPUT = 0, INPUT + b"\n"
PROGRAM = 'all=$(cat); echo "$all"'  # one write: every session has the same bytes
# The client's last word, that it needs the worker no more, is no part of the job.
LAST_WORD = RECORD_HEADER + FRAME_LENGTH + FRAME_HEADER + sodium.aead(sodium.aead_names()[0]).tag_size
STEP = 61  # bytes between two offsets in a short run
AT_ONCE = 3

ports = itertools.count(3501)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return Application(tmp_path_factory.mktemp("application"))


def serve(connection: Connection) -> None:
    """What a good worker does, as far as it comes."""
    try:
        connection.take().start()
        connection.write(1, connection.read() + b"\n").end(1, 2).exit().wait_for_end()
    except (HungUpError, CexecError, OSError):
        pass


@pytest.fixture(scope="module")
def worker(application: Application) -> Iterator[FakeWorker]:
    """A worker that is never slowed down by all these failures."""
    with FakeWorker(application, serve, port=WORKER_PORT) as fake:
        yield fake


@pytest.fixture
def real_worker(application: Application) -> Iterator[Service]:
    environment = {"CEXEC_GROUP": LOOPBACK_GROUP, "CEXEC_UDP_PORT": str(WORKER_PORT + 1)}
    service = Service(application, ["sh", "-c", PROGRAM], ["--speed", "1"], environment=environment)
    yield service
    service.close()


def run(
    application: Application,
    directory: Path,
    damage: Damage | None,
    worker_port: int = WORKER_PORT,
    *,
    patience: str = "1",
) -> tuple[subprocess.CompletedProcess[bytes], bytes, Tamperer]:
    """What became of `cexec app.pub < in > out` over this network, and what is in `out`.

    `patience`: seconds in which a client whose session is damaged looks for a worker.
    """
    port = next(ports)
    environment = {
        "CEXEC_GROUP": LOOPBACK_GROUP,
        "CEXEC_UDP_PORT": str(port),
        "CEXEC_TIMEOUT_ACCEPT": "20" if damage is None else patience,
    }
    argv, whole = application.client("--retries", "0", environment=environment)
    output = directory / f"out{port}"
    source, target = os.pipe()
    os.write(target, INPUT)
    os.close(target)
    with Tamperer(port, worker_port, damage) as tamperer, open(source, "rb") as stdin, output.open("wb") as stdout:
        ended = subprocess.run(argv, env=whole, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=60)
    if not tamperer.connections:  # the worker's thread had no time
        return run(application, directory, damage, worker_port, patience=patience)
    return ended, output.read_bytes(), tamperer


def test_the_whole_session_is_a_success(application: Application, worker: FakeWorker, tmp_path: Path) -> None:
    ended, output, tamperer = run(application, tmp_path, None)
    assert (ended.returncode, ended.stderr, output) == (STATUS, b"", OUTPUT)
    assert tamperer.connections == 1


def offsets(application: Application, directory: Path, direction: str, step: int) -> list[int]:
    """From the first byte to the last; always with the first and the last few."""
    _, _, tamperer = run(application, directory, None)
    size = tamperer.carried[direction] - (LAST_WORD if direction == TO_WORKER else 0)
    assert size > 200
    return sorted({*range(0, size, step), *range(size - 3, size)})


each_direction = pytest.mark.parametrize("direction", DIRECTIONS)
each_step = pytest.mark.parametrize(
    "step", [STEP, pytest.param(1, marks=[pytest.mark.campaign, pytest.mark.timeout(3600)])]
)


def check(application: Application, directory: Path, damages: list[Damage]) -> None:
    """Each of them is a failure that says why and leaves no output."""

    def one(damage: Damage) -> str:
        ended, output, _ = run(application, directory, damage)
        good = ended.returncode == 111 and output == b"" and ended.stderr.startswith(b"cexec: ")
        where = f"{damage.direction}: cut {damage.cut}, flip {damage.flip}"
        return "" if good else f"{where}: {ended.returncode} with {output!r}: {ended.stderr.decode()}"

    with ThreadPoolExecutor(AT_ONCE) as executor:
        assert [failure for failure in executor.map(one, damages) if failure] == []


@each_step
@each_direction
def test_an_end_anywhere_is_never_a_success(
    application: Application, worker: FakeWorker, tmp_path: Path, direction: str, step: int
) -> None:
    check(application, tmp_path, [Damage(direction, cut=at) for at in offsets(application, tmp_path, direction, step)])


@each_step
@each_direction
def test_a_flipped_bit_anywhere_is_never_a_success(
    application: Application, worker: FakeWorker, tmp_path: Path, direction: str, step: int
) -> None:
    check(application, tmp_path, [Damage(direction, flip=at) for at in offsets(application, tmp_path, direction, step)])


def test_the_end_after_the_last_byte_to_the_client_is_too_late_to_hurt(
    application: Application, worker: FakeWorker, tmp_path: Path
) -> None:
    _, _, tamperer = run(application, tmp_path, None)
    ended, output, _ = run(application, tmp_path, Damage(TO_CLIENT, cut=tamperer.carried[TO_CLIENT]), patience="20")
    assert (ended.returncode, output) == (STATUS, OUTPUT)


@pytest.mark.campaign
@pytest.mark.timeout(900)
@each_direction
@pytest.mark.parametrize("kind", ["cut", "flip"])
def test_a_real_worker_leaves_nothing_of_a_damaged_session(
    application: Application, real_worker: Service, tmp_path: Path, direction: str, kind: str
) -> None:
    port = WORKER_PORT + 1
    for at in range(0, 700, 5 * STEP):
        # Failures slow a worker, and a success makes up for them.
        whole, output, tamperer = run(application, tmp_path, None, port)
        assert (whole.returncode, output) == (0, OUTPUT)
        if at < tamperer.carried[direction] - LAST_WORD:
            ended, output, _ = run(application, tmp_path, Damage(direction, **{kind: at}), port)
            assert (ended.returncode, output) == (111, b""), (at, ended.stderr)
