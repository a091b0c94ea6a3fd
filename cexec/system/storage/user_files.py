"""Where a user's files are: our directories by the XDG variables, keys, and the list of revoked certificates.

Contract: this is the one place that knows the XDG variables and where their directories are without them.  A variable
whose value is not an absolute path is ignored (XDG Base Directory Specification 0.8).  Nothing is made or opened here,
and nothing says that a directory is the user's own: `directories` does.  Every call of `cexec` loads this module; it
asks `never_seen` if the list, with all that reads it, is needed.  docs/protocol.md section 1.6.
"""

from __future__ import annotations

import os

from cexec.protocol.base import sodium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DESCRIPTOR_DIRECTORIES = ("/dev/fd/", "/proc/self/fd/")
SUFFIX = ".revoked"
KEY_SUFFIXES = (".pub", ".worker")
STATE_HOME = ("XDG_STATE_HOME", ".local/state")  # the variable, and the directory below HOME without it


def key_descriptor(path: str) -> int | None:
    """Returns the descriptor of `path` (`/dev/fd/63`, as `<(pass show app)` gives), which must never reach a job."""
    if path == "/dev/stdin":
        return 0
    for directory in _DESCRIPTOR_DIRECTORIES:
        digits = path.removeprefix(directory)
        if digits != path and digits.isascii() and digits.isdigit():
            return int(digits)
    return None


def quoted(path: str) -> str:
    """Returns `path` as a shell reads it."""
    plain = path.isascii() and path.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
    return path if plain else "'" + path.replace("'", "'\\''") + "'"


def homes(environ: Mapping[str, str], variable: str, usual: str) -> Iterator[str]:
    """Our directory below the one that the variable names, and the one below HOME."""
    for base in (environ.get(variable, ""), f"{environ.get('HOME', '')}/{usual}"):
        if base.startswith("/") and base != f"/{usual}":
            yield f"{base}/cexec"


def config_directory(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns $XDG_CONFIG_HOME/cexec, else ~/.config/cexec."""
    return next(homes(environ, "XDG_CONFIG_HOME", ".config"), None)


def configured(name: str) -> str:
    """Returns the path of a plain name in the user's configuration; empty for a path, or if there is no such place."""
    directory = None if "/" in name else config_directory()
    return "" if directory is None else f"{directory}/{name}"


def list_path(key_path: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns where the list of a key file is: $CEXEC_REVOKED, or beside it; None beside a pipe."""
    named = environ.get("CEXEC_REVOKED", "")
    if named:
        return named
    if key_descriptor(key_path) is not None:
        return None
    for suffix in KEY_SUFFIXES:
        if key_path.endswith(suffix) and len(key_path) > len(suffix):
            return key_path.removesuffix(suffix) + SUFFIX
    return key_path + SUFFIX


def memory_name(authority_public: bytes) -> str:
    """Returns the name of the file, in the directory for state, that has the number of the latest list."""
    return f"revoked-{sodium.keyed_hash(b'', b'cexec 1 revocation memory', authority_public, size=8).hex()}"


def never_seen(path: str | None, authority_public: bytes, environ: Mapping[str, str] = os.environ) -> bool:
    """Returns True if there is no list at `path`, and no memory of one wherever this user's could be."""
    memory = memory_name(authority_public)
    found = [f"{directory}/{memory}" for directory in homes(environ, *STATE_HOME)]
    return all(map(_absent, found if path is None else [path, *found]))


def _absent(path: str) -> bool:
    """Returns True if nothing has this name; a place that cannot be looked at may have something."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
