"""Real-time scheduling is taken for all threads, given back, and done without where it is not permitted."""

import os
import threading

import pytest

from controllers.realtime import PRIORITY, real_time


def test_every_thread_gets_it_and_gives_it_back() -> None:
    seen: dict[str, int] = {}
    waiting, go = threading.Event(), threading.Event()

    def old_thread() -> None:
        waiting.set()
        go.wait(10)
        seen["old"] = os.sched_getscheduler(0)

    thread = threading.Thread(target=old_thread)
    thread.start()
    waiting.wait(10)
    with real_time() as refused:
        if refused:
            go.set()
            thread.join()
            assert os.sched_getscheduler(0) == os.SCHED_OTHER
            pytest.skip(refused)
        assert os.sched_getscheduler(0) == os.SCHED_RR
        assert os.sched_getparam(0).sched_priority == PRIORITY
        new = threading.Thread(target=lambda: seen.update(new=os.sched_getscheduler(0)))
        new.start()
        new.join()
        go.set()
        thread.join()
    assert seen == {"old": os.SCHED_RR, "new": os.SCHED_RR}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
