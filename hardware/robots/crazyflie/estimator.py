"""What the drone believes: the truth with noise and latency, pulled by external poses. Batched over R drones, 500 Hz.

Not a Kalman filter: the estimator of the real drone is represented by its errors. They are first-order Gauss-Markov
processes for position, velocity and attitude, white noise for the gyro; sizes follow the reference specification
(position 1-5 mm, velocity 2-5 cm/s, attitude .3-1 deg, gyro 2.5e-3 rad/s after filtering). A built-in positioning
system is assumed; poses sent by a client shift the estimate towards them, weighted by `locSrv.extPosStdDev`.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.geometry import quat_yaw

Array = NDArray[np.float64]
GRAVITY = 9.81
ACCELEROMETER_HZ = 30.0
"""Cut-off of the firmware's accelerometer filter."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the estimate's errors."""

    position_m: float = 0.001
    velocity_m_s: float = 0.02
    attitude_rad: float = 0.005
    gyro_rad_s: float = 0.0025
    correlation_s: float = 0.1
    """Time constant of the position, velocity and attitude errors (guess: between IMU and 100 Hz positioning)."""
    latency_s: float = 0.004
    """Age of position, velocity and attitude when they are used (guess); the gyro has none."""


QUIET = Noise(0.0, 0.0, 0.0, 0.0, 0.1, 0.0)
"""No noise and no latency."""


class Estimate(NamedTuple):
    """Planes (..., R), SI units; angles are roll, pitch, yaw (rad); acceleration is the specific force in g, body."""

    position: Array
    velocity: Array
    quat: Array
    angles: Array
    gyro: Array
    acceleration_g: Array


class Estimator:
    """The estimators of R drones; `frozen` and `gyro_fault` are sensor faults, by drone."""

    def __init__(self, num_robots: int, rng: np.random.Generator, noise: Noise, dt_s: float) -> None:
        r = num_robots
        self._rng, self._noise, self._dt_s = rng, noise, dt_s
        self._keep = np.exp(-dt_s / noise.correlation_s)
        self._spread = np.repeat([noise.position_m, noise.velocity_m_s, noise.attitude_rad], 3)[:, None]
        self._error = self._spread * rng.standard_normal((9, r))
        self._offset, self._yaw_offset = np.zeros((3, r)), np.zeros(r)
        self._past: deque[tuple[Array, Array, Array]] = deque(maxlen=1 + round(noise.latency_s / dt_s))
        self._last_velocity = np.zeros((3, r))
        self._acceleration = np.zeros((3, r))
        self._acceleration[2] = 1.0
        self._filter = 1.0 - np.exp(-2.0 * np.pi * ACCELEROMETER_HZ * dt_s)
        self.variance = np.full(r, 1.0)
        """Position variance (m^2) that the drone reports; falls from 1 after a reset."""
        self.frozen, self.gyro_fault = np.zeros(r, dtype=bool), np.zeros(r, dtype=bool)
        self.estimate = Estimate(*(np.zeros((n, r)) for n in (3, 3, 4, 3, 3, 3)))

    def reset(self, index: int) -> None:
        """Restarts the estimator of one drone: external corrections are forgotten, the variance is large."""
        self._offset[:, index], self._yaw_offset[index] = 0.0, 0.0
        self.variance[index] = 1.0

    def settle(self, index: int, velocity: Array) -> None:
        """Makes a moved drone's accelerometer start at rest, at true `velocity` (3,)."""
        self._last_velocity[:, index] = velocity
        self._acceleration[:, index] = (0.0, 0.0, 1.0)

    def update(self, signals: Mapping[str, Array]) -> Estimate:
        """The estimate after one tick, from the true signals (R, ...)."""
        position, velocity = signals["position_world"].T, signals["velocity_world"].T
        quat, gyro = signals["quat_wxyz"].T, signals["angular_velocity_body"].T
        r = position.shape[1]
        white = self._rng.standard_normal((12, r))
        self._error = self._keep * self._error + np.sqrt(1.0 - self._keep**2) * self._spread * white[:9]
        self.variance = np.maximum(self.variance * np.exp(-self._dt_s / 0.1), 1e-6)
        self._past.append((position + self._error[:3] + self._offset, velocity + self._error[3:6], quat))
        late_position, late_velocity, late_quat = self._past[0]
        quat = _turned(late_quat, self._error[6:9], self._yaw_offset)
        gyro = gyro + self._noise.gyro_rad_s * white[9:12]
        new = Estimate(late_position, late_velocity, quat, _angles(quat), gyro, self._specific_force(signals))
        if self.frozen.any():
            held = zip(new, self.estimate, strict=True)
            new = Estimate(*(np.where(self.frozen, old, fresh) for fresh, old in held))
        if self.gyro_fault.any():
            new = new._replace(gyro=np.where(self.gyro_fault, np.nan, new.gyro))
        self.estimate = new
        return new

    def correct(self, index: int, position: Array, quat: Array | None, *, std_m: float, std_rad: float) -> None:
        """Pulls the estimate of one drone towards an external position (3,) and attitude (4,)."""
        # The gain of a filter whose own estimate is as good as a centimetre and half a degree.
        gain = 0.01**2 / (0.01**2 + std_m**2)
        self._offset[:, index] += gain * (position - self.estimate.position[:, index])
        if quat is not None:
            turn = float(quat_yaw(quat)) - self.estimate.angles[2, index]
            gain = 0.01**2 / (0.01**2 + std_rad**2)
            self._yaw_offset[index] += gain * (turn - 2.0 * np.pi * np.round(turn / (2.0 * np.pi)))

    def _specific_force(self, signals: Mapping[str, Array]) -> Array:
        velocity = signals["velocity_world"].T
        force = (velocity - self._last_velocity) / self._dt_s / GRAVITY
        force[2] += 1.0
        self._last_velocity = velocity.copy()
        w, x, y, z = signals["quat_wxyz"].T
        fx, fy, fz = force
        tx, ty, tz = 2.0 * (fy * z - fz * y), 2.0 * (fz * x - fx * z), 2.0 * (fx * y - fy * x)  # 2 f x u = 2 (-u) x f
        body = np.stack(
            [fx + w * tx + (ty * z - tz * y), fy + w * ty + (tz * x - tx * z), fz + w * tz + (tx * y - ty * x)]
        )
        self._acceleration = self._acceleration + self._filter * (body - self._acceleration)
        return self._acceleration


def _turned(q: Array, error: Array, yaw: Array) -> Array:
    """Quaternions (4, R) with a small body rotation `error` (3, R) and a turn about the world's z by `yaw` (R,)."""
    x, y, z = 0.5 * error
    a, b, c, d = q
    q = np.stack(
        [a - b * x - c * y - d * z, a * x + b + c * z - d * y, a * y - b * z + c + d * x, a * z + b * y - c * x + d]
    )
    if yaw.any():
        cos, sin = np.cos(0.5 * yaw), np.sin(0.5 * yaw)
        a, b, c, d = q
        q = np.stack([cos * a - sin * d, cos * b - sin * c, cos * c + sin * b, cos * d + sin * a])
    return q / np.sqrt((q * q).sum(axis=0))


def _angles(q: Array) -> Array:
    """Roll, pitch, yaw (3, R) of quaternions (4, R)."""
    w, x, y, z = q
    return np.stack(
        [
            np.arctan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y)),
            np.arcsin(np.clip(2.0 * (w * y - z * x), -1.0, 1.0)),
            np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)),
        ]
    )
