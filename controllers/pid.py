"""A PID step: derivative on the measurement, conditional integration; array-API style, leading dimensions free."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from hardware.arrays import namespace


@dataclass(frozen=True)
class PidGains:
    """Gains and bounds of one loop."""

    kp: float
    """Output per unit of error."""
    ki: float = 0.0
    """Output per unit of error and second."""
    kd: float = 0.0
    """Output per unit of measurement change per second."""
    low: float = -math.inf
    """Lowest output."""
    high: float = math.inf
    """Highest output."""
    derivative_cutoff_hz: float = math.inf
    """Corner of the first-order low-pass on the derivative."""


class PidState(NamedTuple):
    """What a loop carries from step to step; all (...) like the measurement."""

    integral: Any
    """Integral part of the output, in the output's unit."""
    measured: Any
    """Last measurement."""
    rate: Any
    """Filtered change of the measurement per second."""


def pid_start(measured: Any) -> PidState:
    """State of a loop that begins at this measurement: no integral and no kick from the derivative."""
    xp = namespace(measured)
    return PidState(xp.zeros_like(measured), measured, xp.zeros_like(measured))


def pid_step(wanted: Any, measured: Any, state: PidState, *, gains: PidGains, dt_s: float) -> tuple[Any, PidState]:
    """Output (...) and new state for set point `wanted` (...) and `measured` (...).

    The derivative acts on the measurement, so a jump of the set point gives no kick. Anti-windup by conditional
    integration (Astrom & Hagglund 2006, section 3.5): while the output is at a bound, the integral may only move
    away from it.
    """
    xp = namespace(measured)
    blend = (
        1.0 if math.isinf(gains.derivative_cutoff_hz) else -math.expm1(-2 * math.pi * gains.derivative_cutoff_hz * dt_s)
    )
    rate = state.rate + blend * ((measured - state.measured) / dt_s - state.rate)
    error = wanted - measured
    change = gains.ki * error * dt_s
    wish = gains.kp * error - gains.kd * rate + state.integral + change
    winds_up = ((wish > gains.high) & (change > 0)) | ((wish < gains.low) & (change < 0))
    integral = xp.where(winds_up, state.integral, state.integral + change)
    output = gains.kp * error - gains.kd * rate + integral
    if not math.isinf(gains.low):
        output = xp.maximum(output, xp.full_like(output, gains.low))
    if not math.isinf(gains.high):
        output = xp.minimum(output, xp.full_like(output, gains.high))
    return output, PidState(integral, measured, rate)
