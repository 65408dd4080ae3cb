"""The Crazyflie's one-cell battery: open-circuit voltage over charge, sag under current. Batched over R drones.

Voltage over charge is the firmware's own table for its 240 mAh cell (pm_stm32f4.c, bat671723HS25C). Capacity: Bitcraze
data sheet (250 mAh, about 7 minutes of hover). Current and inner resistance are guesses that give those 7 minutes and
the usual 0.3-0.4 V of sag in hover.
"""

import numpy as np
from numpy.typing import NDArray

CAPACITY_C = 0.250 * 3600.0
"""Charge of a full cell, coulomb."""
CURRENT_FULL_A = 1.17
"""Current of one rotor at full force, A; it grows with force^1.5, the ideal power of a rotor (guess, see above)."""
IDLE_A = 0.12
"""Current of the electronics, A (guess)."""
RESISTANCE_OHM = 0.17
"""Inner resistance of cell and leads, ohm (guess)."""

_CHARGE = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
_VOLTAGE = np.array([3.00, 3.78, 3.83, 3.87, 3.89, 3.92, 3.96, 4.00, 4.04, 4.10, 4.20])


def open_circuit_v(charge: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voltage without load (V) at a state of charge 0..1."""
    return np.interp(charge, _CHARGE, _VOLTAGE)


def current_a(force: NDArray[np.float64]) -> NDArray[np.float64]:
    """Current (R,), A, of normalised rotor forces (4, R)."""
    clipped = np.maximum(force, 0.0)
    return IDLE_A + CURRENT_FULL_A * (clipped * np.sqrt(clipped)).sum(axis=0)


def discharge(
    charge: NDArray[np.float64], force: NDArray[np.float64], dt_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(new state of charge, terminal voltage in V), both (R,), after `dt_s` at normalised rotor forces (4, R)."""
    current = current_a(force)
    charge = np.maximum(charge - current * (dt_s / CAPACITY_C), 0.0)
    return charge, open_circuit_v(charge) - RESISTANCE_OHM * current


def level_percent(voltage_v: float) -> int:
    """The firmware's battery level (pm.batteryLevel): 0, 10, ... 90 from the terminal voltage."""
    return int(np.searchsorted(_VOLTAGE[:10], voltage_v, side="left").clip(0, 9)) * 10
