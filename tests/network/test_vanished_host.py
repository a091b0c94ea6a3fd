"""A host that vanishes while bytes are on their way to it: each of the client's drivers notices within seconds.

Regression: only `cexec` asked the kernel whether the worker's machine still answers; `cexec --all` and `cmap` waited
for the 600 seconds that a living peer may be silent.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cexec.protocol.base.limits import INITIAL_WINDOW
from cexec.protocol.connection.silence import LONGEST_SILENCE, LOOK_INTERVAL
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.needs import require_tool
from tests.service import Application
from tests.waiting import wait_until

# Says when it has more than a client sends before the first CREDIT, which comes after STARTED.  Then it reads slowly,
# so that input is under way all the time.
SLOW_READER = """
head -c {size} > /dev/null
touch {directory}/begun.$$
while head -c 100000 > /dev/null; do sleep 0.01; done
"""
INPUT_SIZE = 4 << 30  # bytes, all of them holes: more than is read before the host vanishes
SLACK = 10.0  # seconds for a busy machine; the promise is LONGEST_SILENCE and one look more


@pytest.mark.timeout(180)
def test_every_driver_notices_a_host_that_has_vanished(
    lab: MakeLab, service: StartService, application: Application, tmp_path: Path
) -> None:
    require_tool("nft")
    network = lab(2)
    reader = SLOW_READER.format(size=INITIAL_WINDOW + 1, directory=tmp_path)
    service("sh", "-c", reader, options=["-j", "3"], host=network.host(1))
    holes = tmp_path / "holes"
    with holes.open("wb") as file:
        file.truncate(INPUT_SIZE)
    commands = {
        "cexec": command("cexec", "--retries", "0", application.public),
        "cexec --all": command("cexec", "--all", application.public),
        "cmap": command("cmap", application.public, "--crash-limit", "1", "--stdin", "{}", ":::", holes),
    }
    clients: dict[str, subprocess.Popen[str]] = {}
    for name, argv in commands.items():
        with holes.open("rb") as stdin:
            clients[name] = network.host(2).popen(
                argv,
                env=clean_environment(),
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
    # A task of `cmap` that has not begun as far as its client knows is tried again, instead of being counted as lost.
    wait_until(lambda: len(list(tmp_path.glob("begun.*"))) == len(clients))
    vanished = time.monotonic()  # not after it has: that takes as long as two calls of nft do
    for hook in ("input", "output"):
        network.host(2).drop(100, match="meta l4proto tcp", hook=hook)
    seconds: dict[str, float] = {}

    def all_have_noticed() -> bool:
        for name, client in clients.items():
            if name not in seconds and client.poll() is not None:
                seconds[name] = time.monotonic() - vanished
        return len(seconds) == len(clients)

    longest = LONGEST_SILENCE + LOOK_INTERVAL + SLACK
    try:
        wait_until(all_have_noticed, longest, explain=lambda: seconds)
        for name, client in clients.items():
            _, said = client.communicate()
            assert client.returncode != 0, name
            # The kernel's keep-alive counts the same seconds and may be the first to tell.
            assert "has not answered for 15 seconds" in said or "connection timed out" in said, (name, said)
    finally:
        for client in clients.values():
            client.kill()
            client.wait()
    print("seconds until a vanished host was noticed:", {name: round(value, 1) for name, value in seconds.items()})
    assert all(value >= LONGEST_SILENCE - LOOK_INTERVAL for value in seconds.values()), seconds
