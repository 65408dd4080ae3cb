"""Geometric tracking control of a quadrotor, with a disturbance observer as its integral action.

The classical baseline of the quadrotor scenes, and the law that a supervisor falls back to. Position and attitude
follow Lee, Leok & McClamroch (2010), "Geometric tracking control of a quadrotor UAV on SE(3)", equations 10-16, for
set points at rest. Unknown mass, thrust and steady forces are met by an observer of the acceleration that the nominal
model does not explain, fed with the commands really sent, so that a saturated command winds nothing up.

Array-API style: numpy on the robot, batched torch in a scene; leading dimensions are free.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from hardware.arrays import constant, namespace
from hardware.errors import BadInput
from hardware.geometry import cross, quat_to_matrix, quat_yaw, rotate, wrap_angle
from hardware.spec import RobotSpec

GRAVITY = 9.80665


@dataclass(frozen=True)
class Airframe:
    """Nominal numbers of a quadrotor."""

    mass_kg: float
    inertia_kgm2: tuple[float, float, float]
    arm_m: float
    """Centre to rotor axis; rotors sit at 45 degrees to the body axes."""
    torque_per_thrust_m: float
    rotor_thrust_max_n: float
    """Force of one rotor at full command; force is proportional to the command."""

    @property
    def hover_fraction(self) -> float:
        """Fraction of full command at which the nominal craft hovers."""
        return self.mass_kg * GRAVITY / (4 * self.rotor_thrust_max_n)


@dataclass(frozen=True)
class TrackingGains:
    """Gains of the position loop, the attitude loop and the observer."""

    position: float = 5.0
    """1/s^2."""
    velocity: float = 3.6
    """1/s."""
    error_max_m: float = 1.2
    """Longer position errors count as this long: bounds the speed of an approach."""
    acceleration_max: float = 5.0
    """Largest horizontal acceleration, m/s^2."""
    attitude: float = 160.0
    """1/s^2, roll and pitch; rotor thrusts only."""
    rate: float = 22.0
    """1/s, roll and pitch; rotor thrusts only."""
    yaw: float = 2.0
    """1/s: yaw rate per yaw error."""
    yaw_rate: float = 8.0
    """1/s: angular acceleration about the body's z axis per rate error; rotor thrusts only."""
    observer: float = 4.0
    """Double pole of the disturbance observer, rad/s."""
    disturbance_max: float = 5.0
    """Largest disturbance per axis that is compensated, m/s^2."""


class Estimate(NamedTuple):
    """What the law carries from tick to tick."""

    velocity: Any
    """(..., 3) m/s in the world, predicted."""
    disturbance: Any
    """(..., 3) m/s^2 in the world: acceleration that the nominal model does not explain."""


def airframe_of(robot: RobotSpec) -> Airframe:
    """The default preset of `hardware/robots/<robot>/airframe.toml`; raises BadInput for a robot that has none."""
    path = Path(str(resources.files("hardware.robots"))) / robot.name / "airframe.toml"
    if not path.is_file():
        raise BadInput(f"robot '{robot.name}' has no airframe.toml: geometric control is for quadrotors")
    presets = tomllib.loads(path.read_text())
    raw = presets[presets["default"]]
    return Airframe(
        mass_kg=raw["mass_kg"],
        inertia_kgm2=tuple(raw["inertia_kg_m2"]),
        arm_m=raw["arm_m"],
        torque_per_thrust_m=raw["torque_per_thrust_m"],
        rotor_thrust_max_n=raw["thrust_max_n"],
    )


def start(state: Mapping[str, Any]) -> Estimate:
    """The estimate at the beginning of a flight: the measured velocity, no disturbance."""
    velocity = state["velocity_world"]
    return Estimate(velocity, namespace(velocity).zeros_like(velocity))


