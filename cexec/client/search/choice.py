"""The owner of a search says here which worker gets the job (`--need`, `--on`, `--not`), and who hears of it.

Contract: a `Search` asks its `Choice` about each worker that has proved itself, and about each that has confirmed, and
gives its messages to `Notices`.
`requirements_from` takes the options `need`, `on` and `not` (each a text, several texts or nothing) and the
environment, and returns the `Requirements` of an announcement, and True if the client waits for ever, as it does for
named workers.  An option wins over its variable.  A `UsageError` names the text that cannot be understood.
docs/protocol.md section 2.2.
"""

from __future__ import annotations

import _socket

from cexec.common_errors import UsageError
from cexec.protocol.datagrams.requirements import INSTANCE, Requirements, parse_needs, plain_instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cexec.client.search.trace import Trace
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.hello import Hello

WANTED_VARIABLES = ("CEXEC_ACCEPT_SERVER",)  # the ancestor's names
UNWANTED_VARIABLES = ("CEXEC_REJECT_SERVERS", "CEXEC_REJECT_SERVER")
_MAPPED = "::ffff:"  # before an IPv4 address: RFC 4291 section 2.5.5.2
AVOIDED_FOR = 2.0  # seconds (ours) that other workers have before one that has failed with this job


class Choice:
    """Decides which worker gets which job.

    `requirements`: if no worker takes the job, the search explains which of them each worker lacks.
    """

    def __init__(self, requirements: Requirements | None = None) -> None:
        self.requirements = requirements

    def admits(self, offer: Hello) -> bool:
        """Returns False if the requirements name instances and the worker is another one.

        Workers check requirements themselves; the client does not rely on that when it has named a single process.
        """
        return self.requirements is None or self.requirements.admits(offer.instance)

    def wants(self, offer: Hello, now: float) -> bool:
        """Returns True if a worker that has proved itself may go on to confirm."""
        return True

    def job_for(self, offer: Hello, address: str) -> Go:
        """Returns the job for a worker that has confirmed; raises `CexecError` to give it none."""
        raise NotImplementedError

    def status(self) -> str | None:
        """Returns the message for a person who waits; None for the usual one."""
        return None


class Notices:
    """The receivers of a search's messages.

    `complain(address, text)` gets the fault of a connection, in the ancestor's words.  `tell` gets lines for the person
    who waits, `warn` lines that a script should see, too.  `trace` gets every step, for --explain.  `slow` is called
    when no worker was quick, and perhaps again.
    """

    __slots__ = ("complain", "slow", "tell", "trace", "warn")

    def __init__(
        self,
        *,
        complain: Callable[[str, str], None] = lambda address, text: None,
        tell: Callable[[str], None] = lambda text: None,
        warn: Callable[[str], None] | None = None,
        trace: Trace | None = None,
        slow: Callable[[], None] = lambda: None,
    ) -> None:
        self.complain = complain
        self.slow = slow
        self.tell = tell
        self.warn = warn or tell
        self.trace = trace


class OneJob(Choice):
    """Gives every worker that confirms the job which `make_go` returns; that is called only then."""

    def __init__(
        self, make_go: Callable[[Hello], Go], requirements: Requirements | None = None, avoided: Collection[bytes] = ()
    ) -> None:
        """`make_go` is given the worker's description of itself, and may raise `CexecError`.

        `avoided`: instances that get the job only if no other worker has taken it in AVOIDED_FOR seconds.
        """
        super().__init__(requirements)
        self._make_go = make_go
        self._avoided = avoided
        self._until = 0.0

    def wants(self, offer: Hello, now: float) -> bool:
        self._until = self._until or now + AVOIDED_FOR
        return now >= self._until or offer.instance not in self._avoided

    def job_for(self, offer: Hello, address: str) -> Go:
        return self._make_go(offer)


def requirements_from(
    options: Mapping[str, object], environ: Mapping[str, str], needs: Mapping[str, str] | None = None
) -> tuple[Requirements, bool]:
    """Returns the requirements, and True if the client waits for ever.  `needs`: further needs."""
    needs = dict(needs or {})
    for text in _texts(options, "need"):
        needs.update(parse_needs(text))
    wanted = _names(_texts(options, "on") or _variables(environ, WANTED_VARIABLES), "--on")
    unwanted = _names(_texts(options, "not") or _variables(environ, UNWANTED_VARIABLES), "--not")
    for name in wanted:
        if name in unwanted:
            raise UsageError(f"worker {name} is both asked for and not wanted: see --on, --not and CEXEC_*_SERVER")
    requirements = Requirements(needs, wanted, unwanted)
    requirements.encode()  # raises if they are too long for a datagram: better now than after the job has begun
    return requirements, bool(wanted)


def plain_name(text: str) -> str:
    """Returns a worker's name as workers compare it.

    Addresses get the kernel's spelling, IPv4 ones also if they are written as IPv6; `instance=UUID` gets small letters
    and hyphens.  Other names stay as they are.
    """
    if text.startswith(f"{INSTANCE}="):
        return f"{INSTANCE}={plain_instance(text.partition('=')[2])}"
    name, at, address = text.rpartition("@")
    bare = address.strip("[]").partition("%")[0]
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            spelled = _socket.inet_ntop(family, _socket.inet_pton(family, bare))
            return name + at + (spelled.removeprefix(_MAPPED) if "." in spelled else spelled)
        except (OSError, ValueError):
            continue
    return text


def _texts(options: Mapping[str, object], name: str) -> list[str]:
    value = options.get(name)
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]  # type: ignore[attr-defined]


def _variables(environ: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    return [environ[name] for name in names if environ.get(name, "").strip()]


def _names(texts: list[str], option: str) -> list[str]:
    """Splits texts at commas and white space; raises `UsageError` for an option that names no worker."""
    names = [name for text in texts for name in text.replace(",", " ").split()]
    if texts and not names:
        raise UsageError(f"{option} names no worker: give names or addresses, separated by commas")
    return list(dict.fromkeys(plain_name(name) for name in names))
