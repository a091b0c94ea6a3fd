"""Programs that a client brings along: `cexec --program linux-x86_64=./w1 --program linux-aarch64=./w2`.

Contract: `plan_programs` opens and hashes them before a worker is looked for.  GO names them (`options`, `stream`), and
the worker asks for one if it does not have it: `asked` gives the source of its bytes.  `UsageError` for wrong words,
`LocalError` for what this system refuses, `ProtocolError` for a worker that asks for what it was not offered.
docs/protocol.md section 4.2 (programs).
"""

from __future__ import annotations

import os
import stat

from cexec.errors import LocalError, ProtocolError, UsageError
from cexec.protocol.connection import program_offer
from cexec.protocol.connection.frames import FILE, READS, Stream
from cexec.protocol.connection.program_offer import ANY, LARGEST_PROGRAM, ProgramOffer
from cexec.protocol.datagrams.requirements import ALLOWED, ARCH, OS
from cexec.system.io.fds import FileSource
from cexec.system.reason import reason_of
from cexec.system.storage.program_cache import hash_and_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class LocalProgram:
    """One program, open for reading."""

    def __init__(self, platform: str, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(self.fd).st_mode):
                raise UsageError(f"--program {path} is not a regular file")
            hash, size = hash_and_size(self.fd)
        except OSError as error:
            raise LocalError(f"cannot read {path}: {reason_of(error)}") from error
        if not 0 < size <= LARGEST_PROGRAM:
            raise UsageError(f"--program {path} has {size} bytes, which no program has")
        self.offer = ProgramOffer(platform, hash, size)


class ProgramSource(FileSource):
    """The program from its beginning; many can read it at once, and none waits."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.fd = -1  # no descriptor to wait for


class ProgramPlan:
    """The programs of one job, or of many alike.  `number`: of the stream that carries the one that is asked for."""

    def __init__(self, programs: Iterable[LocalProgram], number: int) -> None:
        self._programs = {one.offer.platform: one for one in programs}
        self.number = number

    def at(self, number: int) -> ProgramPlan:
        """The same with another stream."""
        return ProgramPlan(self._programs.values(), number)

    def stream(self) -> Stream:
        return Stream(self.number, READS, FILE, name="program")

    def options(self) -> dict[str, str]:
        """The options of GO."""
        return program_offer.encode((one.offer for one in self._programs.values()), self.number)

    def needs(self) -> dict[str, str]:
        """What a worker must be to run any of them, as far as an announcement can say it."""
        needs = {ALLOWED: ""}
        if ANY not in self._programs:
            pairs = [platform.split("-", 1) for platform in self._programs]
            for name, values in zip((OS, ARCH), map(set, zip(*pairs, strict=True)), strict=True):
                needs |= {name: min(values)} if len(values) == 1 else {}
        return needs

    def name(self) -> str:
        """What a message calls the stream."""
        return " or ".join(one.path for one in self._programs.values())

    def source(self, platform: str) -> FileSource:
        if platform not in self._programs:
            raise ProtocolError("worker asked for a program that it was not offered")
        return ProgramSource(self._programs[platform].fd)


def plan_programs(words: Iterable[str], number: int) -> ProgramPlan | None:
    """What `--program` asks for; None without any."""
    found: dict[str, LocalProgram] = {}
    for word in words:
        platform, equals, path = word.partition("=")
        if not equals or not path or not program_offer.is_platform(platform):
            raise UsageError(
                f"--program {word!r}: write PLATFORM=FILE, as in --program linux-x86_64=./worker, "
                f"or {ANY}=FILE for a script that runs everywhere"
            )
        if platform in found:
            raise UsageError(f"--program has {platform} twice")
        found[platform] = LocalProgram(platform, path)
    return ProgramPlan(found.values(), number) if found else None


def asked(plan: ProgramPlan | None, platform: str) -> dict[int, FileSource]:
    """By stream, what is sent to a worker that asked for this platform's program."""
    if plan is None:
        raise ProtocolError("worker asked for a program, and there is none")
    return {plan.number: plan.source(platform)}
