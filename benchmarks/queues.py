"""The programs that `cmap` is compared with: HyperQueue, Dask, GNU parallel on this machine and over ssh.

Contract: each class has `seconds(tasks)`, the time from the submission of `tasks` runs of /bin/true until all have
ended, on `SLOTS` slots.  Each call starts the servers and workers before and stops them afterwards, so that none works
while another program is measured.  Everything stays on the loopback.  `Unfit` says why a program cannot be used.
`bench_batch.py` says how to install them.
"""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from benchmarks.common import Unfit, Workplace, needed, timed
from benchmarks.peers import Ssh, wait_for_path

SLOTS = 2
TRUE = "/bin/true"
# Server and worker in one process, as LocalCluster has them, and in a small one, because it forks for each task.
HYPERQUEUE_SERVER = """
import os, sys
from hyperqueue import LocalCluster
from hyperqueue.cluster import WorkerConfig
cluster = LocalCluster(server_dir=sys.argv[1], worker_config=WorkerConfig(cores=int(sys.argv[2])))
open(sys.argv[3], "w").close()
sys.stdin.read()
cluster.stop()
os._exit(0)
"""


class HyperQueue:
    """A job of many program tasks, whose outputs go nowhere.

    Its own wait for a job looks once a second only, so a last task, which depends on all others, shows when they have
    ended.
    """

    def __init__(self, place: Workplace) -> None:
        self._package = _package("hyperqueue")
        self._directory = place.directory / "hyperqueue"
        self._directory.mkdir()
        self._environment = place.environment

    def seconds(self, tasks: int) -> float:
        told = self._directory / "ended"
        told.unlink(missing_ok=True)
        os.mkfifo(told)
        reading = os.open(told, os.O_RDWR)
        try:
            with self._server():
                client = self._package.Client(self._directory)
                job = self._package.Job(default_workdir=self._directory)
                for _ in range(tasks):
                    job.program([TRUE], stdout=None, stderr=None)
                job.program(["/bin/sh", "-c", f"echo > {shlex.quote(str(told))}"], deps=list(job.tasks))
                start = perf_counter()
                submitted = client.submit(job)
                os.read(reading, 1)
                seconds = perf_counter() - start
                if client.connection.wait_for_jobs([submitted.id], lambda jobs: None):
                    raise Unfit("a task of HyperQueue has failed")
        finally:
            os.close(reading)
        return seconds

    @contextmanager
    def _server(self) -> Iterator[None]:
        ready = self._directory / "ready"
        ready.unlink(missing_ok=True)
        argv = [sys.executable, "-c", HYPERQUEUE_SERVER, os.fspath(self._directory), str(SLOTS), os.fspath(ready)]
        with open(self._directory / "log", "wb") as log:
            process = subprocess.Popen(argv, env=self._environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert process.stdin is not None
        try:
            wait_for_path(ready)
            yield
        finally:
            process.stdin.close()
            process.wait()


class Dask:
    """Tasks that start a program, on two workers with a thread each."""

    def __init__(self) -> None:
        os.environ["DASK_DISTRIBUTED__LOGGING__DISTRIBUTED"] = "critical"  # also for its workers
        self._package = _package("distributed")
        logging.disable(logging.WARNING)  # it logs every step

    def seconds(self, tasks: int) -> float:
        options = {"n_workers": SLOTS, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
        with self._package.LocalCluster(**options) as cluster, self._package.Client(cluster) as client:
            client.wait_for_workers(SLOTS)
            start = perf_counter()
            futures = client.map(subprocess.call, [[TRUE]] * tasks, pure=False)
            self._package.wait(futures)
            seconds = perf_counter() - start
            if any(client.gather(futures)):
                raise Unfit("a task of Dask has failed")
        return seconds


class Parallel:
    """GNU parallel; the time of the whole command counts, as it does for `cmap`."""

    def __init__(self, place: Workplace, ssh: Ssh | None = None) -> None:
        """Uses 127.0.0.1 over ssh, with `ssh`, as if it were another host."""
        self._argv = [needed("parallel"), f"-j{SLOTS}"]
        if ssh is not None:
            *client, address, _ = ssh.client("")
            self._argv += ["--ssh", shlex.join(client), "-S", f"{SLOTS}/{address}"]
        home = place.directory / "parallel"  # in this directory its notice about citations counts as read
        (home / ".parallel").mkdir(parents=True, exist_ok=True)
        (home / ".parallel" / "will-cite").touch()
        self._environment = {**place.environment, "HOME": str(home), "SHELL": "/bin/sh"}
        self._inputs = home / "inputs"

    def seconds(self, tasks: int) -> float:
        self._inputs.write_text("".join(f"{number}\n" for number in range(tasks)))
        return timed([*self._argv, "-N0", "-a", str(self._inputs), TRUE], self._environment).seconds


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Unfit(f"{name} is not installed in this Python (pip install {name})") from None
