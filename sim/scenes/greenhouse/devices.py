"""What stands between a command and the climate: actuators that lag and stick, lamps, screens."""

from typing import NamedTuple

import torch
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.config import Equipment

LAMP_LIGHT = 2.2
"""Outdoor radiation (W/m2) whose light at the crop equals that of 1 W/m2 of lamps.

LED lamps give 3.0 umol of photosynthetic light per joule. The sun gives 2.1 umol per joule of global radiation (45 % of
it photosynthetic, 4.57 umol/J), of which the model's light use assumes about 65 % to pass the cover: 3.0 / 1.37.
"""
STUCK_S = (3600.0, 86400.0)
"""Shortest and longest time for which an actuator sticks."""
_SCREENED = tuple(float(name in ("heat_transfer", "leak")) for name in model.COEFFICIENTS)


class Driven(NamedTuple):
    """What a substep or step really gets."""

    control: Tensor
    weather: Tensor
    coefficients: Tensor
    electricity: Tensor
    """(N,) W/m2."""


def equipped(control: Tensor, weather: Tensor, coefficients: Tensor, hour: Tensor, *, equipment: Equipment) -> Driven:
    """Control (3, N), weather (4, N) and coefficients (22, N) under lamps and screens, at an hour (N,) of the day.

    Lamps add light and turn all their electricity into heat; the closed screen saves heat transfer and leakage.
    """
    radiation, electricity = weather[0], torch.zeros_like(weather[0])
    if equipment.lamps_w_m2:
        first, last = equipment.lamp_hours
        lit = (hour >= first) & (hour < last) & (radiation < equipment.lamp_radiation)
        electricity = equipment.lamps_w_m2 * lit.to(radiation.dtype)
        light = LAMP_LIGHT * electricity
        solar_gain = coefficients[model.COEFFICIENTS.index("solar_gain")]
        # The model heats by a share of all radiation; the lamps' own heat replaces that share of their light.
        control = torch.stack([control[0], control[1], control[2] + electricity - solar_gain * light])
        weather = torch.cat([(radiation + light)[None], weather[1:]])
    if equipment.screen_saving:
        closed = (radiation < equipment.screen_radiation).to(radiation.dtype)
        screened = torch.tensor(_SCREENED, dtype=radiation.dtype, device=radiation.device)[:, None]
        coefficients = coefficients * (1.0 - equipment.screen_saving * screened * closed)
    return Driven(control, weather, coefficients, electricity)


def targets(command: Tensor, actual: Tensor, stuck_s: Tensor, *, dead_band: Tensor, largest: Tensor) -> Tensor:
    """Where actuators (3, N) head for: their command, unless it is within the dead band or they stick."""
    near = (command - actual).abs() < dead_band * largest[:, None]
    return torch.where(near | (stuck_s > 0.0), actual, command)


def follow(actual: Tensor, target: Tensor, lag_s: Tensor, dt_s: float) -> tuple[Tensor, Tensor]:
    """Position after `dt_s` of first-order lag (3, N), and its mean over that time."""
    ratio = lag_s / dt_s
    left = torch.exp(-1.0 / ratio.clamp(min=1e-3))
    away = actual - target
    return target + away * left, target + away * ratio * (1.0 - left)


def stick(stuck_s: Tensor, rate_per_day: Tensor, dt_s: float, generator: torch.Generator) -> Tensor:
    """Seconds (3, N) for which each actuator still sticks, one step later; new faults come at a rate (N,)."""
    start, share = torch.rand((2, *stuck_s.shape), generator=generator, device=stuck_s.device)
    begins = start < rate_per_day * (dt_s / 86400.0)
    return torch.where(begins, STUCK_S[0] + (STUCK_S[1] - STUCK_S[0]) * share, (stuck_s - dt_s).clamp(min=0.0))
