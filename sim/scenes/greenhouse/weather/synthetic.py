"""A generator of weather years: daily and seasonal cycles with autocorrelated clouds, temperature, humidity and wind.

Not a forecast of anything: a stand-in with the right means, spreads and time constants, so that everything runs without
measured data. Radiation is a clear sky (Haurwitz 1945) under clouds whose monthly mean transmission follows from the
climate's normals; temperature is the normal of the season plus weather of some days and a daily wave that clear skies
make larger; humidity follows from a dew point that changes slowly; CO2 rises in still nights. The cover of clouds is a
Gauss-Markov process with a slow and a fast part, mapped to a beta distribution.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import betaincinv, ndtr

from hardware.errors import NotFoundError
from sim.scenes.greenhouse.weather.series import Series

Array = NDArray[np.float64]

STEP_S = 900.0
_YEAR = 2001
_HOUR_S, _DAY_S = 3600.0, 86400.0


@dataclass(frozen=True)
class Climate:
    """Normals of a place by month, and the spread of its weather."""

    latitude_deg: float
    longitude_deg: float
    radiation: tuple[float, ...]
    """Mean radiation (W/m2) per month."""
    temperature: tuple[float, ...]
    """Mean temperature (degC) per month."""
    humidity: tuple[float, ...]
    """Mean relative humidity (1) per month."""
    daily_range: tuple[float, float]
    """Mean difference between the day's highest and lowest temperature (degC), in January and in July."""
    spread: tuple[float, float]
    """Standard deviation of the daily mean temperature (degC) about the normal, in January and in July."""
    wind: float
    """Mean wind speed (m/s)."""


CLIMATES = {
    # KNMI normals 1991-2020 of De Bilt: radiation, temperature, humidity; wind of an open station inland.
    "netherlands": Climate(
        52.1,
        5.2,
        (26.9, 55.0, 104.0, 164.0, 203.0, 214.0, 204.0, 173.0, 125.0, 73.0, 33.0, 20.5),
        (3.6, 3.9, 6.5, 9.8, 13.4, 16.2, 18.3, 17.9, 14.7, 10.9, 7.0, 4.2),
        (0.87, 0.84, 0.80, 0.75, 0.74, 0.75, 0.76, 0.78, 0.82, 0.85, 0.89, 0.89),
        (5.0, 9.5),
        (4.1, 3.0),
        4.0,
    ),
    # A Mediterranean coast, in round numbers.
    "south": Climate(
        36.8,
        -2.4,
        (110.0, 145.0, 195.0, 245.0, 285.0, 315.0, 310.0, 275.0, 220.0, 165.0, 120.0, 100.0),
        (12.6, 13.0, 14.8, 16.5, 19.4, 23.2, 26.0, 26.6, 24.0, 20.2, 16.2, 13.6),
        (0.69, 0.69, 0.67, 0.65, 0.66, 0.64, 0.64, 0.66, 0.67, 0.69, 0.70, 0.70),
        (8.5, 9.0),
        (2.2, 1.8),
        4.0,
    ),
    # A northern coast, in round numbers.
    "north": Climate(
        60.2,
        24.9,
        (11.0, 40.0, 95.0, 160.0, 220.0, 235.0, 220.0, 165.0, 100.0, 45.0, 14.0, 7.0),
        (-3.0, -4.0, -0.8, 4.7, 10.6, 15.0, 18.1, 16.9, 12.3, 6.8, 2.5, -0.8),
        (0.88, 0.86, 0.80, 0.71, 0.66, 0.69, 0.72, 0.76, 0.81, 0.84, 0.88, 0.89),
        (5.0, 8.0),
        (5.5, 3.0),
        4.0,
    ),
}


