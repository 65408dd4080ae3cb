"""The firmware's commander: which set point counts, how old it is, and what the high-level commander plans.

Priorities (commander.c): streamed set points beat the high-level commander, which beats nothing at all; streaming
keeps its priority until the client says that it has stopped. A set point's age drives the supervisor's watchdog.
Deviation: when the drone is not flying and the streamed set point is older than the shutdown time-out, its priority
lapses, so that a client that left (cflib sends a zero set point on closing) does not block the next one's take-off.
"""

import errno

import numpy as np
from numpy.typing import NDArray

from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie.planner import Phase, Planner
from hardware.robots.crazyflie.target import Target, target_of

DISABLED, HIGH_LEVEL, STREAMED = 0, 1, 2
"""Priorities of set points (COMMANDER_PRIORITY_*)."""
OFF = Target()
"""Motors off."""


class Commander:
    """One drone's commander; times are milliseconds since the drone's start."""

    def __init__(self) -> None:
        self.planner = Planner()
        self.target = OFF
        self.priority = DISABLED
        self._stamp_ms = 0
        self._thrust_locked = True
        self._group = 0
        self._here, self._velocity = np.zeros(4), np.zeros(4)

    def age_ms(self, now_ms: int) -> int:
        """Time since the set point in force was given."""
        return now_ms - self._stamp_ms

    def stream(self, m: w.Setpoint | w.NotifyStop, now_ms: int) -> bool:
        """Takes a streamed set point or the word that streaming has ended; False for a kind that is not emulated."""
        if isinstance(m, w.NotifyStop):
            self.priority = HIGH_LEVEL
            return True
        if isinstance(m, w.Attitude) and m.thrust == 0.0:
            self._thrust_locked = False  # a client must show zero thrust once before it may give any
        target = target_of(m, thrust_locked=self._thrust_locked)
        if target is None:
            return False
        self.target, self.priority, self._stamp_ms = target, STREAMED, now_ms
        self.planner.stop()
        return True

    def high_level(self, m: w.HighLevel, now_ms: int) -> int:
        """Carries out a high-level command; returns the firmware's error code, 0 for success."""
        if isinstance(m, w.GroupMask):
            self._group = m.group
            return 0
        if m.group != 0 and not m.group & self._group:
            return 0
        t_s = now_ms / 1000.0
        match m:
            case w.HighLevelStop():
                self.planner.stop()
                done = True
            case w.Takeoff():
                done = self.planner.takeoff(m, self._here, t_s)
            case w.Land():
                done = self.planner.land(m, self._here, t_s)
            case w.GoTo():
                done = self.planner.go_to(m, self._here, self._velocity, t_s)
        return 0 if done else errno.EBUSY

    def update(
        self, now_ms: int, position: NDArray[np.float64], velocity: NDArray[np.float64], yaw: float, *, lapse_ms: int
    ) -> Target:
        """100 Hz: the target in force. `lapse_ms`: age at which a streamed set point gives way (0: never)."""
        if self.priority == STREAMED and lapse_ms and self.age_ms(now_ms) > lapse_ms:
            self.priority = HIGH_LEVEL
        planned = self.planner.update(now_ms / 1000.0)
        if planned is None:
            self._here = np.array([*position, yaw])
            self._velocity = np.array([*velocity, 0.0])
        else:
            self._here = planned
        if self.priority != STREAMED:
            self.priority, self._stamp_ms = HIGH_LEVEL, now_ms
            self.target = OFF if planned is None else _point(planned)
        return self.target

    @property
    def planning(self) -> bool:
        """Whether the high-level commander flies the drone."""
        return self.priority != STREAMED and self.planner.phase is not Phase.IDLE


def _point(p: NDArray[np.float64]) -> Target:
    x, y, z, yaw = (float(v) for v in p)
    return Target("position", "position", "angle", (x, y, z), yaw=yaw)
