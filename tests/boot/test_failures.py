"""What ssh says, in words; the messages are those of OpenSSH 9."""

from __future__ import annotations

import pytest

from cexec.boot import failures
from cexec.boot.failures import KINDS, of_ssh

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /root/.ssh/known_hosts:1
Host key for node has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("errors", "kind", "temporary", "words"),
    [
        ("ssh: Could not resolve hostname nod: Name or service not known\r\n", failures.NAME, False, "no host of this"),
        (
            "ssh: Could not resolve hostname n: Temporary failure in name resolution",
            failures.NETWORK,
            True,
            "name server",
        ),
        ("ssh: connect to host n port 22: Connection refused", failures.REFUSED, True, "port 22"),
        ("ssh: connect to host n port 22: No route to host", failures.NETWORK, True, "no way"),
        ("ssh: connect to host n port 22: Network is unreachable", failures.NETWORK, True, "no way"),
        ("ssh: connect to host n port 22: Connection timed out", failures.NETWORK, True, "does not answer"),
        ("Connection timed out during banner exchange", failures.NETWORK, True, "does not answer"),
        (
            "kex_exchange_identification: Connection closed by remote host",
            failures.NETWORK,
            True,
            "ends the connection",
        ),
        ("u@n: Permission denied (publickey,password).", failures.AUTHENTICATION, False, "(publickey,password)"),
        (
            "Received disconnect from n: 2: Too many authentication failures",
            failures.AUTHENTICATION,
            False,
            "let you in",
        ),
        (
            "Host key verification failed.",
            failures.HOST_KEY,
            False,
            "unknown here; log in once by hand to compare it: ssh N",
        ),
        (
            "No ED25519 host key is known for n and you have requested strict checking.\nHost key verification failed.",
            failures.HOST_KEY,
            False,
            "unknown here",
        ),
        (CHANGED, failures.HOST_KEY, False, "ssh-keygen -R N, then"),
        (
            '"System is booting up. Unprivileged users are not permitted to log in yet."\nConnection closed by n',
            failures.NETWORK,
            True,
            "booting",
        ),
        ("Welcome!\nBad configuration option: xx", failures.SSH, False, "Bad configuration option: xx"),
        ("", failures.SSH, True, "without a word"),
    ],
)
def test_an_error_of_ssh_has_a_kind(errors: str, kind: str, temporary: bool, words: str) -> None:
    found = of_ssh(255, errors, b"", "N")
    assert (found.kind, found.temporary) == (kind, temporary)
    assert words in found.text
    assert found.kind in KINDS


def test_a_banner_does_not_hide_the_reason() -> None:
    banner = "This machine is watched.\nPermission is needed.\n"
    found = of_ssh(255, f"{banner}u@n: Permission denied (publickey).", b"", "n")
    assert found.kind == failures.AUTHENTICATION and "u@n: Permission denied" in found.text


@pytest.mark.parametrize(
    ("status", "errors", "noise", "words"),
    [
        (
            1,
            "",
            b"\nThis account is currently\r\nnot available.\n",
            "prints 'This account is currently not available.'",
        ),
        (127, "sh: not found", b"", "prints 'sh: not found' and ends with status 127"),
        (0, "", b"", "ends with status 0"),
        (1, "", b"x" * 500, "prints '..." + "x" * 120),
    ],
)
def test_a_shell_that_does_not_run_commands_is_quoted(status: int, errors: str, noise: bytes, words: str) -> None:
    found = of_ssh(status, errors, noise, "n")
    assert found.kind == failures.SHELL and words in found.text
