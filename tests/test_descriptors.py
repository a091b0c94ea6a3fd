"""The check of what a test leaves open sees what it looks for."""

from __future__ import annotations

import os
import socket
import threading
import time

from tests.descriptors import descriptors, end_of_process, left_open


def test_what_was_opened_and_not_closed_is_named() -> None:
    before = descriptors()
    assert left_open(before) == {}
    fd = os.open(os.devnull, os.O_RDONLY)
    assert left_open(before, patience=0.0) == {fd: os.devnull}
    os.close(fd)
    assert left_open(before) == {}


def test_a_number_that_means_something_else_by_now_is_new() -> None:
    reading, writing = os.pipe()
    before = descriptors()
    fd = os.open(os.devnull, os.O_RDONLY)
    os.dup2(fd, reading)
    os.close(fd)
    assert left_open(before, patience=0.0) == {reading: os.devnull}
    os.close(reading)
    os.close(writing)


def test_what_a_thread_still_closes_is_waited_for() -> None:
    before = descriptors()
    fd = os.open(os.devnull, os.O_RDONLY)

    def close_later() -> None:
        time.sleep(0.1)
        os.close(fd)

    thread = threading.Thread(target=close_later)
    thread.start()
    assert left_open(before) == {}
    thread.join()


def test_the_end_of_a_process_closes_all_but_sockets() -> None:
    before = descriptors()
    with socket.socket() as kept:
        with end_of_process():
            os.pipe()
            other = socket.socket()
        assert set(left_open(before, patience=0.0)) == {kept.fileno(), other.fileno()}
        other.close()
