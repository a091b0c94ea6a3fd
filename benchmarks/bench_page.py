"""The page of cgate with many workers and jobs: how long does the browser's main thread work, in a second?

A server of its own says what `cgate` would say: WORKERS workers whose load changes at each look, JOBS jobs, EVENTS
changes of a job's state a second, and RUNS runs of `cmap` with TASKS tasks, the first of which ends EVENTS tasks a
second on all the workers and is shown.  Chromium shows the page of this checkout; its own counters (TaskDuration of the
DevTools protocol) are read before and after SECONDS seconds, of script, layout and everything together.  On a machine
that does other work the figures are too high: processor time that others take counts as time of a task.

    benchmarks/bench_page.py [--workers N] [--jobs N] [--events N] [--runs N] [--tasks N] [--seconds N] [--picture FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cexec.cmap.results.journal_format import DONE, FAILED, WAITING
from cexec.cmap.watch.task_map import TaskMap
from cexec.gate.page.page_routes import KINDS, POLICY, read
from tests.needs import find_tool

LIMIT = 100.0  # milliseconds a second: the goal
STATES = ("succeeded", "succeeded", "succeeded", "failed", "cancelled")
METRICS = {
    "TaskDuration": "all",
    "ScriptDuration": "script",
    "LayoutDuration": "layout",
    "RecalcStyleDuration": "style",
}


class Pretender:
    """What `cgate` says of a large cluster."""

    def __init__(self, workers: int, jobs: int, events: float, runs: int, tasks: int) -> None:
        self._random = random.Random(1)
        self._workers = [self._worker(number) for number in range(workers)]
        self._jobs: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count()
        self._events = events
        self._runs = runs
        self._tasks = TaskMap()
        self._tasks.expect(tasks)
        self._total = tasks
        self._begun = time.monotonic()
        self._settled = 0
        self._settle(tasks // 2)
        for _ in range(jobs):
            self._new_job(self._random.choice(STATES))

    def routes(self) -> list[Route]:
        return [
            Route("/", self._page),
            Route("/static/{name}", self._file),
            Route("/page/identity", self._identity),
            Route("/page/workers", self._show_workers),
            Route("/page/history", self._history),
            Route("/v1/jobs", self._list),
            Route("/v1/jobs/{id}", self._show),
            Route("/v1/pools", self._pools),
            Route("/v1/events", self._stream),
            Route("/v1/runs", self._list_runs),
            Route("/v1/runs/{id}", self._show_run),
            Route("/v1/runs/{id}/map", self._show_map),
            Route("/v1/runs/{id}/failed", self._show_failed),
        ]

    def _worker(self, number: int) -> dict[str, Any]:
        labels = {"arch": "x86_64", "cpus": "16", "mem": "64G"} | ({"gpu": ""} if number % 8 == 0 else {})
        return {
            "app": "render",
            "name": f"node{number}",
            "uuid": f"00000000-0000-4000-8000-{number:012d}",
            "address": f"10.0.{number // 250}.{number % 250 + 1}",
            "slots": 16,
            "running": 0,
            "load": 0.0,
            "speed": 1.0,
            "labels": labels,
            "health": "ok",
            "since": _show(time.time() - 3600 * self._random.random() - 60),
            "gone": False,
            "last_seen": None,
        }

    def _new_job(self, state: str) -> dict[str, Any]:
        id = f"0195{next(self._numbers):04x}-0000-7000-8000-{self._random.randrange(1 << 48):012x}"
        worker = self._random.choice(self._workers)
        now = time.time()
        job = {
            "id": id,
            "app": "render",
            "owner": self._random.choice(("anna", "boris", "chen")),
            "args": [
                "--frame",
                str(self._random.randrange(10_000)),
                f"/scenes/scene-{self._random.randrange(50)}.blend",
            ],
            "state": state,
            "exit_status": {"succeeded": 0, "failed": 1}.get(state),
            "signal": None,
            "reason": "cancelled by anna" if state == "cancelled" else None,
            "worker": f"{worker['name']}@{worker['address']}",
            "instance": worker["uuid"],
            "submitted": _show(now),
            "started": _show(now),
            "ended": _show(now) if state not in ("queued", "running") else None,
            "pool": None,
        }
        self._jobs[id] = job
        return job

    async def _page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": POLICY}
        return Response(read("index.html"), media_type="text/html; charset=utf-8", headers=headers)

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        return Response(read(name), media_type=KINDS[name])

    async def _identity(self, request: Request) -> Response:
        return JSONResponse({"name": "anna", "role": "admin", "session": True, "apps": ["render"], "parts": ["runs"]})

    async def _show_workers(self, request: Request) -> Response:
        for one in self._workers:
            one["running"] = self._random.randrange(17)
            one["load"] = one["running"] / 16 * 0.9
        return JSONResponse({"workers": self._workers})

    async def _history(self, request: Request) -> Response:
        now = time.time()
        names = ("slots", "busy", "load", "queued", "jobs", "succeeded", "other")
        samples = [{"at": now - 5 * back, **{name: self._random.random() for name in names}} for back in range(180)]
        return JSONResponse({"samples": samples[::-1]})

    async def _list(self, request: Request) -> Response:
        limit, after = int(request.query_params["limit"]), request.query_params.get("after", "~")
        found = [self._jobs[id] for id in sorted(self._jobs, reverse=True) if id < after][:limit]
        return JSONResponse({"jobs": found, "next": found[-1]["id"] if len(found) == limit else None})

    async def _show(self, request: Request) -> Response:
        return JSONResponse(self._jobs[request.path_params["id"]])

    async def _pools(self, request: Request) -> Response:
        return JSONResponse({"pools": [], "next": None})

    def _settle(self, over: int) -> None:
        """Tasks end in their order; one of a hundred fails."""
        for number in range(self._settled + 1, min(over, self._total) + 1):
            self._tasks.set(number, FAILED if number % 100 == 0 else DONE)
        self._settled = over
        for number in self._running():
            self._tasks.set(number, WAITING)

    def _running(self) -> range:
        return range(self._settled + 1, min(self._settled + 16 * len(self._workers), self._total) + 1)

    def _run(self, number: int) -> dict[str, Any]:
        self._settle(self._total // 2 + int(self._events * (time.monotonic() - self._begun)))
        counts = self._tasks.counts(self._running())
        words = "cmap render.pub --params frames.csv --state render.journal"
        return {
            "id": f"{number:016x}", "name": f"render-{number}", "directory": "/runs", "owner": None, "state": "running",
            "problem": None, "changed": _show(time.time()), "control": True, "command": words, "host": "node0",
            "process": "process 1 on node0", "started": _show(time.time() - 3600), "runs": 1, "total": self._total,
            "counts": counts, "weight": 1, "elapsed": 3600.0, "real": 36000.0, "cpu": 35000.0, "rate": self._events,
            "eta": counts["waiting"] / self._events,
        }  # fmt: skip

    async def _list_runs(self, request: Request) -> Response:
        return JSONResponse({"runs": [self._run(one) for one in range(self._runs)], "next": None, "problems": []})

    async def _show_run(self, request: Request) -> Response:
        workers = [
            {"name": f"{one['name']}@{one['address']}", "running": 16, "attempts": self._settled, "failed": 3,
             "succeeded": self._settled - 3, "real": 180.0 + time.monotonic(), "cpu": 170.0 + time.monotonic(),
             "last": _show(time.time())}
            for one in self._workers
        ]  # fmt: skip
        return JSONResponse(self._run(int(request.path_params["id"], 16)) | {"workers": workers, "more_workers": 0})

    async def _show_map(self, request: Request) -> Response:
        cell = max(1, -(-self._total // int(request.query_params["cells"])))
        states = self._tasks.codes(1, self._total, cell, self._running())
        return JSONResponse({"first": 1, "count": self._total, "size": self._total, "cell": cell, "states": states})

    async def _show_failed(self, request: Request) -> Response:
        limit, after = int(request.query_params["limit"]), int(request.query_params.get("after", 0))
        numbers = self._tasks.failed(after, limit)
        failed = [
            {"task": one, "command": f"cexec -n render.pub -- --frame {one}", "worker": "node1@10.0.0.2",
             "reason": "exited with 1", "last_line": "no such scene", "exit_status": 1, "signal": None,
             "started": _show(time.time()), "seconds": 12.5}
            for one in numbers
        ]  # fmt: skip
        return JSONResponse({"failed": failed, "next": numbers[-1] if len(numbers) == limit else None})

    async def _stream(self, request: Request) -> Response:
        return StreamingResponse(self._changes(), media_type="text/event-stream")

    async def _changes(self) -> AsyncIterator[str]:
        yield "retry: 2000\n\n"
        live: list[dict[str, Any]] = []
        while True:
            await asyncio.sleep(1 / self._events)
            if len(live) < 100 or self._random.random() < 0.5:
                job = self._new_job("running")
                live.append(job)
            else:
                job = live.pop(self._random.randrange(len(live)))
                job.update(state=self._random.choice(STATES), ended=_show(time.time()))
            change = {name: job[name] for name in ("pool", "app", "state", "exit_status", "signal", "worker")}
            yield f"event: job\ndata: {json.dumps({'job': job['id'], 'at': _show(time.time()), **change})}\n\n"


def _show(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def serve(pretender: Pretender) -> tuple[uvicorn.Server, threading.Thread, str]:
    """Serves in a thread; returns where."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Starlette(routes=pretender.routes()), log_level="critical", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    return server, thread, f"http://127.0.0.1:{listener.getsockname()[1]}/"


