"""Makes of a request what the cluster is given.

Contract: `make_plan` raises `UsageError` for what no job can have, and `LocalError` for what this machine refuses;
nothing has been announced by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cexec.client.aio.data_sources import PathSource
from cexec.protocol.datagrams.requirements import instance_name
from cexec.python.job_plan import JobTarget
from cexec.python.keywords import STARTED, find_target, plan_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.gate.jobs.job_request import JobRequest
    from cexec.gate.store.output_files import OutputFiles
    from cexec.python.job_plan import JobPlan

NOTHING: dict[str, str] = {}  # the environment of `cgate` says nothing about its clients' jobs


def make_plan(request: JobRequest, job: str, instance: bytes, files: OutputFiles) -> JobPlan:
    """Returns the plan of this job.  `instance`: the worker that it is for, or b""."""
    keywords: dict[str, Any] = {
        "args": request.args,
        "env": request.env,
        "files": request.files,
        "fetch": {name: files.fetched(job, number) for number, name in enumerate(request.fetch)},
        "time_limit": request.time_limit,
        "need": list(request.needs) or None,
        "on": [instance_name(instance)] if instance else None,
        "exclude": list(request.exclude) or None,
        "weight": request.weight,
    }
    if request.retries is not None:
        keywords["retries"] = request.retries
    plan = plan_job(keywords, _target, input=request.stdin, known=STARTED)
    if (path := request.stdin_path) is not None:
        plan.input = lambda: PathSource(path)
    return plan


def _target(keywords: Mapping[str, Any]) -> JobTarget:
    """As for `cexec`, but a search for a named worker gives up: it was there a moment ago."""
    target = find_target(keywords, NOTHING)
    return JobTarget(target.requirements, target.weight, for_ever=False)
