"""Fixed-step integrators of ordinary differential equations on batches of tensors; differentiable and compilable.

A system is a function `rate(t_s, state) -> d(state)/dt` of a state of any shape, closed over parameters and inputs.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from hardware.errors import BadInput

Rate = Callable[[float, Tensor], Tensor]
Acceleration = Callable[[float, Tensor, Tensor], Tensor]
"""acceleration(t_s, position, velocity)."""

ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}
"""Method -> order of its global error."""


def step_euler(rate: Rate, t_s: float, state: Tensor, dt_s: float) -> Tensor:
    """Explicit Euler."""
    return state + dt_s * rate(t_s, state)


def step_midpoint(rate: Rate, t_s: float, state: Tensor, dt_s: float) -> Tensor:
    """Explicit midpoint rule (Runge 1895)."""
    half = state + (0.5 * dt_s) * rate(t_s, state)
    return state + dt_s * rate(t_s + 0.5 * dt_s, half)


def step_rk4(rate: Rate, t_s: float, state: Tensor, dt_s: float) -> Tensor:
    """Classical Runge-Kutta method of fourth order (Kutta 1901)."""
    middle = t_s + 0.5 * dt_s
    k1 = rate(t_s, state)
    k2 = rate(middle, state + (0.5 * dt_s) * k1)
    k3 = rate(middle, state + (0.5 * dt_s) * k2)
    k4 = rate(t_s + dt_s, state + dt_s * k3)
    return state + (dt_s / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)


def step_semi_implicit(
    acceleration: Acceleration, t_s: float, position: Tensor, velocity: Tensor, dt_s: float
) -> tuple[Tensor, Tensor]:
    """Semi-implicit (symplectic) Euler: the new velocity moves the position. First order; bounded energy error."""
    velocity = velocity + dt_s * acceleration(t_s, position, velocity)
    return position + dt_s * velocity, velocity


def integrate(
    rate: Rate,
    state: Tensor,
    *,
    duration_s: float,
    steps: int,
    method: Literal["euler", "midpoint", "rk4"] = "rk4",
    t_s: float = 0.0,
) -> Tensor:
    """The state after `duration_s` in equal steps; raises BadInput for an unknown method or no step."""
    methods = {"euler": step_euler, "midpoint": step_midpoint, "rk4": step_rk4}
    if method not in methods:
        raise BadInput(f"integrator '{method}' not found; integrators: {', '.join(methods)}")
    if steps < 1:
        raise BadInput(f"{steps} integration steps; expected at least 1")
    dt_s = duration_s / steps
    for i in range(steps):
        state = methods[method](rate, t_s + i * dt_s, state, dt_s)
    return state
