"""The command line of cexec-ssh(1): ssh's options, read as ssh reads them.

Contract: pure.  `parse_call` returns a `SshCall`; it raises `UsageError` for words that ssh would refuse, and for those
that ask for what cexec cannot do.  Options stand before and after the host, clustered and with attached values; `--`
ends them on either side of it.  `-V` ends the reading at once, as in ssh.  Nothing but this project's errors is
imported, because every call loads this module.  docs/ssh.md.
"""

from __future__ import annotations

from cexec.common_errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "cexec-ssh"
NO_TERMINAL, AS_USUAL, TERMINAL, FORCED_TERMINAL = -1, 0, 1, 2  # -T, no option, -t, -tt

IGNORED = "1246AaCMqvxXYygkK"  # options without a value that mean nothing here
IGNORED_WITH_VALUE = "BbcEeFIimpSP"  # options with a value that mean nothing here
OBEYED_WITH_VALUE = "lo"
REFUSED = {  # options that would change what the call does, with the reason
    "f": "goes to the background, which cexec-ssh does not; start it with & instead",
    "N": "runs no command, but cexec-ssh carries nothing else",
    "L": "forwards a port, and cexec-ssh carries the command's standard input and outputs only",
    "R": "forwards a port, and cexec-ssh carries the command's standard input and outputs only",
    "D": "forwards ports, and cexec-ssh carries the command's standard input and outputs only",
    "J": "jumps over another host; join the networks with cproxy instead",
    "W": "joins standard input to a port; run a program such as nc on the worker instead",
    "w": "forwards a network device, and cexec-ssh carries the command's standard input and outputs only",
    "O": "speaks to a master process, and cexec-ssh has none",
    "Q": "lists ssh's algorithms, and cexec-ssh has others",
}
REFUSED_WITH_VALUE = "LRDJWwOQ"
ACCEPTED = ("LANG", "GIT_PROTOCOL")  # variables that a worker takes, and all that begin with
ACCEPTED_BEGINNING = "LC_"
REQUESTS = {  # RequestTTY takes these values
    "no": NO_TERMINAL, "false": NO_TERMINAL, "auto": AS_USUAL, "yes": TERMINAL, "true": TERMINAL,
    "force": FORCED_TERMINAL,
}  # fmt: skip
URI = "ssh://"
# Seconds (ours) in which the worker must have answered; ConnectTimeout changes it.  With the start of Python and the
# question which workers there are, the user knows within 5.
DEFAULT_TIMEOUT = 4.0
LONGEST_TIMEOUT = 1_000_000.0  # seconds (ours)
SUFFIXES = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}  # of ssh's times


class SshCall:
    """What a command line asks for.

    `user` is empty if none is named.  `words` are those of the command.  `send` has patterns of SendEnv, `set` the
    variables of SetEnv.  `terminal` is one of the four numbers above.
    `timeout`: seconds in which the worker must have answered.
    """

    __slots__ = ("host", "no_stdin", "send", "set", "settings", "subsystem", "terminal", "timeout", "user", "version",
                 "words")  # fmt: skip

    def __init__(self) -> None:
        self.host = ""
        self.user = ""
        self.words: list[str] = []
        self.terminal = AS_USUAL
        self.no_stdin = False
        self.subsystem = False
        self.version = False  # -V
        self.settings = False  # -G
        self.timeout = 0.0  # seconds; 0 is not set
        self.send: list[str] = []
        self.set: dict[str, str] = {}

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Returns the variables that the command gets: those of SetEnv, and those of `environ` that SendEnv matches."""
        sent = {name: value for name, value in environ.items() if any(_matches(name, one) for one in self.send)}
        return {name: value for name, value in {**sent, **self.set}.items() if is_accepted(name)}


def is_accepted(name: str) -> bool:
    """Returns True if workers take this variable from their clients."""
    return name in ACCEPTED or name.startswith(ACCEPTED_BEGINNING)


def parse_call(words: list[str]) -> SshCall:
    """Reads the words behind the command's name."""
    call = SshCall()
    rest, ended = _parse_options(call, words)
    if not call.version:
        if not rest:
            raise UsageError("no host is named; usage: cexec-ssh [ssh options] [user@]WORKER [COMMAND...]")
        _set_host(call, rest[0])
        rest = rest[1:]
        if not ended:
            rest, _ = _parse_options(call, rest)
        elif rest[:1] == ["--"]:
            rest = rest[1:]
        call.words = rest
        if call.subsystem and not rest:
            raise UsageError("-s needs the name of a subsystem behind the host, such as sftp")
    call.timeout = call.timeout or DEFAULT_TIMEOUT
    return call


def _parse_options(call: SshCall, words: list[str]) -> tuple[list[str], bool]:
    """Reads options as getopt(3) does; returns the words behind them, and True if `--` has ended them."""
    place = 0
    while place < len(words) and not call.version:
        word = words[place]
        if word == "--":
            return words[place + 1 :], True
        if len(word) < 2 or word[0] != "-":
            break
        place += 1
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in OBEYED_WITH_VALUE or letter in IGNORED_WITH_VALUE or letter in REFUSED_WITH_VALUE:
                if not letters:
                    if place == len(words):
                        raise UsageError(f"-{letter} needs a value")
                    letters = words[place]
                    place += 1
                _take_value(call, letter, letters)
                break
            _take_flag(call, letter, word)
    return words[place:], False


