"""A stream of any size into a reader that stops: neither side's memory grows (P8, N7)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.service import Shell
from tests.waiting import all_asleep, wait_until

GROWTH = 4_000_000  # bytes that the memory of a process may have grown by
CHUNK = 1 << 20
PATIENCE = 100.0  # seconds
MEGABYTE = 1_000_000
SIZES = [  # the first look, and the last, in bytes
    pytest.param(100 * MEGABYTE, 400 * MEGABYTE, id="400MB"),
    pytest.param(500 * MEGABYTE, 5000 * MEGABYTE, marks=[pytest.mark.campaign, pytest.mark.timeout(900)], id="5GB"),
]
each_size = pytest.mark.parametrize(("first", "last"), SIZES)


def memory(client: subprocess.Popen[bytes], shell: Shell) -> dict[str, int]:
    """What each side has for itself alone, once nothing moves any more."""
    sides = {"client": psutil.Process(client.pid), "worker": shell.service.busy_process()}
    wait_until(lambda: all_asleep(*(side.pid for side in sides.values())), PATIENCE)
    return {name: side.memory_full_info().uss for name, side in sides.items()}


def check(early: dict[str, int], late: dict[str, int]) -> None:
    growth = {side: late[side] - early[side] for side in early}
    assert max(growth.values()) <= GROWTH, growth


@pytest.fixture
def clients() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What is to be ended when the test ends."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for client in started:
        client.kill()
        client.communicate()


def read(fd: int, size: int) -> None:
    while size:
        piece = os.read(fd, min(CHUNK, size))
        assert piece, f"{size} bytes are missing"
        size -= len(piece)


@each_size
def test_output_into_a_reader_that_stops(
    first: int, last: int, shell: Shell, clients: list[subprocess.Popen[bytes]]
) -> None:
    argv, environment = shell.client(f"head -c {last + 100 * MEGABYTE} /dev/zero")
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    clients.append(client)
    assert client.stdout is not None
    read(client.stdout.fileno(), first)
    early = memory(client, shell)
    read(client.stdout.fileno(), last - first)
    check(early, memory(client, shell))
    read(client.stdout.fileno(), 100 * MEGABYTE)
    assert client.wait(PATIENCE) == 0


@each_size
@pytest.mark.parametrize("source", ["pipe", "file"])
def test_input_into_a_program_that_stops(
    source: str, first: int, last: int, shell: Shell, clients: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    steps = f"for size in {first} {last - first}; do head -c $size >/dev/null; echo here; read line <&3; done"
    argv, environment = shell.client(f"{steps}; cat >/dev/null; echo end")
    size = last + 100 * MEGABYTE
    if source == "pipe":
        feeder = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE)
        clients.append(feeder)
        stdin = feeder.stdout
    else:
        (tmp_path / "zeros").touch()
        os.truncate(tmp_path / "zeros", size)
        stdin = (tmp_path / "zeros").open("rb")
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0) as go_on:
        client = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{reading} {reading}<&-', "bash", *argv],
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            pass_fds=[reading],
        )
        os.close(reading)
        clients.append(client)
        assert client.stdout is not None
        assert client.stdout.readline() == b"here\n"
        early = memory(client, shell)
        go_on.write(b"\n")
        assert client.stdout.readline() == b"here\n"
        check(early, memory(client, shell))
        go_on.write(b"\n")
        assert client.stdout.readline() == b"end\n"
        assert client.wait(PATIENCE) == 0
