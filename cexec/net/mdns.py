"""Multicast DNS: cservices that say where they are heard, and clients that look for them.

Contract: python-zeroconf brings a thread and 27 MB, so it runs in a process of its own, `mdns_helper`, joined by one
socket: the process ends when that is closed, however we end, and takes its registration back (goodbye packets).
`Registration(port)` announces an instance of SERVICE with a random name; it says the port, this machine's addresses and
the protocol's version, nothing of an application.  `finds()`, of a registration and of a `Browser()`, is what others
have registered.  Both have `fileno` (-1: nothing to wait for) to select for reading and methods that never block;
nothing raises: a browser's `failure`, and a registration's `news()`, say what is wrong.  docs/protocol.md section 2.
"""

from __future__ import annotations

import _socket
import os
import sys
from math import inf

from cexec.errors import ProtocolError
from cexec.net.connecting import peer_family
from cexec.system.process import helpers
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.net.groups import Sockaddr

SERVICE = "_cexec._udp.local."  # (protocol)
VERSION_KEY, VERSION = "v", "1"  # (protocol) the only TXT entry: the protocol's version
REGISTER, BROWSE, BROWSE_IDLY = "register", "browse", "browse-idly"
# What the process says, one line each; HOST SCOPE PORT (twice), a reason, and nothing, follow
FOUND, LOST, FAILED, REGISTERED = "found", "lost", "failed", "registered"

_RESTART_INTERVAL = 60.0  # seconds (ours) after which a process that has ended is started again
MAXIMUM_FOUND = 2048  # addresses (ours) that are believed: anybody on the link can claim to be a worker
_MAXIMUM_LINE = 4096  # bytes (ours)
_READ_SIZE = 65536


