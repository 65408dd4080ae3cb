"""Nominal greenhouses that start where a log says and take what a log commanded; see sim.replay.OpenLoop."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.economy import climate
from sim.scenes.greenhouse.lettuce import LettuceTask
from sim.scenes.greenhouse.weather.bank import disturbances


class OpenLoopHouses:
    """N greenhouses of the nominal family, under the weather that the log measured."""

    inputs: tuple[str, ...] = ("outdoor",)

    def __init__(self, task: LettuceTask) -> None:
        self._config = task.config
        self._coefficients = task.effective(task.state["params"])
        self._state = task.state["climate"]

    def place(self, signals: Mapping[str, Tensor], commands: Tensor) -> None:
        """See OpenLoop.place."""
        temperature, humidity = signals["air_temperature"][:, 0], signals["relative_humidity"][:, 0]
        self._state = torch.stack(
            [
                signals["crop_dry_weight"][:, 0],
                model.co2_density(signals["co2"][:, 0], temperature),
                temperature,
                model.vapour_density(humidity, temperature),
            ]
        )

    def advance(self, command: Tensor, given: Mapping[str, Tensor]) -> None:
        """See OpenLoop.advance."""
        self._state = model.advance(
            self._state,
            command.T,
            disturbances(given["outdoor"][:, :4]).T,
            coefficients=self._coefficients,
            duration_s=self._config.step_s,
            substeps=round(self._config.step_s / self._config.substep_s),
        )

    def signals(self) -> Mapping[str, Tensor]:
        """See OpenLoop.signals."""
        co2, temperature, humidity = climate(self._state)
        named = {"air_temperature": temperature, "relative_humidity": 0.01 * humidity, "co2": co2}
        return {k: v[:, None] for k, v in {**named, "crop_dry_weight": self._state[model.CROP]}.items()}
