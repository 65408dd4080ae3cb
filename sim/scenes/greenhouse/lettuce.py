"""The lettuce task: N greenhouses, each in its own season of some year's weather."""

from collections.abc import Mapping

import torch
from torch import Tensor

from controllers.interface import Interface
from hardware.errors import BadInput
from hardware.spec import load_spec
from sim.dynamics import greenhouse as model
from sim.engine import prepared
from sim.env import Verdict
from sim.randomization import Family, draw, draw_bounds
from sim.scenes.greenhouse.config import LettuceConfig, check
from sim.scenes.greenhouse.economy import account, climate
from sim.scenes.greenhouse.weather import catalogue
from sim.scenes.greenhouse.weather.bank import LEADS, WeatherBank, make_bank
from sim.spec import SceneSpec

START_COMMAND = (0.0, 0.0, 50.0)
"""CO2 mg/m2/s, ventilation mm/s, heating W/m2 in force when a season begins, as in the benchmark."""
FACTORS = {
    "heat_transfer": "heat_transfer_factor",
    "solar_gain": "solar_gain_factor",
    "heat_capacity": "heat_capacity_factor",
    "transpiration": "transpiration_factor",
}
"""Coefficient -> the parameter of the house's structure that multiplies it."""
TOTALS = ("revenue", "co2_cost", "heat_cost", "penalty_co2", "penalty_temperature", "penalty_humidity", "travel")
"""Sums over the season so far: EUR/m2, and the actuators' way in full strokes."""


