"""A command that goes on running, as a fork of a process that has read its modules; see `tests/preloaded.py`.

Contract: `start(argv, ...)` is `subprocess.Popen` of one of COMMANDS: a child of this process, in the network, with the
environment and the standard error that it is given.  Other processes see its command line and its environment in /proc
as if it had been started.  Reading the modules is three quarters of what the start of a worker takes, and the tests
start more than a thousand of them.  `start` returns None where that cannot be done, or would be something else than a
start here and now: the caller then starts the command as usual.

As a script, `forked.py DESCRIPTOR` is that process.  It ends when its test run does.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import mmap
import os
import platform
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.environment import ROOT, command

COMMANDS = ("cproxy", "cservice")
LARGEST = 200_000  # bytes of a request, which passes the socket at once
MOST_DESCRIPTORS = 4096
PROMPT = 60.0  # seconds until the process has forked, on a busy machine
READY = b" ready"  # follows the number of the process that was forked and is about to run the launcher
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())  # <asm/unistd.h>
_CLONE_PARENT, _CLONE_NEWNET = 0x8000, 0x40000000  # <linux/sched.h>
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14  # <linux/prctl.h>
# Fields of /proc/PID/stat, counted from 1, that struct prctl_mm_map begins with: code, data, and the heap's start.
_FIELDS = (26, 27, 45, 46, 47)
_STACK_FIELD = 28
_INHERITED = ("Cap", "Gid", "Groups", "SigIgn", "Uid", "Umask")  # of the lines of /proc/PID/status
# Read by Python, the loader or the C library when a process begins, which a fork does not.
_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_")


class Child:
    """The part of `subprocess.Popen` that tests of services use, for a child that nobody else waits for."""

    def __init__(self, pid: int, args: Sequence[str], stderr: IO[str]) -> None:
        self.pid = pid
        self.args = args
        self.stderr: IO[str] | None = stderr
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        descriptor = os.pidfd_open(self.pid) if self.returncode is None else -1
        try:
            while (status := self.poll()) is None:
                left = None if deadline is None else deadline - time.monotonic()
                if not select.select([descriptor], [], [], left if left is None else max(0.0, left))[0]:
                    raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(argv: Sequence[str], *, env: Mapping[str, str], network: str = "") -> Child | None:
    """Forks `argv`, which is of `tests.environment.command`; its standard input is empty, its error a pipe of text.

    `network`: the path of a namespace.
    """
    if not is_ours(argv):
        return None
    try:
        server = _server()
        if server is None or server.state != _state(env):
            return None
        return server.fork(argv, env, network)
    except OSError:
        return None


def is_ours(argv: Sequence[str]) -> bool:
    """Whether it is `tests.environment.command` of one of COMMANDS."""
    return list(argv[:2]) in [command(name) for name in COMMANDS]


def _state(env: Mapping[str, str]) -> object:
    """All that a process inherits besides what it is given, and what Python and libraries read when they begin."""
    status = Path("/proc/self/status").read_text()
    lines = [line for line in status.splitlines() if line.startswith(_INHERITED)]
    places = [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "mnt", "pid", "user")]
    others = [Path(f"/proc/self/{name}").read_text() for name in ("cgroup", "oom_score_adj", "limits")]
    blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    variables = sorted((name, value) for name, value in env.items() if name.startswith(_AT_START))
    terminal = [os.getpgrp(), os.getsid(0), os.sched_getaffinity(0)]
    return [os.getpid(), lines, places, others, blocked, nice, variables, terminal]


class Server:
    """The process that forks, started with this environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.state = _state(env)
        self._lock = threading.Lock()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "pass_fds": [theirs.fileno()]}
            self.process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], env=dict(env), **pipes)

    def fork(self, argv: Sequence[str], env: Mapping[str, str], network: str) -> Child | None:
        what = {"argv": argv[1:], "env": dict(env), "cwd": os.getcwd(), "network": network}
        request = json.dumps(what).encode()
        if len(request) > LARGEST:
            return None
        source, sink = os.pipe()
        answer, told = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            with self._lock:
                socket.send_fds(self._requests, [request], [nothing, 1, sink, told])
        finally:
            for number in (nothing, sink, told):
                os.close(number)
        with open(answer, "rb", buffering=0) as answers:
            said = b""
            while select.select([answers], [], [], PROMPT)[0] and (part := answers.read(100)):
                said += part
        pid = int(said.split()[0]) if said else 0
        if not said.endswith(READY):
            os.close(source)
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return None
        return Child(pid, argv, open(source))

    def fileno(self) -> int:
        """The descriptor that the test process keeps for it as long as it lives."""
        return self._requests.fileno()

    def close(self) -> None:
        self._requests.close()
        self.process.wait()  # so that the time that it took counts


