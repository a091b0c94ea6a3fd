"""What all attempts of a job have in common, and the workers that may have it.

Contract: values, made by `keywords`.  `JobPlan.close` closes what was opened for all attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.client.aio.data_sources import DataSource
from cexec.client.attempt.files import FilePlan
from cexec.client.request import DEFAULT_RETRIES
from cexec.protocol.connection.frames import FIRST_FILE, Stream
from cexec.protocol.connection.options import FILE, READS, WRITES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from cexec.client.request import Invocation
    from cexec.protocol.datagrams.requirements import Requirements
    from cexec.system.io.fds import Source

    OpenSource: TypeAlias = Callable[[], Source]


def empty() -> Source:
    """Opens an input without a byte."""
    return DataSource(b"")


class JobTarget:
    """The workers that may have a job, and its share of the turns.  Jobs with equal keys share searches and leases."""

    __slots__ = ("for_ever", "key", "requirements", "weight")

    def __init__(self, requirements: Requirements, weight: int, *, for_ever: bool) -> None:
        """`for_ever`: a search for it does not give up, because workers were named."""
        self.requirements = requirements
        self.weight = weight
        self.for_ever = for_ever
        self.key = (requirements.encode(), weight, for_ever)


class JobPlan:
    """What all attempts of a job have in common.

    `files`: name and opener of each file that is sent; `fetch`: the names of those that come back as bytes; `placed`:
    those that come back as files, with their paths.  `encoding`: that of the texts, None for bytes.
    """

    __slots__ = (
        "args", "check", "closers", "encoding", "errors", "fetch", "files", "input", "invocation", "paths", "placed",
        "retries", "target", "timeout",
    )  # fmt: skip

    def __init__(self, args: list[str | bytes], invocation: Invocation, target: JobTarget) -> None:
        self.args = args
        self.invocation = invocation
        self.target = target
        self.input: OpenSource = empty
        self.files: list[tuple[str, OpenSource]] = []
        self.fetch: list[str] = []
        self.paths: dict[str, str] = {}
        self.placed = FilePlan([], [])
        self.retries = DEFAULT_RETRIES
        self.check = False
        self.timeout: float | None = None
        self.encoding: str | None = None
        self.errors = "strict"
        self.closers: list[Callable[[], None]] = []

    def file_streams(self) -> list[Stream]:
        """Returns the streams of the files, those that are sent first."""
        names = [(name, READS) for name, _ in self.files] + [(name, WRITES) for name in self.fetch]
        streams = [Stream(number, way, FILE, name=name) for number, (name, way) in enumerate(names, FIRST_FILE)]
        return [*streams, *self.placed.streams()]

    @property
    def first_fetched(self) -> int:
        """The stream of the first file that comes back."""
        return FIRST_FILE + len(self.files)

    def close(self) -> None:
        """Closes what was opened for all attempts."""
        closers, self.closers = self.closers, []
        for close in closers:
            close()
