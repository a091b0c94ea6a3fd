"""Programs that a client brings along: `cexec --program linux-x86_64=./w1 --program linux-aarch64=./w2`.

Contract: `plan_programs` opens and hashes them before the search for a worker.  GO names them (`options`, `stream`).  A
worker asks for a program that it does not have, and `asked` returns the source of its bytes.  Wrong words raise
`UsageError`, refusals of this system `LocalError`, and a worker that asks for another program `ProtocolError`.
docs/protocol.md section 4.2 (programs).
"""

from __future__ import annotations

import os
import stat

from cexec.errors import LocalError, ProtocolError, UsageError
from cexec.protocol.connection import program_offer
from cexec.protocol.connection.frames import Stream
from cexec.protocol.connection.options import FILE, READS
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
    """The program from its first byte; any number of sources can read one descriptor, and no read waits."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.fd = -1  # no descriptor to wait for


class ProgramPlan:
    """The programs of one job, or of many equal jobs.  `number`: of the stream that carries a program."""

    def __init__(self, programs: Iterable[LocalProgram], number: int) -> None:
        self._programs = {one.offer.platform: one for one in programs}
        self.number = number

    def at(self, number: int) -> ProgramPlan:
        """Returns the same programs with another stream."""
        return ProgramPlan(self._programs.values(), number)

    def stream(self) -> Stream:
        return Stream(self.number, READS, FILE, name="program")

    def options(self) -> dict[str, str]:
        """Returns the options of GO."""
        return program_offer.encode((one.offer for one in self._programs.values()), self.number)

    def needs(self) -> dict[str, str]:
        """Returns the needs that a worker must meet to run one of them, as far as an announcement can express them."""
        needs = {ALLOWED: ""}
        if ANY not in self._programs:
            pairs = [platform.split("-", 1) for platform in self._programs]
            for name, values in zip((OS, ARCH), map(set, zip(*pairs, strict=True)), strict=True):
                needs |= {name: min(values)} if len(values) == 1 else {}
        return needs

    def name(self) -> str:
        """Returns the name of the stream for messages."""
        return " or ".join(one.path for one in self._programs.values())

    def source(self, platform: str) -> FileSource:
        if platform not in self._programs:
            raise ProtocolError("worker asked for a program that it was not offered")
        return ProgramSource(self._programs[platform].fd)


def plan_programs(words: Iterable[str], number: int) -> ProgramPlan | None:
    """Returns the programs of `--program`; None without any."""
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
    """Returns, by stream, the source of the program for this platform, which a worker has asked for."""
    if plan is None:
        raise ProtocolError("worker asked for a program, and there is none")
    return {plan.number: plan.source(platform)}
