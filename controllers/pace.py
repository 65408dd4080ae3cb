"""The deadlines of a control loop: absolute, on a clock, just behind the arrival of the robot's states."""

from collections.abc import Callable
from contextlib import suppress

from hardware.clock import Clock
from hardware.errors import LinkLost

POLL_NS = 500_000
BEHIND_NS = 1_000_000
"""How long after a state's arrival the loop ticks: somewhat late ones still count."""
SLOW_NS = 1_000_000_000
"""Loops with a longer period poll and sleep in shares of it, can be woken, and keep the garbage collector."""
SHARE = 20


class Pace:
    """One loop's deadlines; `called` says whether somebody has asked for an end that is not yet on its way."""

    def __init__(self, clock: Clock, period_ns: int, called: Callable[[], bool]) -> None:
        self._clock, self.period_ns, self._called = clock, period_ns, called
        self.slow = period_ns > SLOW_NS
        self._next_ns = 0

    def fall_in_step(self, state_t_ns: Callable[[], int]) -> None:
        """Puts the deadlines just behind the arrival of states, so that each tick finds a fresh one.

        `state_t_ns` gives the newest state's instant. Clocks of robots and computers drift by some 1e-5: less than a
        millisecond in a flight of a minute.
        """
        until_ns = self._clock.now_ns() + 3 * self.period_ns
        poll_ns, behind_ns = (self.period_ns // 200, self.period_ns // SHARE) if self.slow else (POLL_NS, BEHIND_NS)
        with suppress(LinkLost):  # the first tick will find out, and act on it
            last_ns = state_t_ns()
            while state_t_ns() == last_ns and self._clock.now_ns() < until_ns and not self._called():
                self._clock.sleep_until_ns(self._clock.now_ns() + poll_ns)
        self._next_ns = self._clock.now_ns() + behind_ns - self.period_ns

    def wait(self) -> int:
        """Waits for the next deadline; returns how many were missed."""
        self._next_ns += self.period_ns
        late_ns = self._clock.now_ns() - self._next_ns
        if late_ns < 0:
            self._sleep()
        elif late_ns > self.period_ns:
            missed = late_ns // self.period_ns
            self._next_ns += missed * self.period_ns
            return missed
        return 0

    def _sleep(self) -> None:
        """Until the deadline; a slow loop wakes up where somebody calls, and then goes on from there."""
        if not self.slow:
            self._clock.sleep_until_ns(self._next_ns)
            return
        while (now := self._clock.now_ns()) < self._next_ns:
            if self._called():
                self._next_ns = now
                return
            self._clock.sleep_until_ns(min(self._next_ns, now + self.period_ns // SHARE))
