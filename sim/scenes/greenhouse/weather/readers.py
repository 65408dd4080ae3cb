"""Readers of weather files into the canonical series; every complaint names file, row and column."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from sim.scenes.greenhouse.weather.series import Series, checked

Array = NDArray[np.float64]


def read_bleiswijk(path: Path) -> Series:
    """Outdoor weather of WUR Glas, Bleiswijk, 2014: rows of 300 s from 10 January 00:00 (Kempkes et al. 2014)."""
    table = np.loadtxt(path, delimiter=",")
    columns = {"radiation": table[:, 1], "temperature": table[:, 2], "humidity": 0.01 * table[:, 3]}
    columns |= {"wind": table[:, 4], "co2": table[:, 5]}
    return checked("bleiswijk-2014", table[:, 0], columns, begins=np.datetime64("2014-01-10T00:00:00", "ms"))


def read_gl_gym(path: Path, year: int) -> Series:
    """Amsterdam, as gl-gym brings it: rows of 300 s, interpolated from hours."""
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    columns = {"radiation": table[:, 1], "wind": table[:, 2], "temperature": table[:, 3]}
    columns |= {"co2": table[:, 6], "humidity": 0.01 * table[:, 8]}
    begins = np.datetime64(f"{year}-01-01T00:00:00", "ms")
    return checked(f"amsterdam-{year}", table[:, 0], columns, begins=begins, first_row=2)


def read(path: Path) -> Series:
    """A weather file by its suffix."""
    raise BadInput(f"{path}: no reader for this kind of file")