class LettuceTask:
    """The lettuce task in N greenhouses; see sim.env.Task."""

    def __init__(
        self,
        num_envs: int,
        *,
        spec: SceneSpec,
        config: LettuceConfig,
        family: Family = "train",
        device: str | torch.device = "cpu",
    ) -> None:
        check(config)
        self.config, self.spec = config, spec
        self.interface = Interface(load_spec(spec.robot), spec.mode, spec.observation, spec.action)
        self.num_envs, self.device = num_envs, torch.device(device)
        self.bank = bank_of(config, family, self.device)
        self.contexts: Tensor | None = None
        """(P, N) parameters in the order of `spec.params` that every restart takes instead of drawing them."""
        self._names = list(spec.params)
        self._index = {name: i for i, name in enumerate(self._names)}
        groups = {"structure"} if config.structure else set()
        groups |= {name for name in ("sensors", "actuators") if getattr(config, name) == "real"}
        self._bounds = draw_bounds(spec.params, family, groups, self.device)
        zeros = lambda *shape: torch.zeros((*shape, num_envs), device=self.device)  # noqa: E731
        rows = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.state: dict[str, Tensor] = {
            "climate": zeros(4),
            "row": rows,
            "begun": rows.clone(),
            "command": zeros(3),
            "params": zeros(len(self._names)),
            "coefficients": zeros(len(model.COEFFICIENTS)),
            "totals": zeros(len(TOTALS)),
        }
        self.shared: dict[str, Tensor] = {}
        self.start_command = torch.tensor(START_COMMAND, device=self.device)
        """(J,) command in force when an episode begins."""
        self._start = torch.tensor(model.START, device=self.device)[:, None]
        self._largest = torch.tensor([high for _, high in self.interface.mode.limits.position], device=self.device)
        self._disturbance = self.bank.disturbance.T.contiguous()
        self._substeps = round(config.step_s / config.substep_s)
        self._substep = prepared(self._substep_flat, config.engine)
        self._book = prepared(self._book_flat, config.engine)
        known = {name: p for name, p in spec.params.items() if p.group in ("", *groups)}
        span = draw_bounds(known, "train", groups, self.device)
        moving = span[:, 1] > span[:, 0]
        self._visible = torch.tensor([self._index[name] for name in known], device=self.device)[moving]
        self._middle = span[moving].mean(1, keepdim=True)
        self._inverse_span = 2.0 / (span[moving, 1:] - span[moving, :1])
        self._reward = torch.zeros(num_envs, device=self.device)

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        """New seasons in new greenhouses for rows `ids` (None: all)."""
        rows = torch.arange(self.num_envs, device=self.device) if ids is None else ids
        count = len(rows)
        params = draw(self._bounds, count, generator) if self.contexts is None else self.contexts[:, rows]
        pick = torch.randint(len(self.bank.starts), (count,), generator=generator, device=self.device)
        begun = self.bank.starts[pick]
        fresh = {
            "climate": self._start.expand(4, count),
            "row": begun,
            "begun": begun,
            "command": self.start_command[:, None].expand(3, count),
            "params": params,
            "coefficients": self.effective(params),
            "totals": torch.zeros((len(TOTALS), count), device=self.device),
        }
        for name, value in fresh.items():
            self.state[name] = value.clone() if ids is None else self.state[name].index_copy(-1, ids, value)

    def stagger(self, age: Tensor, generator: torch.Generator) -> None:
        """Moves every season on to `age` (N,) steps: weather of that day, and a crop as large as it is by then."""
        share = age / self.config.season_steps
        spread = 0.7 + 0.5 * torch.rand(self.num_envs, generator=generator, device=self.device)
        crop = model.START[0] + (spread * typical_growth(share))
        self.state["row"] = self.state["begun"] + age
        self.state["climate"] = torch.cat([crop[None], self.state["climate"][1:]])

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period under commands (N, 3)."""
        s = self.state
        control = command.T.contiguous()
        weather = self._disturbance.index_select(1, s["row"])
        coefficients = s["coefficients"]
        if self.config.step_noise:
            unit = torch.rand(coefficients.shape, generator=generator, device=self.device)
            coefficients = coefficients * (1.0 + self.config.step_noise * (2.0 * unit - 1.0))
        state = s["climate"]
        for _ in range(self._substeps):
            (state,) = self._substep(state, control, weather, coefficients)
        s["climate"], s["totals"], self._reward = self._book(s["climate"], state, s["command"], control, s["totals"])
        s["command"], s["row"] = control, s["row"] + 1

    def _substep_flat(self, state: Tensor, control: Tensor, weather: Tensor, coefficients: Tensor) -> tuple[Tensor]:
        c = model.Coefficients(*coefficients.unbind(0))
        return (model.step(state, model.hold(control, weather, c), c=c, dt_s=self.config.substep_s),)

    def _book_flat(
        self, before: Tensor, after: Tensor, last: Tensor, control: Tensor, totals: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The state within its bounds, the season's totals and the step's reward: a pure function of tensors."""
        after = model.within_bounds(after)
        c = self.config
        a = account(before, after, control, duration_s=c.step_s, prices=c.prices, bounds=c.bounds)
        travel = ((control - last).abs() / self._largest[:, None]).sum(0)
        return after, totals + torch.stack([*a, travel]), a.reward

    def judge(self, action: Tensor, last_action: Tensor, age: Tensor) -> Verdict:
        """Reward; the harvest ends the season. Metrics are sums over the season so far."""
        totals = dict(zip(TOTALS, self.state["totals"], strict=True))
        profit = totals["revenue"] - totals["co2_cost"] - totals["heat_cost"]
        penalty = totals["penalty_co2"] + totals["penalty_temperature"] + totals["penalty_humidity"]
        harvest = age >= self.config.season_steps
        metrics = {
            "epi": profit,
            "penalty": penalty,
            **totals,
            "heat_kwh": totals["heat_cost"] / max(self.config.prices.heat, 1e-9),
            "co2_kg": totals["co2_cost"] / max(self.config.prices.co2, 1e-9),
            "crop": self.state["climate"][model.CROP],
            "success": harvest & (profit - penalty >= self.config.success_return),
        }
        return Verdict(self._reward, penalty, harvest, metrics)

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        """What signals are made of, for rows `ids`."""
        names = ("climate", "row", "begun", "command", "params")
        return {name: self.state[name] if ids is None else self.state[name][..., ids] for name in names}

    def measured(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Signals as the PLC reports them."""
        co2, temperature, humidity = climate(view["climate"])
        row = view["row"]
        share = (row - view["begun"]) * (1.0 / self.config.season_steps)
        return {
            "air_temperature": temperature[:, None],
            "relative_humidity": 0.01 * humidity[:, None],
            "co2": co2[:, None],
            "crop_dry_weight": view["climate"][model.CROP, :, None],
            "outdoor": torch.cat([self.bank.signals.index_select(0, row), self.bank.wind.index_select(0, row)], 1),
            "forecast": self.bank.forecast(row).reshape(-1, 4 * LEADS),
            "season": torch.cat([self.bank.clock.index_select(0, row), share[:, None]], 1),
            "actuators": (view["command"] / self._largest[:, None]).T,
        }

    def goal(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """None: the reward says what is wanted."""
        return {}

    def privileged(self, view: Mapping[str, Tensor]) -> Tensor:
        """(n, C): true climate, command, season, weather now, parameters that vary."""
        co2, temperature, humidity = climate(view["climate"])
        row = view["row"]
        share = (row - view["begun"]) * (1.0 / self.config.season_steps)
        weather = self.bank.signals.index_select(0, row).T
        planes = [
            10.0 * view["climate"][:1],
            torch.stack([0.0025 * (co2 - 800.0), 0.1 * (temperature - 15.0), 0.05 * (humidity - 80.0), share]),
            view["command"] / self._largest[:, None],
            self.bank.clock.index_select(0, row).T,
            torch.stack([0.002 * weather[0], 0.1 * weather[1], weather[2], 0.01 * (weather[3] - 400.0)]),
            (view["params"].index_select(0, self._visible) - self._middle) * self._inverse_span,
        ]
        return torch.cat(planes).T.contiguous()

    def effective(self, params: Tensor) -> Tensor:
        """The model's coefficients (22, n) of parameters (P, n): leakage preset and the house's structure applied."""
        named = dict(zip(self._names, params, strict=True))
        values = {name: named[name] for name in model.COEFFICIENTS}
        values["leak"] = values["leak"] * 10.0 ** named["leak_decades"]
        for name, factor in FACTORS.items():
            values[name] = values[name] * named[factor]
        return torch.stack(list(values.values()))


def typical_growth(share: Tensor) -> Tensor:
    """Dry weight (kg/m2) that a crop has gained when this share of a season of 40 days is over."""
    return 0.3 * share.clamp(0.0, 1.0) ** 2.2


def bank_of(config: LettuceConfig, family: Family, device: torch.device | str = "cpu") -> WeatherBank:
    """The weather of a configuration; the family `wide` grows in another climate unless a split is named."""
    split = config.split
    if split == "auto":
        split = "shift" if family == "wide" else "train"
    if family not in ("nominal", "train", "wide"):
        raise BadInput(f"family '{family}' not found; families: nominal, train, wide")
    return make_bank(
        catalogue.load(config.weather, split),
        step_s=config.step_s,
        season_steps=config.season_steps,
        start_days=config.start_days,
        device=device,
    )
