"""What is told a client that asked for something wrong, or at the wrong time: a problem document (RFC 9457).

Contract: a `Problem` is raised wherever the reason is found, and answered in one place.  `detail` is a sentence for the
client's user; it never has a secret, a path of this machine, or a stack trace.
"""

from __future__ import annotations

from http import HTTPStatus

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """`status`: of HTTP; `detail`: what happened, and what to do; `more`: further members of the document."""

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: str | int | list[str] | None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.more = more

    def document(self) -> dict[str, object]:
        """Returns the members of the document."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.more}
