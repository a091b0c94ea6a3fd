"""House rule: what a process writes to a terminal or a log has gone through `cexec.system.printable`."""

from __future__ import annotations

import re

import pytest

from tests.environment import ROOT

# A text that is written by one of these has not been made printable by whoever writes it.
RAW = re.compile(r"""os\.write\(.*encode\(|(?<![\w.])print\(|(?:sys\.std(out|err)|_stream)\.write\(""")
ALLOWED = {
    "cexec/system/printable.py": "it is the place",
    "cexec/commands/common.py": "print_line makes all of it printable",
    "cexec/boot/dummy_command.py": "cboot reads it, through ssh",
    "cexec/boot/remote/watchdog.py": "its parent reads a number",
    "cexec/commands/cboot.py": "each cell is printable, and JSON escapes",
    "cexec/commands/cps.py": "each cell is printable, and JSON escapes",
    "cexec/system/storage/eventlog.py": "escape makes each field printable, and JSON escapes",
    "cexec/net/mdns_helper.py": "its owner reads it",
    "cexec/system/process/process.py": "its parent reads it",
    "cexec/pool/__main__.py": "the text is a constant",
    "cexec/pool/array_store.py": "it is a random number, in a file",
    "cexec/python/calls/call_slot.py": "the worker's name is printable; what a call prints is passed on as by cexec",
}


def test_texts_are_written_by_few_places() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cexec").rglob("*.py")
        if RAW.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize("line", ["os.write(2, text.encode())", "    print(text)", 'sys.stderr.write(f"{text}")'])
def test_the_rule_sees_a_text_that_is_written_as_it_is(line: str) -> None:
    assert RAW.search(line)
