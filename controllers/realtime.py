"""Real-time scheduling for a control process, where the operating system permits it; no garbage collection."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIORITY = 20
"""Of 1..99: above every ordinary process, below the kernel's interrupt threads at 50."""


@contextmanager
def real_time() -> Iterator[str]:
    """SCHED_RR for every thread of this process while the context lasts; gives why not, or '' where it worked.

    Round robin, so that several such processes share what there is. All threads and not the loop's alone, because the
    interpreter's lock would otherwise let a preempted callback thread hold up the loop. Threads started meanwhile
    inherit it. Permission comes from `rtprio` in limits.conf or from CAP_SYS_NICE; without it everything runs as
    before.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield "this operating system has no real-time scheduling"
        return
    refused = _schedule(os.SCHED_RR, PRIORITY)
    try:
        yield refused
    finally:
        if not refused:
            _schedule(os.SCHED_OTHER, 0)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """What is there already is never looked at again, and nothing is collected while the context lasts."""
    gc.collect()
    gc.freeze()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
        gc.unfreeze()


def _schedule(policy: int, priority: int) -> str:
    parameter = os.sched_param(priority)
    for task in sorted(Path("/proc/self/task").iterdir()):
        try:
            os.sched_setscheduler(int(task.name), policy, parameter)
        except ProcessLookupError:  # a thread that has just ended
            continue
        except PermissionError:
            return "no permission for real-time scheduling (rtprio in limits.conf)"
        except OSError as e:
            return f"no real-time scheduling: {e.strerror}"
    return ""
