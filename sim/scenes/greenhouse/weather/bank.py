"""Weather of many seasons as tensors on the control grid: one row per control step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardware.errors import BadInput
from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.weather.series import DAY_S, Series

LEADS, LEAD_S = 13, 1800.0
"""A forecast shows the weather now and every half hour up to six hours ahead."""


@dataclass(frozen=True)
class WeatherBank:
    """Years one behind another; the weather of a row holds for the control step that begins there."""

    signals: Tensor
    """(R, 4) radiation W/m2, temperature degC, humidity 1, CO2 ppm: as a station reports them."""
    wind: Tensor
    """(R, 1) m/s."""
    disturbance: Tensor
    """(R, 4) in the model's units and order: see sim.dynamics.greenhouse."""
    clock: Tensor
    """(R, 2) sine and cosine of the time of day, UTC."""
    day: Tensor
    """(R,) day of the year, 1.0 = 1 January 00:00 UTC."""
    starts: Tensor
    """(S,) rows on which a season may start."""
    windows: Tensor
    """(R', 52) the forecast that is issued at a row: 13 leads, each of the 4 signals. Stored, not gathered when it is
    needed: one row is one copy of memory, which made whole environments twice as fast."""


def make_bank(
    years: Sequence[Series],
    *,
    step_s: float,
    season_steps: int,
    start_days: tuple[float, float],
    device: str | torch.device = "cpu",
) -> WeatherBank:
    """The rows of all years, and the whole days within `start_days` from which a season fits into its year.

    Raises BadInput where no season fits.
    """
    stride = round(LEAD_S / step_s)
    ahead = (LEADS - 1) * stride
    parts, clocks, days, starts, offset = [], [], [], [], 0
    for year in years:
        count = int(np.floor(year.span_s / step_s + 1e-9)) + 1
        t_s = np.arange(count, dtype=np.float64) * step_s
        parts.append(year.at(t_s))
        day = year.day_of_year(t_s)
        clocks.append(np.stack([np.sin(2 * np.pi * day), np.cos(2 * np.pi * day)], axis=1))
        days.append(day)
        last = count - season_steps - ahead - 1
        rows = np.flatnonzero(np.abs(day - np.round(day)) < 1e-6)
        inside = (np.round(day[rows]) >= start_days[0]) & (np.round(day[rows]) <= start_days[1]) & (rows <= last)
        starts.append(offset + rows[inside])
        offset += count
    if not sum(len(s) for s in starts):
        spans = ", ".join(f"{y.name} ({y.span_s / DAY_S:.0f} days from {str(y.begins)[:10]})" for y in years)
        raise BadInput(
            f"no season of {season_steps * step_s / DAY_S:g} days starts between days {start_days[0]:g} and "
            f"{start_days[1]:g} of the weather {spans}"
        )
    values = np.concatenate(parts)
    tensor = lambda array: torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)  # noqa: E731
    exact = torch.tensor(values, dtype=torch.float64)
    signals = tensor(values[:, :4])
    windows = signals.as_strided((len(values) - ahead, LEADS, 4), (4, 4 * stride, 1)).reshape(-1, 4 * LEADS)
    disturbance = disturbances(exact).to(torch.float32).to(device)
    rows = torch.tensor(np.concatenate(starts), device=device)
    return WeatherBank(
        signals,
        tensor(values[:, 4:]),
        disturbance,
        tensor(np.concatenate(clocks)),
        tensor(np.concatenate(days)),
        rows,
        windows,
    )


def disturbances(signals: Tensor) -> Tensor:
    """(R, 4) radiation, CO2 density, temperature and vapour density of signals (R, >= 4)."""
    radiation, temperature, humidity, co2 = signals[:, 0], signals[:, 1], signals[:, 2], signals[:, 3]
    return torch.stack(
        [radiation, model.co2_density(co2, temperature), temperature, model.vapour_density(humidity, temperature)], 1
    )
