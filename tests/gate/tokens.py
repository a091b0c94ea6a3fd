"""Tokens for the callers of a `cgate`.

Contract: `make_token` does to a state file what `cgate token add` does, in this process: a start of the command takes a
hundred times as long, and tests/commands/test_cgate_access.py has those.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from time import time

from cexec.gate.access.caller import TokenRole
from cexec.gate.access.key_rows import add_token
from cexec.gate.store.database import Database


def make_token(
    state: str | os.PathLike[str], name: str, role: TokenRole = TokenRole.SUBMITTER, applications: Sequence[str] = ()
) -> str:
    """The text of a new token, of all applications if none are named."""
    of = frozenset(applications) or None
    with closing(Database(os.fspath(state), sole=False)) as database:
        return database.write_now(lambda connection: add_token(connection, name, role, of, time())).text
