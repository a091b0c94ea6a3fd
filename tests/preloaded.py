"""Commands as forks of a process that has read their modules, for tests of what a command says and does.

Contract: `run(argv, ...)` is `subprocess.run` of a launcher in `bin/`, with captured output, in the present directory.
The command is a process of its own, with the descriptors, the environment and the signals that it is given, and runs
the launcher's file.  Python and the modules are there already, which saves three quarters of the time: most tests of
commands start them in order to see one line.  A test of the start itself, of descriptors above 2 or of the command line
that other processes see takes `subprocess`.

As a script, `preloaded.py DESCRIPTOR` is that process.  It ends when its test run does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("cboot", "ckeygen", "cmap", "cproxy", "cps", "crat", "cservice")  # `cexec` starts fast enough
LARGEST = 100_000  # bytes of a request, which passes the socket at once
MOST_DESCRIPTORS = 4096


def run(
    argv: Sequence[str | bytes],
    *,
    env: Mapping[str, str],
    timeout: float,
    input: bytes = b"",
    stdin: int | None = None,
    cwd: str | os.PathLike[str] = ".",
) -> subprocess.CompletedProcess[bytes]:
    """Runs `argv`, which is of `tests.environment.command`, to its end; raises what `subprocess.run` raises.

    `stdin`: a descriptor in place of `input`.
    """
    program, launcher, *words = map(os.fsdecode, argv)
    assert program == sys.executable and Path(launcher).parent == ROOT / "bin", argv
    request = json.dumps({"argv": [launcher, *words], "env": dict(env), "cwd": os.path.abspath(cwd)}).encode()
    assert len(request) < LARGEST
    pipes = [os.pipe() for _ in range(4)]  # standard input, output, error, and what becomes of the process
    theirs = [pipes[0][0], *(pipe[1] for pipe in pipes[1:])]
    ours = [pipes[0][1], *(pipe[0] for pipe in pipes[1:])]
    try:
        socket.send_fds(_server(), [request], [theirs[0] if stdin is None else stdin, *theirs[1:]])
    finally:
        for number in theirs:
            os.close(number)
    output, errors, fate = _communicate(ours, input, timeout)
    return subprocess.CompletedProcess(argv, int(fate.split()[1]), output, errors)


def run_text(
    argv: Sequence[str], *, env: Mapping[str, str], timeout: float, cwd: str | os.PathLike[str] = "."
) -> subprocess.CompletedProcess[str]:
    """`run` without input, whose outputs are texts."""
    ended = run(argv, env=env, timeout=timeout, cwd=cwd)
    return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def _communicate(ours: list[int], input: bytes, timeout: float) -> tuple[bytes, bytes, bytes]:
    """Writes the input and reads the rest to its end; closes all."""
    to_process, *sources = ours
    deadline = time.monotonic() + timeout
    read: dict[int, bytes] = dict.fromkeys(sources, b"")
    with selectors.DefaultSelector() as selector:
        try:
            os.set_blocking(to_process, False)
            selector.register(to_process, selectors.EVENT_WRITE)
            for number in sources:
                selector.register(number, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    if fate := read[sources[-1]]:
                        os.kill(int(fate.split()[0]), signal.SIGKILL)
                    raise subprocess.TimeoutExpired("a command", timeout, read[sources[0]], read[sources[1]])
                for key, _ in ready:
                    if key.fd == to_process:
                        input = _written(to_process, input)
                        more = bool(input)
                    else:
                        data = os.read(key.fd, 1 << 16)
                        read[key.fd] += data
                        more = bool(data)
                    if not more:
                        selector.unregister(key.fd)
                        os.close(key.fd)
        finally:
            for key in list(selector.get_map().values()):
                os.close(key.fd)
    output, errors, fate = read.values()
    return output, errors, fate


def _written(number: int, data: bytes) -> bytes:
    """Writes some of it; returns the rest, which is empty if nobody reads it."""
    try:
        return data[os.write(number, data) :] if data else b""
    except BrokenPipeError:
        return b""


servers: list[tuple[subprocess.Popen[bytes], socket.socket]] = []  # the last one is in use


def _server() -> socket.socket:
    """The way to the process that forks.

    It is started by the first call, and again if it has ended: a test of strays ends all children of its process.
    """
    if servers and servers[-1][0].poll() is None:
        return servers[-1][1]
    if servers:
        servers.pop()[1].close()
    else:
        atexit.register(_end)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        argv = [sys.executable, __file__, str(theirs.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        pipes = {"stdin": subprocess.DEVNULL, "pass_fds": [theirs.fileno()]}
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, **pipes)  # type: ignore[call-overload]
    servers.append((process, ours))
    return ours


def _end() -> None:
    for process, ours in servers:
        ours.close()
        process.wait()  # so that the time that its processes took counts


def _serve(requests: socket.socket) -> None:
    """Forks a process for each request, and tells its caller the pid and how it ended."""
    for name in COMMANDS:
        importlib.import_module(f"cexec.commands.{name}")
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}  # descriptor of the process -> its pid, where to tell of its end
    while True:
        ready, _, _ = select.select([requests.fileno(), *running], [], [])
        for process in running.keys() & set(ready):
            pid, caller = running.pop(process)
            _, status = os.waitpid(pid, 0)
            _tell(caller, b"%d" % os.waitstatus_to_exitcode(status))
            os.close(caller)
            os.close(process)
        if requests.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(requests, 2 * LARGEST, 4)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                requests.detach()
                _become(json.loads(message), descriptors)
            running[os.pidfd_open(pid)] = (pid, descriptors[3])
            _tell(descriptors[3], b"%d " % pid)
            for number in descriptors[:3]:
                os.close(number)


def _tell(caller: int, text: bytes) -> None:
    try:
        os.write(caller, text)
    except BrokenPipeError:
        pass  # its caller has given it up


def _become(request: dict[str, object], descriptors: list[int]) -> None:
    """Runs the launcher in this process, which ends with it."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, MOST_DESCRIPTORS)
    argv, environment = request["argv"], request["env"]
    assert isinstance(argv, list) and isinstance(environment, dict)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    sys.argv, sys.orig_argv = argv, [sys.executable, *argv]
    for name, number, mode, buffering in (("stdin", 0, "r", -1), ("stdout", 1, "w", -1), ("stderr", 2, "w", 1)):
        before = getattr(sys, name)
        stream = os.fdopen(number, mode, buffering, closefd=False, encoding=before.encoding, errors=before.errors)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    runpy.run_path(argv[0], run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
