"""Why a host cannot serve, in words: from ssh's error messages, and from what the host answers.

Contract: a `HostFailure` has a `kind`, which is one of `KINDS`, a text that says what happened and what to do, and
`temporary`: the same step may work a moment later.  `of_ssh` explains an ssh that has ended before the dummy command
answered.
"""

from __future__ import annotations

from dataclasses import dataclass

NAME = "name"  # no such host
NETWORK = "network"  # no way to the host, or no answer
REFUSED = "refused"  # nobody listens at the port
AUTHENTICATION = "authentication"
HOST_KEY = "host-key"  # unknown, or another one than before
SHELL = "shell"  # the login shell prints something in place of running the command
PYTHON = "python"  # absent, too old, or incomplete
SPACE = "space"
PERMISSION = "permission"
WHEEL = "wheel"  # a package that this host needs is not to be had
WORKER = "worker"  # cservice did not start
SILENCE = "silence"  # it serves, but does not answer the census
CONNECTION = "connection"  # lost in the middle
BUSY = "busy"  # another cboot is at work there
SSH = "ssh"  # something else that ssh says
REMOTE = "remote"  # something else that the host says
INTERRUPTED = "interrupted"  # by a signal here
KINDS = (
    NAME, NETWORK, REFUSED, AUTHENTICATION, HOST_KEY, SHELL, PYTHON, SPACE, PERMISSION, WHEEL, WORKER, SILENCE,
    CONNECTION, BUSY, SSH, REMOTE, INTERRUPTED,
)  # fmt: skip
SSH_FAILED = 255  # ssh's status for its own errors; any other is that of the command
SHOWN = 120  # characters (ours) of what a shell prints


@dataclass(frozen=True, slots=True)
class HostFailure:
    """One reason, of one host."""

    kind: str
    text: str
    temporary: bool = False


class HostError(Exception):
    """The step of one host has failed; the other hosts go on."""

    def __init__(self, failure: HostFailure) -> None:
        super().__init__(failure.text)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class _Sign:
    """A part of ssh's message, and what it means; `{line}` is the whole line, `{host}` the name in known_hosts."""

    text: str
    kind: str
    words: str
    temporary: bool = False


_LOGIN = "log in once by hand, or load the key into ssh-agent"
_UNKNOWN = "its host key is unknown here; log in once by hand to compare it: ssh {host}"
# The first sign that a line has counts; the messages are those of OpenSSH.
_SIGNS = (
    _Sign("temporary failure in name resolution", NETWORK, "no name server answers: {line}", True),
    _Sign("could not resolve hostname", NAME, "there is no host of this name: {line}"),
    _Sign("remote host identification has changed", HOST_KEY, "its host key is another one than before; if that is "
          "right: ssh-keygen -R {host}, then log in once by hand"),
    _Sign("host key verification failed", HOST_KEY, _UNKNOWN),
    _Sign("host key is known for", HOST_KEY, _UNKNOWN),
    _Sign("connection refused", REFUSED, "nobody listens there: {line}", True),
    _Sign("no route to host", NETWORK, "there is no way to it: {line}", True),
    _Sign("network is unreachable", NETWORK, "there is no way to it: {line}", True),
    _Sign("timed out", NETWORK, "it does not answer: {line}", True),
    _Sign("system is booting up", NETWORK, "it is booting: {line}", True),
    _Sign("permission denied", AUTHENTICATION, f"it does not let you in: {{line}}; {_LOGIN}"),
    _Sign("too many authentication failures", AUTHENTICATION, f"it does not let you in: {{line}}; {_LOGIN}"),
    _Sign("connection closed", NETWORK, "it ends the connection: {line}", True),
    _Sign("connection reset", NETWORK, "it ends the connection: {line}", True),
    _Sign("broken pipe", NETWORK, "the connection broke: {line}", True),
    _Sign("unable to negotiate", SSH, "{line}"),
)  # fmt: skip


def of_ssh(status: int, errors: str, noise: bytes, host: str) -> HostFailure:
    """Explains an ssh that ended with `status`; `errors`: its standard error, `noise`: its standard output.

    `host`: what known_hosts calls it.
    """
    lines = [line.strip() for line in errors.replace("\r", "").splitlines() if line.strip()]
    if status == SSH_FAILED:
        # A changed key has several lines, of which the first one says most; a missing one has only the last.
        for sign in _SIGNS:
            for line in lines:
                if sign.text in line.lower():
                    return HostFailure(sign.kind, sign.words.format(line=line, host=host), sign.temporary)
        return HostFailure(SSH, lines[-1] if lines else "ssh ended without a word", not lines)
    said = shown(noise) or (lines[-1] if lines else "")
    words = f"prints {said!r} and ends" if said else "ends"
    return HostFailure(SHELL, f"its login shell {words} with status {status} in place of running a command")


def shown(noise: bytes) -> str:
    """Returns the end of what a shell has printed, for people."""
    text = " ".join(noise.decode("utf-8", "replace").split())
    return text if len(text) <= SHOWN else f"...{text[-SHOWN:]}"
