"""Climate control as growers do it: set points by day and night, proportional bands, CO2 while it pays.

The rule reads what every greenhouse measures: air temperature, humidity, CO2 and the radiation outside. `GROWER` holds
the set points under which the model's validation crops grew; `TUNED` was found by cross-entropy on training weather.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from hardware.errors import BadInput
from sim.env import BatchEnv


@dataclass(frozen=True)
class SetPoints:
    """Set points and proportional gains; numbers, or tensors (N) with a value per greenhouse."""

    heat_day: Any = 14.0
    """Heating starts below this by day, degC."""
    heat_night: Any = 10.0
    """Heating starts below this at night, degC."""
    day_radiation: Any = 50.0
    """It is day while the radiation outside is above this, W/m2."""
    heat_gain: Any = 30.0
    """W/m2 of heating per degC too cold."""
    vent_day: Any = 16.0
    """Vents open above this by day, degC."""
    vent_night: Any = 12.0
    """Vents open above this at night, degC."""
    vent_gain: Any = 2.0
    """mm/s of ventilation per degC too warm."""
    humidity: Any = 80.0
    """Vents open above this relative humidity, percent."""
    humidity_gain: Any = 0.5
    """mm/s of ventilation per percent too humid."""
    co2: Any = 750.0
    """CO2 is given by day below this, ppm."""
    co2_gain: Any = 0.006
    """mg/m2/s of CO2 per missing ppm."""
    co2_vent_limit: Any = 2.0
    """No CO2 is given while the vents are to open wider than this, mm/s."""


GROWER = SetPoints()
"""Van Henten (1994), Validation of a dynamic lettuce growth model for greenhouse climate control, Agricultural Systems
45: 14 degC by day, 10 at night, 750 ppm CO2; 80 % humidity is the benchmark's bound. Gains and dead bands are choices
(full heating at 5 degC, full vents at 3.75 degC, 2 degC between heating and vents), those of the benchmark package."""
TUNED = SetPoints(
    heat_day=12.02,
    heat_night=12.49,
    day_radiation=0.0,
    heat_gain=29.87,
    vent_day=16.68,
    vent_night=24.17,
    vent_gain=1.674,
    humidity=75.07,
    humidity_gain=0.1953,
    co2=1494.0,
    co2_gain=0.002191,
    co2_vent_limit=7.579,
)
"""By `python -m sim.scenes.greenhouse.tune --candidates 48 --seasons 12 --generations 30`, on synthetic weather."""


def rule(signals: Mapping[str, Tensor], points: SetPoints) -> Tensor:
    """Command (N, 3): CO2 mg/m2/s, ventilation mm/s, heating W/m2, before the limits of the actuators' speed."""
    temperature, co2 = signals["air_temperature"][:, 0], signals["co2"][:, 0]
    humidity, radiation = 100.0 * signals["relative_humidity"][:, 0], signals["outdoor"][:, 0]
    day = radiation > points.day_radiation
    by_time = lambda at_day, at_night: torch.where(  # noqa: E731
        day, torch.as_tensor(at_day).to(temperature), torch.as_tensor(at_night).to(temperature)
    )
    heating = points.heat_gain * (by_time(points.heat_day, points.heat_night) - temperature)
    too_warm = (temperature - by_time(points.vent_day, points.vent_night)).clamp(min=0.0)
    too_humid = (humidity - points.humidity).clamp(min=0.0)
    vents = (points.vent_gain * too_warm + points.humidity_gain * too_humid).clamp(max=7.5)
    dose = points.co2_gain * (points.co2 - co2)
    give = day & (vents <= points.co2_vent_limit)
    return torch.stack([torch.where(give, dose, torch.zeros_like(dose)), vents, heating], 1)


def lettuce_baseline(env: BatchEnv, points: SetPoints = TUNED) -> Callable[[], Tensor]:
    """A function that gives the actions (N, 3) for the environment's present state; sees the signals a policy sees."""
    offset = torch.tensor([f.offset for f in env.interface.action], device=env.device)
    scale = torch.tensor([f.scale for f in env.interface.action], device=env.device)

    def act() -> Tensor:
        signals = env.task.measured(env.task.view(None))
        return ((rule(signals, points) - offset) / scale).clamp(-1.0, 1.0)

    return act


def all_off(env: BatchEnv) -> Callable[[], Tensor]:
    """A function that gives the actions (N, 3) that shut everything."""
    offset = torch.tensor([f.offset for f in env.interface.action], device=env.device)
    scale = torch.tensor([f.scale for f in env.interface.action], device=env.device)
    shut = ((0.0 - offset) / scale).clamp(-1.0, 1.0).expand(env.num_envs, -1)
    return lambda: shut


LAWS: dict[str, Callable[[BatchEnv], Callable[[], Tensor]]] = {
    "off": all_off,
    "grower": lambda env: lettuce_baseline(env, GROWER),
    "rule": lambda env: lettuce_baseline(env, TUNED),
}
"""Name -> law over an environment."""


def set_points(values: Tensor) -> SetPoints:
    """Set points of a vector (12) or of a table (12, N), one column per greenhouse, in the order of the fields."""
    names = [f.name for f in fields(SetPoints)]
    if len(values) != len(names):
        raise BadInput(f"{len(values)} set points; expected {len(names)}: {', '.join(names)}")
    return SetPoints(**dict(zip(names, values, strict=True)))
