"""The order in which tasks are committed, and the bytes that each of them adds to files.

Contract: `CommitOrder` puts ended tasks into the table's order, for -k and --collect.  A writer's `additions(ended)`
are the bytes that one task adds to one file, in pieces, and `adds(ended)` is False if there are none; nothing is
written here, `commit` does that.  `LineBuffer` cuts a stream into whole lines as they come.  Memory does not grow with
the size of an output, or of a line.
"""

from __future__ import annotations

import base64
import codecs
import json
import shlex
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

from cexec.cmap.inputs.tables import encode
from cexec.cmap.inputs.tasks import STDERR, STDOUT
from cexec.cmap.results import joblog
from cexec.cmap.results.attempt_files import Output
from cexec.system.terminal import RED, TAG_COLOURS, painted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.appending import AppendFile
    from cexec.cmap.results.outcome import TaskOutcome
    from cexec.system.terminal import Terminal

T = TypeVar("T")

MOST_HELD = 10_000  # tasks (ours) that may be over before one that comes earlier in the table
_THIRDS = 3  # base64 encodes so many bytes at a time


@dataclass(slots=True)
class EndedTask:
    """A task and the outputs of the attempt that counts.  `collected`: what --collect CMD made of them."""

    task: Task
    outcome: TaskOutcome
    outputs: Mapping[str, Output]
    collected: Output | None = None


class CommitOrder(Generic[T]):
    """Passes things on in the order of `numbers`, or at once if there are none."""

    def __init__(self, numbers: Iterable[int] | None = None) -> None:
        self._ordered = numbers is not None
        self._numbers = iter(numbers or ())
        self._held: dict[int, T | None] = {}
        self.current = next(self._numbers, None)  # the number that has its turn

    @property
    def full(self) -> bool:
        """True if so much is held that nothing new should begin."""
        return len(self._held) >= MOST_HELD

    def put(self, number: int, thing: T) -> list[T]:
        """Takes a thing; returns all things that have their turn now."""
        if not self._ordered:
            return [thing]
        self._held[number] = thing
        return self._release()

    def skip(self, number: int) -> list[T]:
        """Says that nothing comes for this number; returns what has its turn now."""
        if self._ordered:
            self._held[number] = None
        return self._release()

    def rest(self) -> list[T]:
        """Returns what is still held because the things before it never came."""
        held = [thing for _, thing in sorted(self._held.items(), key=itemgetter(0)) if thing is not None]
        self._held.clear()
        return held

    def _release(self) -> list[T]:
        released = []
        while self.current in self._held:
            thing = self._held.pop(self.current)
            if thing is not None:
                released.append(thing)
            self.current = next(self._numbers, None)
        return released


class LineBuffer:
    """One stream for --line-buffer.  The begin of a line waits for its end, on disk if it is long."""

    def __init__(self, tag: bytes = b"") -> None:
        self._tag = tag
        self._begun = Output()  # of a line whose end has not come

    def append(self, data: bytes) -> Iterator[bytes]:
        """Takes data; yields the lines that are complete now, in pieces."""
        end = data.rfind(b"\n") + 1
        if end:
            yield from self._release(data[:end])
        if end < len(data):
            self._begun.append(data[end:])

    def end(self) -> Iterator[bytes]:
        """Yields the rest, which has no line end."""
        yield from self._release(b"")

    def _release(self, last: bytes) -> Iterator[bytes]:
        yield from tagged(chain(self._begun.pieces(), [last]), self._tag)
        self._begun.close()
        self._begun = Output()


class Live:
    """The outputs of one attempt for --line-buffer; after `end` no more comes."""

    def __init__(self, files: Mapping[str, AppendFile], task: Task, *, tag: bool = False) -> None:
        """`files` by STDOUT and STDERR."""
        elsewhere = [result.kind for result in task.results]
        self._buffers = {
            kind: (LineBuffer(tag_of(task, file.terminal) if tag else b""), file)
            for kind, file in files.items()
            if kind not in elsewhere
        }
        self.listeners = {kind: partial(self._heard, kind) for kind in self._buffers}

    def _heard(self, kind: str, data: bytes) -> None:
        buffer, file = self._buffers[kind]
        file.append(buffer.append(data))

    def end(self) -> None:
        for buffer, file in self._buffers.values():
            file.append(buffer.end())


def tagged(pieces: Iterable[bytes], tag: bytes) -> Iterator[bytes]:
    """Puts `tag` before every line, and ends the last one: the next line, which may be another task's, begins anew."""
    begins = True
    for piece in pieces:
        if tag and piece:
            begun = tag if begins else b""
            begins = piece.endswith(b"\n")
            piece = begun + piece[: len(piece) - begins].replace(b"\n", b"\n" + tag) + b"\n" * begins
        yield piece
    if not begins:
        yield b"\n"


