"""Climate and lettuce of a greenhouse: Van Henten's four balances, batched, differentiable and compilable.

Sources: Van Henten (1994), thesis, Wageningen; Van Henten (2003), Biosystems Engineering 85(3):355-364, equations 2 to
11. Planes: quantities on the first axis, any batch behind it. SI units, except temperatures in degrees Celsius and the
controls, which stay in the units of their actuators.

State (4, ...): crop dry weight kg/m2, indoor CO2 kg/m3, air temperature degC, vapour density kg/m3.
Control (3, ...): CO2 injection mg/m2/s, ventilation mm/s, heating W/m2.
Weather (4, ...): radiation W/m2, outdoor CO2 kg/m3, outdoor temperature degC, outdoor vapour density kg/m3.

Deviation: photosynthesis is guarded. The published form is 0/0 or negative where the air is colder than 2.9 or hotter
than 42.1 degC, or holds less CO2 than the compensation point; here it is zero there, and unchanged elsewhere.
"""

from typing import NamedTuple

import torch
from torch import Tensor

CROP, CO2, TEMPERATURE, VAPOUR = range(4)
LOWEST, HIGHEST = (0.002, 0.0, 5.0, 0.0), (0.6, 0.004, 40.0, 0.051)
"""Bounds of the state, to which the benchmark clips it after each control step."""
START = (0.0035, 0.001, 15.0, 0.008)
"""State at planting, as in the benchmark."""
KELVIN = 273.15
_GAS, _PRESSURE, _CO2_MOLE, _WATER_MOLE = 8.3144598, 101325.0, 0.04401, 0.01801528
"""J/mol/K; Pa; kg/mol. As in the benchmark."""
_TINY = 1e-15


class Coefficients(NamedTuple):
    """The model's coefficients, one plane each; symbols of Van Henten (2003) behind the unit."""

    yield_factor: Tensor
    """Dry matter per CO2 assimilated (1), c_alpha_beta."""
    respiration_dry: Tensor
    """Dry matter respired (1/s), c_resp_d."""
    respiration_co2: Tensor
    """CO2 respired (1/s), c_resp_c."""
    canopy_surface: Tensor
    """Effective canopy surface (m2/kg), c_pl_d."""
    light_use: Tensor
    """Light use efficiency (kg/J), c_rad_phot."""
    diffusion_2: Tensor
    """Temperature effect on CO2 diffusion (m/s/degC2), c_co2_1."""
    diffusion_1: Tensor
    """The same (m/s/degC), c_co2_2."""
    diffusion_0: Tensor
    """The same (m/s), c_co2_3."""
    compensation: Tensor
    """CO2 compensation point (kg/m3), c_Gamma."""
    volume_co2: Tensor
    """Air per floor area that holds CO2 (m), c_cap_c."""
    volume_vapour: Tensor
    """Air per floor area that holds vapour (m), c_cap_h."""
    heat_capacity: Tensor
    """Heat capacity of the greenhouse (J/m2/degC), c_cap_q."""
    heat_capacity_air: Tensor
    """Heat capacity of air (J/m3/degC), c_cap_q_v."""
    heat_transfer: Tensor
    """Heat transfer through the cover (W/m2/degC), c_ai_ou."""
    solar_gain: Tensor
    """Share of the radiation that heats the air (1), c_rad_q."""
    leak: Tensor
    """Air exchange through the cover (m/s), c_leak."""
    transpiration: Tensor
    """Mass transfer of the canopy's transpiration (m/s), c_v_pl_ai."""
    saturation_1: Tensor
    """Vapour pressure at the leaf (J/m3), c_v_1."""
    saturation_2: Tensor
    """The same (1), c_v_2."""
    saturation_3: Tensor
    """The same (degC), c_v_3."""
    gas_constant: Tensor
    """Gas constant (J/K/kmol), c_R."""
    kelvin: Tensor
    """Zero Celsius (K), c_T_abs."""


COEFFICIENTS = Coefficients._fields
"""Names in the order of the planes."""


class Held(NamedTuple):
    """What stays as it is while control and weather are held: inflows and rates of exchange."""

    light: Tensor
    """Assimilation that the light alone allows at full interception (kg/m2/s)."""
    air: Tensor
    """Air exchange (m/s)."""
    co2: Tensor
    """CO2 inflow (kg/m2/s)."""
    heat: Tensor
    """Rate at which the air would warm at 0 degC (degC/s)."""
    cooling: Tensor
    """Rate at which the air's temperature decays (1/s)."""
    vapour: Tensor
    """Vapour inflow (kg/m2/s)."""


