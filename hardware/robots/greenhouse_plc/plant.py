"""The emulator's own world: Van Henten's greenhouse with lettuce under made-up late-winter weather, in numpy.

Equations as in the simulator's `dynamics`, but written independently; the two are compared by a test. Source: Van
Henten (2003), Biosystems Engineering 85(3):355-364, equations 2 to 11; parameters there, leak of the benchmark.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput

Array = NDArray[np.float64]
MAX_STEP_S = 150.0
"""Longest step of the integration; the fastest time constant is 370 s."""
LEADS = 13
LEAD_S = 1800.0
SEASON_S = 40 * 86400.0
START = (0.0035, 0.001, 15.0, 0.008)
"""Dry weight kg/m2, CO2 kg/m3, air temperature degC, vapour kg/m3, as in the benchmark."""
_GAS, _PRESSURE, _CO2_MOLE, _WATER_MOLE = 8.3144598, 101325.0, 0.04401, 0.01801528


@dataclass(frozen=True)
class Parameters:
    """Van Henten's parameters; symbols of the paper behind the units."""

    yield_factor: float = 0.544
    respiration_dry: float = 2.65e-7
    """1/s, c_resp_d."""
    respiration_co2: float = 4.87e-7
    """1/s, c_resp_c."""
    canopy_surface: float = 53.0
    """m2/kg, c_pl_d."""
    light_use: float = 3.55e-9
    """kg/J, c_rad_phot."""
    diffusion: tuple[float, float, float] = (5.11e-6, 2.30e-4, 6.29e-4)
    """m/s/degC2, m/s/degC, m/s; c_co2."""
    compensation: float = 5.2e-5
    """kg/m3, c_Gamma."""
    volume_co2: float = 4.1
    """m, c_cap_c."""
    volume_vapour: float = 4.1
    """m, c_cap_h."""
    heat_capacity: float = 3.0e4
    """J/m2/degC, c_cap_q."""
    heat_capacity_air: float = 1290.0
    """J/m3/degC, c_cap_q_v."""
    heat_transfer: float = 6.1
    """W/m2/degC, c_ai_ou."""
    solar_gain: float = 0.2
    leak: float = 7.5e-6
    """m/s; ten times as much in the papers."""
    transpiration: float = 3.6e-3
    """m/s, c_v_pl_ai."""
    ventilation_gain: float = 1.0
    """Air exchange per nominal one: vents that open further, or less, than their positions say."""


class GreenhousePlant:
    """A `hardware.plant.Plant` of R compartments; actuators (R, 3): CO2 mg/m2/s, ventilation mm/s, heating W/m2."""

    def __init__(self, num_robots: int = 1, parameters: Parameters | None = None, *, seed: int = 0) -> None:
        self.num_robots, self.parameters, self.seed = num_robots, parameters or Parameters(), seed
        self.state = np.zeros((4, num_robots))
        self.t_s = np.zeros(num_robots)
        for i in range(num_robots):
            self.reset(i)

    def reset(self, index: int) -> None:
        """A newly planted compartment."""
        self.state[:, index] = START
        self.t_s[index] = 0.0

    def step(self, actuators: Array, dt_s: float) -> None:
        """Advances by `dt_s`, in steps of at most 150 s (fourth order); weather at the middle of each."""
        if actuators.shape != (self.num_robots, 3):
            raise BadInput(f"actuator commands have shape {actuators.shape}; expected ({self.num_robots}, 3)")
        n = max(math.ceil(dt_s / MAX_STEP_S), 1)
        h = dt_s / n
        for _ in range(n):
            d = _moist(np.stack([weather(t + h / 2, self.seed) for t in self.t_s], axis=1))
            x, u, p = self.state, actuators.T, self.parameters
            k1 = derivative(x, u, d, p)
            k2 = derivative(x + h / 2 * k1, u, d, p)
            k3 = derivative(x + h / 2 * k2, u, d, p)
            k4 = derivative(x + h * k3, u, d, p)
            self.state = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            self.t_s = self.t_s + h

    def signals(self) -> Mapping[str, Array]:
        """True values (R, ...) of what is measured or told."""
        crop, co2, temperature, vapour = self.state
        ahead = np.arange(LEADS) * LEAD_S
        forecast = np.stack([[weather(t + a, self.seed)[:4] for a in ahead] for t in self.t_s])
        day = 2 * np.pi * self.t_s / 86400.0
        return {
            "air_temperature": temperature.copy(),
            "relative_humidity": np.minimum(relative_humidity(temperature, vapour), 1.0),
            "co2": co2_ppm(temperature, co2),
            "crop_dry_weight": crop.copy(),
            "outdoor": np.stack([weather(t, self.seed) for t in self.t_s]),
            "forecast": forecast.reshape(self.num_robots, -1),
            "season": np.stack([np.sin(day), np.cos(day), self.t_s / SEASON_S], axis=1),
        }


