"""Arrays that a call does not carry: it names them by number, and finds them in the store of its worker.

Contract: `use` says where the store is.  `shared_array` is what a pickle calls for each of them: it maps the file, for
reading only unless `mode` is "c", which gives the call a copy of each page that it writes to.  `MissingArrayError` says
that the store has no such array, or not any more; the call has not begun then, and can be sent again.  numpy is
imported by the first array.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cexec.errors import CexecError

if TYPE_CHECKING:
    from typing import BinaryIO

_store = ""


class MissingArrayError(CexecError):
    """`number`: of the array."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the store of this worker does not have array {number}")
        self.number = number


def use(path: str) -> None:
    """Says in which directory the arrays are."""
    global _store
    _store = path


def shared_array(number: int, dtype: Any, shape: tuple[int, ...], order: str, mode: str) -> Any:
    """Returns a `numpy.memmap`."""
    import numpy

    try:
        with _open(os.path.join(_store, str(number))) as file:
            return numpy.memmap(file, dtype=dtype, mode=mode, shape=shape, order=order)  # type: ignore[call-overload]
    except OSError:
        raise MissingArrayError(number) from None


def _open(path: str) -> BinaryIO:
    """Opens a file of our own.  Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.fstat(fd).st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(f"{path} is not ours")
    return open(fd, "rb")
