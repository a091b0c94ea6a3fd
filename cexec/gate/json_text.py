"""JSON as clients send it.

Contract: `parse_json` returns the value of a text, or raises `Problem`: 400 for what is not JSON, 422 for half of a
character (a lone surrogate), which JSON can write and neither a program, a file nor SQLite can have.
"""

from __future__ import annotations

import json
import re
from typing import Any

from cexec.gate.problem import Problem

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that is good as one of two only


def parse_json(text: bytes | str) -> Any:
    try:
        if isinstance(text, bytes):
            text = text.decode()
        value = json.loads(text, parse_constant=_refuse_constant)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    except UnicodeEncodeError:
        raise Problem(422, "the body contains half a character") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except ValueError as error:
        place = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Problem(400, f"the body is not JSON{place}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
