"""The process that speaks multicast DNS for a cservice or a client: see `cexec.system.mdns`.

Contract: `main(["register", PORT])` and `main(["browse"])` do so until standard input, a socket, ends; what happens is
said on standard output in the lines that `cexec.system.mdns` names.  The machine's interfaces are looked at every
INTERFACES_INTERVAL and zeroconf is started afresh when they have changed.  No exception leaves `main`.
"""

from __future__ import annotations

import os
import queue
import signal
import threading

from cexec.system.interfaces import interfaces
from cexec.system.mdns import BROWSE, FAILED, FOUND, REGISTERED, SERVICE, VERSION, VERSION_KEY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    import zeroconf

    State: TypeAlias = list[tuple[str, int, bool, list[str]]]

INTERFACES_INTERVAL = 5.0  # seconds (ours); a change has to be noticed within 10 s
RESOLVE_PATIENCE = 3000  # milliseconds (ours) for the address of an instance
GOODBYE_PATIENCE = 3  # seconds (ours) that the end may take
HIGHEST_DESCRIPTOR = 1 << 16
LEAST_URGENT = 19  # of nice(1)
MAXIMUM_REASON = 200  # characters (ours)


def main(arguments: list[str]) -> None:
    """Runs until standard input ends."""
    os.closerange(3, HIGHEST_DESCRIPTOR)  # a client passes the descriptors on that it was started with
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the one who started us, who closes the socket then
    os.nice(LEAST_URGENT)  # many clients may wait at once: they must not take the CPU from the worker that is to answer
    try:
        import zeroconf  # noqa: F401
    except ImportError as error:
        missing = (error.name or "").partition(".")[0] == "zeroconf"
        text = "the Python package zeroconf is not installed" if missing else f"zeroconf does not work: {error}"
        _say(FAILED, text)
        return
    role = _Browsing() if arguments[0] == BROWSE else _Registering(int(arguments[1]))
    threading.Thread(target=role.wait_for_end, daemon=True).start()
    role.run()


class _Role:
    """What both have in common: zeroconf, as long as the interfaces stay as they are."""

    def __init__(self) -> None:
        self.names: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: the end
        self._zeroconf: zeroconf.Zeroconf | None = None
        self._failure = ""

    def wait_for_end(self) -> None:
        """In a thread, because zeroconf's own calls take their time."""
        try:
            while os.read(0, 64):
                pass
        except OSError:
            pass
        self.end()

    def end(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        known: State | None = None
        while True:
            state = _interfaces()
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
            self._zeroconf = zeroconf.Zeroconf(ip_version=zeroconf.IPVersion.All)
            self.begin(self._zeroconf)
        except Exception as error:  # whatever it is, the one who started us is told and the next look tries again
            self._close()
            self._fail(error)
        else:
            self._failure = ""

    def begin(self, zc: zeroconf.Zeroconf) -> None:
        raise NotImplementedError

    def _fail(self, error: Exception) -> None:
        text = (os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)) or (
            type(error).__name__
        )
        if text != self._failure:
            self._failure = text
            _say(FAILED, text)

    def _work(self) -> bool:
        """Until the interfaces are to be looked at again; False at the end."""
        try:
            name = self.names.get(timeout=INTERFACES_INTERVAL)
            while name is not None:
                self.found(name)
                name = self.names.get_nowait()
        except queue.Empty:
            return True
        return False

    def found(self, name: str) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        zc, self._zeroconf = self._zeroconf, None
        if zc is not None:
            try:
                zc.close()
            except Exception as error:  # an interface that is gone cannot carry a goodbye
                self._fail(error)


class _Registering(_Role):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._name = os.urandom(8).hex()  # says nothing of this machine, and nobody else has it

    def begin(self, zc: zeroconf.Zeroconf) -> None:
        import zeroconf

        info = zeroconf.ServiceInfo(
            SERVICE,
            f"{self._name}.{SERVICE}",
            port=self._port,
            properties={VERSION_KEY: VERSION},
            server=f"{self._name}.local.",
            parsed_addresses=_own_addresses(),
        )
        zc.register_service(info, cooperating_responders=True)  # without three quarters of a second of probing
        _say(REGISTERED)

    def end(self) -> None:
        self.names.put(None)


class _Browsing(_Role):
    def begin(self, zc: zeroconf.Zeroconf) -> None:
        import zeroconf

        zeroconf.ServiceBrowser(zc, SERVICE, handlers=[self._changed])

    def _changed(self, zeroconf: zeroconf.Zeroconf, service_type: str, name: str, state_change: object) -> None:
        """Called by zeroconf, by keyword and in its thread, where nothing may wait for an answer."""
        if state_change.name != "Removed":  # type: ignore[attr-defined]
            self.names.put(name)

    def found(self, name: str) -> None:
        if self._zeroconf is None:
            return
        try:
            info = self._zeroconf.get_service_info(SERVICE, name, RESOLVE_PATIENCE)
        except Exception:  # somebody else's broken record
            return
        if info is None or not info.port or info.properties.get(VERSION_KEY.encode()) != VERSION.encode():
            return
        for text in info.parsed_scoped_addresses():
            host, _, scope = text.partition("%")
            if scope or not host.lower().startswith("fe80"):  # which is of no use without its interface
                _say(f"{FOUND} {host} {scope or 0}", str(info.port))

    def end(self) -> None:
        os._exit(0)  # nothing is to be taken back


def _interfaces() -> State:
    return [(one.name, one.index, one.up, one.addresses()) for one in interfaces()]


def _own_addresses() -> list[str]:
    """Those of this machine's networks; the loopback's when there is none."""
    found = [one for one in interfaces() if one.up]
    outside = [address for one in found if not one.loopback for address in one.addresses()]
    return outside or [address for one in found for address in one.addresses()]


def _say(what: str, text: str = "") -> None:
    line = " ".join(f"{what} {text}"[:MAXIMUM_REASON].split())
    try:
        os.write(1, f"{line}\n".encode())
    except OSError:
        pass  # the end is near, and standard input says so
