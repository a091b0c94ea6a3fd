"""What the options, variables and key file of cservice(1) mean.

Contract: each function returns the value that one part of a worker needs.  `UsageError` names the option or variable.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.errors import UsageError
from cexec.protocol.base.certificate import valid_name
from cexec.protocol.base.limits import MAXIMUM_NAME
from cexec.protocol.base.wire import Writer
from cexec.protocol.datagrams.hello import MAXIMUM_ATTRIBUTES
from cexec.protocol.datagrams.requirements import BUILT_IN
from cexec.protocol.decisions.clients import ClientLimits
from cexec.system.host.load import usable_cpus
from cexec.system.process.environment import right_directory
from cexec.system.process.process import resolve
from cexec.system.process.sandbox import Sandbox, find_sandbox
from cexec.system.storage.program_cache import DEFAULT_LIMIT, ProgramCache, default_directory
from cexec.system.storage.user_files import key_descriptor, quoted
from cexec.system.units import parse_size, parse_whole
from cexec.worker.discovery.machine import attributes
from cexec.worker.jobs.sent_programs import PLACE, SentPrograms, own_platform

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN_VARIABLES = ("GROUP", "BOOST", "CONCURRENCY", "MAXFD")  # and CEXEC_*: ours, not the job's
CLEAN_VARIABLES = ("PATH", "HOME", "LANG", "TZ")  # what --clean-env leaves
MAXIMUM_SLOTS = 4096  # (ours)
DEFAULT_MAX_WEIGHT = 100  # (ours): a client of weight 1 gets at least one turn in a hundred beside a heavier one
SHELL_CHARACTERS = frozenset(" \t\n|&;<>()$`*?")  # a file may have them in its name; mostly a shell was meant
LEAST_FILES = 1 << 20  # bytes (ours)
LONGEST_BOOST = 10**9  # microseconds (ours): no client waits for a bid so long


@dataclass(slots=True)
class PerClient:
    """Holds the limits that --per-client names; None stands for one that it does not name."""

    jobs: int | None = None
    places: int | None = None
    files: int | None = None  # bytes


def parse_per_client(text: str, name: str) -> PerClient:
    """Reads `4`, which is jobs=4, or `jobs=4,places=2,files=20G`."""
    found = PerClient()
    for word in text.split(","):
        key, equals, value = word.strip().partition("=")
        if not equals:
            key, value = "jobs", key
        if key == "files":
            found.files = parse_size(value, f"{name} files", LEAST_FILES)
        elif key in ("jobs", "places"):
            setattr(found, key, parse_whole(value, f"{name} {key}", 1, MAXIMUM_SLOTS))
        else:
            raise UsageError(f"{name} is {text!r}, but must be such as 4, or jobs=4,places=2,files=20G")
    return found


def client_limits(slots: int, given: PerClient | None, max_weight: int) -> ClientLimits:
    """Returns the limits of one client on jobs and places."""
    limits = ClientLimits.of_slots(slots)
    limits.weight = max_weight
    if given is not None:
        limits.jobs = given.jobs or limits.jobs
        limits.places = given.places or limits.places
    return limits


def most_files(given: PerClient | None) -> int:
    """Returns the bytes of files that one client may have here: half of the disk's free space if nobody has said it."""
    if given is not None and given.files:
        return given.files
    try:
        status = os.statvfs(os.environ.get("TMPDIR") or "/tmp")
    except OSError:
        return 0  # no private directory can be made there, and each job with files will say so
    return max(LEAST_FILES, status.f_bavail * status.f_frsize // 2)


def job_environment(clean: bool, slots: int) -> dict[bytes, bytes]:
    """The part of a job's environment that all jobs have."""
    found = {
        name: value
        for name, value in os.environb.items()
        if (name.decode("ascii", "replace") in CLEAN_VARIABLES if clean else not _is_ours(name))
    }
    right_directory(found)
    found[b"CEXEC_SLOTS"] = str(slots).encode()
    return found


def _is_ours(name: bytes) -> bool:
    text = name.decode("ascii", "replace")
    return text.startswith(("CEXEC_", "PEER_")) or text in OWN_VARIABLES


def found_program(app: str, words: list[str]) -> str:
    """Returns the path of the program whose command line is `words`; `UsageError` says how to offer a pipeline."""
    try:
        return resolve(words[0], os.environ.get("PATH", os.defpath))
    except UsageError:
        if SHELL_CHARACTERS.isdisjoint(words[0]):
            raise
        line = " ".join([words[0], *map(quoted, words[1:])])
        what = "a pipeline" if "|" in words[0] else "a command line of the shell"
        raise UsageError(
            f"there is no program {words[0]!r}; for {what}: cservice {quoted(app)} sh -c {quoted(line)}"
        ) from None


def sandbox_of(apps: Sequence[str], network: bool) -> Sandbox:
    """The sandbox of jobs, in which the keys cannot be read."""
    hidden = [app for app in apps if key_descriptor(app) is None]
    return find_sandbox(os.environ.get("PATH", os.defpath), network=network, hidden=hidden)


def sent_programs(command: list[str], directory: str | None, size: int | None) -> SentPrograms:
    """Returns the cache and the platform for programs of clients; `UsageError` if no word says where they go."""
    if not any(PLACE in word for word in command):
        raise UsageError(
            f"--allow-programs: EXE or an ARG must say where the program goes: {PLACE} alone runs it as it is, "
            f"and bwrap --ro-bind / / {PLACE} inside a sandbox"
        )
    cache = ProgramCache(directory or default_directory(os.environ), size or DEFAULT_LIMIT)
    return SentPrograms(cache, own_platform(attributes()))


def described(labels: tuple[str, ...]) -> dict[str, str]:
    """Returns the attributes of this machine and its labels."""
    found = attributes()
    for text in labels:
        name, equals, value = text.partition("=")
        if not valid_name(name) or (equals and not value) or any(c in value for c in ", ") or not value.isprintable():
            raise UsageError(f"--label {text!r}: NAME or NAME=VALUE, without commas and spaces")
        if name in BUILT_IN:
            raise UsageError(f"--label {text!r}: every worker has {name} by itself")
        found[name] = value
    try:
        fits = len(bytes(Writer().mapping(found))) <= MAXIMUM_ATTRIBUTES
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(f"labels are too long: all together may take about {MAXIMUM_ATTRIBUTES - 60} bytes")
    return found


def short_host_name() -> str:
    """This host's name, as far as a hello message has room for it."""
    return socket.gethostname()[:MAXIMUM_NAME]


def concurrency() -> int:
    """$CONCURRENCY, else the number of CPUs that may be used."""
    text = os.environ.get("CONCURRENCY", "").strip()
    if not text:
        return max(1, round(usable_cpus()))
    return parse_whole(text, "CONCURRENCY", 1, MAXIMUM_SLOTS)


def boost() -> float | None:
    """$BOOST, a fixed delay before every bid, in microseconds, as in the ancestor."""
    text = os.environ.get("BOOST", "").strip()
    if not text:
        return None
    return parse_whole(text, "BOOST, in microseconds,", 0, LONGEST_BOOST) / 1e6
