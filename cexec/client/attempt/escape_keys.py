"""The keys by which a person at a terminal speaks to the client, and not to the program: `~.` and others, as in ssh.

Contract: pure.  `EscapeKeys.feed(keys)` returns the keys that are meant for the program, and the commands among them:
LEAVE, SUSPEND, HELP.  `~` has a meaning only at the beginning of a line: after Return, after another command, and at
the start.  The key after it is waited for.  Keys after LEAVE are forgotten.  docs/protocol.md section 4.5.
"""

from __future__ import annotations

ESCAPE, LINE_ENDS = b"~", b"\r\n"
LEAVE, SUSPEND, HELP = "leave", "suspend", "help"
COMMANDS = {b".": LEAVE, b"\x1a": SUSPEND, b"?": HELP}
HELP_TEXT = """\
At the beginning of a line these keys are for cexec:
  ~.   leave; the program is ended
  ~^Z  suspend cexec; the program goes on
  ~?   this help
  ~~   type ~
"""


class EscapeKeys:
    """The state between two keys."""

    __slots__ = ("_fresh", "_held")

    def __init__(self) -> None:
        self._fresh = True  # the next key begins a line
        self._held = False  # `~` has come, and the key after it has not

    def feed(self, keys: bytes) -> tuple[bytes, list[str]]:
        if not self._held and ESCAPE not in keys:
            self._fresh = keys[-1:] in LINE_ENDS if keys else self._fresh
            return keys, []
        typed, commands = bytearray(), []
        for key in (keys[place : place + 1] for place in range(len(keys))):
            if self._held:
                self._held = False
                if key in COMMANDS:
                    commands.append(COMMANDS[key])
                    self._fresh = True
                    if commands[-1] == LEAVE:
                        break
                    continue
                typed += ESCAPE
                if key == ESCAPE:
                    self._fresh = False
                    continue
            elif self._fresh and key == ESCAPE:
                self._held = True
                continue
            typed += key
            self._fresh = key in LINE_ENDS
        return bytes(typed), commands
