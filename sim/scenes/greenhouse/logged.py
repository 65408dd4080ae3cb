"""What the lettuce task would have paid for recorded steps, from the signals alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.scenes.greenhouse.config import LettuceConfig

Signals = Mapping[str, NDArray[Any]]


def lettuce_reward(
    before: Signals, after: Signals, command: NDArray[Any], *, config: LettuceConfig
) -> NDArray[np.float64]:
    """Reward (T,) of steps under commands (T, 3): growth less CO2 and heat, less what the climate was outside.

    The crop's weight is as good as its measurement. Lamps are not in the signals, so their electricity is not counted.
    """
    p, b, hours = config.prices, config.bounds, config.step_s / 3600.0
    at = lambda name: np.asarray(after[name], dtype=np.float64)[:, 0]  # noqa: E731
    growth = at("crop_dry_weight") - np.asarray(before["crop_dry_weight"], dtype=np.float64)[:, 0]
    reward = p.crop * growth - 3.6e-3 * hours * p.co2 * command[:, 0] - 1e-3 * hours * p.heat * command[:, 2]
    climate = {"co2": at("co2"), "temperature": at("air_temperature"), "humidity": 100.0 * at("relative_humidity")}
    for name, value in climate.items():
        (low, high), (below, above) = getattr(b, name), getattr(b, f"{name}_cost")
        reward -= below * np.maximum(low - value, 0.0) + above * np.maximum(value - high, 0.0)
    return reward
