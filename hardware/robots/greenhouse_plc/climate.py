"""The PLC's own control laws: set-point controllers, interlocks, and actuators that move at their own pace.

Pure functions on shares 0..1 of full vents, heating and CO2 flow; temperatures in degC, humidity as a share, CO2 in
ppm.
"""

from typing import NamedTuple

FROST_C = 3.0
"""Below this the heating is fully on, in every mode."""
HEAT_C = 35.0
"""Above this the vents are fully open."""
CO2_SHUT_PPM = 1800.0
"""Above this the CO2 valve is shut."""
CO2_ALARM_PPM = 5000.0
"""Above this there is an alarm: people must not enter."""
WIND_M_S = 15.0
"""Above this the vents are open by at most `WIND_VENT`; the wind goes before the heat."""
WIND_VENT = 0.1

HEATING_BAND_C, VENT_BAND_C = 2.0, 4.0
"""Proportional bands: full output so far below the heating, or above the ventilation set point."""
HUMIDITY_BAND, HUMIDITY_VENT = 0.1, 0.5
"""Ventilation against humidity: this share at so much above the maximum."""
CO2_BAND_PPM, CO2_LIGHT_W_M2, CO2_VENT = 100.0, 20.0, 0.1
"""CO2 is dosed in light and behind nearly closed vents only."""

VENT_STROKE_S = 180.0
"""Full travel of the vents (3 to 6 min are usual)."""
HEAT_LAG_S = 300.0
"""Time constant of the heating pipes (a small compartment; 10 to 30 min in large ones)."""


class Sensed(NamedTuple):
    """What the PLC's sensors say; NaN where one is broken."""

    temperature: float
    humidity: float
    co2: float
    radiation: float
    wind: float


class Setpoints(NamedTuple):
    """What the set-point controllers follow."""

    heating: float
    ventilation: float
    co2: float
    """0: no CO2."""
    humidity_max: float


class Outputs(NamedTuple):
    """Shares of full vents, heating and CO2 flow."""

    vent: float
    heat: float
    co2: float


class Alarms(NamedTuple):
    """Which interlocks act."""

    frost: bool
    overheat: bool
    co2_high: bool
    wind: bool
    co2_alarm: bool


def follow(setpoints: Setpoints, sensed: Sensed, before: Outputs) -> Outputs:
    """Outputs of the set-point controllers; a controller whose sensor is broken keeps its output, CO2 is shut."""
    heat, vent = before.heat, before.vent
    if sensed.temperature == sensed.temperature:
        heat = _clip((setpoints.heating - sensed.temperature) / HEATING_BAND_C)
        vent = _clip((sensed.temperature - setpoints.ventilation) / VENT_BAND_C)
        if sensed.humidity == sensed.humidity:
            vent = max(vent, HUMIDITY_VENT * _clip((sensed.humidity - setpoints.humidity_max) / HUMIDITY_BAND))
    doses = setpoints.co2 > 0 and sensed.radiation > CO2_LIGHT_W_M2 and vent <= CO2_VENT
    co2 = _clip((setpoints.co2 - sensed.co2) / CO2_BAND_PPM) if doses and sensed.co2 == sensed.co2 else 0.0
    return Outputs(vent, heat, co2)


def interlocks(wanted: Outputs, sensed: Sensed) -> tuple[Outputs, Alarms]:
    """What may go out, in every mode. Comparisons with NaN are false: a broken sensor raises no interlock of its own.

    Without a CO2 reading the valve is shut, since nobody would notice the dose.
    """
    alarms = Alarms(
        frost=sensed.temperature < FROST_C,
        overheat=sensed.temperature > HEAT_C,
        co2_high=sensed.co2 > CO2_SHUT_PPM,
        wind=sensed.wind > WIND_M_S,
        co2_alarm=sensed.co2 > CO2_ALARM_PPM,
    )
    vent, heat, co2 = wanted
    if alarms.frost:
        heat = 1.0
    if alarms.overheat:
        vent = 1.0
    if alarms.wind:
        vent = min(vent, WIND_VENT)
    if alarms.co2_high or sensed.co2 != sensed.co2:
        co2 = 0.0
    return Outputs(vent, heat, co2), alarms


def move(now: Outputs, wanted: Outputs, dt_s: float) -> Outputs:
    """Where the actuators are after a step: vents travel at their speed, pipes lag, the CO2 valve is quick."""
    travel = dt_s / VENT_STROKE_S
    vent = now.vent + min(max(wanted.vent - now.vent, -travel), travel)
    heat = now.heat + (wanted.heat - now.heat) * min(dt_s / HEAT_LAG_S, 1.0)
    return Outputs(vent, heat, wanted.co2)


def _clip(x: float) -> float:
    return min(max(x, 0.0), 1.0)
