"""Clocks as arguments: real time, stepped time for tests and faster-than-real-time runs, and a log's own time."""

import math
import time
from collections.abc import Iterable
from typing import Protocol

from hardware.errors import BadInput


class Clock(Protocol):
    """A source of instants (integer nanoseconds) that can wait for one."""

    def now_ns(self) -> int:
        """The present instant."""
        ...

    def sleep_until_ns(self, t_ns: int) -> None:
        """Returns at `t_ns`, or at once where that has passed."""
        ...


class MonotonicClock:
    """Real time that never goes back, counted from the Unix epoch at the clock's creation.

    Epoch-based so that its instants can stand in a log; monotonic so that a correction of the wall clock during a
    run moves nothing. `scale` runs it faster (2.0: two seconds pass per real second); raises BadInput unless positive.
    """

    def __init__(self, scale: float = 1.0, origin_ns: int | None = None) -> None:
        """`origin_ns`: wall-clock instant from which time runs at `scale`, where several processes must agree."""
        if not 0.0 < scale < math.inf:
            raise BadInput(f"time scale {scale} given; expected a positive number")
        self.scale = scale
        self._epoch_ns, self._start_ns = _same_instant()
        if origin_ns is not None:
            self._epoch_ns, self._start_ns = origin_ns, self._start_ns - (self._epoch_ns - origin_ns)

    def now_ns(self) -> int:
        """The present instant."""
        return self._epoch_ns + int((time.monotonic_ns() - self._start_ns) * self.scale)

    def sleep_until_ns(self, t_ns: int) -> None:
        """Sleeps in real time."""
        while (wait := (t_ns - self.now_ns()) / self.scale) > 0:
            time.sleep(wait / 1e9)


def _same_instant() -> tuple[int, int]:
    """Wall clock and monotonic clock, ns, at one instant: the closest of a few tries.

    A process that is preempted between two readings would be milliseconds off from every other process's clock.
    """
    tries = []
    for _ in range(10):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after - before, wall, (before + after) // 2))
    _, wall, monotonic = min(tries)
    return wall, monotonic


class SteppedClock:
    """Time that stands still until it is told to move: deterministic loops."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """The present instant."""
        return self._now_ns

    def sleep_until_ns(self, t_ns: int) -> None:
        """Jumps there."""
        self._now_ns = max(self._now_ns, t_ns)

    def advance_s(self, dt_s: float) -> None:
        """Moves on by a duration; raises BadInput for a negative one."""
        if not 0.0 <= dt_s < math.inf:
            raise BadInput(f"a clock cannot move on by {dt_s} s")
        self._now_ns += round(dt_s * 1e9)


class ReplayedClock:
    """Time as a log tells it: each call of `tick` moves on to the next recorded instant.

    Raises BadInput for a log without instants.
    """

    def __init__(self, instants_ns: Iterable[int]) -> None:
        self._rest = iter(instants_ns)
        first = next(self._rest, None)
        if first is None:
            raise BadInput("a log without messages tells no time")
        self._now_ns = first

    def now_ns(self) -> int:
        """The present instant."""
        return self._now_ns

    def tick(self) -> bool:
        """Moves to the next instant; False at the end of the log. An instant before the present one is held back."""
        following = next(self._rest, None)
        if following is None:
            return False
        self._now_ns = max(self._now_ns, following)
        return True

    def sleep_until_ns(self, t_ns: int) -> None:
        """Moves on to the first recorded instant at or after `t_ns`, or to the end."""
        while self._now_ns < t_ns and self.tick():
            pass
