"""cexec: zero-configuration remote pipes for ad-hoc clusters.

Imports nothing: start-up time is the product.  The public names of the Python API are loaded on first use (PEP 562);
`__init__.pyi` has them for type checkers, docs/python.md describes them.
"""

__version__ = "0.1.0"

PUBLIC = {  # the names of the Python API, and the modules that have them
    "AsyncClient": "cexec.python.async_client",
    "BlockingJob": "cexec.python.blocking_job",
    "ClusterChange": "cexec.python.membership",
    "Client": "cexec.python.sync_client",
    "ClusterWorker": "cexec.python.membership",
    "Completed": "cexec.python.completed",
    "Executor": "cexec.python.executor",
    "InitializerError": "cexec.python.calls.pool_errors",
    "Job": "cexec.python.started_job",
    "JobInput": "cexec.client.aio.job_streams",
    "JobOutput": "cexec.client.aio.job_streams",
    "LostCallError": "cexec.python.calls.pool_errors",
    "Usage": "cexec.python.completed",
    **dict.fromkeys(
        (
            "CannotPickleError", "CexecError", "DisconnectedError", "GroupError", "JobCancelledError", "KeyFileError",
            "LocalError", "NoWorkerError", "ProtocolError", "RefusedError", "RevokedError", "StalledError",
            "UsageError",
        ),
        "cexec.errors",
    ),
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Loads a public name when it is first used."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(__import__(PUBLIC[name], fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
