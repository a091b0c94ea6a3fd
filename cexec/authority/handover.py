"""`ckeygen --give` and `ckeygen --take`: the exchange of a file on the group's sockets, and the files on both sides.

Contract: `give` waits until the file has been taken, and `take` until it is written; both raise `CexecError` with the
reason if that does not come about.  They use the same group, port and interfaces as all datagrams of cexec.
"""

from __future__ import annotations

import os
import select
from time import monotonic
from typing import TYPE_CHECKING

from cexec.authority.exchange import Giver, Taker, load_spake2
from cexec.authority.make import EXIT_PUBLIC, KeyMakingError, write_undisturbed
from cexec.errors import CexecError, KeyFileError, LocalError
from cexec.net.announcer import Announcer
from cexec.net.group_sockets import REFRESH_INTERVAL, GroupSockets
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.protocol.base.certificate import valid_name
from cexec.protocol.base.keys import ClientKey, RelayKey, WorkerKey, decode_key, encode_key
from cexec.protocol.datagrams.joining import HEAD
from cexec.system.io.wakeup import poll_timeout
from cexec.system.storage.keyfile import read_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.authority.code import Code
    from cexec.protocol.base.keys import Key

GIVEN = "what is given by a code is a key for one machine; the private key makes all others and stays where it is"


class HandoverError(CexecError):
    """A file was not given, or not taken; the code is used up."""


def give(path: str, code: Code, environ: Mapping[str, str], ready: Callable[[], None]) -> None:
    """Gives the key in `path` to the first machine that knows the code; calls `ready` when that can be typed."""
    load_spake2()
    key = read_key(path, (ClientKey, WorkerKey, RelayKey), GIVEN)
    name = os.path.basename(path)
    entries, port = groups_from_environment(environ), udp_port_from_environment(environ)
    groups = GroupSockets(entries, port)
    try:
        if not groups.filenos():
            raise LocalError(f"cannot hear the group: {groups.description()}")
        giver = Giver(code, name if valid_name(name) else "key", encode_key(key).encode(), monotonic())
        ready()
        refresh_at = monotonic() + REFRESH_INTERVAL
        while not giver.over:
            _wait(groups.filenos(), min(giver.next_timeout(), refresh_at))
            now = monotonic()
            if now >= refresh_at:  # addresses may have changed meanwhile
                refresh_at = now + REFRESH_INTERVAL
                groups.refresh()
            for data, source, via, _ in groups.receive(prefix=HEAD):
                for answer in giver.receive_data(data, now):
                    groups.send_to(answer, source, via)
            giver.handle_timeout(now)
    finally:
        groups.close()
    if giver.failure:
        raise HandoverError(giver.failure)


def take(code: Code, path: str | None, environ: Mapping[str, str]) -> tuple[str, Key]:
    """Takes a key and writes it to `path`, or to the giver's name for it; returns where it is."""
    if path is not None and os.path.lexists(path):
        raise KeyMakingError(EXIT_PUBLIC, f"{path} exists and was left untouched; the code was not used")
    load_spake2()
    announcer = Announcer(groups_from_environment(environ), udp_port_from_environment(environ))
    try:
        taker = Taker(code, monotonic())
        going = taker.handle_timeout(monotonic())
        while True:
            for data in going:
                announcer.send(data)
            if taker.over:
                break
            _wait(announcer.filenos(), taker.next_timeout())
            now = monotonic()
            going = [answer for data, _ in announcer.receive() for answer in taker.receive_data(data, now)]
            going += taker.handle_timeout(now)
    finally:
        announcer.close()
    if taker.failure:
        raise HandoverError(taker.failure)
    return _keep(taker, path)


def _keep(taker: Taker, path: str | None) -> tuple[str, Key]:
    """Writes what was taken, if it is a key, to a file that did not exist."""
    if path is None:
        if not valid_name(taker.name) or taker.name.startswith("."):
            raise HandoverError(
                f"the file was given under the name {taker.name!r}; name one yourself: --take CODE FILE"
            )
        path = taker.name
    try:
        key = decode_key(taker.content)
    except KeyFileError as error:
        raise HandoverError(f"what was given {error}") from None
    try:
        write_undisturbed(path, key)
    except FileExistsError:
        raise KeyMakingError(EXIT_PUBLIC, f"{path} exists and was left untouched; give the key again") from None
    except LocalError as error:
        raise KeyMakingError(EXIT_PUBLIC, str(error)) from None
    return path, key


def _wait(fds: list[int], until: float) -> None:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(poll_timeout(max(0.0, until - monotonic())))
