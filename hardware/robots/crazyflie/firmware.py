"""The Crazyflie's own attitude and rate control, as its firmware runs it at 500 Hz.

One set of pure functions serves the emulator (numpy, one robot) and the simulator (torch, thousands). Vectors are
planes: the first axis counts components, every further axis is batch, so (3,), (3, N) and (3, E, A) all work. Angles
are REP-103 roll, pitch, yaw in rad; the firmware's "legacy" pitch has the opposite sign in set point, state and gyro
alike, which cancels. Motors M1..M4: front right, then clockwise seen from above.

Sources (github.com/bitcraze/crazyflie-firmware): gains and limits platform_defaults_cf2.h; structure
controller_pid.c, attitude_pid_controller.c, pid.c; mixing and saturation power_distribution_quadrotor.c
(controlModeLegacy and controlModeForceTorque); thrust over voltage platform_defaults_cf2.h, 2.1+ propellers. The
firmware counts in degrees and in 1/65535 of full thrust; here everything is rad and fractions of full thrust.

Deviations: no rounding to int16; the derivative of the rates starts from the measured rate instead of zero (the
firmware's first tick after a reset kicks); no low-pass on the rates' derivative, which is the firmware's default
(ATTITUDE_RATE_LPF_ENABLE false: the gyro is filtered at 80 Hz before, about 3 ms of delay that is not modelled).
"""

import math
from typing import Any, NamedTuple

from hardware.arrays import constant, namespace
from hardware.geometry import wrap_angle

RATE_HZ = 500.0
"""Rate of both loops: ATTITUDE_RATE."""
COUNTS = 65535.0
MIN_THRUST, MAX_THRUST = 1000.0 / COUNTS, 60000.0 / COUNTS
"""Set points below the first mean zero, above the second are cut (crtp_commander_rpyt.c)."""
OUTPUT_LIMIT = 32767.0 / COUNTS
"""Saturation of each rate loop's output (saturateSignedInt16)."""
THRUST_MAX_N = 0.12
"""Force of one rotor at full command, 2.1+ propellers."""
VOLTAGE_TO_THRUST = (-0.02476538, 0.06523794, -0.02679251, 0.00677679)
"""Steady force of one rotor (N) over the motor's voltage (V): cubic, lowest power first."""

_DEG = 180.0 / math.pi


class Gains(NamedTuple):
    """Gains per axis (roll, pitch, yaw), shaped (3, 1, ...) or (3, N) to act on planes."""

    angle_p: Any
    """rad/s per rad."""
    angle_i: Any
    """rad/s per rad s."""
    angle_d: Any
    """rad/s per rad/s, on the measured yaw only."""
    angle_limit: Any
    """Bound of the angle's integral, rad s."""
    rate_p: Any
    """Fraction of full thrust per rad/s."""
    rate_i: Any
    """Fraction of full thrust per rad."""
    rate_d: Any
    """Fraction of full thrust per rad/s^2."""
    rate_limit: Any
    """Bound of the rate's integral, rad."""


class TickGains(NamedTuple):
    """Gains for errors summed and differences taken per tick, which saves a scaling in each."""

    angle_p: Any
    angle_i: Any
    angle_d: Any
    angle_limit: Any
    rate_p: Any
    rate_i: Any
    rate_d: Any
    rate_limit: Any
    dt_s: float


class CascadeState(NamedTuple):
    """What the cascade carries from tick to tick."""

    angle_sum: Any
    """(3, ...) rad: errors summed over ticks."""
    rate_sum: Any
    """(3, ...) rad/s: errors summed over ticks."""
    last_rate: Any
    """(3, ...) rad/s."""
    last_yaw: Any
    """(...) rad."""
    yaw_setpoint: Any
    """(...) rad: the commanded yaw rate moves this angle."""


def gains_on(like: Any) -> Gains:
    """The firmware's default gains for planes like `like` (3, ...): its namespace, dtype and device."""
    xp = namespace(like)
    shape = (3, *(1,) * (like.ndim - 1))

    def make(roll: float, pitch: float, yaw: float, factor: float) -> Any:
        return xp.reshape(constant([roll * factor, pitch * factor, yaw * factor], like), shape)

    return Gains(
        angle_p=make(6.0, 6.0, 6.0, 1.0),
        angle_i=make(3.0, 3.0, 1.0, 1.0),
        angle_d=make(0.0, 0.0, 0.35, 1.0),
        angle_limit=make(20.0, 20.0, 360.0, 1.0 / _DEG),
        rate_p=make(250.0, 250.0, 120.0, _DEG / COUNTS),
        rate_i=make(500.0, 500.0, 16.7, _DEG / COUNTS),
        rate_d=make(2.5, 2.5, 0.0, _DEG / COUNTS),
        rate_limit=make(33.3, 33.3, 166.7, 1.0 / _DEG),
    )


def per_tick(gains: Gains, dt_s: float = 1.0 / RATE_HZ) -> TickGains:
    """Gains for ticks of `dt_s`."""
    return TickGains(
        angle_p=gains.angle_p,
        angle_i=gains.angle_i * dt_s,
        angle_d=gains.angle_d / dt_s,
        angle_limit=gains.angle_limit / dt_s,
        rate_p=gains.rate_p,
        rate_i=gains.rate_i * dt_s,
        rate_d=gains.rate_d / dt_s,
        rate_limit=gains.rate_limit / dt_s,
        dt_s=dt_s,
    )


