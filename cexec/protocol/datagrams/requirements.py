"""Requirements of a job: attributes that its worker needs, workers that the client wants or does not want.

Contract: `parse_needs` reads the text of `--need`; `encode` and `Requirements.decode` are the wire form
(docs/protocol.md section 2.2); `Requirements.lacking` says in words what a worker with the given attributes lacks, or
returns an empty list.
Attributes are text: BUILT_IN and the worker's labels; `mem` is in bytes.  A worker is called by its name, its host's
name, each of its addresses, name@address, and `instance=UUID`, which one process of `cservice` alone has.
`Requirements.admits` is the client's own check of an instance that offers itself.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError, UsageError
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.wire import Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAXIMUM_ENCODED = 480  # bytes (protocol): what an announcement has room for

OS, ARCH, CPUS, MEMORY, HOST, NAME, ADDRESS = "os", "arch", "cpus", "mem", "host", "name", "address"
INSTANCE = "instance"  # (protocol) its value is the instance id as `instance_text` writes it
MACHINE = (OS, ARCH, CPUS, MEMORY)  # (protocol) attributes that every worker tells
BUILT_IN = (*MACHINE, HOST, NAME, ADDRESS, INSTANCE)  # (protocol) no label is called so
ALLOWED = "allow-programs"  # (protocol) the attribute of a worker that runs programs of its clients
ACCOUNT = "account"  # (protocol) the attribute of a shell service: the name of the user as whom commands run
PROOF = "proof"  # (protocol) in an answer: what the client has to return, in hexadecimal digits
ONCE = "once"  # (protocol) the attribute of a worker whose jobs must never be repeated; without a value
TERMINAL = "terminal"  # (protocol) the attribute of a worker that gives a job a terminal; without a value
JOBS = "jobs:"  # (protocol) in an answer to a census: the jobs that run there; no label is called so
SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MISSING = {  # what is said of a worker without such an attribute
    ALLOWED: "does not allow programs (cservice --allow-programs)",
    ACCOUNT: "offers no shell (cservice --shell)",
    TERMINAL: "gives no terminal (cservice --no-tty, or an older cexec)",
}
_INSTANCE_PREFIX = INSTANCE + "="  # of a name in --on and --not
QUANTITIES = (CPUS, MEMORY)  # attributes of which at least as much is needed; so is every label that is a number


def quantity(text: str) -> float | None:
    """Returns the number in `text`, with an optional suffix K, M, G or T (powers of 1024), or None."""
    digits, factor = (text[:-1], SUFFIXES[text[-1]]) if text[-1:] in SUFFIXES else (text, 1)
    if not digits.replace(".", "", 1).isdigit() or not digits.isascii():
        return None
    return float(digits) * factor


class Requirements:
    """`needs`: attribute to value ("" for mere presence); `wanted` and `unwanted`: names or addresses of workers."""

    __slots__ = ("needs", "unwanted", "wanted")

    def __init__(
        self, needs: Mapping[str, str] | None = None, wanted: Sequence[str] = (), unwanted: Sequence[str] = ()
    ) -> None:
        self.needs = dict(needs or {})
        self.wanted = tuple(wanted)
        self.unwanted = tuple(unwanted)

    def encode(self) -> bytes:
        """The wire form; `TooLongError` if it does not fit into one datagram, `UsageError` if it is not UTF-8."""
        try:
            writer = Writer().mapping(self.needs)
            for names in (self.wanted, self.unwanted):
                writer.u8(len(names))
                for name in names:
                    writer.text(name)
            data = bytes(writer)
        except UnicodeEncodeError:
            raise UsageError("requirements are not UTF-8 text") from None
        except ValueError:
            data = bytes(MAXIMUM_ENCODED + 1)
        if len(data) > MAXIMUM_ENCODED:
            from cexec.errors import TooLongError  # nearly all requirements fit

            raise TooLongError(
                f"requirements are longer than the {MAXIMUM_ENCODED} bytes that fit: name fewer workers or needs"
            )
        return data

    @classmethod
    def decode(cls, data: bytes) -> Requirements:
        if len(data) > MAXIMUM_ENCODED:
            raise ProtocolError("requirements are too long")
        reader = Reader(data)
        needs = reader.mapping()
        lists = [[reader.text() for _ in range(reader.u8())] for _ in range(2)]
        reader.finish()
        return cls(needs, *lists)

    def __bool__(self) -> bool:
        """True if there is any requirement."""
        return bool(self.needs or self.wanted or self.unwanted)

    def lacking(self, attributes: Mapping[str, str], addresses: Iterable[str] = ()) -> list[str]:
        """Returns what a worker with these attributes and addresses lacks, in words; empty if it fits."""
        result = [words for name, value in self.needs.items() if (words := _lacks(name, value, attributes))]
        if self.wanted or self.unwanted:
            called = names_of(attributes, addresses)
            if self.wanted and not called.intersection(self.wanted):
                result.append("is not " + " or ".join(self.wanted))
            if called.intersection(self.unwanted):
                result.append("is not wanted")
        return result

    def admits(self, instance: bytes) -> bool:
        """Returns False for an instance that is not one of those asked for, or is not wanted."""
        name = instance_name(instance)
        others_too = any(not called.startswith(_INSTANCE_PREFIX) for called in self.wanted)
        needed = self.needs.get(INSTANCE, "")
        return (
            (not self.wanted or others_too or name in self.wanted)
            and name not in self.unwanted
            and needed in ("", instance_text(instance))
        )


def instance_text(instance: bytes) -> str:
    """Returns an instance id as a UUID in lower case, such as `0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f`."""
    digits = instance.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def instance_name(instance: bytes) -> str:
    """Returns the name by which --on calls this instance alone."""
    return _INSTANCE_PREFIX + instance_text(instance)


def plain_instance(text: str) -> str:
    """Returns a UUID, with or without hyphens, as `instance_text` writes it; `UsageError` names what is none."""
    try:
        instance = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        instance = b""
    if len(instance) != IDENTITY_SIZE or text.split() != [text]:  # fromhex passes over white space
        raise UsageError(f"instance {text!r} is no UUID: copy it from cps --json")
    return instance_text(instance)


def names_of(attributes: Mapping[str, str], addresses: Iterable[str]) -> set[str]:
    """Returns all names of a worker."""
    name = attributes.get(NAME, "")
    called = {name, attributes.get(HOST, "")}
    if INSTANCE in attributes:
        called.add(_INSTANCE_PREFIX + attributes[INSTANCE])
    for address in addresses:
        called |= {address, f"{name}@{address}"}
    return called - {""}


def parse_needs(text: str) -> dict[str, str]:
    """`arch=x86_64,mem=4G,gpu` as a mapping; `UsageError` names the bad part."""
    needs: dict[str, str] = {}
    for part in text.split(","):
        name, separator, value = part.strip().partition("=")
        if not name or (separator and not value):
            raise UsageError(f"cannot understand the need {part!r}: write NAME, or NAME=VALUE, separated by commas")
        if name in QUANTITIES and separator and quantity(value) is None:
            raise UsageError(f"need {part!r}: {name} takes a number, as in mem=4G or cpus=8")
        needs[name] = plain_instance(value) if name == INSTANCE and separator else value
    return needs


def _lacks(name: str, value: str, attributes: Mapping[str, str]) -> str:
    if name not in attributes:
        return MISSING.get(name, f"has no {name}")
    if not value:
        return ""
    present = attributes[name]
    needed, has = quantity(value), quantity(present)
    if needed is not None and has is not None:
        shown = readable_size(has) if name == MEMORY else present
        return "" if has >= needed else f"has {name}={shown}, not {value}"
    return "" if present == value else f"has {name}={present}, not {value}"


def readable_size(number: float) -> str:
    """A number of bytes as `quantity` reads it: `3.8G`, rounded down, so that as much is really there."""
    for suffix in reversed(SUFFIXES):
        if number >= SUFFIXES[suffix]:
            tenths = number * 10 // SUFFIXES[suffix]
            return f"{tenths / 10:.16g}{suffix}"
    return f"{number:.16g}"
