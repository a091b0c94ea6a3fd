"""Limits of a job: time, processor time, memory, and its nice value.

Contract: `Limits` are plain numbers, 0 for none, that travel as options of GO (docs/protocol.md section 4.2).
`Limits.apply` is called in the new process before the program.  Memory is counted for all of a job's processes together
where there is a `MemoryGroup`; elsewhere each process has the limit for itself, as an address space (RLIMIT_AS).
`OSError` as the system calls raise it, `UsageError` from `parse_size`, `ValueError` from `from_options`.
"""

from __future__ import annotations

import math
import os
import signal
from typing import TYPE_CHECKING

from cexec.protocol.connection.options import CPU_LIMIT, LIMITS, MEMORY_LIMIT, NICE, TIME_LIMIT
from cexec.system.units import parse_duration, parse_size, show_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.system.process.memory_group import MemoryGroup

LARGEST_NICE = 19
LARGEST_NUMBER = 1 << 62  # (ours) seconds or bytes: what every kernel's limit can hold
LEAST_MEMORY = 1 << 20  # bytes (ours): below this no program can be started, and all that one sees is a SIGKILL
LEAST_TIME = 0.001  # seconds: GO's option has three decimals, and 0 means that there is no limit
_CPU_GRACE = 1  # seconds (ours) from SIGXCPU to SIGKILL
_LONGEST_NUMBER = 20  # digits (ours)


class Limits:
    """`time`: seconds from the start; `cpu`: whole seconds of each process; `memory`: bytes; `nice`: 0 to 19."""

    __slots__ = ("cpu", "memory", "nice", "time")

    def __init__(self, *, time: float = 0.0, cpu: int = 0, memory: int = 0, nice: int = 0) -> None:
        self.time = time
        self.cpu = cpu
        self.memory = memory
        self.nice = nice

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Limits:
        """From the options of GO; `ValueError` for a value that is no number or out of range."""
        if options.keys().isdisjoint(LIMITS):
            return cls()  # most jobs
        time = options.get(TIME_LIMIT, "0")
        if not _is_number(time.replace(".", "", 1)):
            raise ValueError(f"{TIME_LIMIT} is {time!r}")
        memory = _whole(options, MEMORY_LIMIT, LARGEST_NUMBER)
        if 0 < memory < LEAST_MEMORY:
            raise ValueError(f"{MEMORY_LIMIT} is {memory} bytes and must be at least {LEAST_MEMORY}")
        cpu, nice = _whole(options, CPU_LIMIT, LARGEST_NUMBER), _whole(options, NICE, LARGEST_NICE)
        return cls(time=float(time), cpu=cpu, memory=memory, nice=nice)

    def to_options(self) -> dict[str, str]:
        values = (f"{self.time:.3f}", str(self.cpu), str(self.memory), str(self.nice))
        numbers = (self.time, self.cpu, self.memory, self.nice)
        return {name: value for name, value, number in zip(LIMITS, values, numbers, strict=True) if number}

    def stricter(self, other: Limits) -> Limits:
        """Of each limit the one that allows less."""
        return Limits(
            time=_least(self.time, other.time),
            cpu=int(_least(self.cpu, other.cpu)),
            memory=int(_least(self.memory, other.memory)),
            nice=max(self.nice, other.nice),
        )

    @property
    def inherited(self) -> bool:
        """Returns True if the new process has to be prepared for the limits."""
        return bool(self.cpu or self.memory or self.nice)

    def apply(self, group: MemoryGroup | None) -> None:
        """In the new process."""
        import resource

        if self.nice:
            os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), self.nice))
        if self.cpu:
            _lower(resource.RLIMIT_CPU, self.cpu, self.cpu + _CPU_GRACE)
        if group is not None:
            group.join()
        elif self.memory:
            _lower(resource.RLIMIT_AS, self.memory, self.memory)


class Hit:
    """A limit that ended a job: words for the user, and the signal that stands for it."""

    __slots__ = ("message", "signal")

    def __init__(self, message: str, number: int) -> None:
        self.message = message
        self.signal = number


def find_hit(limits: Limits, status: int, cpu_used: float, killed: int) -> Hit | None:
    """Returns the limit that ended the main process, by its wait status; `killed`: kills by the kernel in the group."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) - 128  # as a shell passes it on
    if killed and number == signal.SIGKILL:
        return Hit(f"ended by the kernel at its memory limit of {show_size(limits.memory)}", signal.SIGKILL)
    ended_late = number == signal.SIGKILL and cpu_used >= limits.cpu
    if limits.cpu and (number == signal.SIGXCPU or ended_late):
        return Hit(f"ended after its limit of {limits.cpu} s of processor time", number)
    return None


def remark(limits: Limits, status: int, killed: int, grouped: bool) -> str:
    """Returns a warning if the limits may have harmed a job that they have not ended, or an empty text."""
    if killed:
        size = show_size(limits.memory)
        return f"{killed} of its processes ended by the kernel at the job's memory limit of {size}"
    if status and limits.memory and not grouped:
        return f"it ran with a memory limit of {show_size(limits.memory)} for each process, which may be the reason"
    return ""


def parse_memory_limit(text: str, name: str) -> int:
    """Returns a number of bytes."""
    return parse_size(text, name, LEAST_MEMORY, LARGEST_NUMBER)


def parse_cpu_limit(text: str, name: str) -> int:
    """Returns whole seconds, rounded up, because the kernel's limit has no fractions."""
    return math.ceil(parse_duration(text, name, least=1))


def parse_time_limit(text: str, name: str) -> float:
    """Returns seconds."""
    return parse_duration(text, name, LEAST_TIME)


def _whole(options: Mapping[str, str], name: str, most: int) -> int:
    text = options.get(name, "0")
    if not _is_number(text) or int(text) > most:
        raise ValueError(f"{name} is {text!r}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER


def _least(one: float, other: float) -> float:
    return min(one, other) if one and other else one or other


def _lower(which: int, soft: int, hard: int) -> None:
    """Sets a limit, but never above what we have ourselves."""
    import resource

    had = resource.getrlimit(which)[1]
    if had != resource.RLIM_INFINITY:
        soft, hard = min(soft, had), min(hard, had)
    resource.setrlimit(which, (soft, hard))