def observe(
    state: Mapping[str, Any], estimate: Estimate, thrust: Any, *, airframe: Airframe, gains: TrackingGains, dt_s: float
) -> Estimate:
    """The estimate after one period in which the mean rotor command was `thrust` (...), as a fraction of full.

    Luenberger observer of v' = F/m R e3 - g e3 + d, d' = 0, with both poles at `gains.observer`.
    """
    xp = namespace(estimate.velocity)
    axis = rotate(state["quat_wxyz"], _unit_z(estimate.velocity))
    model = axis * (thrust / airframe.hover_fraction * GRAVITY)[..., None] - GRAVITY * _unit_z(estimate.velocity)
    surprise = state["velocity_world"] - estimate.velocity
    velocity = estimate.velocity + dt_s * (model + estimate.disturbance + 2 * gains.observer * surprise)
    disturbance = estimate.disturbance + dt_s * gains.observer**2 * surprise
    bound = gains.disturbance_max
    return Estimate(velocity, xp.clip(disturbance, -bound, bound))


def wanted_acceleration(
    state: Mapping[str, Any], goal: Mapping[str, Any], estimate: Estimate, *, gains: TrackingGains
) -> Any:
    """Acceleration (..., 3), m/s^2 in the world, that thrust must give: feedback, gravity and disturbance."""
    error = _shortened(goal["position_world"] - state["position_world"], gains.error_max_m)
    return lifted(gains.position * error - gains.velocity * state["velocity_world"], estimate, gains=gains)


def lifted(acceleration: Any, estimate: Estimate, *, gains: TrackingGains) -> Any:
    """What thrust must give (..., 3), m/s^2, for an acceleration (..., 3) of the drone: bounded, gravity included."""
    xp = namespace(acceleration)
    feedback = acceleration - estimate.disturbance
    level = _shortened(feedback[..., :2], gains.acceleration_max)
    up = xp.clip(feedback[..., 2:], -0.5 * GRAVITY, GRAVITY) + GRAVITY
    return xp.concat([level, up], axis=-1)


def attitude_thrust(
    state: Mapping[str, Any],
    goal: Mapping[str, Any],
    estimate: Estimate,
    *,
    airframe: Airframe,
    gains: TrackingGains,
) -> Any:
    """Roll, pitch (rad), yaw rate (rad/s) and thrust (fraction of full command), (..., 4), towards a goal.

    Roll and pitch are the z-y-x angles that point the body's z axis along the wanted acceleration at the present
    heading; thrust is that acceleration's part along the body's z axis (Lee et al. 2010, eq. 15).
    """
    wanted = wanted_acceleration(state, goal, estimate, gains=gains)
    return attitude_along(wanted, state, goal, airframe=airframe, gains=gains)


def attitude_along(
    wanted: Any, state: Mapping[str, Any], goal: Mapping[str, Any], *, airframe: Airframe, gains: TrackingGains
) -> Any:
    """As `attitude_thrust`, for the acceleration `wanted` (..., 3) that thrust must give; the goal gives the yaw."""
    xp = namespace(wanted)
    yaw = quat_yaw(state["quat_wxyz"])
    forward = xp.cos(yaw) * wanted[..., 0] + xp.sin(yaw) * wanted[..., 1]
    left = xp.cos(yaw) * wanted[..., 1] - xp.sin(yaw) * wanted[..., 0]
    pitch = xp.atan2(forward, wanted[..., 2])
    roll = xp.atan2(-left, xp.sqrt(forward * forward + wanted[..., 2] ** 2))
    turn = gains.yaw * wrap_angle(_goal_yaw(goal, yaw) - yaw)
    return xp.stack([roll, pitch, turn, _thrust(wanted, state, airframe)], axis=-1)


def rotor_thrust(
    state: Mapping[str, Any],
    goal: Mapping[str, Any],
    estimate: Estimate,
    *,
    airframe: Airframe,
    gains: TrackingGains,
) -> Any:
    """Rotor commands (..., 4) as fractions of full thrust, M1 front right, then clockwise seen from above.

    Attitude error and moment of Lee et al. (2010), eq. 10, 11 and 16, with gains multiplied by the inertia. Where a
    rotor would exceed its maximum the collective thrust gives way, as in the Crazyflie's power distribution.
    """
    wanted = wanted_acceleration(state, goal, estimate, gains=gains)
    return rotors_along(wanted, state, goal, airframe=airframe, gains=gains)


