"""The part of the corpus for what hosts answer to cboot; see `seeds`."""

from __future__ import annotations

import json

from cexec.boot.serve import directory_name
from tests.fuzz.targets import hosts


def host_seeds() -> dict[str, list[bytes]]:
    """The inputs of each of these targets."""
    record = {
        "app": "app", "fingerprint": hosts.APPLICATION.fingerprint, "options": ["-j", "2"], "program": ["cat"],
        "packages": [], "environment": {"A": "b"}, "how": "unit", "name": "node1", "serial": 7, "not_after": None,
        "release": "1-a", "host": "h", "running": True, "version": "1",
    }  # fmt: skip
    own = directory_name(hosts.APPLICATION.fingerprint, hosts.HOST, ephemeral=False)
    seen = {
        "host": "h", "home": "/home/u", "free": 10**9, "manager": True, "lingers": False, "releases": ["1-a"],
        "workers": {own: record}, "names": [own, own.replace("node1", "node2")], "place": True,
    }  # fmt: skip
    look, stopped, removed = seen, {"ran": True}, {"removed": ["node1"], "left": ["x", "y", "z", "\x1b", "\ud800"]}
    told = [json.dumps({"done": done}).encode() for done in (look, stopped, removed, record, {"present": False})]
    failed = json.dumps({"failed": {"kind": "busy", "text": "another cboot"}}).encode()
    old = {**hosts.PYTHON, "version": [3, 9, 2]}
    pythons: list[dict[str, object]] = [
        hosts.PYTHON, {**hosts.PYTHON, "libc": ["musl", "1.2.5"], "bits": 32, "threads": True},
        {**hosts.PYTHON, "system": "darwin", "libc": ["", ""], "mac": "14.1", "machine": "arm64"},
        {**hosts.PYTHON, "system": "freebsd14", "libc": ["", ""]}, {**hosts.PYTHON, "version": [3, 13, 0]},
        {**hosts.PYTHON, "version": [3, 10**9, 0]}, {**hosts.PYTHON, "system": "darwin"},
    ]  # fmt: skip
    return {
        "python_of_a_host": [
            *(json.dumps(one).encode() for one in pythons), json.dumps(old).encode() + b"\n{}", b"{}", b"[" * 4000,
        ],
        "answer_of_an_agent": [*told, failed, b"[" * 4000, b'{"done": NaN}', b"7"],
        "visit_to_a_host": [
            b"\x80" + told[0], b"\x81" + b"\n".join([*told[:2], told[1]]), b"\x82" + told[0] + b"\n" + told[2],
            b"\x02" + told[0] + b"\n" + told[2], b"\x80" + failed, b"\x00" + told[0].replace(b"true", b"false"),
        ],
    }  # fmt: skip
