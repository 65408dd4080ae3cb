"""The firmware's high-level planner: smooth take-off, landing and go-to as 7th-order polynomials (planner.c, pptraj.c).

A plan starts from the last set point's position, velocity and acceleration, ends at rest, and has no jerk at either
end. Planes of four: x, y, z (m) and yaw (rad).
"""

import enum
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hardware.robots.crazyflie.wire_commands import GoTo, Land, Takeoff

Array = NDArray[np.float64]


class Phase(enum.Enum):
    """What the planner is doing; IDLE asks for motors off."""

    IDLE = "idle"
    FLYING = "flying"
    LANDING = "landing"


class Planner:
    """One drone's plan; times are seconds since the drone's start."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self._begin_s = self._duration_s = 0.0
        self._coefficients = np.zeros((8, 4))

    def stop(self) -> None:
        """Ends the plan: motors off."""
        self.phase = Phase.IDLE

    def finished(self, t_s: float) -> bool:
        """Whether the current plan has reached its end."""
        return t_s - self._begin_s >= self._duration_s

    def takeoff(self, m: Takeoff, here: Array, t_s: float) -> bool:
        """Plans a climb from `here` (4,); False where a plan is under way already."""
        if self.phase is not Phase.IDLE:
            return False
        self._vertical(m.height, m.yaw, m.duration, here, t_s)
        self.phase = Phase.FLYING
        return True

    def land(self, m: Land, here: Array, t_s: float) -> bool:
        """Plans a descent from `here` (4,); False where it is landing already."""
        if self.phase is Phase.LANDING:
            return False
        self._vertical(m.height, m.yaw, m.duration, here, t_s)
        self.phase = Phase.LANDING
        return True

    def go_to(self, m: GoTo, here: Array, velocity: Array, t_s: float) -> bool:
        """Plans a flight from the present plan's point, or from `here` (4,) at `velocity` (4,) where there is none."""
        start, speed, acceleration = here, velocity, np.zeros(4)
        if self.phase is not Phase.IDLE:
            start, speed, acceleration = self.evaluate(t_s)
        goal = np.array([*m.position, m.yaw])
        if m.relative:
            goal = goal + start
        goal[3] = start[3] + _shortest(goal[3] - start[3])
        if m.linear:
            self._coefficients = np.zeros((8, 4))
            self._coefficients[0], self._coefficients[1] = start, (goal - start) / max(m.duration, 1e-3)
        else:
            self._coefficients = _no_jerk(start, speed, acceleration, goal, m.duration)
        self._begin_s, self._duration_s, self.phase = t_s, m.duration, Phase.FLYING
        return True

    def update(self, t_s: float) -> Array | None:
        """The planned point (4,) now, or None when there is no plan; ends a landing that is over."""
        if self.phase is Phase.IDLE:
            return None
        point = self.evaluate(t_s)[0]
        if self.phase is Phase.LANDING and self.finished(t_s):
            self.phase = Phase.IDLE
        return point

    def evaluate(self, t_s: float) -> tuple[Array, Array, Array]:
        """Point, velocity and acceleration (4,) of the plan at an instant; after its end it stands still."""
        t = min(max(t_s - self._begin_s, 0.0), self._duration_s)
        powers = t ** np.arange(8)
        point = powers @ self._coefficients
        if t >= self._duration_s:
            return point, np.zeros(4), np.zeros(4)
        n = np.arange(8)
        speed = (n[1:] * powers[:-1]) @ self._coefficients[1:]
        acceleration = (n[2:] * n[1:-1] * powers[:-2]) @ self._coefficients[2:]
        return point, speed, acceleration

    def _vertical(self, height: float, yaw: float | None, duration: float, here: Array, t_s: float) -> None:
        goal = here.copy()
        goal[2] = height
        if yaw is not None:
            goal[3] = here[3] + _shortest(yaw - here[3])
        self._coefficients = _no_jerk(here, np.zeros(4), np.zeros(4), goal, duration)
        self._begin_s, self._duration_s = t_s, duration


def _no_jerk(start: Array, speed: Array, acceleration: Array, goal: Array, duration: float) -> Array:
    """Coefficients (8, 4), lowest power first, from (start, speed, acceleration, no jerk) to rest without jerk."""
    duration = max(duration, 0.05)  # the drone's commander runs at 100 Hz: anything shorter is a step
    zero = np.zeros(4)
    rest = np.stack([goal, zero, zero, zero])
    low = np.stack([start, speed, acceleration / 2.0, zero])
    # In units of the duration the matrix is a constant; solving there keeps it well conditioned.
    scale = duration ** np.arange(8)[:, None]
    low = low * scale[:4]
    end = _end_conditions()
    high = np.linalg.solve(end[:, 4:], rest * duration ** np.arange(4)[:, None] - end[:, :4] @ low)
    return np.concatenate([low, high]) / scale


@cache
def _end_conditions() -> Array:
    """Value and first three derivatives at 1 of the monomials t^0..t^7, (4, 8)."""
    return np.array([[math.perm(n, k) for n in range(8)] for k in range(4)], dtype=np.float64)


def _shortest(angle: float) -> float:
    return math.remainder(angle, 2.0 * math.pi)
