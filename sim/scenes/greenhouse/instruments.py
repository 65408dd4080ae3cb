"""What the PLC reports: sensors that err, and a weather service that does not know."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sim.scenes.greenhouse.weather.bank import LEAD_S, LEADS
from sim.sensors import dropouts, held

RESOLUTION = (0.1, 0.001, 1.0)
"""Of temperature (degC), humidity (1) and CO2 (ppm)."""
SPIKE = ((-20.0, 60.0), (0.0, 1.0), (0.0, 5000.0))
"""Between these a spike's value lies."""
OUTAGE_S = (600.0, 21600.0)
"""Shortest and longest time for which a sensor is stuck at its last value."""
SAMPLE_S = 7 * 86400.0
"""The crop is sampled weekly; the estimate in between carries the sample's relative error."""
DAY_S = 86400.0

FORECAST_SPREAD = (0.30, 2.0, 0.10)
"""Standard deviation of an error 24 h ahead: radiation (relative), temperature (degC), humidity (1); it grows
with the root of the lead time. Guesses, in the order of what weather services publish about a day ahead."""
FORECAST_TIME_S = 6 * 3600.0
"""Correlation time of the error over the instants that are forecast."""


def start_readings(truth: Tensor, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The sensors' state at planting: `readings` (3, n), `outage_s` (3, n) and the crop estimate's error (n,)."""
    noise = torch.randn((4, truth.shape[1]), generator=generator, device=truth.device)
    readings = _rounded(_corrupted(truth, noise[:3], params, torch.zeros_like(truth[0])))
    return {
        "readings": readings,
        "outage_s": torch.zeros_like(readings),
        "crop_error": noise[3] * params["error_crop"],
    }


def read(
    before: Tensor,
    truth: Tensor,
    state: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    *,
    age_s: Tensor,
    dt_s: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The sensors' state a control step later; truth (3, N): temperature degC, humidity 1, CO2 ppm.

    A sensor shows what was some minutes ago, with bias, drift, gain and noise, in steps of its resolution; a missing
    sample and an outage hold the last value; a spike is absurd. `age_s` (N,) is the time since planting.
    """
    count = truth.shape[1]
    noise = torch.randn((4, count), generator=generator, device=truth.device)
    unit = torch.rand((4, 3, count), generator=generator, device=truth.device)
    late = truth + (params["delay"] / dt_s) * (before - truth)
    value = _corrupted(late, noise[:3], params, age_s)
    low, high = truth.new_tensor(SPIKE).T[..., None]
    value = torch.where(unit[0] < params["spike"], torch.lerp(low, high, unit[1]), _rounded(value))
    begins = unit[2] < params["outage_rate"] * (dt_s / DAY_S)
    outage_s = torch.where(begins, OUTAGE_S[0] + (OUTAGE_S[1] - OUTAGE_S[0]) * unit[3], state["outage_s"] - dt_s)
    missing = torch.stack([dropouts(params["dropout"], generator) for _ in range(3)]) | (outage_s > 0.0)
    sampled = (age_s % SAMPLE_S) < dt_s
    return {
        "readings": held(value, state["readings"], missing),
        "outage_s": outage_s.clamp(min=0.0),
        "crop_error": torch.where(sampled, noise[3] * params["error_crop"], state["crop_error"]),
    }


def _corrupted(truth: Tensor, noise: Tensor, params: Mapping[str, Tensor], age_s: Tensor) -> Tensor:
    temperature, humidity, co2 = truth
    return torch.stack(
        [
            temperature + params["bias_temperature"] + params["noise_temperature"] * noise[0],
            (
                humidity
                + params["bias_humidity"]
                + params["drift_humidity"] * age_s / DAY_S
                + params["noise_humidity"] * noise[1]
            ).clamp(0.0, 1.0),
            (params["gain_sensor_co2"] * co2 + params["bias_co2"] + params["noise_co2"] * noise[2]).clamp(min=0.0),
        ]
    )


def _rounded(readings: Tensor) -> Tensor:
    """In steps of the resolution; gradients pass as if there were none."""
    step = readings.new_tensor(RESOLUTION)[:, None]
    return readings + (step * torch.round(readings / step) - readings).detach()


def start_outlook(count: int, stride: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Unit errors (3, K, n) of the instants that a forecast shows, `stride` control steps to a lead."""
    outlook = torch.randn((3, 1, count), generator=generator, device=device)
    for _ in range((LEADS - 1) * stride):
        outlook = _next(outlook, stride, generator)
    return outlook


def moved_outlook(outlook: Tensor, stride: int, generator: torch.Generator) -> Tensor:
    """The errors one control step later: each instant keeps its own, one more comes into sight."""
    return _next(outlook, stride, generator)[:, 1:]


def _next(outlook: Tensor, stride: int, generator: torch.Generator) -> Tensor:
    keep = torch.exp(outlook.new_tensor(-LEAD_S / stride / FORECAST_TIME_S))
    fresh = torch.randn(outlook[:, -1:].shape, generator=generator, device=outlook.device)
    return torch.cat([outlook, keep * outlook[:, -1:] + torch.sqrt(1.0 - keep * keep) * fresh], 1)


def noisy_forecast(forecast: Tensor, outlook: Tensor, stride: int) -> Tensor:
    """A forecast (n, 13, 4) with errors that grow with the root of the lead time; none at lead 0, none of CO2."""
    lead = torch.arange(LEADS, dtype=forecast.dtype, device=forecast.device) * (LEAD_S / DAY_S)
    spread = torch.sqrt(lead)[:, None] * forecast.new_tensor(FORECAST_SPREAD)
    error = outlook[:, ::stride].permute(2, 1, 0) * spread
    radiation = (forecast[..., 0] * (1.0 + error[..., 0])).clamp(min=0.0)
    humidity = (forecast[..., 2] + error[..., 2]).clamp(0.05, 1.0)
    return torch.stack([radiation, forecast[..., 1] + error[..., 1], humidity, forecast[..., 3]], -1)
