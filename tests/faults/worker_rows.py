"""Faults of workers: they are killed, stopped, short of descriptors, restarted, or their host is gone."""

from __future__ import annotations

import resource
import signal
from collections.abc import Mapping, Sequence

import psutil

from tests.faults import doomed, program
from tests.faults.load import Plan
from tests.faults.rows import WORKER, row
from tests.faults.scene import Scene
from tests.faults.worker import Worker
from tests.waiting import PATIENCE, wait_until

KILLS = 3
SMALL_PLAN = Plan(bulk=(5_000_000,))
STOPPED = 30.0  # seconds
VANISHED = 20.0  # seconds: more than the 15 after which a silent peer is dead
BRIEFLY = 3.0


def kill_at_points_of_cservice(scene: Scene, point: str) -> None:
    """One worker after the other gets a life that ends by itself at this point."""
    for number in range(KILLS):
        worker = scene.workers[number % len(scene.workers)]
        restart(worker, doom=point)
        wait_until(lambda: worker.service.process.poll() is not None, 60.0)  # noqa: B023
        with scene.fault():
            worker.keep_log()
        scene.work()
        worker.start()


def restart(
    worker: Worker, doom: str = "", launcher: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> None:
    """As its owner does: the running jobs end first."""
    worker.service.signal(signal.SIGTERM)
    worker.service.wait()
    worker.keep_log()
    worker.start(doom, launcher, environment)


@row("killed before the handshake", WORKER, "SIGKILL of cservice when it is connected and has said nothing")
def killed_before_the_handshake(scene: Scene) -> None:
    kill_at_points_of_cservice(scene, doomed.BEFORE_THE_HANDSHAKE)


@row("killed after connect", WORKER, "SIGKILL of cservice and its job processes after the handshake, before CONFIRM")
def killed_after_connect(scene: Scene) -> None:
    kill_at_points_of_cservice(scene, doomed.AFTER_CONNECT)


@row("killed after GO", WORKER, "SIGKILL when the job has been taken, before STARTED")
def killed_after_go(scene: Scene) -> None:
    kill_at_points_of_cservice(scene, doomed.AFTER_GO)


def kill_at_points_of_the_program(scene: Scene, point: str) -> None:
    for _ in range(KILLS):
        worker = scene.reached(point)
        with scene.fault():
            worker.kill()
        scene.work()
        worker.start()


@row("killed mid stdin", WORKER, "SIGKILL when the program has read 1 MB of 5 MB", plan=SMALL_PLAN)
def killed_mid_stdin(scene: Scene) -> None:
    kill_at_points_of_the_program(scene, program.INPUT)


@row("killed mid stdout", WORKER, "SIGKILL when the program has written 1 MB of 5 MB", plan=SMALL_PLAN)
def killed_mid_stdout(scene: Scene) -> None:
    kill_at_points_of_the_program(scene, program.OUTPUT)


@row("killed before EXIT", WORKER, "SIGKILL when the program has exited, before the exit frame", plan=SMALL_PLAN)
def killed_before_exit(scene: Scene) -> None:
    kill_at_points_of_the_program(scene, program.EXITED)


@row("job process killed", WORKER, "SIGKILL of the job processes alone, as the kernel does when memory is short")
def job_process_killed(scene: Scene) -> None:
    for _ in range(2 * KILLS):
        scene.work()
        worker = max(scene.workers, key=lambda one: len(one.job_processes()))
        with scene.fault(0) as fault:
            fault.count = worker.kill_job_processes()


@row(
    "supervisor killed", WORKER, "SIGKILL of the process that forks job processes: cservice ends, and is started again"
)
def supervisor_killed(scene: Scene) -> None:
    for number in range(KILLS):
        scene.work()
        worker = scene.workers[number % len(scene.workers)]
        with scene.fault():
            worker.service.supervisor.kill()
            assert worker.service.process.wait(PATIENCE) == 111
            worker.keep_log()
        worker.start()


@row("stopped for 30 s", WORKER, "SIGSTOP of a worker with all its processes for 30 s; its output comes late")
def stopped(scene: Scene) -> None:
    worker = scene.workers[0]
    scene.work()
    processes = [psutil.Process(pid) for pid in worker.service.pids()]
    with scene.fault():
        for process in processes:
            process.suspend()
        scene.last(STOPPED)
        for process in processes:
            process.resume()


@row("host vanishes", WORKER, "the link of a worker's host is down for 20 s, so that no FIN comes")
def host_vanishes(scene: Scene) -> None:
    worker = scene.workers[0]
    scene.work()
    with scene.fault():
        worker.host.link(up=False)
        scene.last(VANISHED)
        worker.host.link(up=True)


@row("no descriptors", WORKER, "EMFILE: the limit of descriptors of all but one cservice is what they have, for 3 s")
def no_descriptors(scene: Scene) -> None:
    for _ in range(2):
        scene.work()
        limits = {}
        with scene.fault(len(scene.workers) - 1):
            for worker in scene.workers[1:]:
                pid = worker.service.pid
                limits[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                used = psutil.Process(pid).num_fds()
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[pid][1]))
            scene.last(BRIEFLY)
            for pid, limit in limits.items():
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


@row("restarted with jobs running", WORKER, "SIGTERM twice, which ends running jobs, and a new start")
def restarted(scene: Scene) -> None:
    for number in range(KILLS):
        scene.work()
        worker = scene.workers[number % len(scene.workers)]
        with scene.fault():
            worker.service.signal(signal.SIGTERM)
            worker.service.wait_for("stopping")
            if worker.service.process.poll() is None:
                worker.service.signal(signal.SIGTERM)
            worker.service.wait()
            worker.keep_log()
        worker.start()
