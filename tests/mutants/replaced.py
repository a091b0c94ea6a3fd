"""`python -m tests.mutants.replaced [MODULE...]`: runs the tests against the mistakes of known.py; verdicts as JSON."""

from __future__ import annotations

import json
import sys

from tests.mutants.known import EQUIVALENT, KNOWN, TESTS, Replacement
from tests.mutants.runner import ToolError, check, judge, prepare, source_of


def main() -> None:
    prepare()
    wanted = [one for one in (*KNOWN, EQUIVALENT) if one.module in sys.argv[1:] or not sys.argv[1:]]
    limits = {module: check(module, [TESTS[module]]) for module in dict.fromkeys(one.module for one in wanted)}
    print(json.dumps({one.name: _verdict(one, limits[one.module]) for one in wanted}))


def _verdict(one: Replacement, limit: int) -> str:
    path, source = source_of(one.module)
    if source.count(one.before) != 1:
        raise ToolError(f"{one.name}: its text is not in {one.module} exactly once")
    code = compile(source.replace(one.before, one.after), str(path), "exec", dont_inherit=True)
    return judge(one.module, code, [TESTS[one.module]], limit)


if __name__ == "__main__":
    main()
