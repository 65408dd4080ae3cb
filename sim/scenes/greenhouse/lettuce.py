"""The lettuce task: N greenhouses, each in its own season of some year's weather."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from controllers.interface import Interface
from hardware.spec import load_spec
from sim.dynamics import greenhouse as model
from sim.engine import prepared
from sim.env import Verdict
from sim.randomization import Family, draw, draw_bounds
from sim.scenes.greenhouse import devices, instruments
from sim.scenes.greenhouse.config import LettuceConfig, check
from sim.scenes.greenhouse.economy import Account, account, climate
from sim.scenes.greenhouse.logged import lettuce_reward
from sim.scenes.greenhouse.weather import catalogue
from sim.scenes.greenhouse.weather.bank import LEAD_S, LEADS, WeatherBank, make_bank
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
GAINS, LAGS = ("gain_co2", "gain_ventilation", "gain_heating"), ("lag_co2", "lag_ventilation", "lag_heating")
"""Parameters of the actuators, in the order of the command."""
TOTALS = (*Account._fields, "travel")
"""Sums over the season so far; `travel` is the way of all actuators in full strokes."""
_CONSTANT = ("params", "coefficients", "traits")
"""Planes that stay as they are for a season."""
HARVEST = 0.30
"""Dry weight (kg/m2) that good control reaches in 40 days of spring: 0.303 by model predictive control."""


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
        groups = {"structure"} if config.structure else set()
        groups |= {name for name in ("sensors", "actuators") if getattr(config, name) == "real"}
        self._bounds = draw_bounds(spec.params, family, groups, self.device)
        self.bank = bank_of(config, family, self.device)
        self.contexts: Tensor | None = None
        """(P, N) parameters in the order of `spec.params` that every restart takes instead of drawing them."""
        self.starts: Tensor | None = None
        """(N,) rows of the weather on which every restart begins, instead of drawing one of `bank.starts`."""
        self.start_command = torch.tensor(START_COMMAND, device=self.device)
        """(J,) command in force when an episode begins."""
        self._names = list(spec.params)
        self._index = {name: i for i, name in enumerate(self._names)}
        self._gains, self._lags = (slice(self._index[n[0]], self._index[n[0]] + 3) for n in (GAINS, LAGS))
        self._start = torch.tensor(model.START, device=self.device)[:, None]
        self.largest = torch.tensor([high for _, high in self.interface.mode.limits.position], device=self.device)
        """(J,) full strokes."""
        self._disturbance = self.bank.disturbance.T.contiguous()
        self._stride = round(LEAD_S / config.step_s)
        self._substeps = round(config.step_s / config.substep_s)
        self.substep = prepared(self._substep_flat, config.engine)
        """One integration step: state, control, weather, coefficients -> (state,)."""
        self._book = prepared(self._book_flat, config.engine)
        self._plain = config.actuators == "ideal"
        self._bare = not (config.equipment.lamps_w_m2 or config.equipment.screen_saving)
        known = {name: p for name, p in spec.params.items() if p.group in ("", *groups)}
        span = draw_bounds(known, "train", groups, self.device)
        moving = span[:, 1] > span[:, 0]
        self._visible = torch.tensor([self._index[name] for name in known], device=self.device)[moving]
        self._middle = span[moving].mean(1, keepdim=True)
        self._inverse_span = 2.0 / (span[moving, 1:] - span[moving, :1])
        self._reward = torch.zeros(num_envs, device=self.device)
        self.state: dict[str, Tensor] = self._planted(num_envs, None, torch.Generator(device=self.device))
        self.shared: dict[str, Tensor] = {}

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        """New seasons in new greenhouses for rows `ids` (None: all)."""
        fresh = self._planted(self.num_envs if ids is None else len(ids), ids, generator)
        for name, value in fresh.items():
            if ids is None:
                self.state[name] = value
            elif name in _CONSTANT and not torch.is_grad_enabled():
                self.state[name].index_copy_(-1, ids, value)  # many planes, which nobody outside holds
            else:
                self.state[name] = self.state[name].index_copy(-1, ids, value)

    def stagger(self, age: Tensor, generator: torch.Generator) -> None:
        """Moves every season on to `age` (N,) steps: the weather of that day, a crop about as large as it is by then.

        The rest of the climate, which follows within the hour, stays as at planting.
        """
        spread = 0.6 + 0.6 * torch.rand(self.num_envs, generator=generator, device=self.device)
        s = self.state
        s["row"] = s["begun"] + age
        crop = model.START[0] + spread * typical_growth(age * (self.config.step_s / 86400.0))
        s["climate"] = torch.cat([crop[None], s["climate"][1:]])

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period under commands (N, 3)."""
        s, config = self.state, self.config
        control = command.T.contiguous()
        weather = self._disturbance.index_select(1, s["row"])
        coefficients = s["coefficients"]
        if config.step_noise:
            unit = torch.rand(coefficients.shape, generator=generator, device=self.device)
            coefficients = coefficients * (1.0 + config.step_noise * (2.0 * unit - 1.0))
        before, last = s["climate"], s["command"]
        after, used = self._driven(control, weather, coefficients, generator)
        s["climate"], s["totals"], self._reward = self._book(before, after, last, control, used, s["totals"])
        s["command"], s["row"] = control, s["row"] + 1
        if config.forecast == "noisy":
            s["outlook"] = instruments.moved_outlook(s["outlook"], self._stride, generator)
        if config.sensors == "real":
            s |= instruments.read(
                _sensed(before),
                _sensed(s["climate"]),
                s,
                self.params(s["params"]),
                age_s=(s["row"] - s["begun"]) * config.step_s,
                dt_s=config.step_s,
                generator=generator,
            )

    def judge(self, action: Tensor, last_action: Tensor, age: Tensor) -> Verdict:
        """Reward; the harvest ends the season. Metrics are sums over the season so far, and the crop's weight."""
        totals = Account(*self.state["totals"][:-1])
        harvest = age >= self.config.season_steps
        metrics = {
            "epi": totals.profit,
            "penalty": totals.penalty,
            **dict(zip(TOTALS, self.state["totals"], strict=True)),
            "heat_kwh": totals.heat_cost / max(self.config.prices.heat, 1e-9),
            "co2_kg": totals.co2_cost / max(self.config.prices.co2, 1e-9),
            "crop": self.state["climate"][model.CROP],
            "success": harvest & (totals.reward >= self.config.success_return),
        }
        return Verdict(self._reward, totals.penalty, harvest, metrics)

    def pay(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], action: Tensor) -> Tensor:
        """Reward (...) of a step from signals (..., k) before and after it and the action (..., A); differentiable."""
        command = self.interface.command(action)
        return lettuce_reward(before, after, command, config=self.config).to(action.dtype)

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        """What signals are made of, for rows `ids`."""
        names = ["climate", "row", "begun", "command", "traits"]
        names += ["outlook"] * (self.config.forecast == "noisy")
        names += ["readings", "crop_error", "params"] * (self.config.sensors == "real")
        return {name: self.state[name] if ids is None else self.state[name][..., ids] for name in names}

    def measured(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Signals as the PLC reports them."""
        signals = self.truth(view)
        if self.config.forecast == "noisy":
            forecast = signals["forecast"].reshape(-1, LEADS, 4)
            told = instruments.noisy_forecast(forecast, view["outlook"], self._stride)
            signals["forecast"] = told.reshape(-1, 4 * LEADS)
        if self.config.sensors == "real":
            params = self.params(view["params"])
            names = ("air_temperature", "relative_humidity", "co2")
            signals |= {name: reading[:, None] for name, reading in zip(names, view["readings"], strict=True)}
            signals["crop_dry_weight"] = (view["climate"][model.CROP] * (1.0 + view["crop_error"]))[:, None]
            radiation = params["gain_sensor_radiation"][:, None] * signals["outdoor"][:, :1]
            signals["outdoor"] = torch.cat([radiation, signals["outdoor"][:, 1:]], 1)
        return signals

    def truth(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same without any error, (n, k)."""
        co2, temperature, humidity = climate(view["climate"])
        row = view["row"]
        share = (row - view["begun"]) * (1.0 / self.config.season_steps)
        return {
            "air_temperature": temperature[:, None],
            "relative_humidity": 0.01 * humidity[:, None],
            "co2": co2[:, None],
            "crop_dry_weight": view["climate"][model.CROP, :, None],
            "outdoor": torch.cat([self.bank.signals.index_select(0, row), self.bank.wind.index_select(0, row)], 1),
            "forecast": self.bank.windows.index_select(0, row),
            "season": torch.cat([self.bank.clock.index_select(0, row), share[:, None]], 1),
            "actuators": (view["command"] / self.largest[:, None]).T,
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
            view["command"] / self.largest[:, None],
            self.bank.clock.index_select(0, row).T,
            torch.stack([0.002 * weather[0], 0.1 * weather[1], weather[2], 0.01 * (weather[3] - 400.0)]),
            view["traits"],
        ]
        return torch.cat(planes).T.contiguous()

    def params(self, planes: Tensor) -> dict[str, Tensor]:
        """Parameters (P, n) by name."""
        return dict(zip(self._names, planes, strict=True))

    def effective(self, planes: Tensor) -> Tensor:
        """The model's coefficients (22, n) of parameters (P, n), with the house's structure applied."""
        named = self.params(planes)
        values = {name: named[name] for name in model.COEFFICIENTS}
        values["leak"] = values["leak"] * 10.0 ** named["leak_decades"]
        for name, factor in FACTORS.items():
            values[name] = values[name] * named[factor]
        return torch.stack(list(values.values()))

    def _planted(self, count: int, ids: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
        """The state of `count` greenhouses at planting."""
        rows = slice(None) if ids is None else ids
        params = draw(self._bounds, count, generator) if self.contexts is None else self.contexts[:, rows].clone()
        pick = torch.randint(len(self.bank.starts), (count,), generator=generator, device=self.device)
        begun = self.bank.starts[pick] if self.starts is None else self.starts[rows].clone()
        state = {
            "climate": self._start.expand(4, count).clone(),
            "row": begun.clone(),
            "begun": begun,
            "command": self.start_command[:, None].expand(3, count).clone(),
            "params": params,
            "coefficients": self.effective(params),
            "traits": (params.index_select(0, self._visible) - self._middle) * self._inverse_span,
            "totals": torch.zeros((len(TOTALS), count), device=self.device),
        }
        if not self._plain:
            state |= {"actuators": state["command"].clone(), "stuck_s": torch.zeros_like(state["command"])}
        if self.config.forecast == "noisy":
            state["outlook"] = instruments.start_outlook(count, self._stride, generator, self.device)
        if self.config.sensors == "real":
            state |= instruments.start_readings(_sensed(state["climate"]), self.params(params), generator)
        return state

    def _driven(
        self, control: Tensor, weather: Tensor, coefficients: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The climate a control period later, not yet within its bounds, and what was used: (4, N) each."""
        s, config = self.state, self.config
        gains = s["params"][self._gains]
        state, none = s["climate"], torch.zeros_like(weather[:1])
        if self._plain and self._bare:
            control = gains * control
            for _ in range(self._substeps):
                (state,) = self.substep(state, control, weather, coefficients)
            return state, torch.cat([control, none])
        hour = torch.round((self.bank.day[s["row"]] % 1.0) * 288.0) / 12.0
        target, used = control, torch.zeros_like(torch.cat([control, none]))
        if not self._plain:
            dead_band, rate = s["params"][self._index["dead_band"]], s["params"][self._index["stuck_rate"]]
            s["stuck_s"] = devices.stick(s["stuck_s"], rate, config.step_s, generator)
            target = devices.targets(control, s["actuators"], s["stuck_s"], dead_band=dead_band, largest=self.largest)
        for _ in range(self._substeps):
            mean = target
            if not self._plain:
                lag = s["params"][self._lags]
                s["actuators"], mean = devices.follow(s["actuators"], target, lag, config.substep_s)
            mean = gains * mean
            d = devices.equipped(mean, weather, coefficients, hour, equipment=config.equipment)
            (state,) = self.substep(state, d.control, d.weather, d.coefficients)
            used = used + torch.cat([mean, d.electricity[None]]) / self._substeps
        return state, used

    def _substep_flat(self, state: Tensor, control: Tensor, weather: Tensor, coefficients: Tensor) -> tuple[Tensor]:
        c = model.Coefficients(*coefficients.unbind(0))
        return (model.step(state, model.hold(control, weather, c), c=c, dt_s=self.config.substep_s),)

    def _book_flat(
        self, before: Tensor, after: Tensor, last: Tensor, control: Tensor, used: Tensor, totals: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The climate within its bounds, the season's totals and the step's reward: a pure function of tensors."""
        after, c = model.within_bounds(after), self.config
        a = account(before, after, used, duration_s=c.step_s, prices=c.prices, bounds=c.bounds)
        travel = ((control - last).abs() / self.largest[:, None]).sum(0)
        return after, totals + torch.stack([*a, travel]), a.reward


def typical_growth(days: Tensor) -> Tensor:
    """Dry weight (kg/m2) that a well kept crop has gained after so many days."""
    return HARVEST * (days / 40.0).clamp(0.0, 1.5) ** 1.6


def bank_of(config: LettuceConfig, family: Family, device: torch.device | str = "cpu") -> WeatherBank:
    """The weather of a configuration; the family `wide` grows in another climate unless a split is named."""
    split = config.split
    if split == "auto":
        split = "shift" if family == "wide" else "train"
    return _bank(config.weather, split, config.step_s, config.season_steps, config.start_days, str(device))


@functools.lru_cache(maxsize=8)
def _bank(
    weather: str, split: str, step_s: float, season_steps: int, start_days: tuple[float, float], device: str
) -> WeatherBank:
    years = catalogue.load(weather, split)
    return make_bank(years, step_s=step_s, season_steps=season_steps, start_days=start_days, device=device)


def _sensed(state: Tensor) -> Tensor:
    """(3, N) temperature degC, humidity 1, CO2 ppm."""
    co2, temperature, humidity = climate(state)
    return torch.stack([temperature, 0.01 * humidity, co2])
