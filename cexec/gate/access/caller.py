"""Who asks, and what he may do: a value that the middleware puts into `scope["cexec.identity"]`.

Contract: `require` and `require_application` raise the `Problem` 403 for what is not allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cexec.gate.problem import Problem

SCOPE_KEY = "cexec.identity"


class TokenRole(IntEnum):
    """What a token allows; each role includes those before it."""

    VIEWER = 0  # sees jobs, outputs and workers
    SUBMITTER = 1  # starts jobs, and has a say in those that it has started
    ADMIN = 2  # has a say in all jobs


@dataclass(frozen=True, slots=True)
class Caller:
    """The token behind a request.

    `name`: the token's; `applications`: the names of those that it is for, None for all; `token`: its id in the store;
    `most_jobs`: how many of its jobs may be queued or run at once.
    """

    name: str
    role: TokenRole
    applications: frozenset[str] | None
    token: int
    most_jobs: int

    def require(self, role: TokenRole) -> None:
        """Raises `Problem` 403 if the token allows less."""
        if self.role < role:
            raise Problem(
                403, f"this needs a token with the role {role.name.lower()}; yours is {self.role.name.lower()}"
            )

    def may_see(self, application: str) -> bool:
        """Returns True if the token is for this application."""
        return self.applications is None or application in self.applications

    def require_application(self, application: str) -> None:
        """Raises `Problem` 403 if the token is for other applications."""
        if not self.may_see(application):
            raise Problem(403, f"this token is not for the application {application}")

    def owns(self, owner: str) -> bool:
        """Returns True if the token has a say in the jobs of `owner`, the name of a token."""
        return self.role >= TokenRole.ADMIN or (self.role >= TokenRole.SUBMITTER and owner == self.name)
