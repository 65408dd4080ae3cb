"""The emulator's own world: R Crazyflies as rigid bodies on a flat floor, in numpy.

States are planes, components first, drones last: (3, R). Equations as in the simulator's `dynamics`, but written
independently; the two are compared by tests. Sources of the numbers: `airframe.toml`, `battery.py`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput, NotFoundError
from hardware.robots.crazyflie.battery import discharge, open_circuit_v
from hardware.robots.crazyflie.contacts import KINDS, bounce
from hardware.robots.crazyflie.firmware import thrust_from_voltage
from hardware.robots.crazyflie.obstacles import NOTHING, Obstacles

Array = NDArray[np.float64]

GRAVITY = 9.81
_ROLL = np.array([-1.0, -1.0, 1.0, 1.0])
_PITCH = np.array([-1.0, 1.0, 1.0, -1.0])
_YAW = np.array([-1.0, 1.0, -1.0, 1.0])
"""Signs of a rotor's force in the torques about body x, y, z; a rotor itself turns against its reaction torque."""


@dataclass(frozen=True)
class Airframe:
    """One preset of `airframe.toml`; see there for units."""

    mass_kg: float
    inertia_kg_m2: tuple[float, float, float]
    arm_m: float
    thrust_max_n: float
    thrust_curve: float
    tau_up_s: float
    tau_down_s: float
    torque_per_thrust_m: float
    drag_kg_s: tuple[float, float, float]
    rotor_inertia_kg_m2: float
    rotor_speed_max_rad_s: float


@dataclass(frozen=True)
class Floor:
    """Spring, damper and friction of the legs and of the upper side against z = 0.

    Guesses: stiff enough to sink by less than a millimetre at rest, damped enough not to bounce, and stable at the
    emulator's 2 ms.
    """

    stiffness_n_m: float = 100.0
    damping_n_s_m: float = 0.8
    friction: float = 0.6
    slip_m_s: float = 0.05
    """Below this sliding speed friction is proportional to speed."""
    top_m: float = 0.03
    """Height of the upper contact points over the legs."""


def load_airframe(name: str = "") -> Airframe:
    """A preset by name, or the default one; raises NotFoundError listing the presets."""
    text = (resources.files("hardware.robots.crazyflie") / "airframe.toml").read_text()
    raw = tomllib.loads(text)
    name = name or raw["default"]
    known = [key for key, value in raw.items() if isinstance(value, dict)]
    if name not in known:
        raise NotFoundError("airframe of robot crazyflie", name, known)
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw[name].items() if k != "sources"}
    return Airframe(**fields)


