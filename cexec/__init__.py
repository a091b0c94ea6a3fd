"""cexec: zero-configuration remote pipes for ad-hoc clusters.

Imports nothing: start-up time is the product.  The public names of the Python API are loaded on first use (PEP 562);
`__init__.pyi` has them for type checkers, docs/python.md describes them.  The launchers of `cexec` and `cexec-ssh` call
`prepare_start` and `flushed`, which are here because Python compiles a launcher anew for each call.
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


PACKAGES = (  # of a plain call; their files are empty, and Python takes a tenth of a millisecond for each
    "client", "client.attempt", "client.blocking", "client.search", "commands", "net", "protocol", "protocol.base",
    "protocol.connection", "protocol.datagrams", "protocol.decisions", "system", "system.io", "system.storage",
)  # fmt: skip


def prepare_start(modules: dict[str, object]) -> None:
    """Makes the packages without their files.  `modules`: those of sys, because a package imports nothing.

    A wheel has all modules of a plain call in four files (bundle_start.py), from which they are loaded then.
    """
    for name in PACKAGES:
        package = modules[f"cexec.{name}"] = type(modules["cexec"])(f"cexec.{name}")
        package.__path__ = [f"{__path__[0]}/{name.replace('.', '/')}"]
        parent, _, last = f"cexec.{name}".rpartition(".")
        setattr(modules[parent], last, package)
    try:
        load_beside("start_bundle", modules)
    except (ImportError, OSError):
        return  # a checkout has none
    modules["cexec.start_bundle"].install()


def load_beside(name: str, modules: dict[str, object]) -> None:
    """Loads a module of ours from its file beside this one: to look for it takes longer than to read it."""
    name, path = f"cexec.{name}", f"{__path__[0]}/{name}.py"
    if type(__spec__.loader).__name__ != "SourceFileLoader":  # in a zip file, or without sources
        __import__(name)
        return
    loader = type(__spec__.loader)(name, path)
    code = loader.get_code(name)
    module = modules[name] = type(modules["cexec"])(name)
    module.__file__, module.__spec__ = path, type(__spec__)(name, loader, origin=path)
    exec(code, module.__dict__)


def flushed(status: int, *streams: object) -> int:
    """Returns the status after all that was printed has left, as far as somebody reads it."""
    for stream in streams:
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed from the beginning, or nobody reads it
            pass
    return status
