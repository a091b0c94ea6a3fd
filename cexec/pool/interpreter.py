"""What a client and a worker have to have in common, so that the pickles of one can be read by the other.

Contract: `Interpreter.here()` describes this one; `encode` and `decode` make JSON of it and back, where a field that is
not known yet is passed over.  `difference` says in words why two do not match.  Functions travel as byte code, so
Python's minor version has to be the same.  cloudpickle's major version has to be the same, and the order of bytes.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass

from cexec import __version__
from cexec.errors import ProtocolError

LONGEST_TEXT = 255  # characters (ours) of a field: it may be told to a user


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One side.  `cloudpickle` is empty if it is not installed."""

    python: str
    cloudpickle: str
    byteorder: str
    cexec: str
    pid: int

    @classmethod
    def here(cls) -> Interpreter:
        return cls(
            python=".".join(map(str, sys.version_info[:3])),
            cloudpickle=_cloudpickle_version(),
            byteorder=sys.byteorder,
            cexec=__version__,
            pid=os.getpid(),
        )

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes | bytearray) -> Interpreter:
        """Raises `ProtocolError`."""
        try:
            fields = json.loads(data)
            texts = [fields[name] for name in ("python", "cloudpickle", "byteorder", "cexec")]
            if not all(isinstance(text, str) and len(text) <= LONGEST_TEXT for text in texts):
                raise TypeError
            python, cloudpickle, byteorder, cexec = texts
            return cls(python, cloudpickle, byteorder, cexec, int(fields["pid"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise ProtocolError("a damaged hello of cexec.pool") from None

    def difference(self, here: Interpreter) -> str:
        """Returns what keeps this one from working with `here`, as `Python 3.12, this is 3.11`; empty if nothing."""
        for name, theirs, ours in (
            ("Python", _start(self.python, 2), _start(here.python, 2)),
            ("cloudpickle", _start(self.cloudpickle, 1), _start(here.cloudpickle, 1)),
            ("byte order", self.byteorder, here.byteorder),
        ):
            if not theirs:
                return f"no {name}, which `pip install cloudpickle` brings"
            if theirs != ours:
                return f"{name} {theirs}, this is {ours}"
        return ""


def _start(version: str, count: int) -> str:
    return ".".join(version.split(".")[:count])


def _cloudpickle_version() -> str:
    try:
        import cloudpickle
    except ImportError:
        return ""
    return str(cloudpickle.__version__)
