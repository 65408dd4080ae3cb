"""The canonical weather series, its quality checks, and how it is sampled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput

Array = NDArray[np.float64]

COLUMNS = ("radiation", "temperature", "humidity", "co2", "wind")
"""W/m2; degC; share of saturation; ppm; m/s."""
PLAUSIBLE = {
    "radiation": (0.0, 1500.0),
    "temperature": (-60.0, 60.0),
    "humidity": (0.02, 1.0),
    "co2": (250.0, 1500.0),
    "wind": (0.0, 75.0),
}
"""Values outside are refused: no weather station on Earth reports them near the ground."""
UNITS = {"radiation": "W/m2", "temperature": "degC", "humidity": "as a share", "co2": "ppm", "wind": "m/s"}
CO2_DEFAULT = 420.0
"""Outdoor CO2 (ppm) where a file has none."""
MAX_GAP_S = 3 * 3600.0
"""Longer gaps are refused; shorter ones are filled linearly."""
NIGHT_W_M2 = 1e-6
"""Radiation below this is the sensor's noise at night."""
DAY_S = 86400.0


@dataclass(frozen=True)
class Series:
    """Outdoor weather on a uniform grid."""

    name: str
    begins: np.datetime64
    """Instant of the first row, UTC."""
    step_s: float
    values: Array
    """(R, 5) in the order of COLUMNS."""
    mean_radiation: bool = False
    """Radiation is the mean over the step that begins with its row, instead of the value at that instant."""
    filled: int = 0
    """Rows that were missing and are interpolated."""

    @property
    def span_s(self) -> float:
        """Time from the first to the last row."""
        return (len(self.values) - 1) * self.step_s

    def day_of_year(self, t_s: Array) -> Array:
        """Day of the year at instants after the first row, 1.0 = 1 January 00:00 UTC."""
        instants = self.begins + np.round(1e3 * np.asarray(t_s)).astype("timedelta64[ms]")
        since = (instants - instants.astype("datetime64[Y]")).astype("timedelta64[ms]").astype(np.float64)
        return 1.0 + since / (1e3 * DAY_S)

    def at(self, t_s: Array) -> Array:
        """Values (T, 5) at instants after the first row: linear, except means, which hold for their whole step."""
        position = np.asarray(t_s, dtype=np.float64) / self.step_s
        low = np.clip(np.floor(position + 1e-9).astype(np.int64), 0, len(self.values) - 1)
        high = np.minimum(low + 1, len(self.values) - 1)
        part = np.clip(position - low, 0.0, 1.0)[:, None]
        part[part < 1e-9] = 0.0
        mixed = self.values[low] * (1.0 - part) + self.values[high] * part
        if self.mean_radiation:
            mixed[:, 0] = self.values[low, 0]
        return mixed


def checked(
    name: str, t_s: Array, columns: dict[str, Array], *, begins: np.datetime64, first_row: int = 1, **kept: bool
) -> Series:
    """A series from rows at instants `t_s` (s after `begins`), put on a uniform grid.

    Missing values are NaN; missing rows are simply absent. Raises BadInput, in one line that names row and column, for
    rows out of order, gaps of more than three hours and values that no weather has. `first_row` is the row number of
    the first row in the file.
    """
    if len(t_s) < 2:
        raise BadInput(f"{name}: {len(t_s)} rows; expected at least two")
    steps = np.diff(t_s)
    if not np.all(np.isfinite(t_s)) or (steps <= 0).any():
        bad = int(np.flatnonzero(~(steps > 0))[0]) + 1
        raise BadInput(f"{name}: row {first_row + bad}, column time: does not come after the row before it")
    step_s = float(np.round(np.median(steps), 3))
    grid = np.arange(round((t_s[-1] - t_s[0]) / step_s) + 1) * step_s
    whole = np.empty((len(grid), len(COLUMNS)))
    missing = np.zeros(len(grid), dtype=bool)
    for i, column in enumerate(COLUMNS):
        given = columns.get(column)
        values = np.full(len(t_s), CO2_DEFAULT if column == "co2" else np.nan) if given is None else given.copy()
        if column == "radiation":
            values[(values < NIGHT_W_M2) & (values > -20.0)] = 0.0  # pyranometers cool below zero at night
        _refuse_absurd(name, column, values, first_row)
        known = np.isfinite(values)
        if column == "wind" and not known.any():
            values, known = np.zeros(len(t_s)), np.ones(len(t_s), dtype=bool)
        _refuse_gaps(name, column, t_s, known, first_row)
        whole[:, i] = np.interp(grid, t_s[known] - t_s[0], values[known])
        missing |= ~np.isin(np.round(grid / step_s), np.round((t_s[known] - t_s[0]) / step_s))
    start = begins + np.timedelta64(round(1e3 * float(t_s[0])), "ms")
    return Series(name, start, step_s, whole, filled=int(missing.sum()), **kept)


def _refuse_absurd(name: str, column: str, values: Array, first_row: int) -> None:
    low, high = PLAUSIBLE[column]
    bad = np.flatnonzero(np.isinf(values) | (values < low) | (values > high))
    if len(bad):
        hint = "; is it in percent?" if column == "humidity" and values[bad[0]] > 1.5 else ""
        raise BadInput(
            f"{name}: row {first_row + int(bad[0])}, column {column}: {values[bad[0]]:g} is not between {low:g} and "
            f"{high:g} ({UNITS[column]}){hint}"
        )


def _refuse_gaps(name: str, column: str, t_s: Array, known: NDArray[np.bool_], first_row: int) -> None:
    if not known.any():
        raise BadInput(f"{name}: column {column}: no row has a value")
    rows = np.flatnonzero(known)
    edges = np.concatenate([t_s[:1], t_s[rows], t_s[-1:]])
    gaps = np.diff(edges)
    worst = int(np.argmax(gaps))
    if gaps[worst] > MAX_GAP_S:
        before = int(rows[worst - 1]) if worst > 0 else -1
        raise BadInput(
            f"{name}: row {first_row + before + 1}, column {column}: no value for {gaps[worst] / 3600.0:.1f} h; "
            f"gaps of at most {MAX_GAP_S / 3600.0:g} h are filled"
        )
