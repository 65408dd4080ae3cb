"""What a control step earns and costs: the benchmark's reward, in parts."""

from typing import NamedTuple

import torch
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.config import Bounds, Prices

_HOUR_S = 3600.0


class Account(NamedTuple):
    """One step, or the sum of many; planes (...). EUR/m2 first, then how far and how long the climate was outside."""

    revenue: Tensor
    co2_cost: Tensor
    heat_cost: Tensor
    electricity_cost: Tensor
    penalty_co2: Tensor
    penalty_temperature: Tensor
    penalty_humidity: Tensor
    ppm_hours: Tensor
    degree_hours: Tensor
    percent_hours: Tensor

    @property
    def profit(self) -> Tensor:
        """Economic profit (EPI)."""
        return self.revenue - self.co2_cost - self.heat_cost - self.electricity_cost

    @property
    def penalty(self) -> Tensor:
        """Sum of the penalties."""
        return self.penalty_co2 + self.penalty_temperature + self.penalty_humidity

    @property
    def reward(self) -> Tensor:
        """Profit minus penalties."""
        return self.profit - self.penalty


def account(
    before: Tensor, after: Tensor, used: Tensor, *, duration_s: float, prices: Prices, bounds: Bounds
) -> Account:
    """The account of a step from state `before` to `after` (4, ...).

    `used` (4, ...) holds CO2 mg/m2/s, ventilation mm/s, heating W/m2 and electricity W/m2. Penalties judge the climate
    at the end of the step, as in the benchmark.
    """
    co2, temperature, humidity = climate(after)
    hours = duration_s / _HOUR_S
    penalties, excess = [], []
    for value, name in ((co2, "co2"), (temperature, "temperature"), (humidity, "humidity")):
        low, high = getattr(bounds, name)
        below, above = (low - value).clamp(min=0.0), (value - high).clamp(min=0.0)
        cost_below, cost_above = getattr(bounds, f"{name}_cost")
        penalties.append(torch.add(cost_below * below, above, alpha=cost_above))
        excess.append(hours * (below + above))
    return Account(
        prices.crop * (after[model.CROP] - before[model.CROP]),
        (1e-6 * duration_s * prices.co2) * used[0],
        (duration_s / 3.6e6 * prices.heat) * used[2],
        (duration_s / 3.6e6 * prices.electricity) * used[3],
        *penalties,
        *excess,
    )


def climate(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CO2 (ppm), temperature (degC) and relative humidity (percent, at most 100) of a state (4, ...)."""
    temperature = state[model.TEMPERATURE]
    humidity = (100.0 * model.relative_humidity(state[model.VAPOUR], temperature)).clamp(max=100.0)
    return model.co2_ppm(state[model.CO2], temperature), temperature, humidity
