"""Sensors of the emulated PLC: sampled once a minute, with noise and resolution, and the faults of real ones."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_S = 60.0
PARTS = {
    "temperature": ["air_temperature"],
    "humidity": ["relative_humidity"],
    "co2": ["co2"],
    "weather": ["outdoor", "forecast"],
}
"""Sensor -> the plant's signals it measures, in the order of the sample ages in the register map."""
SENSORS = tuple(PARTS)
_MEASURED = {n for names in PARTS.values() for n in names}


@dataclass(frozen=True)
class Noise:
    """Standard deviations of one sample; guesses: a third to a half of a sensor's own, averaged over a minute."""

    temperature_c: float = 0.1
    humidity: float = 0.005
    co2_ppm: float = 10.0


class Samples:
    """One compartment's readings: name -> value, or NaN where a sensor is broken; and how old they are."""

    def __init__(self, noise: Noise, rng: np.random.Generator) -> None:
        self._noise, self._rng = noise, rng
        self.values: dict[str, NDArray[np.float64]] = {}
        self.taken_s = dict.fromkeys(SENSORS, -math.inf)
        self.drift: dict[str, tuple[float, float]] = {}
        """Sensor -> since when, and change per day."""
        self.frozen: set[str] = set()
        self.broken: set[str] = set()
        self.spike: dict[str, float] = {}
        """Sensor -> what its next sample is off by."""
        self.delay_s = 0.0
        self.wind: float | None = None
        """A storm: what the wind meter shows instead."""
        self._past: deque[tuple[float, dict[str, NDArray[np.float64]]]] = deque(maxlen=64)

    def ages_s(self, now_s: float) -> list[float]:
        """Age of every sensor's last sample, in the order of `SENSORS`."""
        return [now_s - self.taken_s[name] for name in SENSORS]

    def sample(self, truth: Mapping[str, NDArray[np.float64]], now_s: float) -> None:
        """Takes the readings of this instant, or those of a while ago where they arrive late."""
        self._past.append((now_s, self._measured(truth)))
        due = [row for row in self._past if row[0] <= now_s - self.delay_s]
        if not due:
            return
        taken_s, reading = due[-1]
        self.values |= {n: v for n, v in reading.items() if n not in _MEASURED}
        for sensor, names in PARTS.items():
            if sensor in self.broken:  # the registers show it; the age goes on from the last good sample
                self.values |= {n: np.full_like(reading[n], np.nan) for n in names}
                continue
            if sensor not in self.frozen or names[0] not in self.values:
                self.values |= {n: reading[n] for n in names}
            self._bend(sensor, names[0], now_s)
            self.taken_s[sensor] = taken_s

    def _measured(self, truth: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        spread = {
            "air_temperature": self._noise.temperature_c,
            "relative_humidity": self._noise.humidity,
            "co2": self._noise.co2_ppm,
        }
        reading = {
            name: np.asarray(value, np.float64)
            + spread.get(name, 0.0) * (self._rng.normal() if name in spread else 0.0)
            for name, value in truth.items()
        }
        reading["relative_humidity"] = np.clip(reading["relative_humidity"], 0.0, 1.0)
        if self.wind is not None:
            reading["outdoor"] = reading["outdoor"].copy()
            reading["outdoor"][4] = self.wind
        return reading

    def _bend(self, sensor: str, name: str, now_s: float) -> None:
        if sensor in self.frozen:
            return
        off = self.spike.pop(sensor, 0.0)
        if sensor in self.drift:
            since_s, per_day = self.drift[sensor]
            off += per_day * (now_s - since_s) / 86400.0
        if off:
            self.values[name] = self.values[name] + off