def hold(control: Tensor, weather: Tensor, c: Coefficients) -> Held:
    """Inflows and exchange rates under a control (3, ...) and weather (4, ...)."""
    radiation, co2_out, temperature_out, vapour_out = weather
    ventilation = 1e-3 * control[1]
    air = ventilation + c.leak
    exchange = c.heat_capacity_air * ventilation + c.heat_transfer
    return Held(
        light=c.light_use * radiation,
        air=air,
        co2=1e-6 * control[0] + air * co2_out,
        heat=(control[2] + exchange * temperature_out + c.solar_gain * radiation) / c.heat_capacity,
        cooling=exchange / c.heat_capacity,
        vapour=air * vapour_out,
    )


def rate(state: Tensor, held: Held, *, c: Coefficients) -> Tensor:
    """Time derivative (4, ...) of the state (4, ...): Van Henten (2003), equations 2 to 11."""
    crop, co2, temperature, vapour = state
    interception = 1.0 - torch.exp(-c.canopy_surface * crop)
    assimilation = interception * photosynthesis(co2, temperature, held.light, c=c)
    respiration = crop * torch.exp2(0.1 * temperature - 2.5)
    absolute = c.gas_constant * (temperature + c.kelvin)
    leaf = c.saturation_1 / absolute * torch.exp(c.saturation_2 * temperature / (temperature + c.saturation_3))
    transpired = c.transpiration * interception * (leaf - vapour)
    return torch.stack(
        [
            c.yield_factor * assimilation - c.respiration_dry * respiration,
            (held.co2 - assimilation + c.respiration_co2 * respiration - held.air * co2) / c.volume_co2,
            held.heat - held.cooling * temperature,
            (held.vapour + transpired - held.air * vapour) / c.volume_vapour,
        ]
    )


def photosynthesis(co2: Tensor, temperature: Tensor, light: Tensor, *, c: Coefficients) -> Tensor:
    """Gross assimilation (kg/m2/s) of a closed canopy: a hyperbola of light and CO2 (equation 6), guarded."""
    diffusion = (c.diffusion_1 - c.diffusion_2 * temperature) * temperature - c.diffusion_0
    uptake = diffusion.clamp(min=0.0) * (co2 - c.compensation).clamp(min=0.0)
    return light * uptake / (light + uptake).clamp(min=_TINY)


def step(state: Tensor, held: Held, *, c: Coefficients, dt_s: float) -> Tensor:
    """One step of the classical Runge-Kutta method (Kutta 1901); stable below 1000 s with open vents."""
    k1 = rate(state, held, c=c)
    k2 = rate(state + (0.5 * dt_s) * k1, held, c=c)
    k3 = rate(state + (0.5 * dt_s) * k2, held, c=c)
    k4 = rate(state + dt_s * k3, held, c=c)
    return state + (dt_s / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)


def advance(
    state: Tensor, control: Tensor, weather: Tensor, *, coefficients: Tensor, duration_s: float, substeps: int
) -> Tensor:
    """State (4, ...) after `duration_s` under a held control (3, ...) and weather (4, ...), within the bounds.

    `coefficients` (22, ...) in the order of COEFFICIENTS.
    """
    c = Coefficients(*coefficients.unbind(0))
    held = hold(control, weather, c)
    for _ in range(substeps):
        state = step(state, held, c=c, dt_s=duration_s / substeps)
    return within_bounds(state)


def within_bounds(state: Tensor) -> Tensor:
    """The state, clipped to the bounds of the benchmark."""
    planes = [s.clamp(low, high) for s, low, high in zip(state, LOWEST, HIGHEST, strict=True)]
    return torch.stack(planes)


def co2_ppm(density: Tensor, temperature: Tensor) -> Tensor:
    """CO2 (ppm) of a density (kg/m3) at a temperature (degC): ideal gas at standard pressure."""
    return (1e6 * _GAS / (_PRESSURE * _CO2_MOLE)) * (temperature + KELVIN) * density


def co2_density(ppm: Tensor, temperature: Tensor) -> Tensor:
    """CO2 density (kg/m3) of a share (ppm) at a temperature (degC)."""
    return ppm / ((1e6 * _GAS / (_PRESSURE * _CO2_MOLE)) * (temperature + KELVIN))


def saturation_pressure(temperature: Tensor) -> Tensor:
    """Saturated vapour pressure (Pa) over water at a temperature (degC): Magnus formula of the benchmark."""
    return 610.78 * torch.exp(17.2694 * temperature / (temperature + 238.3))


def relative_humidity(vapour: Tensor, temperature: Tensor) -> Tensor:
    """Relative humidity (1) of a vapour density (kg/m3); above 1 where the air is supersaturated."""
    return (_GAS / _WATER_MOLE) * (temperature + KELVIN) * vapour / saturation_pressure(temperature)


def vapour_density(humidity: Tensor, temperature: Tensor) -> Tensor:
    """Vapour density (kg/m3) of a relative humidity (1) at a temperature (degC)."""
    return humidity * saturation_pressure(temperature) / ((_GAS / _WATER_MOLE) * (temperature + KELVIN))