def reddened(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Makes each line red, and ends the colour before the line does."""
    begin, end = (part.encode() for part in painted("x", RED).split("x"))
    begins = True
    for piece in pieces:
        for line in piece.splitlines(keepends=True):
            whole = line.endswith(b"\n")
            yield (begin if begins else b"") + (line[:-1] + end + b"\n" if whole else line)
            begins = whole
    if not begins:
        yield end


class Printed:
    """One output itself, `kind`.  `tag`: the inputs before each line.  `red`: that of failed tasks is, on a terminal.

    The output of a program that failed is shown, because it may say why.  Standard output that was rejected is not
    shown, because it is no result.
    """

    def __init__(self, file: AppendFile, kind: str, *, tag: bool = False, red: bool = False) -> None:
        self.file = file
        self._kind = kind
        self._tag = tag
        self._red = red and file.terminal.coloured

    def adds(self, ended: EndedTask) -> bool:
        if not ended.outputs[self._kind].size or self._kind in (result.kind for result in ended.task.results):
            return False
        return not (self._kind == STDOUT and ended.outcome.rejected)

    def additions(self, ended: EndedTask) -> Iterable[bytes]:
        if not self.adds(ended):
            return ()
        pieces = ended.outputs[self._kind].pieces()
        if self._red and not ended.outcome.succeeded:
            pieces = reddened(pieces)
        return tagged(pieces, tag_of(ended.task, self.file.terminal) if self._tag else b"")


def tag_of(task: Task, terminal: Terminal) -> bytes:
    """Returns a task's tag for what goes to this terminal, where each task's has another colour."""
    colour = TAG_COLOURS[task.number % len(TAG_COLOURS)]
    return encode(terminal.paint(task.tag.replace("\n", " "), colour)) + b"\t"


class Concatenated:
    """--collect concat and blocks: the standard output of what succeeded; `headed`: each after a line that names it."""

    def __init__(self, file: AppendFile, *, headed: bool = False) -> None:
        self.file = file
        self._headed = headed

    def adds(self, ended: EndedTask) -> bool:
        return ended.outcome.succeeded

    def additions(self, ended: EndedTask) -> Iterable[bytes]:
        if ended.outcome.succeeded:
            if self._headed:
                cells = (f"{name}={shlex.quote(value)}" for name, value in ended.task.parameters.items())
                yield encode(" ".join([f"# row {ended.task.number}:", *cells]).replace("\n", " ") + "\n")
            yield from ended.outputs[STDOUT].pieces()


class Collected:
    """--collect CMD: what it wrote about each task."""

    def __init__(self, file: AppendFile) -> None:
        self.file = file

    def adds(self, ended: EndedTask) -> bool:
        return ended.collected is not None

    def additions(self, ended: EndedTask) -> Iterable[bytes]:
        return () if ended.collected is None else ended.collected.pieces()


class Joblog:
    """--joblog."""

    def __init__(self, file: AppendFile) -> None:
        self.file = file

    def adds(self, ended: EndedTask) -> bool:
        return True

    def additions(self, ended: EndedTask) -> Iterable[bytes]:
        return (joblog.line(ended.outcome),)


class DelimitedResults:
    """--results FILE.csv: the joblog's columns, the row's, and both outputs."""

    def __init__(self, file: AppendFile) -> None:
        self.file = file

    @staticmethod
    def header(columns: Sequence[str]) -> bytes:
        named = (f"V{name}" if name.isdigit() else name for name in columns)
        return b",".join(_cell(name) for name in (*joblog.COLUMNS, *named, "Stdout", "Stderr")) + b"\n"

    def adds(self, ended: EndedTask) -> bool:
        return True

    def additions(self, ended: EndedTask) -> Iterable[bytes]:
        fields = (*(field.strip() for field in joblog.fields(ended.outcome)), *ended.task.parameters.values())
        yield b",".join(map(_cell, fields))
        for kind in (STDOUT, STDERR):
            yield b',"'
            for piece in ended.outputs[kind].pieces():
                yield piece.replace(b'"', b'""')
            yield b'"'
        yield b"\n"


def _cell(text: str) -> bytes:
    if any(character in text for character in ',"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return encode(text)


class JsonResults:
    """--results FILE.jsonl: an object for each task; an output that is no UTF-8 is in `stdout_base64`."""

    BEGIN = b'{"seq": '  # of each line

    def __init__(self, file: AppendFile) -> None:
        self.file = file

    def adds(self, ended: EndedTask) -> bool:
        return True

    def additions(self, ended: EndedTask) -> Iterable[bytes]:
        outcome = ended.outcome
        head = {
            "seq": outcome.number,
            "host": outcome.worker,
            "starttime": round(outcome.started, 3),
            "runtime": round(outcome.runtime, 3),
            "send": outcome.sent,
            "receive": outcome.received,
            "exitval": outcome.exitval,
            "signal": outcome.signal,
            "command": outcome.command(),
            "reason": outcome.reason,
            "parameters": dict(ended.task.parameters),
        }
        yield json.dumps(head)[:-1].encode()
        for kind in (STDOUT, STDERR):
            yield from _json_output(kind, ended.outputs[kind])
        yield b"}\n"


def _json_output(kind: str, output: Output) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in output.pieces():
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        yield f', "{kind}_base64": "'.encode()
        yield from _base64(output.pieces())
    else:
        yield f', "{kind}": "'.encode()
        decoder.reset()
        for piece in output.pieces():
            yield json.dumps(decoder.decode(piece), ensure_ascii=False)[1:-1].encode()
    yield b'"'


def _base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) - len(data) % _THIRDS
        yield base64.b64encode(data[:whole])
        rest = data[whole:]
    yield base64.b64encode(rest)