class HelperProcess:
    """The process, and its lines."""

    __slots__ = ("_channel", "_pending", "_pid")

    def __init__(self, *arguments: str) -> None:
        """Raises OSError when it cannot be started."""
        self._pending = b""
        self._channel, theirs = _socket.socketpair()
        try:
            self._channel.setblocking(False)
            self._pid = _spawn(arguments, theirs.fileno())
            helpers.started(self._pid)
        except OSError:
            self._channel.close()
            raise
        finally:
            theirs.close()

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def ended(self) -> bool:
        return self._channel.fileno() < 0

    def lines(self) -> list[str]:
        """Returns the lines of the process since the last call."""
        over = False
        try:
            while data := self._channel.recv(_READ_SIZE):
                self._pending += data
            over = True
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            over = True
        *lines, self._pending = self._pending.split(b"\n")
        if over or len(self._pending) > _MAXIMUM_LINE:
            self.kill()
        return [line.decode("utf-8", "replace") for line in lines]

    def let_go(self) -> None:
        """It takes back what it has registered and ends, while we go on."""
        self._channel.close()

    def kill(self) -> None:
        """Ends it now."""
        self._channel.close()
        if self._pid:
            try:
                os.kill(self._pid, 9)  # it is not reaped yet, so the number is its own
                os.waitpid(self._pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass  # it is reaped by the kernel in a caller that ignores SIGCHLD
            helpers.ended(self._pid)
            self._pid = 0


def _spawn(arguments: tuple[str, ...], channel: int) -> int:
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = "import sys; sys.path.append(sys.argv[1]); from cexec.net.mdns_helper import main; main(sys.argv[2:])"
    alone = ["-E"] if sys.flags.ignore_environment else []  # PYTHONPATH means the helper as little as us
    argv = [sys.executable, *alone, "-P", "-c", code, root, *arguments]
    moved = fcntl(channel, F_DUPFD_CLOEXEC, 3)  # ours may be one of 0 to 2, when we were started without them
    try:
        actions = [(os.POSIX_SPAWN_DUP2, moved, 0), (os.POSIX_SPAWN_DUP2, moved, 1),
                   (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]  # fmt: skip
        # a session of its own, so that Ctrl-C at a terminal leaves it the time to say goodbye
        return os.posix_spawn(sys.executable, argv, os.environb, file_actions=actions, setsid=True, setsigmask=[])
    finally:
        os.close(moved)


def _not_started(error: OSError) -> str:
    return f"cannot start its process: {reason_of(error)}"


class Finds:
    """The addresses at which others are heard: what has come and gone since the last look."""

    __slots__ = ("_gone", "_known", "_new")

    def __init__(self) -> None:
        self._known: set[Sockaddr] = set()
        self._new: list[tuple[int, Sockaddr]] = []
        self._gone: list[Sockaddr] = []

    def hear(self, what: str, rest: str) -> None:
        """A line of the process, FOUND or LOST; one of any other form is passed over."""
        try:
            host, scope, port = rest.split(" ")
            sockaddr: Sockaddr = (host, int(port), 0, int(scope)) if ":" in host else (host, int(port))
        except ValueError:
            return
        if what == LOST and sockaddr in self._known:
            self._known.remove(sockaddr)
            self._gone.append(sockaddr)
        elif what == FOUND and sockaddr not in self._known and len(self._known) < MAXIMUM_FOUND:
            try:
                self._new.append((peer_family(sockaddr), sockaddr))
            except ProtocolError:
                return  # no host's address
            self._known.add(sockaddr)

    def take(self) -> tuple[list[tuple[int, Sockaddr]], list[Sockaddr]]:
        """The new ones with their families, and those that are gone; who comes back is new."""
        new, gone = self._new, self._gone
        self._new, self._gone = [], []
        return new, gone


class Registration:
    """This machine's entry, as long as it is open; its process looks for others too."""

    __slots__ = ("_failure", "_finds", "_news", "_port", "_process", "_restart_at")

    def __init__(self, port: int, now: float) -> None:
        self._port = port
        self._process: HelperProcess | None = None
        self._finds = Finds()
        self._restart_at = now
        self._failure = ""
        self._news: str | None = None
        self.refresh(now)

    def fileno(self) -> int:
        return -1 if self._process is None else self._process.fileno()

    def receive(self) -> None:
        """Hears how it goes."""
        if self._process is None or self._process.ended:
            return
        for line in self._process.lines():
            what, _, rest = line.partition(" ")
            if what == FAILED:
                self._fail(rest)
            elif what in (FOUND, LOST):
                self._finds.hear(what, rest)
            elif self._failure:
                self._failure = ""
                self._news = "registered with multicast DNS again"
        if self._process.ended and not self._failure:
            self._fail("its process has ended")

    def finds(self) -> tuple[list[tuple[int, Sockaddr]], list[Sockaddr]]:
        """See `Finds.take`."""
        return self._finds.take()

    def news(self) -> str | None:
        """Returns a line for the log; None if there is nothing new."""
        news, self._news = self._news, None
        return news

    def refresh(self, now: float) -> None:
        """Starts the process again when it ended long ago."""
        if now < self._restart_at or self.fileno() >= 0:
            return
        self._restart_at = now + _RESTART_INTERVAL
        try:
            self._process = HelperProcess(REGISTER, str(self._port))
        except OSError as error:
            self._fail(_not_started(error))

    def _fail(self, reason: str) -> None:
        if reason != self._failure:
            self._failure = reason
            self._news = f"cannot register with multicast DNS: {reason}"

    def close(self) -> None:
        """The entry is taken back; may be called again."""
        if self._process is not None:
            self._process.let_go()
        self._restart_at = inf


class Browser:
    """Looks for others."""

    __slots__ = ("_finds", "_process", "failure")

    def __init__(self, *, idly: bool = False) -> None:
        """`idly`: with the least claim on the CPU."""
        self.failure: str | None = None
        self._finds = Finds()
        self._process: HelperProcess | None = None
        try:
            self._process = HelperProcess(BROWSE_IDLY if idly else BROWSE)
        except OSError as error:
            self.failure = _not_started(error)

    def fileno(self) -> int:
        return -1 if self._process is None else self._process.fileno()

    def finds(self) -> tuple[list[tuple[int, Sockaddr]], list[Sockaddr]]:
        """See `Finds.take`."""
        if self._process is not None and not self._process.ended:
            for line in self._process.lines():
                what, _, rest = line.partition(" ")
                if what == FAILED:
                    self.failure = rest
                else:
                    self._finds.hear(what, rest)
            if self._process.ended and self.failure is None:
                self.failure = "its process has ended"
        return self._finds.take()

    def close(self) -> None:
        """May be called again."""
        if self._process is not None:
            self._process.kill()
