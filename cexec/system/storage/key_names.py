"""What to say of a key file that is not there, and which key files there are.

Contract: `missing_client_key` and `missing_key` make the errors of `keyfile`, which name the file and say what to type,
and which other file may have been meant.
"""

from __future__ import annotations

import os

from cexec.common_errors import KeyFileError
from cexec.system.storage.user_files import config_directory, configured, quoted


def missing_key(name: str) -> KeyFileError:
    """Returns the error for a key file that is not there, which the user has called `name`."""
    base, dot, suffix = name.rpartition(".")
    made = f"ckeygen {quoted(name)}"
    if base and suffix in ("pub", "relay", "worker"):
        options = {"pub": "", "relay": "--relay ", "worker": "--worker NAME "}[suffix]
        made = f"ckeygen {options}{quoted(base)}{f' {quoted(name)}' if suffix == 'worker' else ''}"
    else:
        base, dot, suffix = name, "", ""  # a private key: another one is known by the client key beside it
    guess = _guess(base, _bases_of(f"{dot}{suffix}" or ".pub", beside=not dot), f"{dot}{suffix}")
    return KeyFileError(
        f"{name} does not exist{_where_else(name)}; {guess}copy it from its owner or make it with: {made}"
    )


def missing_client_key(name: str) -> KeyFileError:
    """Returns the error for a client key that is not there, which the user has called `name`."""
    wanted, missing = (
        (name, f"{name} does not exist")
        if name.endswith(".pub")
        else (f"{name}.pub", f"neither {name} nor {name}.pub exists")
    )
    base = wanted.removesuffix(".pub")
    return KeyFileError(
        f"{missing}{_where_else(name)}; {_guess(base, _bases_of('.pub'), '.pub')}"
        f"copy {wanted} from its owner or make it with: ckeygen {quoted(base)}"
    )


def _where_else(name: str) -> str:
    directory = os.path.dirname(configured(name))
    return f", here or in {directory}" if directory else ""


def _guess(wanted: str, known: list[str], suffix: str) -> str:
    """Asks if another file was meant, which is there; `wanted` and those that are `known` lack the suffix."""
    from difflib import get_close_matches

    found = get_close_matches(wanted, known, 1)
    return f"did you mean {found[0]}{suffix}? Otherwise " if found else ""


def _bases_of(suffix: str, *, beside: bool = False) -> list[str]:
    """Returns the names of key files without their end; `beside`: of those that have a file without it beside them."""
    paths = [path.removesuffix(suffix) for path in client_key_files(suffix)]
    return list(dict.fromkeys(os.path.basename(path) for path in paths if not beside or os.path.isfile(path)))


def client_key_files(suffix: str = ".pub") -> list[str]:
    """Returns the paths of the files *.pub in the current directory, then of those in the user's configuration."""
    found: list[str] = []
    for directory in ("", config_directory()):
        if directory is None:
            continue
        try:
            names = sorted(os.listdir(directory or "."))
        except OSError:
            continue
        found += [os.path.join(directory, name) for name in names if name.endswith(suffix) and name[0] != "."]
    return found
