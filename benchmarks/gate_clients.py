"""The clients of `bench_gate.py`: they cost as little as they can, since they share the machine with `cgate`.

Contract: each is a command, so that it has a process of its own: `python -m benchmarks.gate_clients NAME URL TOKEN
ARGUMENTS...` writes its figures as one line of JSON.

| name | arguments | figures |
|---|---|---|
| `jobs` | number of jobs, connections | seconds, latencies (50th and 99th percentile, in seconds) |
| `follow` | id of a job, followers | when all have got a first byte; it stays until its input ends |
| `download`, `upload` | bytes | seconds |
| `pages` | number of pages | median of seconds |
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

MESSAGE = 256 * 1024  # bytes


class Connection:
    """A connection over HTTP/1.1 that is used again and again."""

    def __init__(self, url: str, token: str) -> None:
        self._where = urlsplit(url)
        self._head = f"Host: {self._where.netloc}\r\nAuthorization: Bearer {token}\r\n"

    async def open(self) -> Connection:
        assert self._where.hostname is not None and self._where.port is not None
        self.reader, self.writer = await asyncio.open_connection(self._where.hostname, self._where.port)
        return self

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{kind}\r\n".encode() + body)

    async def answer(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return status, await self.reader.readexactly(length)


async def jobs(url: str, token: str, count: str, connections: str) -> dict[str, Any]:
    left = int(count)
    latencies: list[float] = []
    body = b'{"app": "app"}'

    async def worker() -> None:
        nonlocal left
        connection = await Connection(url, token).open()
        while left > 0:
            left -= 1
            begun = time.perf_counter()
            connection.send("POST", "/v1/jobs?wait=60", body)
            status, text = await connection.answer()
            assert status == 201 and b'"succeeded"' in text, text
            latencies.append(time.perf_counter() - begun)
        connection.writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(int(connections))))
    seconds = time.perf_counter() - begun
    latencies.sort()
    return {
        "seconds": seconds,
        "median": statistics.median(latencies),
        "p99": latencies[int(len(latencies) * 0.99)],
        "rate": len(latencies) / seconds,
    }


async def follow(url: str, token: str, job: str, followers: str) -> dict[str, Any]:
    opened = []
    for _ in range(int(followers)):
        connection = await Connection(url, token).open()
        connection.send("GET", f"/v1/jobs/{job}/stdout?follow=1")
        opened.append(connection)
    for one in opened:
        await one.reader.readuntil(b"\r\n\r\n")
        await one.reader.readuntil(b"\n")
    print(json.dumps({"following": len(opened)}), flush=True)

    async def drain(one: Connection) -> None:
        while await one.reader.read(65536):
            pass

    draining = [asyncio.ensure_future(drain(one)) for one in opened]
    await asyncio.to_thread(sys.stdin.read)
    for task in draining:
        task.cancel()
    return {}


async def download(url: str, token: str, size: str) -> dict[str, Any]:
    return await _exec(url, token, int(size), f"head -c {size} /dev/zero", upload=False)


async def upload(url: str, token: str, size: str) -> dict[str, Any]:
    return await _exec(url, token, int(size), "cat > /dev/null", upload=True)


async def _exec(url: str, token: str, size: int, script: str, *, upload: bool) -> dict[str, Any]:
    address = url.replace("http", "ws", 1) + "/v1/exec"
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(address, additional_headers=headers, compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"type": "start", "app": "app", "args": [script]}))
        await socket.recv()
        begun = time.perf_counter()
        if upload:
            message = b"\0" + bytes(MESSAGE)
            for _ in range(size // MESSAGE):
                await socket.send(message)
            await socket.send('{"type": "eof"}')
        got = 0
        async for data in socket:
            if isinstance(data, bytes):
                got += len(data) - 1
            elif '"type":"exit"' in data:
                assert '"succeeded"' in data, data
                break
        assert upload or got == size, got
        return {"seconds": time.perf_counter() - begun}


async def pages(url: str, token: str, count: str) -> dict[str, Any]:
    connection = await Connection(url, token).open()
    seconds = []
    after = ""
    for _ in range(int(count)):
        begun = time.perf_counter()
        connection.send("GET", f"/v1/jobs?limit=100{after}")
        status, text = await connection.answer()
        seconds.append(time.perf_counter() - begun)
        page = json.loads(text)
        assert status == 200 and len(page["jobs"]) == 100, text[:300]
        after = f"&after={page['next']}"
    return {"median": statistics.median(seconds), "most": max(seconds)}


CLIENTS: dict[str, Any] = {"jobs": jobs, "follow": follow, "download": download, "upload": upload, "pages": pages}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(CLIENTS[sys.argv[1]](*sys.argv[2:]))), flush=True)