def load_all(page: Any, jobs: int) -> None:
    """Asks for older jobs until the page has all of them."""
    page.wait_for_selector("#worker-rows tr")
    page.wait_for_selector("#job-rows tr")
    shown = page.locator("#job-totals")
    for _ in range(jobs // 1000 + 2):
        before = shown.text_content()
        if not page.locator("#older").is_visible():
            break
        page.click("#older")
        page.locator("#job-totals", has_not_text=before).wait_for()
        page.wait_for_timeout(1000)


def measure(page: Any, seconds: float) -> dict[str, float]:
    """Returns milliseconds a second of the main thread, by what they were for."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def counters() -> dict[str, float]:
        return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}

    before, began = counters(), time.monotonic()
    page.wait_for_timeout(seconds * 1000)
    after, took = counters(), time.monotonic() - began
    return {name: 1000 * (after[key] - before[key]) / took for key, name in METRICS.items()}


def report(what: str, found: dict[str, float]) -> None:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    print(f"{what:<28} {parts} ms a second (at most {LIMIT:g})")


def main() -> None:
    parser = argparse.ArgumentParser(description="How long does the page keep the browser's main thread busy?")
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--events", type=float, default=50.0, help="changes of a job's state a second")
    parser.add_argument("--runs", type=int, default=10, help="runs of cmap")
    parser.add_argument("--tasks", type=int, default=100_000, help="tasks of a run")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--picture", help="writes a screenshot there")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    server, thread, url = serve(Pretender(options.workers, options.jobs, options.events, options.runs, options.tasks))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_tool("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(url)
        load_all(page, options.jobs)
        print(page.text_content("#worker-totals"), "|", page.text_content("#job-totals"))
        report("as it is", measure(page, options.seconds))
        page.evaluate("for (const one of document.querySelectorAll('.wide')) one.scrollTop = 1e6")
        page.wait_for_timeout(3000)
        rows = page.locator("#job-rows tr").count()
        report(f"scrolled, {rows} rows of jobs", measure(page, options.seconds))
        page.fill("#job-filter", "/7.blend")
        page.fill("#worker-filter", "gpu")
        report("with filters", measure(page, options.seconds))
        page.fill("#job-filter", "")
        page.fill("#worker-filter", "")
        page.get_by_role("button", name="Show the run render-0", exact=True).click()
        page.locator("#run-legend").get_by_text("waiting").wait_for()
        print(page.text_content("#run-totals"), "|", page.get_attribute("#run-map", "aria-label"))
        report("with a run that is shown", measure(page, options.seconds))
        if options.picture:
            page.screenshot(path=options.picture)
        browser.close()
    server.should_exit = True
    thread.join(10)


if __name__ == "__main__":
    main()
