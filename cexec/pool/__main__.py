"""`python3 -m cexec.pool`: what `cservice pool python3 -m cexec.pool` runs in each slot, for `cexec.Executor`.

Contract: the greeting is written before anything else is loaded, so that a client knows soon with whom it speaks.
Descriptors 0 and 1 are moved away: nothing that a call prints or reads gets into the messages.  Exit status 0 when the
client has said all, or speaks another version, which it hears from our greeting; 100 if it is none.
"""

from __future__ import annotations

import os
import sys

from cexec.pool.call_messages import CLIENT_GREETING, CLIENT_START, WORKER_GREETING

USAGE = 100  # as in cexec.errors
EXPLANATION = """cexec.pool: this program speaks with cexec.Executor only.  Serve it on each machine:
    cservice pool python3 -m cexec.pool
and then, in Python:
    from cexec import Executor
    with Executor("pool.pub") as executor: ...
"""


def main() -> int:
    if os.isatty(0):
        sys.stderr.write(EXPLANATION)
        return USAGE
    source, target = os.dup(0), os.dup(1)
    try:
        os.write(target, WORKER_GREETING)
    except BrokenPipeError:
        return 0
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    from cexec.pool.keeper import Keeper

    greeting = b""
    while CLIENT_GREETING.startswith(greeting) and greeting != CLIENT_GREETING:
        got = os.read(source, 1)
        if not got:
            return 0  # the client has gone
        greeting += got
    if greeting != CLIENT_GREETING:
        if greeting.startswith(CLIENT_START):
            return 0
        sys.stderr.write(EXPLANATION)
        return USAGE
    Keeper(source, target).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
