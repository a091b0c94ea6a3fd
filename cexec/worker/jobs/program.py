"""What a worker serves.

Contract: values only.  cservice(1).
"""

from __future__ import annotations

from cexec.system.process.resource_limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.worker.jobs.sent_programs import SentPrograms


class Program:
    """What a worker serves; the same for all of its jobs.  `environment` lacks what belongs to one job.

    `private`: every job has a directory of its own.  `once`: no job may ever be repeated.  `records`: the directory
    for the records of `orphans`, if there is one.  `programs`: for those that clients bring, if that is allowed.
    """

    __slots__ = (
        "allow_arguments", "arguments", "environment", "executable", "limits", "once", "private", "programs", "records",
    )  # fmt: skip

    def __init__(
        self,
        executable: str,
        arguments: list[str],
        environment: Mapping[bytes, bytes],
        allow_arguments: bool,
        *,
        limits: Limits | None = None,
        private: bool = False,
        once: bool = False,
        records: str | None = None,
        programs: SentPrograms | None = None,
    ) -> None:
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.allow_arguments = allow_arguments
        self.limits = limits or Limits()
        self.private = private
        self.once = once
        self.records = records
        self.programs = programs
