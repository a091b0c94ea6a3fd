"""The options of cexec-ssh, read as ssh reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.commands.ssh_options import (
    AS_USUAL,
    DEFAULT_TIMEOUT,
    FORCED_TERMINAL,
    IGNORED,
    IGNORED_WITH_VALUE,
    NO_TERMINAL,
    REFUSED,
    REFUSED_WITH_VALUE,
    TERMINAL,
    SshCall,
    parse_call,
)
from cexec.errors import UsageError

WHOLE = "1246ab:c:e:fgi:kl:m:no:p:qstvxAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XYy"  # of OpenSSH 9


def shown(call: SshCall) -> dict[str, object]:
    """What differs from a plain call."""
    plain = SshCall()
    plain.timeout = DEFAULT_TIMEOUT
    values = {name: getattr(call, name) for name in SshCall.__slots__}
    return {name: value for name, value in values.items() if value != getattr(plain, name)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # the host, the user and the command
        (["w"], {"host": "w"}),
        (["w", "ls", "-l"], {"host": "w", "words": ["ls", "-l"]}),
        (["w", "ls -l", "a  b"], {"host": "w", "words": ["ls -l", "a  b"]}),
        (["w", ""], {"host": "w", "words": [""]}),
        (["bob@w", "ls"], {"host": "w", "user": "bob", "words": ["ls"]}),
        (["a@b@w"], {"host": "w", "user": "a@b"}),
        (["-l", "bob", "w"], {"host": "w", "user": "bob"}),
        (["-lbob", "w"], {"host": "w", "user": "bob"}),
        (["-l", "bob", "eve@w"], {"host": "w", "user": "bob"}),
        (["w", "-l", "bob", "ls"], {"host": "w", "user": "bob", "words": ["ls"]}),
        (["-oUser=bob", "eve@w"], {"host": "w", "user": "bob"}),
        (["-l", "-x", "w"], {"host": "w", "user": "-x"}),
        (["10.0.0.1"], {"host": "10.0.0.1"}),
        (["bob@fe80::1"], {"host": "fe80::1", "user": "bob"}),
        (["ssh://bob@w:22"], {"host": "w", "user": "bob"}),
        (["ssh://[fe80::1]:22/"], {"host": "fe80::1"}),
        (["ssh://fe80::1"], {"host": "fe80::1"}),
        (["ssh://w"], {"host": "w"}),
        # options before and after the host
        (["-n", "w", "-T", "ls", "-n"],
         {"host": "w", "no_stdin": True, "terminal": NO_TERMINAL, "words": ["ls", "-n"]}),
        (["w", "-n"], {"host": "w", "no_stdin": True}),
        (["w", "-p", "22", "ls"], {"host": "w", "words": ["ls"]}),
        (["w", "-p22", "ls"], {"host": "w", "words": ["ls"]}),
        (["w", "-", "ls"], {"host": "w", "words": ["-", "ls"]}),
        # -- on either side
        (["--", "w", "ls"], {"host": "w", "words": ["ls"]}),
        (["-q", "--", "w", "-n", "ls"], {"host": "w", "words": ["-n", "ls"]}),
        (["w", "--", "ls", "--", "x"], {"host": "w", "words": ["ls", "--", "x"]}),
        (["w", "--", "-n"], {"host": "w", "words": ["-n"]}),
        (["w", "-n", "--", "-n"], {"host": "w", "no_stdin": True, "words": ["-n"]}),
        (["--", "w", "--", "ls"], {"host": "w", "words": ["ls"]}),
        (["w", "--"], {"host": "w"}),
        (["-l", "--", "w"], {"host": "w", "user": "--"}),
        # clusters
        (["-Cqtt", "w"], {"host": "w", "terminal": FORCED_TERMINAL}),
        (["-Cqt", "w", "-t"], {"host": "w", "terminal": FORCED_TERMINAL}),
        (["-t", "w"], {"host": "w", "terminal": TERMINAL}),
        (["-tT", "w"], {"host": "w", "terminal": NO_TERMINAL}),
        (["-Tt", "w"], {"host": "w", "terminal": TERMINAL}),
        (["-ttt", "w"], {"host": "w", "terminal": FORCED_TERMINAL}),
        (["-xaCp", "22", "w"], {"host": "w"}),
        (["-xaCp22", "w"], {"host": "w"}),
        (["-nlbob", "w"], {"host": "w", "user": "bob", "no_stdin": True}),
        (["-noConnectTimeout=7", "w"], {"host": "w", "no_stdin": True, "timeout": 7.0}),
        # -o
        (["-oConnectTimeout=7", "w"], {"host": "w", "timeout": 7.0}),
        (["-o", "ConnectTimeout=7", "w"], {"host": "w", "timeout": 7.0}),
        (["-o", "connecttimeout 7", "w"], {"host": "w", "timeout": 7.0}),
        (["-o", " ConnectTimeout = 7 ", "w"], {"host": "w", "timeout": 7.0}),
        (["-o", 'ConnectTimeout="7"', "w"], {"host": "w", "timeout": 7.0}),
        (["-o", "ConnectTimeout=1m30s", "w"], {"host": "w", "timeout": 90.0}),
        (["-o", "ConnectTimeout=7", "-oConnectTimeout=8", "w"], {"host": "w", "timeout": 7.0}),
        (["-o", "ConnectTimeout=none", "w"], {"host": "w"}),
        (["-o", "ConnectTimeout=0", "w"], {"host": "w"}),
        (["-o", "ControlPath=/x y", "-oForwardX11 no", "-o", "X=y", "w"], {"host": "w"}),
        (["-o", 'User="bob"', "w"], {"host": "w", "user": "bob"}),
        (["-o", "SendEnv=LANG LC_*", "-oSendEnv GIT_PROTOCOL", "w"],
         {"host": "w", "send": ["LANG", "LC_*", "GIT_PROTOCOL"]}),
        (["-o", 'SetEnv=LANG=C LC_ALL="a b"', "-oSetEnv=LANG=x", "w"],
         {"host": "w", "set": {"LANG": "C", "LC_ALL": "a b"}}),
        (["-o", "RequestTTY=force", "w"], {"host": "w", "terminal": FORCED_TERMINAL}),
        (["-o", "RequestTTY=yes", "w"], {"host": "w", "terminal": TERMINAL}),
        (["-o", "RequestTTY=no", "w"], {"host": "w", "terminal": NO_TERMINAL}),
        (["-o", "RequestTTY=auto", "w"], {"host": "w"}),
        (["-T", "-o", "RequestTTY=force", "w"], {"host": "w", "terminal": NO_TERMINAL}),
        # others
        (["w", "-s", "sftp"], {"host": "w", "subsystem": True, "words": ["sftp"]}),
        (["-x", "-oPermitLocalCommand=no", "-l", "bob", "-s", "--", "w", "sftp"],
         {"host": "w", "user": "bob", "subsystem": True, "words": ["sftp"]}),
        (["-V"], {"version": True}),
        (["-qV", "-Z"], {"version": True}),
        (["-G", "w"], {"host": "w", "settings": True}),
        (["w", "-G"], {"host": "w", "settings": True}),
        # what programs say
        (["-C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", 'User="root"', "-o", "ConnectTimeout=10",
          "-o", 'ControlPath="/root/.ansible/cp/1234"', "-tt", "w", "/bin/sh -c 'echo ~ && sleep 0'"],
         {"host": "w", "user": "root", "timeout": 10.0, "terminal": FORCED_TERMINAL,
          "words": ["/bin/sh -c 'echo ~ && sleep 0'"]}),
        (["-o", "SendEnv=GIT_PROTOCOL", "-p", "22", "git@w", "git-upload-pack '/x'"],
         {"host": "w", "user": "git", "send": ["GIT_PROTOCOL"], "words": ["git-upload-pack '/x'"]}),
        (["-x", "-a", "-oClearAllForwardings=yes", "-2", "w", "-s", "sftp"],
         {"host": "w", "subsystem": True, "words": ["sftp"]}),
    ],
)  # fmt: skip
def test_a_command_line(line: list[str], expected: dict[str, object]) -> None:
    assert shown(parse_call(line)) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], "no host is named"),
        (["-n"], "no host is named"),
        (["--"], "no host is named"),
        (["-l"], "-l needs a value"),
        (["w", "-o"], "-o needs a value"),
        (["-Z", "w"], "no such option '-Z'"),
        (["--foo", "w"], "no such option '--foo'"),
        (["w", "-s"], "-s needs the name of a subsystem"),
        (["@w"], "'@w' names no user"),
        (["bob@"], "'bob@' names no host"),
        ([""], "'' names no host"),
        (["--", "-w"], "'-w' names no host"),
        (["-o", "X", "w"], "-o 'X' has no value"),
        (["-o", "=x", "w"], "-o '=x' has no value"),
        (["-o", 'X="y', "w"], "a quote is not closed"),
        (["-o", "X=it's", "w"], "a quote is not closed"),
        (["-o", "User=#bob", "w"], "-o 'User=#bob' has no value"),
        (["-o", "SendEnv=A=B", "w"], "SendEnv takes names"),
        (["-o", "SendEnv=''", "w"], "SendEnv takes names"),
        (["-o", "RequestTTY=perhaps", "w"], "RequestTTY takes no, yes, force or auto"),
        (["-o", "ConnectTimeout=soon", "w"], "ConnectTimeout takes seconds"),
        (["-o", "SetEnv=LANG", "w"], "SetEnv takes NAME=VALUE"),
    ],
)
def test_wrong_use(line: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_call(line)
    assert words in str(caught.value)


@pytest.mark.parametrize("letter", sorted(REFUSED))
def test_what_cannot_be_done_is_refused_in_words(letter: str) -> None:
    value = ["x"] if letter in REFUSED_WITH_VALUE else []
    for line in ([f"-{letter}", *value, "w"], [f"-q{letter}", *value, "w"], ["w", f"-{letter}", *value, "ls"]):
        with pytest.raises(UsageError, match=f"^-{letter} [a-z ]+"):
            parse_call(line)


def test_every_option_of_ssh_is_known() -> None:
    """A letter with a colon takes a value."""
    letters = WHOLE.replace(":", "")
    valued = {letter for letter, after in zip(WHOLE, f"{WHOLE[1:]} ", strict=True) if after == ":"}
    assert set(IGNORED) | set(IGNORED_WITH_VALUE) | set(REFUSED) | set("nTtslVGo") == set(letters)
    assert set(IGNORED_WITH_VALUE) | set(REFUSED_WITH_VALUE) | set("lo") == valued


@pytest.mark.parametrize("letter", IGNORED + IGNORED_WITH_VALUE)
def test_what_means_nothing_here_is_ignored(letter: str) -> None:
    value = ["x"] if letter in IGNORED_WITH_VALUE else []
    assert shown(parse_call([f"-{letter}", *value, "w", "ls"])) == {"host": "w", "words": ["ls"]}


def test_the_variables_that_a_command_gets() -> None:
    call = parse_call(["-oSendEnv=L* GIT_?ROTOCOL X", "-oSetEnv=LC_ALL=C SECRET=1", "w"])
    environ = {"LANG": "x", "LC_ALL": "y", "LC_TIME": "z", "LESS": "1", "GIT_PROTOCOL": "version=2", "X": "1"}
    assert call.variables(environ) == {"LANG": "x", "LC_ALL": "C", "LC_TIME": "z", "GIT_PROTOCOL": "version=2"}
    assert parse_call(["w"]).variables(environ) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("LC_A='q r'", "q r"),
        ("'LC_A=q r'", "q r"),
        (r"LC_A=q\ r", "q r"),
        (r'LC_A="q\"r"', 'q"r'),
        (r"LC_A='it\'s'", "it's"),
        (r"LC_A=\"q\'", "\"q'"),
        (r"LC_A=a\\b\c", r"a\b\c"),
        (r'LC_A="a\ b"', r"a\ b"),
        ("LC_A=q\\", "q\\"),
        ("""LC_A="it's" """, "it's"),
        ("LC_A='a'\"b\"c", "abc"),
        ("LC_A=x#y # LC_B=z", "x#y"),
        ("LC_A='' LC_A=z", ""),
    ],
)
def test_values_are_quoted_as_for_ssh(text: str, value: str) -> None:
    """Regression: single quotes, backslashes and comments were characters of the value, or wrong use.

    ssh of OpenSSH 9.2 has given the command these values.
    """
    assert parse_call(["-o", f"SetEnv={text}", "w"]).set == {"LC_A": value}
    assert parse_call(["-o", f"SetEnv {text}", "w"]).set == {"LC_A": value}


@pytest.mark.parametrize("text", ["", " ", "#", "# User=bob", "\t#x"])
def test_an_empty_setting_says_nothing(text: str) -> None:
    """Regression: it was wrong use; scripts pass `-o "$OPTION"`, and ssh takes that."""
    assert shown(parse_call(["-o", text, "w"])) == {"host": "w"}


@pytest.mark.parametrize(("taken", "left"), [("LC_A", ["L?_*", "LANG"]), ("L*", []), ("X", ["LC_A", "L?_*", "LANG"])])
def test_a_hyphen_takes_a_pattern_of_sendenv_back(taken: str, left: list[str]) -> None:
    """Regression: the variable was sent all the same."""
    assert parse_call(["-oSendEnv=LC_A L?_* LANG", f"-oSendEnv=-{taken}", "w"]).send == left


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("LC_ABAC", True), ("LC_*", True), ("*", True), ("*C", True), ("*A*A*", True), ("L?_*B?C", True),
        ("**LC**", True),
        ("LC_ABA", False), ("LC_ABAC?", False), ("*B", False), ("*A*A*A*", False), ("?", False), ("*?C?", False),
        ("LC_[A]*", False), ("C_*", False),
    ],
)  # fmt: skip
def test_patterns_of_sendenv(pattern: str, matches: bool) -> None:
    call = parse_call([f"-oSendEnv={pattern}", "w"])
    assert ("LC_ABAC" in call.variables({"LC_ABAC": "x"})) == matches


def test_a_pattern_with_many_stars_takes_no_time() -> None:
    """Regression: each * was tried with each one before it, for minutes; this took 2**40 steps."""
    name = f"LC_{'A' * 60}"
    assert parse_call([f"-oSendEnv={'*A' * 20}*B", "w"]).variables({name: "x"}) == {}
    assert parse_call([f"-oSendEnv={'*' * 40}B", "w"]).variables({name: "x"}) == {}


@pytest.mark.parametrize(
    ("value", "terminal"),
    [("true", TERMINAL), ("YES", TERMINAL), ("False", NO_TERMINAL), ("Force", FORCED_TERMINAL), ("auto", AS_USUAL)],
)
def test_requesttty_takes_what_ssh_takes(value: str, terminal: int) -> None:
    """Regression: true and false were ignored without a word."""
    assert parse_call(["-o", f"RequestTTY={value}", "w"]).terminal == terminal


@given(st.lists(st.text(alphabet="-ntTsVlopq@=w \"'x1", max_size=6), max_size=6))
def test_whatever_is_typed_is_a_call_or_wrong_use(line: list[str]) -> None:
    try:
        call = parse_call(line)
    except UsageError as error:
        assert str(error)
    else:
        assert call.version or call.host
        assert call.terminal in (NO_TERMINAL, AS_USUAL, TERMINAL, FORCED_TERMINAL)
