"""Files that somebody may have damaged or planted: keys, tables, journals, records of jobs, series."""

from __future__ import annotations

import io
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cexec.cmap.inputs.parameter_files import read_parameters
from cexec.cmap.results.journal import NEW, RESUME, Journal
from cexec.cmap.watch.explain import explain
from cexec.errors import CexecError, KeyFileError, UsageError
from cexec.protocol.base.keys import checksum_of, decode_key, encode_key
from cexec.system.process.orphans import sweep
from cexec.system.storage.series import Series
from tests.fuzz.target import scratch, target, words


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
    path = scratch() / "journal"
    if not path.exists():
        Journal(str(path), NEW, now=0.0).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE run SET status = ?", (words(data).encode("utf-8", "replace").decode(),))
        database.commit()
    Path(f"{path}-lock").write_bytes(data)
    explain(str(path), None, 0.0)
    explain(str(path), 1, 0.0)


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
