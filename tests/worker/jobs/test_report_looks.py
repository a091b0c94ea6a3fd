"""When a worker looks at processes that wake nobody.  `test_jobs.py` has the same with real reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from cexec.worker.jobs.report_looks import LOOKS_IN_VAIN, READ_TOGETHER, ReportLooks

if TYPE_CHECKING:
    from cexec.worker.jobs.job_process import JobProcess


class Watched:
    """Plays a process."""

    watched = False


def a_process() -> JobProcess:
    return cast("JobProcess", Watched())


def test_a_process_with_news_is_looked_at_until_it_has_none_twice() -> None:
    looks, process = ReportLooks(), a_process()
    assert looks.next_timeout() is None and looks.due(1.0) == []
    looks.news(process, 1.0)
    assert process.watched and looks.next_timeout() == 1.0 + READ_TOGETHER
    now = 1.0
    for _ in range(LOOKS_IN_VAIN):
        assert looks.due(now) == []
        now += READ_TOGETHER
        assert looks.due(now) == [process]
        looks.found_nothing(process)
        assert not process.watched  # from the first look in vain on it wakes its worker
    assert looks.next_timeout() is None and looks.due(now + 1.0) == []


def test_news_begin_the_count_anew_and_do_not_put_the_look_off() -> None:
    looks, busy, idle = ReportLooks(), a_process(), a_process()
    looks.news(idle, 0.0)
    looks.news(busy, READ_TOGETHER / 2)
    assert looks.next_timeout() == READ_TOGETHER
    assert looks.due(READ_TOGETHER) == [idle, busy]
    looks.found_nothing(idle)
    looks.found_nothing(busy)
    looks.news(busy, READ_TOGETHER)
    assert looks.due(2 * READ_TOGETHER) == [idle, busy]
    looks.found_nothing(idle)
    looks.found_nothing(busy)
    assert looks.due(3 * READ_TOGETHER) == [busy]


def test_a_process_that_has_ended_is_not_looked_at() -> None:
    looks, process = ReportLooks(), a_process()
    looks.news(process, 0.0)
    looks.drop(process)
    looks.drop(process)
    assert looks.next_timeout() is None
