"""Signals that are passed on are caught once each, unless they were ignored; afterwards they end us again."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cexec.client.attempt.signals import FORWARDED, Insistence, Signals

SCRIPT = """
import os, sys
from cexec.client.attempt.signals import *
end_by_default(INTERRUPT)
signals = Signals()
"""


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in FORWARDED}
    made = Signals()
    made.start()
    yield made
    made.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def run(script: str, *prefix: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a script in a process of its own, started as in a terminal: nothing is ignored."""
    argv = [*prefix, sys.executable, "-c", SCRIPT + script]
    return subprocess.run(argv, capture_output=True, timeout=20)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "TSTP"])
def test_each_is_passed_on_under_its_number_on_linux(signals: Signals, name: str) -> None:
    os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
    assert select.select([signals.fileno()], [], [], 10)[0]
    linux = {"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "TERM": 15, "CONT": 18, "TSTP": 20}
    assert signals.take() == [linux[name]]
    assert signals.take() == []
    assert signals.taken == {linux[name]}


def test_the_order_is_kept(signals: Signals) -> None:
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert signals.take() == [12, 10, 2]


def test_a_signal_that_is_not_to_be_passed_on_is_none_of_ours(signals: Signals) -> None:
    before = signal.signal(signal.SIGWINCH, lambda number, stack: None)
    os.kill(os.getpid(), signal.SIGWINCH)
    assert signals.take() == []
    signal.signal(signal.SIGWINCH, before)


def test_a_flood_of_signals_blocks_nobody(signals: Signals) -> None:
    for _ in range(100_000):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert set(signals.take()) == {10}


def test_what_was_ignored_stays_ignored_as_under_nohup() -> None:
    script = "import signal; signal.signal(1, signal.SIG_IGN); signals.start(); os.kill(os.getpid(), 1)\n"
    result = run(script + "print(signals.take()); signals.stop(); os.kill(os.getpid(), 1); print('alive')")
    assert result.stdout.split(b"\n")[:2] == [b"[]", b"alive"]


def test_afterwards_a_signal_does_what_it_did_before() -> None:
    caught = "end_by_exception(15); signals.start(); signals.stop()\n"
    told = "try: os.kill(os.getpid(), 15)\nexcept EndedBySignal as ended: print(ended.number)"
    assert run(caught + told).stdout == b"15\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_afterwards_a_signal_ends_us_as_any_program(number: int) -> None:
    result = run(f"signals.start(); signals.stop(); os.kill(os.getpid(), {int(number)})")
    assert (result.returncode, result.stderr) == (-number, b"")


def test_ctrl_c_before_the_job_runs_ends_us_without_a_traceback() -> None:
    result = run("end_by_default(2); os.kill(os.getpid(), 2)")
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


def test_dying_of_a_signal_that_was_caught_is_seen_by_the_shell() -> None:
    result = run("signals.start(); die_of(2)")
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


def test_suspended_means_stopped_until_continued() -> None:
    argv = [sys.executable, "-c", SCRIPT + "signals.start(); suspend()"]
    with subprocess.Popen(argv, process_group=0) as child:  # which we look after
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.wait(20) == 0


def test_where_nobody_could_continue_us_we_are_not_stopped() -> None:
    """Regression: Ctrl-Z froze cexec for good under `ssh -t`, `docker exec -it` and `script -c`."""
    script = "os.setsid(); signals.start(); suspend(); os.kill(os.getpid(), 20); print(signals.take())"
    assert run(script).stdout == b"[20]\n"  # and what came after it is caught again


@pytest.mark.parametrize("number", [1, 3, 15])
def test_the_first_signal_is_the_programs_and_the_second_is_ours(number: int) -> None:
    insistence = Insistence()
    assert [insistence.ends(number, started=True) for _ in range(2)] == [False, True]
    assert Insistence().ends(number, started=False)


def test_a_signal_of_each_kind_is_as_good_as_two_of_one() -> None:
    insistence = Insistence()
    assert [insistence.ends(number, started=True) for number in (15, 2, 2, 10, 1)] == [False] * 4 + [True]


def test_the_third_ctrl_c_is_ours_and_the_first_if_no_program_runs() -> None:
    insistence = Insistence()
    assert [insistence.ends(2, started=True) for _ in range(3)] == [False, False, True]
    assert Insistence().ends(2, started=False)
    assert not any(Insistence().ends(number, started=False) for number in (10, 12, 18, 20))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_what_came_too_late_for_the_program_ends_us(number: int) -> None:
    script = f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {int(number)})"
    result = run(f"signals.start(); {script}; print('caught', flush=True); signals.resign(); print('alive')")
    assert (result.returncode, result.stdout) == (-number, b"caught\n")


def test_what_is_no_end_does_not_end_us_when_it_comes_too_late() -> None:
    result = run("signals.start(); os.kill(os.getpid(), 10); signals.resign(); print('alive')")
    assert (result.returncode, result.stdout) == (0, b"alive\n")
