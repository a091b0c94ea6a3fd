"""Requests for jobs as JSON, and as a form with files; docs/api.md describes each member.

Contract: `parse_job` checks the form of a value; what no job can have is found by `Engine.submit`.  `Problem` 422 names
the member that is wrong, and the ones that nobody knows.  `read_job` reads a request: `application/json`, or
`multipart/form-data` with the parts `job` (JSON), `stdin` and `files`, which go to files at once.
"""

from __future__ import annotations

import binascii
import hashlib
import logging
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cexec.gate.http.patterns import FETCHED_NAME, FILE_NAME, NEED, VARIABLE, WORKER
from cexec.gate.http.request_bodies import chunks, read_json
from cexec.gate.jobs.job_request import JobRequest, Workers
from cexec.gate.json_text import parse_json
from cexec.gate.problem import Problem
from cexec.system.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from starlette.requests import Request

    from cexec.gate.store.output_files import OutputFiles

    Upload: TypeAlias = Callable[[], str]

MEMBERS = frozenset(
    {"app", "args", "env", "stdin", "files", "fetch", "needs", "exclude", "workers", "time_limit", "retries", "weight"}
)
LEAST_TIME_LIMIT, LONGEST_TIME_LIMIT = 0.001, 10 * 365 * 86400.0  # seconds (ours)
MOST_FILES = 1000  # (ours)
MOST_WORKERS = 10_000  # (ours)
_NEED_WORDS = "a need is NAME or NAME=VALUE without commas and spaces; cpus and mem take a number, instance a UUID"
_FORMS = {  # of the texts in a member or a parameter, and what is said of another one
    "env": (re.compile(VARIABLE), "a variable's name has letters, digits and _, at most 64 of them"),
    "files": (re.compile(FILE_NAME), "the name of a file is relative, without . and .."),
    "fetch": (re.compile(FETCHED_NAME), "such a name is relative, without . and .., controls and backslashes"),
    "needs": (re.compile(NEED), _NEED_WORDS),
    "need": (re.compile(NEED), _NEED_WORDS),
    "exclude": (re.compile(WORKER), "a worker is called without commas and spaces, or instance=UUID"),
}
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it tells of each damaged form of a stranger
COPY = 1024 * 1024  # bytes (ours) that are copied at once


