"""A keeper's part in the messages about modules that the client sends.

Contract: `find` looks for the modules that SETUP names: True if `path` is complete; else it answers MISSING_MODULES.
`take` follows MODULES, and answers KEPT_MODULES.  `path` is for `sys.path`, until `close`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from cexec.errors import ProtocolError
from cexec.pool import call_messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.pool.call_messages import Buffer
    from cexec.pool.module_file import ModuleFile


class KeptModules:
    """The modules of one client."""

    def __init__(self, answer: Callable[[list[Buffer]], None]) -> None:
        self._answer = answer
        self._wanted = b""
        self._file: ModuleFile | None = None

    @property
    def path(self) -> list[str]:
        return [] if self._file is None else [self._file.path]

    def find(self, digest: bytes) -> bool:
        """`digest` is empty for no modules."""
        self._wanted = digest
        if not digest:
            return True
        from cexec.pool import module_cache  # few programs send modules

        try:
            self._file = module_cache.find(digest)
        except OSError:
            pass  # there is no cache: they come with each slot
        if self._file is None:
            self._answer(m.encode(m.MISSING_MODULES))
        return self._file is not None

    def take(self, data: bytes | bytearray) -> None:
        from cexec.pool import module_cache
        from cexec.pool.module_file import ModuleFile

        if sha256(data).digest() != self._wanted or self._file is not None:
            raise ProtocolError("a client of cexec.pool sends the modules that its SETUP names, once")
        try:
            module_cache.add(self._wanted, data)
        except OSError:
            pass  # no room: this slot has them all the same
        self._file = ModuleFile.of(data)
        self._answer(m.encode(m.KEPT_MODULES))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
