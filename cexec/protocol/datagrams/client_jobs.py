"""The jobs that run on a worker, as its answer to a census tells them: an attribute, so that older peers can read it.

Contract: `encode_jobs` returns the attribute's value, with as many jobs as `room` bytes can hold, the oldest first;
`parse_jobs` returns the jobs of such a value, without those that it cannot understand.  docs/protocol.md section 2.4.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_VALUE = 255  # bytes (protocol) of a text
LONGEST_AGE = 10**9  # seconds (ours): some 30 years


class ClientJob:
    """One job.  `client`: the name in the client's certificate; `host`: its address; `seconds`: the job's age."""

    __slots__ = ("client", "host", "seconds")

    def __init__(self, client: str, host: str, seconds: int) -> None:
        self.client = client
        self.host = host
        self.seconds = seconds


def encode_jobs(jobs: Iterable[ClientJob], room: int) -> str:
    """Returns a line for each job: age, host and client, with tabs between them."""
    text, most = "", min(room, LONGEST_VALUE)
    for job in sorted(jobs, key=lambda job: -job.seconds):
        longer = f"{text}\n" if text else ""
        longer += f"{job.seconds}\t{job.host}\t{job.client}"
        if len(longer.encode("utf-8", "replace")) > most:
            break
        text = longer
    return text


def parse_jobs(text: str) -> list[ClientJob]:
    found = []
    for line in text.split("\n"):
        age, tab, rest = line.partition("\t")
        host, second, client = rest.partition("\t")
        if tab and second and age.isascii() and age.isdigit() and len(age) < 10:
            found.append(ClientJob(client, host, min(int(age), LONGEST_AGE)))
    return found
