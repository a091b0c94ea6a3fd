"""What a client of Python is told once: its key, where workers are, and how long it waits for them.

Contract: `Settings.read` finds the key as `cexec` does and reads the same variables of the environment; keywords win
over variables.  The errors are those of the commands: `KeyFileError`, `UsageError`, `GroupError`.  `terms` makes the
`Terms` of a search; all searches of one client share the list of revoked workers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.client.aio.worker_search import Terms
from cexec.client.request import NetworkSettings, Target, Times, read_client_key, trust_opener
from cexec.errors import UsageError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import FAMILY_SIZE
from cexec.system.storage.keyfile import find_client_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.client.search.trust import Trust
    from cexec.protocol.base.keys import ClientKey
    from cexec.python.job_plan import JobTarget


class Settings:
    """`path`: of the key; `name`: what the caller calls it."""

    def __init__(
        self,
        key: ClientKey,
        path: str,
        name: str,
        *,
        network: NetworkSettings,
        times: Times,
        open_trust: Callable[[], Trust],
        always_accept: bool,
    ) -> None:
        """`always_accept`: the accept timeout also holds for jobs that name their workers."""
        self.key = key
        self.path = path
        self.name = name
        self.network = network
        self.times = times
        self._always_accept = always_accept
        self.open_trust = open_trust
        # Searches of one client do not make it give back the slots that it has: docs/protocol.md section 4.4.
        self._family = sodium.random_bytes(FAMILY_SIZE)

    @classmethod
    def read(
        cls,
        key: str | os.PathLike[str],
        environ: Mapping[str, str],
        *,
        group: str | None,
        accept_timeout: float | None,
        require_revoked: bool,
    ) -> Settings:
        """`group`: as CEXEC_GROUP; `accept_timeout`: seconds, 0 for ever, as CEXEC_TIMEOUT_ACCEPT."""
        name = os.fspath(key)
        path = find_client_key(name)
        read = read_client_key(path, "the client")
        if group is not None:
            environ = {**environ, "CEXEC_GROUP": group}
        times = Times.from_environment(environ, for_ever=False)
        if accept_timeout is not None:
            if not accept_timeout >= 0:
                raise UsageError(f"accept_timeout is {accept_timeout!r}, but must be seconds, or 0 to wait for ever")
            times.accept = accept_timeout
        return cls(
            read,
            path,
            name,
            network=NetworkSettings.from_environment(environ),
            times=times,
            open_trust=trust_opener(read, path, required=require_revoked),
            always_accept=accept_timeout is not None,
        )

    def terms(self, target: JobTarget) -> Terms:
        """Returns what the searches for this target share."""
        accept = 0.0 if target.for_ever and not self._always_accept else self.times.accept
        return Terms(
            self.key,
            network=self.network,
            times=Times(accept=accept, idle=self.times.idle, progress=self.times.progress),
            target=Target(target.requirements, target.weight, self.open_trust),
            family=self._family,
        )