def start_cascade(angles: Any, rates: Any) -> CascadeState:
    """The state after a reset (attitudeControllerResetAllPID) at measured angles and rates (3, ...)."""
    xp = namespace(angles)
    return CascadeState(xp.zeros_like(angles), xp.zeros_like(rates), rates, angles[2, ...], angles[2, ...])


def commander_thrust(thrust: Any) -> Any:
    """The thrust (...), fraction of full, that the firmware makes of a roll/pitch/yaw-rate/thrust set point."""
    xp = namespace(thrust)
    return xp.where(thrust < MIN_THRUST, xp.zeros_like(thrust), xp.clip(thrust, 0.0, MAX_THRUST))


def cascade(
    setpoint: Any, angles: Any, rates: Any, state: CascadeState, *, gains: TickGains
) -> tuple[Any, CascadeState]:
    """One tick: motor commands (4, ...) in 0..1 and the new state.

    `setpoint` (4, ...) is roll, pitch (rad), yaw rate (rad/s) and thrust (fraction of full); `angles` (3, ...) are
    the measured roll, pitch and yaw (rad), `rates` (3, ...) the gyro (rad/s). At zero thrust the motors stop and the
    state is that of a reset.
    """
    xp = namespace(angles)
    yaw, thrust = angles[2, ...], setpoint[3, ...]
    yaw_setpoint = state.yaw_setpoint + setpoint[2, ...] * gains.dt_s
    # One wrapping for the three errors and for the yaw's own movement.
    targets = xp.stack([setpoint[0, ...], setpoint[1, ...], yaw_setpoint, state.last_yaw])
    gaps = wrap_angle(targets - xp.concat([angles, angles[2:, ...]]))
    error = gaps[:3, ...]
    angle_sum = _bounded(state.angle_sum + error, gains.angle_limit)
    wanted = gains.angle_p * error + gains.angle_i * angle_sum + gains.angle_d * gaps[3, ...]

    rate_error = wanted - rates
    rate_sum = _bounded(state.rate_sum + rate_error, gains.rate_limit)
    output = gains.rate_p * rate_error + gains.rate_i * rate_sum + gains.rate_d * (state.last_rate - rates)
    motors = mix_legacy(thrust, xp.clip(output, -OUTPUT_LIMIT, OUTPUT_LIMIT))

    flying = thrust > 0.0
    zero = xp.zeros_like(thrust)
    new = CascadeState(
        xp.where(flying, angle_sum, zero),
        xp.where(flying, rate_sum, zero),
        rates,
        yaw,
        yaw + xp.where(flying, error[2, ...], zero),  # the set point, kept within half a turn of the yaw
    )
    return xp.where(flying, motors, zero), new


def mix_legacy(thrust: Any, output: Any) -> Any:
    """Motor commands (4, ...) in 0..1 from thrust (...) and the rate loops' outputs (3, ...), fractions of full.

    controlModeLegacy: roll and pitch act by half. Where a motor would exceed full command, all four are lowered by the
    excess, so attitude goes before thrust (powerDistributionCap).
    """
    xp = namespace(output)
    roll, pitch, yaw = 0.5 * output[0, ...], 0.5 * output[1, ...], output[2, ...]
    right, left = thrust - roll, thrust + roll
    nose, tail = pitch + yaw, pitch - yaw
    motors = xp.stack([right - nose, right + nose, left + tail, left - tail])
    return _capped(motors)


def mix_force_torque(force: Any, torque: Any, *, arm_m: float, torque_per_thrust_m: float, rotor_max_n: float) -> Any:
    """Motor commands (4, ...) in 0..1 for a total force (...), N, and a body torque (3, ...), Nm.

    controlModeForceTorque: `arm_m` is the distance of a rotor from the centre; negative forces become zero, then the
    same cap as above.
    """
    xp = namespace(torque)
    lever = arm_m / math.sqrt(2.0)
    roll, pitch = torque[0, ...] * (0.25 / lever), torque[1, ...] * (0.25 / lever)
    yaw, each = torque[2, ...] * (0.25 / torque_per_thrust_m), 0.25 * force
    forces = xp.stack(
        [
            each - roll - pitch - yaw,
            each - roll + pitch + yaw,
            each + roll + pitch - yaw,
            each + roll - pitch + yaw,
        ]
    )
    return _capped(xp.clip(forces, 0.0, math.inf) / rotor_max_n)


def thrust_from_voltage(voltage_v: Any, coefficients: tuple[float, float, float, float] = VOLTAGE_TO_THRUST) -> Any:
    """Steady force of one rotor (N), any shape, from the voltage across its motor (V); valid 0.5..4.2 V."""
    c0, c1, c2, c3 = coefficients
    return c0 + voltage_v * (c1 + voltage_v * (c2 + voltage_v * c3))


def rotor_ceiling(battery_v: Any, *, rotor_max_n: float = THRUST_MAX_N) -> Any:
    """The largest command (...) a battery can serve, as a fraction of full force.

    The firmware compensates the battery: a command asks for a force, whatever the voltage, until the motor would need
    more volts than there are.
    """
    xp = namespace(battery_v)
    return xp.clip(thrust_from_voltage(battery_v) / rotor_max_n, 0.0, 1.0)


def _bounded(value: Any, limit: Any) -> Any:
    xp = namespace(value)
    return xp.minimum(xp.maximum(value, -limit), limit)


def _capped(motors: Any) -> Any:
    xp = namespace(motors)
    excess = xp.clip(xp.max(motors, axis=0) - 1.0, 0.0, math.inf)
    return xp.clip(motors - excess, 0.0, math.inf)
