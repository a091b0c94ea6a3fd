"""A request for a job, as every way to `cgate` makes one.

Contract: values.  `digest` is equal for equal requests: the same `Idempotency-Key` must come with the same request.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import Enum


class Workers(Enum):
    """Which workers a job is for, unless they are listed."""

    ANY = "any"  # one worker, whichever is free
    ALL = "all"  # a pool: every worker that is there


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a client wants.

    `stdin`: the program's standard input, or None if it is streamed later.  `files`: what the program finds, by name,
    as bytes or as the path of a file, which then belongs to the job and is removed with it.  `fetch`: names of files
    that it leaves.  `workers`: a tuple of names, addresses or UUIDs makes a pool.
    """

    app: str
    stdin: bytes | None = b""
    stdin_path: str | None = None  # of a file with the standard input, which belongs to the job
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes | str] = field(default_factory=dict)
    fetch: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    weight: int = 1
    time_limit: float | None = None
    retries: int | None = None
    workers: Workers | tuple[str, ...] = Workers.ANY
    content: bytes = b""  # the hash of what was uploaded as files

    def digest(self) -> bytes:
        """Returns a hash of everything."""
        hashed = hashlib.sha256(self.stdin or b"")
        for name, content in sorted(self.files.items()):
            hashed.update(b"\0" + name.encode(errors="surrogateescape"))
            hashed.update(hashlib.sha256(content if isinstance(content, bytes) else b"").digest())
        workers = self.workers.value if isinstance(self.workers, Workers) else list(self.workers)
        rest = [
            self.app, self.stdin is None, self.stdin_path is not None, self.args, sorted(self.env.items()), self.fetch,
            self.needs, self.exclude, self.weight, self.time_limit, self.retries, workers, self.content.hex(),
        ]  # fmt: skip
        hashed.update(json.dumps(rest).encode())
        return hashed.digest()

    def paths(self) -> list[str]:
        """Returns the files of this machine that belong to the job."""
        paths = [content for content in self.files.values() if isinstance(content, str)]
        return paths if self.stdin_path is None else [*paths, self.stdin_path]
