"""The events of an attempt that does not simply begin and end well; `attempt` has the others, and says what they mean.

Contract: values.  A plain call of `cexec` loads this module with the first such event.
"""

from __future__ import annotations

from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.errors import CexecError, LocalError, RefusedError, WithdrawnError


class ProgramAsked:
    """The worker asks for the program of this platform."""

    __slots__ = ("platform",)

    def __init__(self, platform: str) -> None:
        self.platform = platform


class FileMissing:
    """A file that was to be fetched does not come."""

    __slots__ = ("reason", "stream")

    def __init__(self, stream: int, reason: str) -> None:
        self.stream = stream
        self.reason = reason


class SlotWanted:
    """Another client waits for the slot of this job, which has asked to hear that."""

    __slots__ = ()


class Refused:
    """The worker has not started the program."""

    __slots__ = ("error",)

    def __init__(self, error: RefusedError) -> None:
        self.error = error


class Withdrawn:
    """The worker has taken its offer back before it got the job: neither is at fault, and nothing has run."""

    __slots__ = ("error",)

    def __init__(self, error: WithdrawnError) -> None:
        self.error = error


class Lost:
    """The worker or the connection has failed; the program may have run, and may still run."""

    __slots__ = ("error",)

    def __init__(self, error: CexecError) -> None:
        self.error = error


class FailedHere:
    """Reading or writing a descriptor of ours has failed.  `error` is set if the message is already known."""

    __slots__ = ("errno", "error", "stream", "writing")

    def __init__(self, stream: int, writing: bool, errno: int, error: LocalError | None = None) -> None:
        self.stream = stream
        self.writing = writing
        self.errno = errno
        self.error = error

    @property
    def reason(self) -> str:
        """The system's text for `errno`."""
        return reason_of(self.errno)