async def read_job(request: Request, files: OutputFiles) -> JobRequest:
    """Returns what a request asks for."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, files)
    return parse_job(await read_json(request))


def parse_job(value: Any, *, stdin: bytes | None = b"", without: frozenset[str] = frozenset()) -> JobRequest:
    """Returns the request that a JSON value is.

    `stdin`: if it says nothing of that; `without`: members that it cannot have here.
    """
    if not isinstance(value, dict):
        raise Problem(422, "the body has to be a JSON object with the member app")
    if unknown := sorted(value.keys() - (MEMBERS - without)):
        raise Problem(422, f"there is no member {printable(unknown[0])} here")
    job = JobRequest(
        app=_text(value.get("app"), "app"),
        args=tuple(_texts(value.get("args", []), "args")),
        env={_form(name, "env"): _text(one, f"env.{name}", empty=True) for name, one in _map(value, "env").items()},
        files={_form(name, "files"): _content(one, f"files.{name}") for name, one in _map(value, "files").items()},
        fetch=tuple(_distinct(_forms(value, "fetch"), "fetch")),
        needs=tuple(_forms(value, "needs")),
        exclude=tuple(_forms(value, "exclude")),
        workers=_workers(value.get("workers", "any")),
        time_limit=_seconds(value.get("time_limit")),
        retries=None if value.get("retries") is None else _whole(value["retries"], "retries", 0, 1000),
        weight=_whole(value.get("weight", 1), "weight", 1, 1000),
        stdin=_stdin(value["stdin"]) if "stdin" in value else stdin,
    )
    if job.stdin is None and job.workers is not Workers.ANY:
        raise Problem(422, "the jobs of a pool have their stdin from the beginning: it cannot be a stream")
    return job


async def _read_form(request: Request, files: OutputFiles) -> JobRequest:
    parser = MultiPartParser(request.headers, chunks(request.receive), max_files=MOST_FILES, max_fields=10)
    paths: list[str] = []

    def place() -> str:
        paths.append(files.taken(f"upload-{os.urandom(16).hex()}", 0))
        return paths[-1]

    try:
        try:
            form = await parser.parse()
        except (MultiPartException, ValueError, KeyError, UnicodeDecodeError) as error:
            words = error.message if isinstance(error, MultiPartException) else "its parts cannot be told apart"
            raise Problem(400, f"the body is no form: {words}") from None
        try:
            return await _job_of(form.multi_items(), place)
        finally:
            await form.close()
    except BaseException:
        files.remove(path.rpartition("/")[2] for path in paths)
        raise


async def _job_of(parts: list[tuple[str, Any]], place: Upload) -> JobRequest:
    described = [part for name, part in parts if name == "job"]
    if len(described) != 1:
        raise Problem(422, "a form has one part called job, which is JSON")
    (text,) = described
    value = parse_json(await text.read() if isinstance(text, UploadFile) else text)
    job = parse_job(value)
    hashed = hashlib.sha256()
    found: dict[str, bytes | str] = dict(job.files)
    stdin = None
    for name, part in parts:
        if name == "job":
            continue
        if name not in ("stdin", "files") or not isinstance(part, UploadFile):
            raise Problem(422, f"a form has the part job, and the files stdin and files, but not {printable(name)}")
        called = check_form(part.filename or "", "files") if name == "files" else ""
        if called in found or (name == "stdin" and (stdin or "stdin" in value)):
            raise Problem(422, f"{called or name} comes twice")
        path = place()
        hashed.update(f"{name}\0{called}\0{part.size}\0".encode(errors="surrogateescape"))
        await _keep(part, path, hashed)
        if called:
            found[called] = path
        else:
            stdin = path
    return replace(job, files=found, stdin_path=stdin, content=hashed.digest())


async def _keep(part: UploadFile, path: str, hashed: Any) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while data := await part.read(COPY):
            hashed.update(data)
            view = memoryview(data)
            while len(view):
                view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


# members


def _text(value: Any, name: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or (not value and not empty):
        raise Problem(422, f"{printable(name)} has to be a text{'' if empty else ' that is not empty'}")
    if "\0" in value:
        raise Problem(422, f"{printable(name)} contains a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Problem(422, f"{printable(name)} contains half a character") from None
    return value


def _texts(value: Any, name: str, *, empty: bool = True) -> list[str]:
    if not isinstance(value, list):
        raise Problem(422, f"{name} has to be a list of texts")
    return [_text(one, name, empty=empty) for one in value]


def check_form(text: str, name: str) -> str:
    """Returns the text; `Problem` 422 if it is none that the member or parameter `name` can have."""
    form, words = _FORMS[name]
    if not form.fullmatch(text):
        raise Problem(422, f"{name} has {text!r}, but {words}")
    return text


def _form(value: Any, name: str) -> str:
    return check_form(_text(value, name), name)


def _forms(value: dict[str, Any], name: str) -> list[str]:
    return [_form(one, name) for one in _texts(value.get(name, []), name, empty=False)]


def _distinct(values: list[str], name: str) -> list[str]:
    if len(set(values)) < len(values):
        raise Problem(422, f"{name} has a name twice")
    return values


def _map(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise Problem(422, f"{name} has to be an object")
    return found


def _content(value: Any, name: str) -> bytes:
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        text = value["base64"]
        try:
            if len(text) % 4 or text.endswith("==="):
                raise ValueError("padding")  # of which `a2b_base64` takes too much
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            raise Problem(422, f"{printable(name)}.base64 is not base64") from None
    if not isinstance(value, str):
        raise Problem(422, f'{printable(name)} has to be a text, or {{"base64": TEXT}}')
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Problem(422, f"{printable(name)} contains half a character") from None


def _stdin(value: Any) -> bytes | None:
    if value == {"stream": True} and value["stream"] is True:
        return None
    if isinstance(value, dict) and "stream" in value:
        raise Problem(422, 'stdin has to be a text, {"base64": TEXT} or {"stream": true}')
    return _content(value, "stdin")


def _workers(value: Any) -> Workers | tuple[str, ...]:
    if value in ("any", "all") and isinstance(value, str):
        return Workers(value)
    if not isinstance(value, list) or not value:
        raise Problem(422, 'workers has to be "any", "all", or a list of workers that is not empty')
    if len(value) > MOST_WORKERS:
        raise Problem(413, f"at most {MOST_WORKERS} workers can be listed")
    return tuple(_distinct(_texts(value, "workers", empty=False), "workers"))


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not LEAST_TIME_LIMIT <= value <= LONGEST_TIME_LIMIT:
        raise Problem(422, "time_limit has to be a number of seconds, at least 0.001")
    return float(value)


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 3.0 is a whole number of JSON
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Problem(422, f"{name} has to be a whole number from {least} to {most}")
    return value