def generate(climate: str, seed: int, days: int = 365) -> Series:
    """A year of weather on a grid of 15 min from 1 January 00:00 UTC; equal seeds give equal years."""
    if climate not in CLIMATES:
        raise NotFoundError("climate", climate, CLIMATES)
    c, rng = CLIMATES[climate], np.random.default_rng(seed)
    t_s = np.arange(round(days * _DAY_S / STEP_S) + 1, dtype=np.float64) * STEP_S
    day = t_s / _DAY_S
    elevation = np.clip(_sine_of_elevation(day, c), 0.0, None)
    clear_sky = 1098.0 * elevation * np.exp(-0.057 / np.maximum(elevation, 1e-3))
    slow = _markov(rng, len(t_s), 20.0 * _HOUR_S)
    fast = _markov(rng, len(t_s), 1.2 * _HOUR_S)
    transmission = _transmission(0.85 * slow + 0.53 * fast, _wanted_transmission(c, clear_sky, day))
    season = 0.5 - 0.5 * np.cos(2.0 * np.pi * (day - 15.0) / 365.25)  # 0 in the middle of January, 1 in July
    blend = lambda pair: pair[0] + (pair[1] - pair[0]) * season  # noqa: E731
    hour = (day + c.longitude_deg / 360.0) * 24.0
    clearness = ndtr(slow)
    wave = np.cos(2.0 * np.pi * (hour - 14.5) / 24.0) + 0.2 * np.cos(4.0 * np.pi * (hour - 14.5) / 24.0)
    days_of_weather = _markov(rng, len(t_s), 3.5 * _DAY_S)
    # A clear sky warms the summer and cools the winter.
    anomaly = blend(c.spread) * (0.93 * days_of_weather + 0.35 * (2.0 * season - 1.0) * slow)
    temperature = _monthly(c.temperature, day) + anomaly + 0.38 * blend(c.daily_range) * wave * (0.35 + 1.3 * clearness)
    temperature = temperature + 0.15 * _markov(rng, len(t_s), 2.0 * _HOUR_S)
    dryness = 0.84 * np.exp(0.35 * _markov(rng, len(t_s), 1.5 * _DAY_S) + 0.35 * slow)
    depression = _depression(_monthly(c.humidity, day)) * dryness
    dew_point = _monthly(c.temperature, day) + anomaly - depression
    humidity = np.clip(_pressure(np.minimum(dew_point, temperature)) / _pressure(temperature), 0.2, 1.0)
    wind = c.wind * np.exp(0.55 * _markov(rng, len(t_s), 9.0 * _HOUR_S) - 0.15) * (1.0 + 0.15 * wave)
    radiation = clear_sky * transmission
    co2 = outdoor_co2(radiation, wind, STEP_S, rng)
    values = np.stack([radiation, temperature, humidity, co2, wind], axis=1)
    return Series(f"{climate}-{seed}", np.datetime64(f"{_YEAR}-01-01T00:00:00", "ms"), STEP_S, values)


def outdoor_co2(radiation: Array, wind: Array, step_s: float, rng: np.random.Generator) -> Array:
    """Outdoor CO2 (ppm) near the ground: it gathers in still nights, and differs from week to week."""
    still = np.clip(1.2 - wind / 6.0, 0.0, 1.0) * (radiation < 10.0)
    keep = np.exp(-step_s / (2.5 * _HOUR_S))
    gathered = np.asarray(lfilter([1.0 - keep], [1.0, -keep], still))
    return np.clip(418.0 + 90.0 * gathered + 14.0 * _markov(rng, len(wind), 3.0 * _DAY_S, step_s), 380.0, 700.0)


def _markov(rng: np.random.Generator, count: int, time_s: float, step_s: float = STEP_S) -> Array:
    """A Gauss-Markov process (unit variance, autocorrelation exp(-t/time_s))."""
    keep = np.exp(-step_s / time_s)
    noise = rng.standard_normal(count)
    noise[1:] *= np.sqrt(1.0 - keep * keep)
    return np.asarray(lfilter([1.0], [1.0, -keep], noise))


def _sine_of_elevation(day: Array, c: Climate) -> Array:
    """Sine of the sun's elevation; day 0 = 1 January 00:00 UTC. Spencer's declination, without the equation of time."""
    angle = 2.0 * np.pi * day / 365.0
    declination = (
        0.006918
        - 0.399912 * np.cos(angle)
        + 0.070257 * np.sin(angle)
        - 0.006758 * np.cos(2 * angle)
        + 0.000907 * np.sin(2 * angle)
    )
    hour_angle = 2.0 * np.pi * (day + c.longitude_deg / 360.0 - 0.5)
    latitude = np.radians(c.latitude_deg)
    return np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)


def _monthly(normals: tuple[float, ...], day: Array) -> Array:
    """Monthly means as a smooth curve over the year."""
    middle = (np.arange(-1, 13) + 0.5) * (365.0 / 12.0)
    return np.interp(day % 365.0, middle, [normals[-1], *normals, normals[0]])


def _wanted_transmission(c: Climate, clear_sky: Array, day: Array) -> Array:
    """The mean share of the clear sky's radiation that reaches the ground, over the year."""
    month = np.minimum((day % 365.0) * (12.0 / 365.0), 11.99).astype(int)
    clear = np.array([clear_sky[month == m].mean() if (month == m).any() else np.nan for m in range(12)])
    share = np.array(c.radiation) / np.where(np.isnan(clear), np.array(c.radiation) / 0.5, clear)
    return _monthly(tuple(share), day)


def _transmission(z: Array, mean: Array) -> Array:
    """A beta distribution on 0.06..1.08 with this mean, at the ranks of standard normal numbers z."""
    low, high = 0.06, 1.08
    m = np.clip((mean - low) / (high - low), 0.05, 0.95)
    concentration = 2.2
    return low + (high - low) * betaincinv(m * concentration, (1.0 - m) * concentration, ndtr(z))


def _depression(humidity: Array) -> Array:
    """Dew point depression (degC) at a mean humidity; Lawrence (2005): 5 degC per 25 %."""
    return 20.0 * (1.0 - humidity)


def _pressure(temperature: Array) -> Array:
    return 610.78 * np.exp(17.2694 * temperature / (temperature + 238.3))