def derivative(x: Array, u: Array, d: Array, p: Parameters) -> Array:
    """Rates (4, R) of the state x (4, R) under controls u (3, R) and weather d (4, R).

    d: radiation W/m2, CO2 kg/m3, temperature degC, vapour kg/m3.
    """
    crop, co2, temperature, vapour = x
    injection, ventilation, heating = u
    radiation, co2_out, temperature_out, vapour_out = d
    air = 1e-3 * p.ventilation_gain * ventilation
    exchange = air + p.leak
    light = 1 - np.exp(-p.canopy_surface * crop)
    a2, a1, a0 = p.diffusion
    uptake = np.maximum(-a2 * temperature**2 + a1 * temperature - a0, 0) * np.maximum(co2 - p.compensation, 0)
    quantum = p.light_use * radiation
    assimilation = light * quantum * uptake / (quantum + uptake + 1e-15)
    respiring = crop * 2 ** (0.1 * temperature - 2.5)
    leaf = 9348.0 / (8314.0 * (temperature + 273.15)) * np.exp(17.4 * temperature / (temperature + 239.0))
    evaporation = light * p.transpiration * (leaf - vapour)
    return np.stack(
        [
            p.yield_factor * assimilation - p.respiration_dry * respiring,
            (-assimilation + p.respiration_co2 * respiring + 1e-6 * injection - exchange * (co2 - co2_out))
            / p.volume_co2,
            (
                heating
                - (p.heat_capacity_air * air + p.heat_transfer) * (temperature - temperature_out)
                + p.solar_gain * radiation
            )
            / p.heat_capacity,
            (evaporation - exchange * (vapour - vapour_out)) / p.volume_vapour,
        ]
    )


def co2_ppm(temperature_c: Array, co2_kg_m3: Array) -> Array:
    """Volume fraction of CO2, ppm."""
    return 1e6 * _GAS * (temperature_c + 273.15) * co2_kg_m3 / (_PRESSURE * _CO2_MOLE)


def relative_humidity(temperature_c: Array, vapour_kg_m3: Array) -> Array:
    """Share of saturation."""
    return _GAS * (temperature_c + 273.15) * vapour_kg_m3 / (_WATER_MOLE * _saturation_pa(temperature_c))


def weather(t_s: float, seed: int = 0) -> Array:
    """(5,) radiation W/m2, temperature degC, relative humidity, CO2 ppm, wind m/s, t_s seconds after midnight UTC.

    Made up, after a Dutch February: days of ten hours, each with its own clouds, warmth and wind, joined linearly.
    """
    day, second = divmod(t_s, 86400.0)
    share = second / 86400.0
    clouds, warmth, wind = (1 - share) * _of_day(int(day), seed) + share * _of_day(int(day) + 1, seed)
    sun = max(math.sin(math.pi * (second / 3600.0 - 7.5) / 10.0), 0.0) if 7.5 <= second / 3600.0 <= 17.5 else 0.0
    swing = math.sin(2 * math.pi * (share - 0.375))
    temperature = warmth + 3.0 * swing
    return np.array([(380.0 * clouds) * sun, temperature, min(0.82 - 0.12 * swing, 1.0), 410.0, wind])


@cache
def _of_day(day: int, seed: int) -> Array:
    """Clearness, mean temperature and mean wind of a day."""
    rng = np.random.default_rng((seed, day))
    return np.array([rng.uniform(0.25, 1.0), rng.normal(5.0, 2.0), rng.uniform(2.0, 7.0)])


def _moist(d: Array) -> Array:
    """Weather (5, R) as the equations want it: radiation, CO2 kg/m3, temperature, vapour kg/m3."""
    radiation, temperature, humidity, co2, _ = d
    kelvin = temperature + 273.15
    return np.stack(
        [
            radiation,
            1e-6 * co2 * _PRESSURE * _CO2_MOLE / (_GAS * kelvin),
            temperature,
            humidity * _WATER_MOLE * _saturation_pa(temperature) / (_GAS * kelvin),
        ]
    )


def _saturation_pa(temperature_c: Array) -> Array:
    return 610.78 * np.exp(17.2694 * temperature_c / (temperature_c + 238.3))