def _take_flag(call: SshCall, letter: str, word: str) -> None:
    if letter == "n":
        call.no_stdin = True
    elif letter == "T":
        call.terminal = NO_TERMINAL
    elif letter == "t":
        call.terminal = TERMINAL if call.terminal < TERMINAL else FORCED_TERMINAL
    elif letter == "s":
        call.subsystem = True
    elif letter == "V":
        call.version = True
    elif letter == "G":
        call.settings = True
    elif letter in REFUSED:
        raise UsageError(f"-{letter} {REFUSED[letter]}")
    elif letter not in IGNORED:
        raise UsageError(f"no such option '{word if word[1] == '-' else f'-{letter}'}'; man cexec-ssh has all")


def _take_value(call: SshCall, letter: str, value: str) -> None:
    if letter == "l":
        call.user = call.user or value  # the first one counts, as for all settings of ssh
    elif letter == "o":
        _take_setting(call, value)
    elif letter in REFUSED:
        raise UsageError(f"-{letter} {REFUSED[letter]}")


def _take_setting(call: SshCall, text: str) -> None:
    """Takes a line of ssh_config(5): `Name value`, `Name=value`, `Name = "value"`; an empty one says nothing."""
    line = text.strip()
    if not line or line.startswith("#"):
        return
    end = next((place for place, char in enumerate(line) if char in "= \t"), len(line))
    name, rest = line[:end].lower(), line[end:].lstrip(" \t")
    values = _split(rest[1:] if rest.startswith("=") else rest, text)
    if not name or not values:
        raise UsageError(f"-o {text!r} has no value; write it as NAME=VALUE")
    if name == "user":
        call.user = call.user or values[0]
    elif name == "connecttimeout":
        call.timeout = call.timeout or _timeout(values[0], text)
    elif name == "sendenv":
        for pattern in values:
            _take_pattern(call, pattern, text)
    elif name == "setenv":
        for one in values:
            variable, equals, value = one.partition("=")
            if not equals:
                raise UsageError(f"-o {text!r}: SetEnv takes NAME=VALUE")
            call.set.setdefault(variable, value)
    elif name == "requesttty":
        wanted = REQUESTS.get(values[0].lower())
        if wanted is None:
            raise UsageError(f"-o {text!r}: RequestTTY takes no, yes, force or auto")
        call.terminal = wanted if call.terminal == AS_USUAL else call.terminal


def _take_pattern(call: SshCall, pattern: str, text: str) -> None:
    """Takes a pattern of SendEnv; with a hyphen in front it takes back those that it matches."""
    if not pattern or "=" in pattern:
        raise UsageError(f"-o {text!r}: SendEnv takes names, with * and ? for any characters")
    if pattern[0] == "-":
        call.send = [one for one in call.send if not _matches(one, pattern[1:])]
    else:
        call.send.append(pattern)


def _split(text: str, whole: str) -> list[str]:
    """Splits as ssh does: at white space outside of quotes of both kinds, up to a word that begins with #.

    A backslash stands before a quote, another backslash, and outside of quotes a space; else it is a character.
    """
    values: list[str] = []
    quote, inside, place = "", False, 0
    while place < len(text):
        char, after = text[place], text[place + 1 : place + 2]
        place += 1
        if not quote and char in " \t":
            inside = False
            continue
        if not inside:
            if char == "#":
                break
            values.append("")
            inside = True
        if char == "\\" and after and after in ("\"'\\" if quote else "\"'\\ "):
            values[-1] += after
            place += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        else:
            values[-1] += char
    if quote:
        raise UsageError(f"-o {whole!r}: a quote is not closed")
    return values


def _timeout(value: str, text: str) -> float:
    """Reads a time of ssh: seconds, or such as 1m30s.  `none` and 0 are the usual time."""
    total, digits = 0, ""
    for char in f"{value.lower()}s" if value[-1:].isdigit() else value.lower():
        if char.isascii() and char.isdigit():
            digits += char
        elif char in SUFFIXES and digits:
            total, digits = total + int(digits) * SUFFIXES[char], ""
        elif value.lower() == "none":
            break
        else:
            raise UsageError(f"-o {text!r}: ConnectTimeout takes seconds")
    return min(float(total), LONGEST_TIMEOUT) or DEFAULT_TIMEOUT


def _set_host(call: SshCall, word: str) -> None:
    """Reads `[user@]host` and `ssh://[user@]host[:port]`."""
    if word.startswith(URI):
        word = word[len(URI) :].rstrip("/")
        host, colon, port = word.rpartition(":")
        if colon and port.isdigit() and (host.count(":") == 0 or host.endswith("]")):
            word = host
    user, at, host = word.rpartition("@")
    if at and not user:
        raise UsageError(f"{word!r} names no user before the @")
    call.user = call.user or user
    call.host = host.removeprefix("[").removesuffix("]")
    if not call.host or call.host.startswith("-"):
        raise UsageError(f"{word!r} names no host")


def _matches(name: str, pattern: str) -> bool:
    """Matches with * and ?, as SendEnv does; the last * alone is tried again, so that many of them take no time."""
    place = at = 0  # in the name, in the pattern
    again = star = -1  # where the last * was tried, and where it is
    while place < len(name):
        if pattern[at : at + 1] == "*":
            star, again, at = at, place, at + 1
        elif pattern[at : at + 1] in ("?", name[place]):
            place, at = place + 1, at + 1
        elif star >= 0:
            again += 1  # it stands for one character more
            place, at = again, star + 1
        else:
            return False
    return not pattern[at:].strip("*")
