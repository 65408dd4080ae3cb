"""What a control step earns and costs: the benchmark's reward, in parts."""

from typing import NamedTuple

import torch
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.config import Bounds, Prices


class Account(NamedTuple):
    """EUR/m2 of one step, each plane (...)."""

    revenue: Tensor
    co2: Tensor
    heat: Tensor
    penalty_co2: Tensor
    penalty_temperature: Tensor
    penalty_humidity: Tensor

    @property
    def profit(self) -> Tensor:
        """Economic profit (EPI)."""
        return self.revenue - self.co2 - self.heat

    @property
    def penalty(self) -> Tensor:
        """Sum of the penalties."""
        return self.penalty_co2 + self.penalty_temperature + self.penalty_humidity

    @property
    def reward(self) -> Tensor:
        """Profit minus penalties."""
        return self.profit - self.penalty


def account(
    before: Tensor, after: Tensor, control: Tensor, *, duration_s: float, prices: Prices, bounds: Bounds
) -> Account:
    """The account of a step from state `before` to `after` (4, ...) under a control (3, ...)."""
    co2, temperature, humidity = climate(after)
    return Account(
        revenue=prices.crop * (after[model.CROP] - before[model.CROP]),
        co2=(1e-6 * duration_s * prices.co2) * control[0],
        heat=(duration_s / 3.6e6 * prices.heat) * control[2],
        penalty_co2=_outside(co2, bounds.co2, bounds.co2_cost),
        penalty_temperature=_outside(temperature, bounds.temperature, bounds.temperature_cost),
        penalty_humidity=_outside(humidity, bounds.humidity, bounds.humidity_cost),
    )


def climate(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CO2 (ppm), temperature (degC) and relative humidity (percent, at most 100) of a state."""
    temperature = state[model.TEMPERATURE]
    humidity = (100.0 * model.relative_humidity(state[model.VAPOUR], temperature)).clamp(max=100.0)
    return model.co2_ppm(state[model.CO2], temperature), temperature, humidity


def _outside(value: Tensor, bound: tuple[float, float], cost: tuple[float, float]) -> Tensor:
    below, above = (bound[0] - value).clamp(min=0.0), (value - bound[1]).clamp(min=0.0)
    return torch.add(cost[0] * below, above, alpha=cost[1])
