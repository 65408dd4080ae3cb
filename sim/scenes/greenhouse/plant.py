"""The scene's greenhouses as the world behind emulated PLCs: any time step, float64, weather without steps."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.economy import climate
from sim.scenes.greenhouse.lettuce import GAINS, LettuceTask
from sim.scenes.greenhouse.weather.bank import disturbances

LONGEST_S = 300.0
"""Longest step of the integration."""


class GreenhouseWorld:
    """Greenhouses that take actuator positions directly; see sim.emulate.DrivenWorld.

    The PLC brings its own lags, limits and sensors; gains of the actuators, the house and the crop are the task's.
    """

    def __init__(self, task: LettuceTask) -> None:
        self.num_envs, self._task = task.num_envs, task
        self._parameters = task.state["params"].double()
        self._begun = task.state["begun"]
        self._elapsed_s = torch.zeros(self.num_envs, dtype=torch.float64)
        self._state = torch.zeros((4, self.num_envs), dtype=torch.float64)
        self.park(torch.arange(self.num_envs))

    def park(self, ids: Tensor) -> None:
        """Plants anew at the season's start."""
        start = torch.tensor(model.START, dtype=torch.float64)[:, None].expand(4, len(ids))
        self._state = self._state.index_copy(1, ids, start)
        self._elapsed_s = self._elapsed_s.index_fill(0, ids, 0.0)

    def drive(self, actuators: Tensor, dt_s: float) -> None:
        """Advances all greenhouses by `dt_s` under actuators (3, N): CO2 mg/m2/s, ventilation mm/s, heating W/m2."""
        named = self._task.params(self._parameters)
        control = actuators.double() * torch.stack([named[name] for name in GAINS])
        coefficients = self._task.effective(self._parameters)
        steps = max(math.ceil(dt_s / LONGEST_S - 1e-9), 1)
        for _ in range(steps):
            now = self._elapsed_s + 0.5 * dt_s / steps
            weather = disturbances(self._signals(now)).T
            self._state = model.advance(
                self._state, control, weather, coefficients=coefficients, duration_s=dt_s / steps, substeps=1
            )
            self._elapsed_s = self._elapsed_s + dt_s / steps

    def truth(self) -> Mapping[str, Tensor]:
        """True signals, name -> (N, *shape)."""
        co2, temperature, humidity = climate(self._state)
        bank, elapsed = self._task.bank, self._elapsed_s
        row, part = self._row(elapsed, len(bank.windows) - 2)
        forecast = torch.lerp(bank.windows[row].double(), bank.windows[row + 1].double(), part[:, None])
        row, part = self._row(elapsed, len(bank.wind) - 2)
        wind = torch.lerp(bank.wind[row].double(), bank.wind[row + 1].double(), part[:, None])
        turn = 2.0 * math.pi * (bank.day[self._begun].double() + elapsed / 86400.0)
        share = elapsed / (self._task.config.season_days * 86400.0)
        return {
            "air_temperature": temperature,
            "relative_humidity": 0.01 * humidity,
            "co2": co2,
            "crop_dry_weight": self._state[model.CROP],
            "outdoor": torch.cat([self._signals(elapsed), wind], 1),
            "forecast": forecast,
            "season": torch.stack([torch.sin(turn), torch.cos(turn), share], 1),
        }

    def set_params(self, values: Mapping[str, Tensor | float]) -> None:
        """Sets parameters of all greenhouses by name, for instance those that a log identified; keeps the others."""
        names = list(self._task.spec.params)
        planes = self._parameters.clone()
        for name, value in values.items():
            planes[names.index(name)] = value
        self._parameters = planes

    def _signals(self, elapsed_s: Tensor) -> Tensor:
        """Weather (N, 4), linear between the rows of the weather bank."""
        signals = self._task.bank.signals
        row, part = self._row(elapsed_s, len(signals) - 2)
        return torch.lerp(signals[row].double(), signals[row + 1].double(), part[:, None])

    def _row(self, elapsed_s: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """The weather's row at a time since planting and how far the next one is near; it stays at the last row."""
        position = elapsed_s / self._task.config.step_s
        row = (self._begun + torch.floor(position).long()).clamp(max=last)
        return row, (position - torch.floor(position))
