"""The process that speaks multicast DNS for a cservice or a client: see `cexec.net.mdns`.

Contract: `main(["register", PORT])` registers and browses, `main(["browse"])` only browses, and so does "browse-idly"
with the least claim on the CPU, until standard input, a socket, ends.  What happens is said on standard output in the
lines that `cexec.net.mdns` names.  The machine's interfaces are looked at every
INTERFACES_INTERVAL and zeroconf is started afresh when they have changed.  No exception leaves `main`.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
from time import monotonic
from typing import TYPE_CHECKING

from cexec.net.interfaces import Interface, interfaces, on_link
from cexec.net.mdns import BROWSE_IDLY, FAILED, FOUND, LOST, REGISTER, REGISTERED, SERVICE, VERSION, VERSION_KEY
from cexec.system.reason import reason_of
from cexec.system.signal_state import set_at_start

if TYPE_CHECKING:
    from typing import TypeAlias

    import zeroconf

    State: TypeAlias = list[tuple[str, int, bool, list[str]]]

INTERFACES_INTERVAL = 5.0  # seconds (ours); a change has to be noticed within 10 s
GLANCE, RESOLVE_PATIENCE = 50, 3000  # milliseconds (ours) for records that did not come with a name, first and later
GOODBYE_PATIENCE = 3  # seconds (ours) that the end may take
HIGHEST_DESCRIPTOR = 1 << 16
LEAST_URGENT = 19  # of nice(1)
MAXIMUM_REASON = 200  # characters (ours)
MAXIMUM_ADDRESSES = 8  # (ours) of one instance
MAXIMUM_UNRESOLVED = 256  # instances (ours) that are asked for again
MAXIMUM_INSTANCES = 2048  # (ours) that are followed, and that wait to be asked for the first time


def main(arguments: list[str]) -> None:
    """Runs until standard input ends."""
    os.closerange(3, HIGHEST_DESCRIPTOR)  # a client passes the descriptors on that it was started with
    set_at_start()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # it bounds our end, also if our parent ignored it
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the one who started us, who closes the socket then
    if arguments[0] == BROWSE_IDLY:
        os.nice(LEAST_URGENT)  # many clients may wait at once: they must not take the CPU from the one who is to answer
    try:
        import zeroconf  # noqa: F401
    except ImportError as error:
        missing = (error.name or "").partition(".")[0] == "zeroconf"
        text = "the Python package zeroconf is not installed" if missing else f"zeroconf does not work: {error}"
        _say(FAILED, text)
        return
    speaker = _Speaker(int(arguments[1]) if arguments[0] == REGISTER else None)
    threading.Thread(target=speaker.wait_for_end, daemon=True).start()
    speaker.run()


class _Speaker:
    """Has zeroconf, as long as the interfaces stay as they are.  `port`: to be registered, unless it is None."""

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._name = f"{os.urandom(8).hex()}.{SERVICE}"  # says nothing of this machine, and nobody else has it
        self._changes: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()  # name, gone; None: the end
        self._zeroconf: zeroconf.Zeroconf | None = None
        self._failure = ""
        self._found: dict[str, set[str]] = {}  # by instance: HOST SCOPE PORT
        self._interfaces: list[Interface] = []
        self._unasked: dict[str, None] = {}  # instances whose records did not come with their names
        self._unresolved: dict[str, None] = {}  # and those whose records have been asked for in vain
        self._ending = False

    def wait_for_end(self) -> None:
        """In a thread, because zeroconf's own calls take their time."""
        try:
            while os.read(0, 64):
                pass
        except OSError:
            pass
        if self._port is None:
            os._exit(0)  # nothing is to be taken back
        self._ending = True
        self._changes.put(None)

    def run(self) -> None:
        known: State | None = None
        while True:
            self._interfaces = interfaces()
            state = _state(self._interfaces)
            if state != known or self._zeroconf is None:
                self._close()
                known = state
                self._open()
            if not self._work():
                break
        signal.alarm(GOODBYE_PATIENCE)
        self._close()

    def _open(self) -> None:
        import zeroconf

        try:
            self._zeroconf = zc = zeroconf.Zeroconf(ip_version=zeroconf.IPVersion.All)
            if self._port is not None:
                self._register(zc, self._port)
            zeroconf.ServiceBrowser(zc, SERVICE, handlers=[self._changed])
        except Exception as error:  # our parent is told, and the next look tries again
            self._close()
            self._fail(error)
        else:
            self._failure = ""

    def _register(self, zc: zeroconf.Zeroconf, port: int) -> None:
        import zeroconf

        info = zeroconf.ServiceInfo(
            SERVICE,
            self._name,
            port=port,
            properties={VERSION_KEY: VERSION},
            server=self._name.replace(SERVICE, "local."),
            parsed_addresses=_own_addresses(),
        )
        zc.register_service(info, cooperating_responders=True)  # without three quarters of a second of probing
        _say(REGISTERED)

    def _fail(self, error: Exception) -> None:
        text = reason_of(error) if isinstance(error, OSError) else str(error)
        text = text or type(error).__name__
        if text != self._failure:
            self._failure = text
            _say(FAILED, text)

    def _close(self) -> None:
        zc, self._zeroconf = self._zeroconf, None
        if zc is not None:
            try:
                zc.close()
            except Exception as error:  # an interface that is gone cannot carry a goodbye
                self._fail(error)
        for name in list(self._found):  # what is still there is found again
            self._follow(name, set())

    # looking for others

    def _changed(self, zeroconf: zeroconf.Zeroconf, service_type: str, name: str, state_change: object) -> None:
        """Called by zeroconf, by keyword and in its thread, where nothing may wait for an answer."""
        if name != self._name:
            self._changes.put((name, state_change.name == "Removed"))  # type: ignore[attr-defined]

    def _work(self) -> bool:
        """Until the interfaces are to be looked at again; False at the end."""
        until = monotonic() + INTERFACES_INTERVAL
        while (left := until - monotonic()) > 0:
            try:
                waits = bool(self._unasked or self._unresolved)
                change = self._changes.get_nowait() if waits else self._changes.get(timeout=left)
            except queue.Empty:
                self._resolve_one()
                continue
            if change is None:
                return False
            name, gone = change
            self._unasked.pop(name, None)
            self._unresolved.pop(name, None)
            if gone or self._ending:
                self._follow(name, set())
            elif not self._has_come(name) and len(self._unasked) < MAXIMUM_INSTANCES:
                self._unasked[name] = None
        return True

    def _has_come(self, name: str) -> bool:
        """Follows an instance whose records have come with its name, as ours do; this waits for nothing."""
        if self._zeroconf is None:  # a former one has told the name
            return True
        import zeroconf

        try:
            info = zeroconf.ServiceInfo(SERVICE, name)
            complete = info.load_from_cache(self._zeroconf)
            addresses = self._addresses(info) if complete else set()
        except Exception:  # somebody else's broken record
            return False
        if complete:
            self._follow(name, addresses)
        return complete

    def _resolve_one(self) -> None:
        """Waits for the records of an instance when there is nothing else to do: a stranger's may never come.

        Each one gets a glance before any is waited for longer.
        """
        if self._unasked:
            name = next(iter(self._unasked))
            del self._unasked[name]
            if not self._resolve(name, GLANCE) and len(self._unresolved) < MAXIMUM_UNRESOLVED:
                self._unresolved[name] = None
        elif self._unresolved:
            name = random.choice(list(self._unresolved))
            del self._unresolved[name]
            self._resolve(name, RESOLVE_PATIENCE)

    def _resolve(self, name: str, patience: int) -> bool:
        """Follows the addresses of an instance; returns False if they have not come within so many milliseconds."""
        if self._zeroconf is None:  # a former one has told the name
            return True
        try:
            info = self._zeroconf.get_service_info(SERVICE, name, patience)
        except Exception:  # somebody else's broken record
            info = None
        self._follow(name, set() if info is None else self._addresses(info))
        return info is not None

    def _addresses(self, info: zeroconf.ServiceInfo) -> set[str]:
        """Returns the addresses at which an instance is heard."""
        if not info.port or info.properties.get(VERSION_KEY.encode()) != VERSION.encode():
            return set()
        # Everybody on the link can register what he likes: only neighbours count, and few addresses of an instance.
        split = [text.partition("%") for text in info.parsed_scoped_addresses()]
        here = [
            f"{host} {scope or 0} {info.port}"
            for host, _, scope in split
            if (scope or not host.lower().startswith("fe80"))  # which is of no use without its interface
            and on_link(host, int(scope or 0), self._interfaces)
        ]
        return set(here[:MAXIMUM_ADDRESSES])

    def _follow(self, name: str, addresses: set[str]) -> None:
        """Says what is new and what is gone; several instances may be at one address."""
        before = set().union(*self._found.values())
        self._found.pop(name, None)
        if addresses and len(self._found) < MAXIMUM_INSTANCES:
            self._found[name] = addresses
        after = set().union(*self._found.values())
        for address in sorted(after - before):
            _say(FOUND, address)
        for address in sorted(before - after):
            _say(LOST, address)


def _state(found: list[Interface]) -> State:
    return [(one.name, one.index, one.up, one.addresses()) for one in found]


def _own_addresses() -> list[str]:
    """Returns the addresses of this machine's networks; that of the loopback if there is no network."""
    found = [one for one in interfaces() if one.up]
    outside = [address for one in found if not one.loopback for address in one.addresses()]
    return outside or [address for one in found for address in one.addresses()]


def _say(what: str, text: str = "") -> None:
    line = " ".join(f"{what} {text}"[:MAXIMUM_REASON].split())
    try:
        os.write(1, f"{line}\n".encode())
    except OSError:
        pass  # the end is near, and standard input says so
