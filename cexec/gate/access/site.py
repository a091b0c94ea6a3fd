"""Which names this server has, and which pages of a browser may use a session.

Contract: a browser sends its cookie with every request to this host, also with one that a page of another origin, of
another port, or of a name that an attacker's name server has led here, makes it send.  So a request that is
authenticated by a cookie names this server in Host, and every sign of another origin (Origin, Sec-Fetch-Site) refuses
it; one that changes something, and a WebSocket, must bring an Origin.  A token in Authorization needs none of this,
since no browser adds one by itself.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cexec.gate.access.listening import is_loopback
from cexec.gate.problem import Problem

SAFE_METHODS = frozenset({"GET", "HEAD"})
_PORTS = {"http": 80, "https": 443}
_EVERYWHERE = ("0.0.0.0", "::")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Site:
    """`names` are host names and numeric addresses in lower case; `*.` in front of one stands for one label."""

    scheme: str  # http or https
    names: frozenset[str]
    port: int
    main: str = "localhost"  # the name that people are told

    @classmethod
    def make(cls, address: str, port: int, *, tls: bool, names: Iterable[str] = ()) -> Site:
        """`address` is the one that it listens at; `names` are those of the certificate."""
        known = [name.lower() for name in names]
        plain = [name for name in known if "*" not in name]
        everywhere = address in _EVERYWHERE
        if is_loopback(address) or everywhere:
            known += _LOOPBACK_NAMES
        main = (plain or ["localhost"])[0] if everywhere else address.lower()
        return cls("https" if tls else "http", frozenset([*known, address.lower()]), port, main)

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def url(self) -> str:
        """The address for people: of a server that listens everywhere, the first name of its certificate."""
        host = f"[{self.main}]" if ":" in self.main else self.main
        return f"{self.scheme}://{host}:{self.port}"

    def is_host(self, value: str) -> bool:
        """Returns True if the value of Host names this server."""
        name, port = _split_host(value.lower())
        if name is None or (port or str(_PORTS[self.scheme])) != str(self.port):
            return False
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names

    def is_origin(self, value: str) -> bool:
        """Returns True for a page of this server."""
        scheme, separator, host = value.partition("://")
        return bool(separator) and scheme.lower() == self.scheme and self.is_host(host)


def _split_host(value: str) -> tuple[str | None, str]:
    """Returns name and port, which may be empty; None for the name if this is no host."""
    if value.startswith("["):
        name, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None, ""
        return name, rest[1:]
    name, _, port = value.partition(":")
    if not name or (port and not (port.isascii() and port.isdigit())):
        return None, ""
    return name, port


def check_page(site: Site, headers: Headers, method: str) -> None:
    """Refuses a request with a cookie that does not come from a page of this server.  `method`: WEBSOCKET for one."""
    host = headers.only("host")
    if host is None or not site.is_host(host):
        raise Problem(421, "Host names another server than this cgate")
    origin = headers.only("origin")
    fetch_site = headers.only("sec-fetch-site")
    safe = method in SAFE_METHODS
    if origin is None and not safe:
        raise Problem(403, "a session changes something only with the field Origin, which browsers send")
    if origin is not None and (not site.is_origin(origin) or origin.partition("://")[2].lower() != host.lower()):
        raise Problem(403, "the request comes from a page of another origin")
    if fetch_site is not None and fetch_site not in (("same-origin", "none") if safe else ("same-origin",)):
        raise Problem(403, "the request comes from a page of another origin")


class Headers:
    """The header fields of a request; names are in lower case, as ASGI has them."""

    __slots__ = ("_fields",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in raw:
            self._fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def only(self, name: str) -> str | None:
        """Returns the value of a field that may come once; raises a 400 for a second one."""
        values = self._fields.get(name, [])
        if len(values) > 1:
            raise Problem(400, f"there is more than one field {name}")
        return values[0].strip() if values else None

    def all(self, name: str) -> list[str]:
        return self._fields.get(name, [])

    def cookie(self, name: str) -> str | None:
        """Returns the cookie's value; raises a 400 for two of that name, one of which somebody else may have set."""
        found = [
            value.strip()
            for field in self.all("cookie")
            for key, _, value in (part.partition("=") for part in field.split(";"))
            if key.strip() == name
        ]
        if len(found) > 1:
            raise Problem(400, f"there is more than one cookie {name}; log in again")
        return found[0] if found else None
