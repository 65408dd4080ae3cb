"""The settings of the lettuce task and their checks."""

import math
from dataclasses import dataclass, field
from typing import Literal

from hardware.errors import BadInput
from sim.engine import Engine

Forecast = Literal["perfect", "none", "noisy"]
LEAKS = {"ranges": None, "benchmark": 7.5e-6, "paper": 7.5e-5}
"""Air exchange through the cover, m/s: as ranges.toml has it (identified, say); all RL and MPC benchmark code; Van
Henten (1994, 2003)."""


@dataclass(frozen=True)
class Prices:
    """EUR; the benchmark's."""

    crop: float = 22.285125
    """Lettuce, per kg of dry weight."""
    co2: float = 0.1906
    """CO2, per kg."""
    heat: float = 0.1281
    """Heat, per kWh."""
    electricity: float = 0.30
    """Electricity for lamps, per kWh."""


@dataclass(frozen=True)
class Bounds:
    """The climate that the crop wants, and what a step outside costs (EUR/m2 per unit and step); the benchmark's."""

    co2: tuple[float, float] = (500.0, 1600.0)
    """ppm."""
    temperature: tuple[float, float] = (10.0, 20.0)
    """degC."""
    humidity: tuple[float, float] = (0.0, 80.0)
    """Percent."""
    co2_cost: tuple[float, float] = (5e-5, 5e-5)
    """Per ppm below and above."""
    temperature_cost: tuple[float, float] = (3e-3, 5e-3)
    """Per degC below and above."""
    humidity_cost: tuple[float, float] = (7e-4, 7e-4)
    """Per percent below and above."""


@dataclass(frozen=True)
class Equipment:
    """Lamps and screens that the benchmark does not have; worked by fixed rules."""

    lamps_w_m2: float = 0.0
    """Electric power of the lamps; 0 = none."""
    lamp_hours: tuple[float, float] = (4.0, 20.0)
    """Hours of the day (UTC) between which lamps may burn."""
    lamp_radiation: float = 100.0
    """Lamps burn while the outdoor radiation is below this, W/m2."""
    screen_saving: float = 0.0
    """Share of heat transfer and leakage that the closed screen saves; 0 = none."""
    screen_radiation: float = 10.0
    """The screen is closed while the outdoor radiation is below this, W/m2."""


@dataclass(frozen=True)
class LettuceConfig:
    """The task's own settings; the greenhouses' numbers live in ranges.toml. The defaults are the benchmark's rules."""

    mode: Literal["direct"] = "direct"
    """Command mode: actuators directly."""
    forecast: Forecast = "perfect"
    """What the policy knows of the coming weather: 13 points over 6 h as they will be (as the benchmark gives them);
    nothing but the weather now; or a forecast with errors that grow with the root of the lead time."""
    weather: str = "synthetic"
    """`synthetic` (generated, the same everywhere), `measured` (from installed packages), a single measured year, or a
    file (.csv, .epw, .tm2, .txt)."""
    split: Literal["auto", "train", "validation", "test", "shift"] = "auto"
    """Which years of the weather; auto: `train`, and `shift` for the family `wide`."""
    start_days: tuple[float, float] = (15.0, 75.0)
    """First and last day of the year on which a season may start; (40, 40) is the benchmark's 9 February."""
    season_days: float = 40.0
    """Length of a season, days."""
    step_s: float = 1800.0
    """Control period, s: 1800 (standard) or 900."""
    substep_s: float = 300.0
    """Integration step, s; the benchmark's is 450."""
    leak: Literal["ranges", "benchmark", "paper"] = "ranges"
    """Leakage: as ranges.toml has it, 7.5e-6 m/s as in all benchmark code, or 7.5e-5 m/s as published."""
    cultivar: str = "butterhead"
    """Preset of the crop's coefficients; see cultivars.toml."""
    step_noise: float = 0.0
    """Relative half-width of uniform noise on all 22 coefficients, drawn anew for every step; the benchmark's is
    0.05."""
    structure: bool = False
    """Draw houses of very different leakage, cover, solar gain, heat capacity and transpiration too."""
    sensors: Literal["ideal", "real"] = "ideal"
    """Signals as they are, or with noise, bias, drift, delay, dropouts, outages and spikes."""
    actuators: Literal["ideal", "real"] = "ideal"
    """Actuators that do as told, or with gain, lag, dead band and sticking."""
    success_return: float = 2.0
    """Success: a season's return of at least this, EUR/m2; 2.0 is about what a set-point rule can be tuned to on the
    standard season."""
    prices: Prices = field(default_factory=Prices)
    """Prices."""
    bounds: Bounds = field(default_factory=Bounds)
    """Bounds of the climate."""
    equipment: Equipment = field(default_factory=Equipment)
    """Lamps and screens; none."""
    engine: Engine = "traced"
    """How the simulator's step is run: eager, traced (recorded once, replayed without Python, bit for bit the same) or
    compiled (torch.compile: 10 to 40 s at the start, worth it for long runs)."""

    @property
    def season_steps(self) -> int:
        """Control steps of a season."""
        return round(self.season_days * 86400.0 / self.step_s)


def check(config: LettuceConfig) -> None:
    """Raises BadInput, in one line, for settings that make no task."""
    if config.step_s not in (1800.0, 900.0):
        raise BadInput(f"step_s = {config.step_s:g}; expected 1800 or 900")
    if not 0.0 < config.substep_s <= 900.0 or config.step_s % config.substep_s:
        raise BadInput(f"substep_s = {config.substep_s:g}: expected a divisor of step_s, at most 900")
    if not 0.1 <= config.season_days <= 360.0 or not math.isfinite(config.season_days):
        raise BadInput(f"season_days = {config.season_days:g}; expected 0.1 to 360")
    low, high = config.start_days
    if not 1.0 <= low <= high <= 366.0:
        raise BadInput(f"start_days = {low:g}, {high:g}: expected days of the year from 1 to 366, the first one first")
    if not 0.0 <= config.step_noise <= 0.5:
        raise BadInput(f"step_noise = {config.step_noise:g}; expected 0 to 0.5")
    if not math.isfinite(config.success_return):
        raise BadInput(f"success_return = {config.success_return}; expected a finite number")
    for name, price in vars(config.prices).items():
        if not math.isfinite(price):
            raise BadInput(f"prices.{name} = {price}; expected a finite number")
    for name, unit in (("co2", "ppm"), ("temperature", "degC"), ("humidity", "%")):
        low, high = getattr(config.bounds, name)
        if not low < high:
            raise BadInput(f"bounds.{name} = {low:g}, {high:g} {unit}: expected the lower bound below the upper one")
        if not all(0.0 <= cost < math.inf for cost in getattr(config.bounds, f"{name}_cost")):
            raise BadInput(f"bounds.{name}_cost: expected finite costs, at least 0")
    e = config.equipment
    if not 0.0 <= e.lamps_w_m2 < math.inf:
        raise BadInput(f"equipment.lamps_w_m2 = {e.lamps_w_m2:g}; expected a finite number, at least 0")
    if not 0.0 <= e.screen_saving < 1.0:
        raise BadInput(f"equipment.screen_saving = {e.screen_saving:g}; expected 0 to below 1")
