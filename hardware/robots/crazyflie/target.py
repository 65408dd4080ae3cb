"""What the drone is to do now, whoever asked for it: the firmware's `setpoint_t`, from the messages on the wire."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hardware.geometry import quat_yaw
from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie.firmware import MAX_THRUST, MIN_THRUST


@dataclass(frozen=True)
class Target:
    """Per axis what is controlled, and the values; the default stops the motors."""

    xy: Literal["off", "position", "velocity", "heading_velocity"] = "off"
    z: Literal["off", "position", "velocity"] = "off"
    yaw_mode: Literal["rate", "angle"] = "rate"
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """m, world."""
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """m/s, world, or heading frame for `heading_velocity`."""
    roll: float = 0.0
    pitch: float = 0.0
    """rad; used where xy is off."""
    yaw: float = 0.0
    """rad/s or rad, by `yaw_mode`."""
    thrust: float = 0.0
    """Fraction of full thrust; used where z is off."""
    rotors: tuple[float, float, float, float] | None = None
    """Normalised rotor forces of an on-board policy; overrides everything else."""

    def levelled(self) -> "Target":
        """The same height or thrust, level and without turning: what the set-point watchdog makes of it."""
        thrust = self.thrust if self.rotors is None else sum(self.rotors) / 4.0
        return replace(self, xy="off", yaw_mode="rate", roll=0.0, pitch=0.0, yaw=0.0, thrust=thrust, rotors=None)


def target_of(m: w.Setpoint, *, thrust_locked: bool = False) -> Target | None:
    """The target of a set point, or None for the one kind that is not emulated (rate-mode `Manual`)."""
    match m:
        case w.Attitude(roll, pitch, yaw_rate, thrust):
            cut = 0.0 if thrust_locked or thrust < MIN_THRUST else min(thrust, MAX_THRUST)
            return Target(roll=roll, pitch=pitch, yaw=yaw_rate, thrust=cut)
        case w.Manual(roll, pitch, yaw_rate, thrust, False):
            return Target(roll=roll, pitch=pitch, yaw=yaw_rate, thrust=thrust)
        case w.RotorThrust(thrust):
            a, b, c, d = (min(max(v, 0.0), 1.0) for v in thrust)
            return Target(rotors=(a, b, c, d))
        case w.Stop():
            return Target()
        case w.FullState(position, velocity, _, quat, _):
            return Target("position", "position", "angle", position, velocity, yaw=_yaw(quat))
        case w.Position(x, y, z, yaw):
            return Target("position", "position", "angle", (x, y, z), yaw=yaw)
        case w.VelocityWorld(vx, vy, vz, yaw_rate):
            return Target("velocity", "velocity", "rate", velocity=(vx, vy, vz), yaw=yaw_rate)
        case w.ZDistance(roll, pitch, yaw_rate, z):
            return Target("off", "position", "rate", (0.0, 0.0, z), roll=roll, pitch=pitch, yaw=yaw_rate)
        case w.Hover(vx, vy, yaw_rate, z):
            return Target("heading_velocity", "position", "rate", (0.0, 0.0, z), (vx, vy, 0.0), yaw=yaw_rate)
    return None


def _yaw(quat_wxyz: w.Quat) -> float:
    return float(quat_yaw(np.asarray(quat_wxyz)))