def rotors_along(
    wanted: Any, state: Mapping[str, Any], goal: Mapping[str, Any], *, airframe: Airframe, gains: TrackingGains
) -> Any:
    """As `rotor_thrust`, for the acceleration `wanted` (..., 3) that thrust must give; the goal gives the yaw."""
    xp = namespace(wanted)
    rotation = quat_to_matrix(state["quat_wxyz"])
    desired = _desired_rotation(wanted, _goal_yaw(goal, quat_yaw(state["quat_wxyz"])))
    skew = xp.sum(desired[..., :, :, None] * rotation[..., :, None, :], axis=-3)  # R_d^T R
    skew = skew - xp.matrix_transpose(skew)
    error = 0.5 * xp.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], axis=-1)
    rates = state["angular_velocity_body"]
    like = wanted
    inertia = constant(airframe.inertia_kgm2, like)
    stiffness = constant((gains.attitude, gains.attitude, gains.yaw * gains.yaw_rate), like)
    damping = constant((gains.rate, gains.rate, gains.yaw_rate), like)
    moment = -inertia * (stiffness * error + damping * rates) + cross(rates, inertia * rates)
    return _mix(_thrust(wanted, state, airframe), moment, airframe)


def _mix(thrust: Any, moment: Any, airframe: Airframe) -> Any:
    """Rotor fractions (..., 4) of a collective fraction (...) and a moment (..., 3), N m."""
    xp = namespace(moment)
    full, lever = airframe.rotor_thrust_max_n, airframe.arm_m / math.sqrt(2.0)
    x = moment[..., 0] / (4 * lever * full)
    y = moment[..., 1] / (4 * lever * full)
    z = moment[..., 2] / (4 * airframe.torque_per_thrust_m * full)
    rotors = thrust[..., None] + xp.stack([-x - y - z, -x + y + z, x + y - z, x - y + z], axis=-1)
    excess = xp.max(rotors, axis=-1, keepdims=True) - 1.0
    return xp.clip(rotors - xp.clip(excess, 0.0, None), 0.0, 1.0)


def _thrust(wanted: Any, state: Mapping[str, Any], airframe: Airframe) -> Any:
    xp = namespace(wanted)
    along = xp.sum(wanted * rotate(state["quat_wxyz"], _unit_z(wanted)), axis=-1)
    return xp.clip(along / GRAVITY * airframe.hover_fraction, 0.0, 1.0)


def _desired_rotation(wanted: Any, yaw: Any) -> Any:
    """Rotation (..., 3, 3) with its z axis along `wanted` and its x axis towards `yaw` (Lee et al., eq. 12-14)."""
    xp = namespace(wanted)
    b3 = wanted / xp.sqrt(xp.sum(wanted * wanted, axis=-1, keepdims=True))
    heading = xp.stack([xp.cos(yaw), xp.sin(yaw), xp.zeros_like(yaw)], axis=-1)
    b2 = cross(b3, heading)
    b2 = b2 / xp.sqrt(xp.sum(b2 * b2, axis=-1, keepdims=True))
    return xp.stack([cross(b2, b3), b2, b3], axis=-1)


def _goal_yaw(goal: Mapping[str, Any], like: Any) -> Any:
    if "quat_wxyz" in goal:
        return quat_yaw(goal["quat_wxyz"])
    return namespace(like).zeros_like(like)


def _shortened(vector: Any, longest: float) -> Any:
    xp = namespace(vector)
    length = xp.sqrt(xp.sum(vector * vector, axis=-1, keepdims=True))
    return vector * xp.clip(longest / xp.clip(length, 1e-9, None), None, 1.0)


def _unit_z(like: Any) -> Any:
    xp = namespace(like)
    return xp.zeros_like(like) + constant((0.0, 0.0, 1.0), like)