servers: list[Server] = []  # the last one is in use


def _server() -> Server | None:
    """The one that forks; it is started by the first call, and again if a test has ended it.  None if none can be."""
    if _CLONE is None or not hasattr(os, "pidfd_open"):
        return None
    if servers and servers[-1].process.poll() is None:
        return servers[-1]
    if servers:
        servers.pop().close()
    else:
        atexit.register(_end)
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    servers.append(Server(environment))
    return servers[-1]


def _end() -> None:
    for server in servers:
        server.close()


def _serve(requests: socket.socket) -> None:
    """Forks a process for each request, whose parent is ours."""
    for name in COMMANDS:
        importlib.import_module(f"cexec.commands.{name}")
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 2 * LARGEST, 4)
        if not message:
            return
        if _clone_for_parent() == 0:
            try:
                requests.detach()
                _prepare(json.loads(message), descriptors)
            except BaseException as error:
                os.write(descriptors[3], b"%d %s" % (os.getpid(), ascii(error).encode()))
                os._exit(1)
            _run()
        for number in descriptors:
            os.close(number)


def _clone_for_parent() -> int:
    """As `os.fork`, except that the new process is a child of our parent, which can wait for it."""
    python, libc = ctypes.pythonapi, ctypes.PyDLL(None)
    python.PyOS_BeforeFork()
    pid = int(libc.syscall(_CLONE, ctypes.c_ulong(_CLONE_PARENT | signal.SIGCHLD), 0, 0, 0, 0))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def _prepare(request: dict[str, Any], descriptors: list[int]) -> None:
    """Makes this process what the request says, and tells that it is."""
    if request["network"]:
        _enter(request["network"])
    os.chdir(request["cwd"])
    _show(request["argv"], request["env"])
    os.environ.clear()
    os.environ.update(request["env"])
    random.seed()
    sys.argv, sys.orig_argv = request["argv"], [sys.executable, *request["argv"]]
    sys.path[0] = os.path.dirname(sys.argv[0])
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for name, number, mode, buffering in (("stdin", 0, "r", -1), ("stdout", 1, "w", -1), ("stderr", 2, "w", 1)):
        before = getattr(sys, name)
        stream = os.fdopen(number, mode, buffering, closefd=False, encoding=before.encoding, errors=before.errors)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.write(descriptors[3], b"%d" % os.getpid() + READY)
    os.closerange(3, MOST_DESCRIPTORS)


def _enter(network: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
    os.close(descriptor)


_shown: list[object] = []  # what /proc shows, which has to stay


def _show(argv: list[str], env: dict[str, str]) -> None:
    """Sets what /proc/PID/cmdline and /proc/PID/environ show."""
    words = b"".join(os.fsencode(word) + b"\0" for word in [sys.executable, *argv])
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    memory = mmap.mmap(-1, len(words) + len(variables) + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(words + variables)
    first = ctypes.c_char.from_buffer(memory)
    _shown.append(first)
    begin = ctypes.addressof(first)
    middle = begin + len(words)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    present = [int(fields[number - 3]) for number in (*_FIELDS, _STACK_FIELD)]  # the first after the name is number 3
    places = [*present[:-1], libc.sbrk(0), present[-1], begin, middle, middle, middle + len(variables)]
    new = struct.pack("=11QQII", *places, 0, 0, 0xFFFFFFFF)  # neither another auxiliary vector nor another program
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.c_char_p(new), ctypes.c_ulong(len(new)), 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot set what /proc shows")


def _run() -> NoReturn:
    """Runs the launcher in this process, which ends with it."""
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
