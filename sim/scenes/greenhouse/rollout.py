"""Greenhouses that take a log's measured actuators and weather from measured starts; for identification.

Van Henten's balances in double precision at 60 s. The crop's weight is a weekly estimate, so a window's start may be
off by tenths of it; what is compared is the climate.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.param import Param

STEP_S = 60.0
"""As the PLC samples: actuators move within minutes of a command."""
LARGEST = (1.2, 7.5, 150.0)
"""Full CO2 flow mg/m2/s, ventilation mm/s, heating W/m2: the measured actuators are shares of these."""
WIDE = {
    "heat_transfer": "heat_transfer_factor",
    "solar_gain": "solar_gain_factor",
    "heat_capacity": "heat_capacity_factor",
    "transpiration": "transpiration_factor",
}
"""Coefficient -> the factor between houses that widens its range: a log shows their product."""
GAINS = ("gain_co2", "gain_ventilation", "gain_heating")
"""Of the actuators, in the order of a command. Heat and CO2 are metered, so theirs count as known."""


class GreenhouseRollout:
    """See sim.identify.rollout.Rollout; `params` are all of the scene's."""

    rate_hz, window_s, history = 1.0 / STEP_S, 6 * 3600.0, 0
    delay: str | None = None
    accuracy = 0.004
    inputs: tuple[str, ...] = ("outdoor", "actuators", "crop_dry_weight")

    def __init__(self, params: Mapping[str, Param]) -> None:
        self._nominal = {n: params[n].nominal for n in model.COEFFICIENTS}
        decades = params["leak_decades"]
        leak = params["leak"]
        self.params = {"leak": replace(leak, low=10.0**decades.low, high=10.0**decades.high)}
        for name, factor in WIDE.items():
            self.params[name] = _widened(params[name], params[factor])
        self.params["gain_ventilation"] = params["gain_ventilation"]
        # Resolution of the registers: 0.1 degC, 0.1 %, 1 ppm.
        self.signals = {"air_temperature": 0.03, "relative_humidity": 0.0005, "co2": 0.5}
        self.hidden = {"crop": 0.1}

    def __call__(
        self, params: Tensor, start: Mapping[str, Tensor], hidden: Tensor, commands: Tensor, given: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See Rollout."""
        named = dict(zip(self.params, params, strict=True))
        like = params[0]
        c = model.Coefficients(*(named.get(n, torch.full_like(like, v)) for n, v in self._nominal.items()))
        one = torch.ones_like(like)
        gains = torch.stack([named.get(n, one) * most for n, most in zip(GAINS, LARGEST, strict=True)])
        temperature = start["air_temperature"][:, 0]
        state = torch.stack(
            [
                given["crop_dry_weight"][:, 0, 0] * (1.0 + hidden[:, 0]),
                model.co2_density(start["co2"][:, 0], temperature),
                temperature,
                model.vapour_density(start["relative_humidity"][:, 0], temperature),
            ]
        )
        outdoor, actuators = given["outdoor"], given["actuators"]
        path = [_climate(state)]
        for k in range(outdoor.shape[1] - 1):
            weather = _weather(0.5 * (outdoor[:, k] + outdoor[:, k + 1]))
            control = gains * (0.5 * (actuators[:, k] + actuators[:, k + 1])).T
            state = model.step(state, model.hold(control, weather, c), c=c, dt_s=STEP_S)
            path.append(_climate(state))
        seen = torch.stack(path, 0)  # (T + 1, 3, N)
        return {n: seen[:, i].T[..., None] for i, n in enumerate(self.signals)}


def _widened(base: Param, factor: Param) -> Param:
    """The coefficient over all houses, as `scale` of its nominal value."""
    return replace(base, low=factor.low, high=factor.high, how="scale")


def _weather(outdoor: Tensor) -> Tensor:
    """Disturbances (4, N) of measured weather (N, 5)."""
    radiation, temperature, humidity, ppm, _ = outdoor.T
    return torch.stack(
        [
            radiation,
            model.co2_density(ppm, temperature),
            temperature,
            model.vapour_density(humidity, temperature),
        ]
    )


def _climate(state: Tensor) -> Tensor:
    """Air temperature (degC), relative humidity (at most 1), CO2 (ppm) of a state (4, N): (3, N)."""
    _, co2, temperature, vapour = state
    humidity = model.relative_humidity(vapour, temperature)
    return torch.stack([temperature, humidity.clamp(max=1.0), model.co2_ppm(co2, temperature)])
