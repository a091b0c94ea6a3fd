"""What `GET /metrics` tells: counters that only grow, and gauges that are read when somebody asks.

Contract: `text()` is in the format of Prometheus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from cexec.gate.store.job_records import JobRecord

BUCKETS = (0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 14400)  # seconds (ours)


class Counters:
    """The metrics of one `cgate`."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        app = ["app"]

        def counter(name: str, words: str, labels: list[str]) -> Counter:
            return Counter(f"cexec_gate_{name}", words, labels, registry=registry)

        def seconds(name: str, words: str) -> Histogram:
            return Histogram(f"cexec_gate_{name}", words, app, buckets=BUCKETS, registry=registry)

        def gauge(name: str, words: str, labels: list[str]) -> Gauge:
            return Gauge(f"cexec_gate_{name}", words, labels, registry=registry)

        self._ended = counter("jobs_ended", "Jobs that are over, by outcome.", ["app", "outcome"])
        self._seconds = seconds("job_duration_seconds", "Seconds from a program's begin to its end.")
        self._queue_seconds = seconds("job_queue_seconds", "Seconds from a job's submission to its begin.")
        self._bytes = counter("bytes", "Bytes of inputs and outputs of jobs.", ["app", "stream"])
        self._jobs = gauge("jobs", "Jobs that are not over, by state.", ["app", "state"])
        self._workers = gauge("workers", "Workers that are there.", app)
        self._slots = gauge("slots", "Slots of these workers.", app)
        self._running = gauge("slots_in_use", "Slots that run a job, of any client.", app)

    def ended(self, job: JobRecord, received: int, outputs: dict[int, int]) -> None:
        """Counts a job that is over; `outputs`: bytes by stream."""
        self._ended.labels(job.app, job.state.value).inc()
        if job.started is not None and job.ended is not None:
            self._seconds.labels(job.app).observe(max(0.0, job.ended - job.started))
            self._queue_seconds.labels(job.app).observe(max(0.0, job.started - job.submitted))
        self._bytes.labels(job.app, "stdin").inc(received)
        for stream, size in outputs.items():
            self._bytes.labels(job.app, "stdout" if stream == 1 else "stderr").inc(size)

    def set_jobs(self, app: str, queued: int, running: int) -> None:
        self._jobs.labels(app, "queued").set(queued)
        self._jobs.labels(app, "running").set(running)

    def set_workers(self, app: str, workers: int, slots: int, running: int) -> None:
        self._workers.labels(app).set(workers)
        self._slots.labels(app).set(slots)
        self._running.labels(app).set(running)

    def text(self, apps: frozenset[str] | None = None) -> bytes:
        """Returns what there is, of some applications only if they are given."""
        text = generate_latest(self._registry)
        if apps is None:
            return text
        marks = [f'app="{name}"'.encode() for name in apps]
        lines = text.splitlines(keepends=True)
        return b"".join(line for line in lines if line.startswith(b"#") or any(mark in line for mark in marks))
