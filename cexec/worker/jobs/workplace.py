"""Holds what a job uses of this machine beside its processes and streams, and gives it back at the end.

Contract: a `Workplace` is empty at first.  `enter` makes a private directory and puts the client's files there,
`enter_home` goes to the home of a shell service's account,
`obtain` gets the program that the client brings, `limit_memory` makes a control group, and `leave` gives all of it
back. `OSError` and `CacheProblem` as the parts raise them.  What would survive a kill of this process is written to
the job's record before it is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.system.process.memory_group import MemoryGroup
from cexec.worker.jobs import sent_programs
from cexec.worker.jobs.private_directory import PrivateDirectory, receive_files, send_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.net.pump import Pump
    from cexec.protocol.connection.frames import Go, Stream
    from cexec.system.process.orphans import Record
    from cexec.system.storage.program_cache import HeldProgram
    from cexec.worker.jobs.disk_quota import DiskQuota
    from cexec.worker.jobs.sent_programs import SentPrograms
    from cexec.worker.jobs.shell import Shell


class Workplace:
    """`record` is written, not closed.

    `step` of the methods pumps once.  It is not kept: it belongs to the job, which owns this object, and such a cycle
    would keep the keys and buffers of one connection in the process that carries the next one.
    """

    __slots__ = ("_directory", "_origin", "_pump", "_record", "_sent", "group", "quota")

    def __init__(self, pump: Pump, record: Record | None, quota: DiskQuota) -> None:
        self.quota = quota
        self.group: MemoryGroup | None = None
        self._pump = pump
        self._record = record
        self._directory: PrivateDirectory | None = None
        self._origin = -1  # the working directory before that
        self._sent: HeldProgram | None = None  # the program that the client has brought

    @property
    def private(self) -> bool:
        """There is a private directory."""
        return self._directory is not None

    def enter(self, files: list[Stream], step: Callable[[], None]) -> None:
        """Makes the directory the working directory; the client's files in it are complete when this returns."""
        self._origin = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
        self._directory = PrivateDirectory()
        if self._record is not None:
            self._record.add(directory=self._directory.path)
        self._directory.enter()
        receive_files(self._pump, files, self._directory, self.quota, step)

    def enter_home(self, shell: Shell) -> None:
        """Makes the home of a shell service's account the working directory."""
        self._origin = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
        shell.enter()

    def obtain(self, go: Go, programs: SentPrograms, step: Callable[[], None]) -> None:
        """Gets the program that the client brings."""
        self._sent = sent_programs.obtain(self._pump, go, programs, step)

    def command(self, words: list[str]) -> list[str]:
        """The command, with the path of the client's program in its place."""
        return words if self._sent is None else sent_programs.fill(words, self._sent.path)

    def limit_memory(self, name: str, size: int) -> None:
        """Makes a group for the job, where this system lets us."""
        self.group = MemoryGroup.create(name, size)
        if self.group is not None and self._record is not None:
            self._record.add(group=self.group.path)

    def send_files(self, streams: list[Stream], step: Callable[[], None], *, skip: bool) -> None:
        """Gives the client what the program has left in the directory.  `skip`: none of it."""
        if self._directory is not None:
            send_files(self._pump, streams, self._directory, step, skip=skip)

    def watch_directory(self) -> None:
        """The program has started, and writes."""
        if self._directory is not None:
            self.quota.watch(self._directory.path)

    def leave(self) -> None:
        if self._directory is not None:
            self._directory.remove()
            self.quota.leave()
        if self._origin >= 0:
            os.fchdir(self._origin)
            os.close(self._origin)
        if self._sent is not None:
            self._sent.release()
        if self.group is not None:
            self.group.remove()
