"""Files that somebody may have damaged or planted: keys, tables, journals, records of jobs, series."""

from __future__ import annotations

import functools
import io
import os
import socket
import sqlite3
from contextlib import closing

from cexec.cmap.inputs.parameter_files import read_parameters
from cexec.cmap.results.journal import NEW, RESUME, Journal, TaskIdentity
from cexec.cmap.watch.explain import explain, explain_database
from cexec.errors import CexecError, KeyFileError, UsageError
from cexec.protocol.base.keys import checksum_of, decode_key, encode_key
from cexec.system.process.orphans import sweep
from cexec.system.storage.series import Series
from tests.fuzz.target import scratch, target


@target(KeyFileError)
def key_file(data: bytes) -> None:
    """A key file."""
    key = decode_key(data)
    assert encode_key(decode_key(encode_key(key).encode())) == encode_key(key)


@target(KeyFileError)
def key_file_with_its_checksum(data: bytes) -> None:
    """A key file whose checksum is right, whatever it says."""
    lines = [line.strip() for line in data.decode("utf-8", "replace").split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    text = "\n".join([*lines, f"checksum: {checksum_of(lines)}"])
    encode_key(decode_key(text.encode("utf-8", "replace")))


@target(UsageError)
def parameter_table(data: bytes) -> None:
    """A table of parameters: CSV, TSV, bars, JSON lines."""
    rows = read_parameters(io.BytesIO(data), "file")
    for number in range(1, min(len(rows), 20) + 1):
        assert len(rows.cells(number)) == len(rows.columns)


@target()
def record_of_a_job(data: bytes) -> None:
    """The record that a killed job has left."""
    directory = scratch() / "jobs"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "record").write_bytes(data.replace(b"boot", b"b00t") or b"\n")  # nobody's processes are ended
    sweep(str(directory))


@target()
def series(data: bytes) -> None:
    """The file with a worker's numbers."""
    (scratch() / "series").write_bytes(data)
    descriptor = os.dup(0)
    os.close(descriptor)  # it is the next that the kernel gives
    made = Series(str(scratch()), "series")
    try:
        first = made.take()
        assert made.take() == first + 1 and len(made.id) == 16
    finally:
        os.close(descriptor)  # a series stays open, and locked, as long as its process lives


@target(CexecError)
def status_of_a_run(data: bytes) -> None:
    """What a journal says of its run, and its lock of who uses it."""
    path = str(scratch() / "journal")
    held_by, _, status = data.partition(b"\n")
    # Not `write_bytes`: a file that is made anew for each input costs more than all else here.
    with open(f"{path}-lock", "r+b" if os.path.exists(f"{path}-lock") else "wb", buffering=0) as lock:
        lock.truncate(lock.write(held_by.replace(b"HERE", socket.gethostname().encode())))
    database = _journal_in_memory(path)
    database.execute("UPDATE run SET status = ?", (status.decode("utf-8", "replace"),))
    for task in (None, 1, 2, 3):
        assert explain_database(database, path, task, 0.0)


@functools.cache
def _journal_in_memory(path: str) -> sqlite3.Connection:
    """One with a task that runs, one that waits to be tried again, and others that have not been begun."""
    journal = Journal(path, NEW, now=0.0, sync=False)
    for number in (1, 2):
        claim = journal.claim(TaskIdentity(bytes([number]), number), "command")
        assert claim is not None
        attempt = journal.begin_attempt(claim, "worker", 0.0)
        if number == 2:
            journal.end_attempt(attempt, "lost", 1.0)
    journal.flush()
    journal.close()
    made = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(path)) as source:
        source.backup(made)
    return made


@target(CexecError)
def journal(data: bytes) -> None:
    """A damaged journal."""
    path = scratch() / "damaged"
    for name in scratch().glob("damaged*"):
        name.unlink()
    path.write_bytes(data)
    try:
        explain(str(path), None, 0.0)
    except CexecError:
        pass
    Journal(str(path), RESUME, now=0.0).close()
