"""The program that a worker serves, and the terms on which it does.

Contract: values only.  cservice(1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cexec.system.process.resource_limits import Limits
from cexec.worker.jobs.disk_quota import DiskLimits

if TYPE_CHECKING:
    from cexec.system.process.sandbox import Sandbox
    from cexec.worker.jobs.sent_programs import SentPrograms
    from cexec.worker.jobs.shell import Shell


@dataclass(slots=True)
class Program:
    """The same for all jobs of a worker.  `environment` lacks the variables that belong to one job.

    `written`: what the owner called the program, for argv[0].
    """

    executable: str
    arguments: list[str]
    environment: Mapping[bytes, bytes]
    allow_arguments: bool
    limits: Limits = field(default_factory=Limits)
    private: bool = False  # every job has a directory of its own
    once: bool = False  # no job may ever be repeated
    records: str | None = None  # the directory for the records of `orphans`, if there is one
    programs: SentPrograms | None = None  # for the programs that clients bring, if that is allowed
    disk: DiskLimits = field(default_factory=DiskLimits)
    sandbox: Sandbox | None = None  # in which every job runs
    written: str = ""
    shell: Shell | None = None  # of a shell service, whose jobs are command lines for it
    terminal: bool = True  # a job may have one
