"""The text of a system's error."""

from __future__ import annotations

import errno
import os

import pytest

from cexec.system.reason import reason_of


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errno.ENOENT, "no such file or directory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left on device"),
        (OSError(errno.EPERM, "Another user's link", "/tmp/X"), "another user's link"),
        (OSError(errno.EIO, ""), "input/output error"),
        (OSError("Cannot use Name"), "cannot use Name"),
        (OSError(), "unknown error"),
        (0, "unknown error"),
        (None, "unknown error"),
    ],
)
def test_the_reason_is_lower_case_and_never_empty(error: OSError | int | None, text: str) -> None:
    assert reason_of(error) == text


def test_an_error_of_a_real_call() -> None:
    with pytest.raises(OSError) as caught:
        os.open("/proc/no-such", os.O_RDONLY)
    assert reason_of(caught.value) == reason_of(caught.value.errno) == "no such file or directory"
