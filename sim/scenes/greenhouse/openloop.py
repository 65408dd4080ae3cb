"""Nominal greenhouses that start where a log says and take what a log commanded; see sim.replay.OpenLoop."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.economy import climate
from sim.scenes.greenhouse.lettuce import LettuceTask
from sim.scenes.greenhouse.weather.bank import LEAD_S, LEADS, disturbances


class OpenLoopHouses:
    """N greenhouses of the nominal family, under the weather that the log's forecast announced at the start.

    Beyond the six hours of the forecast its last hour stays in force.
    """

    def __init__(self, task: LettuceTask) -> None:
        self._task, self._step_s = task, task.config.step_s
        self._coefficients = task.effective(task.state["params"])
        self._state = task.state["climate"]
        self._forecast = task.bank.windows[task.state["row"]].reshape(-1, LEADS, 4)
        self._elapsed_s = 0.0

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
        self._forecast, self._elapsed_s = signals["forecast"].reshape(-1, LEADS, 4), 0.0

    def advance(self, command: Tensor) -> None:
        """See OpenLoop.advance."""
        lead = min(round(self._elapsed_s // LEAD_S), LEADS - 1)
        self._state = model.advance(
            self._state,
            command.T,
            disturbances(self._forecast[:, lead]).T,
            coefficients=self._coefficients,
            duration_s=self._step_s,
            substeps=round(self._step_s / self._task.config.substep_s),
        )
        self._elapsed_s += self._step_s

    def signals(self) -> Mapping[str, Tensor]:
        """See OpenLoop.signals."""
        co2, temperature, humidity = climate(self._state)
        named = {"air_temperature": temperature, "relative_humidity": 0.01 * humidity, "co2": co2}
        return {k: v[:, None] for k, v in {**named, "crop_dry_weight": self._state[model.CROP]}.items()}
