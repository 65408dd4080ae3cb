"""What the lettuce task would have paid for recorded steps, from the signals alone."""

from collections.abc import Mapping
from typing import Any

from hardware.arrays import namespace
from sim.scenes.greenhouse.config import LettuceConfig

Signals = Mapping[str, Any]


def lettuce_reward(before: Signals, after: Signals, command: Any, *, config: LettuceConfig) -> Any:
    """Reward (...) of steps under commands (..., 3): growth less CO2 and heat, less what the climate was outside.

    The crop's weight is as good as its measurement. Lamps are not in the signals, so their electricity is not counted.
    """
    xp, p, b, hours = namespace(command), config.prices, config.bounds, config.step_s / 3600.0
    at = lambda name, signals=after: xp.astype(signals[name][..., 0], xp.float64)  # noqa: E731
    excess = lambda x: 0.5 * (x + xp.abs(x))  # noqa: E731
    growth = at("crop_dry_weight") - at("crop_dry_weight", before)
    reward = p.crop * growth - 3.6e-3 * hours * p.co2 * command[..., 0] - 1e-3 * hours * p.heat * command[..., 2]
    climate = {"co2": at("co2"), "temperature": at("air_temperature"), "humidity": 100.0 * at("relative_humidity")}
    for name, value in climate.items():
        (low, high), (below, above) = getattr(b, name), getattr(b, f"{name}_cost")
        reward = reward - below * excess(low - value) - above * excess(value - high)
    return reward
