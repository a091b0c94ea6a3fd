"""A terminal with a job control shell in miniature, for what a person does with Ctrl-C, Ctrl-Z and fg.

Contract: `Terminal(argv, environment)` runs a command as the foreground job of a terminal of its own, or as a job in
the `background`; its standard descriptors are the terminal unless `redirections` (descriptor: path) says else.  `type`
types, `wait_for` reads what appears, `stopped`, `foreground` and `wait` are what the shell knows.
"""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tests.waiting import PATIENCE

INTERRUPT, QUIT, SUSPEND = b"\x03", b"\x1c", b"\x1a"
# Standard input and output of this one are pipes to the test.
SHELL = """
import fcntl, json, os, select, signal, sys, termios
argv, redirections, terminal = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
background = sys.argv[4] == "background"
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
def to_front(group):
    os.tcsetpgrp(terminal, group)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    to_front(os.getppid() if background else os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for fd in range(3):
        path = redirections.get(str(fd))
        os.dup2(terminal if path is None else os.open(path, os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_CREAT), fd)
    os.close(terminal)
    os.execvp(argv[0], argv)
for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)  # a key that comes when the job has just ended is for us
while True:
    if select.select([sys.stdin], [], [], 0.02)[0]:
        sys.stdin.readline()
        to_front(job)
        os.killpg(job, signal.SIGCONT)
    changed, status = os.waitpid(job, os.WNOHANG | os.WUNTRACED)
    if not changed:
        continue
    to_front(os.getpgrp())
    if not os.WIFSTOPPED(status):
        print(os.waitstatus_to_exitcode(status), flush=True)
        break
    print("stopped", flush=True)
"""


class Terminal:
    """One command in the foreground of one terminal."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        redirections: Mapping[int, str] | None = None,
        *,
        background: bool = False,
    ) -> None:
        self.seen = b""
        self._terminal, theirs = pty.openpty()
        self.first_modes = self.modes()  # before the command can change them
        shell = [
            sys.executable,
            "-c",
            SHELL,
            json.dumps(list(argv)),
            json.dumps(dict(redirections or {})),
            str(theirs),
            "background" if background else "foreground",
        ]
        try:
            self._shell = subprocess.Popen(
                shell,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.communicate()
        os.close(self._terminal)  # the terminal goes away, and with it by SIGHUP what is left

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def modes(self) -> list[Any]:
        """How the terminal treats keys and output, as tcgetattr tells it."""
        return termios.tcgetattr(self._terminal)

    def show_keys(self, shown: bool) -> None:
        """Turns echo on or off, as stty does."""
        modes = self.modes()
        modes[3] = modes[3] | termios.ECHO if shown else modes[3] & ~termios.ECHO
        termios.tcsetattr(self._terminal, termios.TCSANOW, modes)

    def resize(self, columns: int, rows: int) -> None:
        termios.tcsetwinsize(self._terminal, (rows, columns))

    def signal(self, number: int) -> None:
        """Sends a signal to the process group that is in front."""
        os.killpg(os.tcgetpgrp(self._terminal), number)

    def wait_for(self, text: bytes) -> None:
        """Until this has appeared on the terminal."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._terminal], [], [], left)[0], f"only {self.seen!r} has appeared"
            self.seen += os.read(self._terminal, 65536)

    def read_all(self) -> bytes:
        """What is still to be read, once the command has ended."""
        while select.select([self._terminal], [], [], 0)[0]:
            try:
                self.seen += os.read(self._terminal, 65536)
            except OSError:
                break  # nobody has it open any more
        return self.seen

    def says_more(self, seconds: float) -> bool:
        """Returns True as soon as the shell says what has become of its job, and False after so many seconds."""
        assert self._shell.stdout is not None
        return bool(select.select([self._shell.stdout], [], [], seconds)[0])

    def stopped(self) -> None:
        """Waits until the job is stopped, as the shell is told."""
        assert self._said() == "stopped"

    def foreground(self) -> None:
        """fg."""
        assert self._shell.stdin is not None
        self._shell.stdin.write("fg\n")
        self._shell.stdin.flush()

    def wait(self) -> int:
        """The exit status; death by a signal is its negative number."""
        return int(self._said())

    def _said(self) -> str:
        assert self._shell.stdout is not None
        assert self.says_more(PATIENCE), f"nothing has happened; seen: {self.seen!r}"
        return self._shell.stdout.readline().strip()
