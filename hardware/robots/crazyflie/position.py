"""The firmware's position and velocity control, 100 Hz: a set point becomes roll, pitch and thrust.

Cascaded PI in the heading frame (position_controller_pid.c, gains of platform_defaults_cf2.h; its D gains are zero).
The firmware counts tilt in degrees and thrust in thousands of 65535: the gains keep those units, as its parameters do,
and the result is converted. Deviation: an axis that is not controlled has its integrals at zero (the firmware lets
them run and kicks when the axis is taken up again).
"""

import math
from collections.abc import Mapping

from hardware.robots.crazyflie.firmware import COUNTS
from hardware.robots.crazyflie.target import Target

DT_S = 0.01
INTEGRAL_LIMIT = 5000.0
"""DEFAULT_PID_INTEGRATION_LIMIT."""
OVERHEAD = 1.10
"""Outputs of the inner loops may exceed the limits by this factor before they are clipped."""


class PositionController:
    """One drone's integrals; gains are looked up in its parameters by the firmware's names at every step."""

    def __init__(self) -> None:
        self._integral: dict[str, float] = {}
        self.reset()

    def reset(self) -> None:
        """Clears all integrals, as the firmware does whenever the thrust is zero."""
        self._integral = dict.fromkeys(("x", "y", "z", "vx", "vy", "vz"), 0.0)

    def update(
        self,
        target: Target,
        position: tuple[float, float, float],
        velocity: tuple[float, float, float],
        yaw: float,
        p: Mapping[str, float],
    ) -> tuple[float, float, float]:
        """Roll, pitch (rad) and thrust (fraction of full); what the target does not ask for is passed through."""
        c, s = math.cos(yaw), math.sin(yaw)
        roll, pitch, thrust = target.roll, target.pitch, target.thrust
        if target.xy != "off":
            wanted_x, wanted_y = self._wanted_velocity(target, position, c, s, p)
            ahead, aside = velocity[0] * c + velocity[1] * s, velocity[1] * c - velocity[0] * s
            limit_p, limit_r = p["posCtlPid.pLimit"], p["posCtlPid.rLimit"]
            pitch = math.radians(_clip(self._pi("vx", wanted_x - ahead, p, limit_p * OVERHEAD), limit_p))
            roll = -math.radians(_clip(self._pi("vy", wanted_y - aside, p, limit_r * OVERHEAD), limit_r))
        else:
            self._clear("x", "y", "vx", "vy")
        if target.z != "off":
            wanted_z = target.velocity[2]
            if target.z == "position":
                limit = max(p["posCtlPid.zVelMax"], 0.5) * OVERHEAD
                wanted_z = self._pi("z", target.position[2] - position[2], p, limit)
            raw = self._pi("vz", wanted_z - velocity[2], p, COUNTS / 2000.0)
            counts = max(1000.0 * raw + p["posCtlPid.thrustBase"], p["posCtlPid.thrustMin"])
            thrust = min(counts / COUNTS, 1.0)
        else:
            self._clear("z", "vz")
        return roll, pitch, thrust

    def _wanted_velocity(
        self, target: Target, position: tuple[float, float, float], c: float, s: float, p: Mapping[str, float]
    ) -> tuple[float, float]:
        """Velocity ahead and to the left (m/s) that the target asks for."""
        if target.xy == "position":
            ex, ey = target.position[0] - position[0], target.position[1] - position[1]
            limit_x, limit_y = p["posCtlPid.xVelMax"] * OVERHEAD, p["posCtlPid.yVelMax"] * OVERHEAD
            return self._pi("x", ex * c + ey * s, p, limit_x), self._pi("y", ey * c - ex * s, p, limit_y)
        vx, vy = target.velocity[0], target.velocity[1]
        return (vx, vy) if target.xy == "heading_velocity" else (vx * c + vy * s, vy * c - vx * s)

    def _pi(self, axis: str, error: float, p: Mapping[str, float], limit: float) -> float:
        group = "velCtlPid." if axis.startswith("v") else "posCtlPid."
        self._integral[axis] = _clip(self._integral[axis] + error * DT_S, INTEGRAL_LIMIT)
        return _clip(p[f"{group}{axis}Kp"] * error + p[f"{group}{axis}Ki"] * self._integral[axis], limit)

    def _clear(self, *axes: str) -> None:
        for axis in axes:
            self._integral[axis] = 0.0


def _clip(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)