class RigidBodyPlant:
    """A `hardware.plant.Plant` of R drones that start at rest on the floor, half a metre apart along y."""

    def __init__(
        self,
        num_robots: int = 1,
        airframe: Airframe | None = None,
        *,
        floor: Floor | None = None,
        start_world: Array | None = None,
        charge: float = 1.0,
        obstacles: Obstacles = NOTHING,
    ) -> None:
        self.num_robots, self.obstacles = num_robots, obstacles
        self.contacts = dict.fromkeys(KINDS, 0)
        """How often a drone began to touch another (counted for both) or an obstacle."""
        self._touched = np.zeros((len(KINDS), num_robots), dtype=bool)
        self.airframe = airframe or load_airframe()
        self._floor = floor or Floor()
        a = self.airframe
        spread = 0.5 * (np.arange(num_robots) - (num_robots - 1) / 2)
        default = np.stack([np.zeros(num_robots), spread, np.zeros(num_robots)], axis=1)
        self._start = default if start_world is None else np.asarray(start_world, dtype=np.float64)
        if self._start.shape != (num_robots, 3):
            raise BadInput(f"start positions have shape {self._start.shape}; expected ({num_robots}, 3)")
        self._start_charge = charge
        self._inertia = np.array(a.inertia_kg_m2)[:, None]
        self._drag = np.array(a.drag_kg_s)[:, None]
        lever = a.arm_m / np.sqrt(2.0)
        self._mix = np.stack([lever * _ROLL, lever * _PITCH, a.torque_per_thrust_m * _YAW])
        arms = lever * np.array([[1, -1, -1, 1], [-1, -1, 1, 1], [0, 0, 0, 0]], dtype=np.float64)
        self._contacts = np.concatenate([arms, arms + np.array([[0.0], [0.0], [self._floor.top_m]])], axis=1)
        r = num_robots
        self.position, self.velocity, self.rates = np.zeros((3, r)), np.zeros((3, r)), np.zeros((3, r))
        self.quat, self.rotors = np.zeros((4, r)), np.zeros((4, r))
        self.charge, self.battery_v = np.full(r, charge), open_circuit_v(np.full(r, charge))
        for i in range(num_robots):
            self.reset(i)

    def reset(self, index: int) -> None:
        """Puts drone `index` back to its start, at rest, with its battery as at the start."""
        self.position[:, index] = self._start[index]
        self.velocity[:, index] = self.rates[:, index] = 0.0
        self.quat[:, index] = (1.0, 0.0, 0.0, 0.0)
        self.rotors[:, index] = 0.0
        self.charge[index] = self._start_charge
        self.battery_v[index] = open_circuit_v(np.array(self._start_charge))

    def signals(self) -> Mapping[str, Array]:
        """True values (R, ...) of the robot's signals."""
        return {
            "position_world": self.position.T,
            "quat_wxyz": self.quat.T,
            "velocity_world": self.velocity.T,
            "angular_velocity_body": self.rates.T,
            "battery_voltage": self.battery_v,
        }

    def step(self, actuators: Array, dt_s: float) -> None:
        """Advances by `dt_s` under normalised rotor forces (R, 4): semi-implicit, exact for motor lag and free fall."""
        a = self.airframe
        ceiling = np.minimum(thrust_from_voltage(self.battery_v) / a.thrust_max_n, 1.0)
        wanted = np.maximum(np.minimum(actuators.T, ceiling), 0.0)
        tau = np.where(wanted > self.rotors, a.tau_up_s, a.tau_down_s)
        self.rotors = self.rotors + (wanted - self.rotors) * (1.0 - np.exp(-dt_s / tau))
        share = self.rotors * (1.0 - a.thrust_curve + a.thrust_curve * self.rotors)
        self.charge, self.battery_v = discharge(self.charge, share, dt_s)

        rotation = _matrix(self.quat)
        air_speed = np.einsum("jir,jr->ir", rotation, self.velocity)
        force_body = -self._drag * air_speed
        force_body[2] += a.thrust_max_n * share.sum(axis=0)
        force = np.einsum("ijr,jr->ir", rotation, force_body)
        torque = self._mix @ (a.thrust_max_n * share) + self._gyroscopic(share)
        if self.position[2].min() < 0.1:  # a drone is about 0.1 m across: higher up nothing can touch
            ground_force, ground_torque = self._ground(rotation)
            force, torque = force + ground_force, torque + ground_torque

        acceleration = force / a.mass_kg
        acceleration[2] -= GRAVITY
        velocity = self.velocity + dt_s * acceleration
        self.position = self.position + (0.5 * dt_s) * (self.velocity + velocity)
        self.velocity = velocity
        if self.num_robots > 1 or len(self.obstacles.radius):
            self.velocity, touched = bounce(self.position, velocity, self.obstacles, a.arm_m)
            for kind, begun in zip(KINDS, touched & ~self._touched, strict=True):
                self.contacts[kind] += int(np.count_nonzero(begun))
            self._touched = touched
        momentum = self._inertia * self.rates
        self.rates = self.rates + dt_s * (torque - _cross(self.rates, momentum)) / self._inertia
        self.quat = _turn(self.quat, self.rates * dt_s)

    def _gyroscopic(self, share: Array) -> Array:
        """-sum J_p s_i Omega_i (w x e_z), with rotor speeds that grow with the root of force."""
        a = self.airframe
        speed = a.rotor_speed_max_rad_s * np.sqrt(np.maximum(share, 0.0))
        spin = -(_YAW @ speed) * a.rotor_inertia_kg_m2
        return np.stack([-spin * self.rates[1], spin * self.rates[0], np.zeros_like(spin)])

    def _ground(self, rotation: Array) -> tuple[Array, Array]:
        """Force (world) and torque (body), (3, R), of eight contact points against the floor."""
        f = self._floor
        arms = np.einsum("ijr,jk->ikr", rotation, self._contacts)
        spin = np.einsum("ijr,jr->ir", rotation, self.rates)
        depth = -(self.position[2] + arms[2])
        touching = depth > 0.0
        if not touching.any():
            return np.zeros_like(self.position), np.zeros_like(self.position)
        speed = self.velocity[:, None, :] + _cross(spin[:, None, :], arms)
        normal = np.where(touching, np.maximum(f.stiffness_n_m * depth - f.damping_n_s_m * speed[2], 0.0), 0.0)
        sliding = np.sqrt(speed[0] ** 2 + speed[1] ** 2)
        grip = -f.friction * normal / np.maximum(sliding, f.slip_m_s)
        forces = np.stack([grip * speed[0], grip * speed[1], normal])
        torque = _cross(arms, forces).sum(axis=1)
        return forces.sum(axis=1), np.einsum("jir,jr->ir", rotation, torque)


def _matrix(q: Array) -> Array:
    """Rotation matrices (3, 3, R), body to world, of unit quaternions (4, R)."""
    w, x, y, z = q
    xx, yy, zz, xy, xz, yz, wx, wy, wz = x * x, y * y, z * z, x * y, x * z, y * z, w * x, w * y, w * z
    return np.stack(
        [
            np.stack([1 - 2 * (yy + zz), 2 * (xy - wz), 2 * (xz + wy)]),
            np.stack([2 * (xy + wz), 1 - 2 * (xx + zz), 2 * (yz - wx)]),
            np.stack([2 * (xz - wy), 2 * (yz + wx), 1 - 2 * (xx + yy)]),
        ]
    )


def _turn(q: Array, v: Array) -> Array:
    """Unit quaternions (4, R) after turning by body rotation vectors (3, R): q * exp(v / 2)."""
    half = 0.5 * np.sqrt((v * v).sum(axis=0))
    c, s = np.cos(half), 0.5 * np.sinc(half / np.pi)
    x, y, z = s * v
    a, b, d, e = q
    new = np.stack(
        [
            a * c - b * x - d * y - e * z,
            a * x + b * c + d * z - e * y,
            a * y - b * z + d * c + e * x,
            a * z + b * y - d * x + e * c,
        ]
    )
    return new / np.sqrt((new * new).sum(axis=0))


def _cross(a: Array, b: Array) -> Array:
    """Cross product of planes (3, ...)."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
