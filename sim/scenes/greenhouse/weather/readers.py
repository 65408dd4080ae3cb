"""Readers of weather files into the canonical series; every complaint is one line with file, row and column.

| suffix | format |
|---|---|
| .csv | the project's own: a header with `time_utc` and the columns below; or TMY3, told by its first line |
| .npz | a year as this project stores it |
| .epw | EnergyPlus weather |
| .tm2 | TMY2 |
| .txt | KNMI, hourly ("uurgegevens") |

EPW, TMY3 and TMY2 are parsed by pvlib, of the extra `greenhouse`.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from sim.scenes.greenhouse.weather.series import COLUMNS, Series, checked

Array = NDArray[np.float64]

OWN = {
    "time_utc": "",
    "radiation": "W/m2",
    "temperature": "degC",
    "humidity": "%",
    "vapour": "kg/m3",
    "co2": "ppm",
    "wind": "m/s",
}
"""Columns of the project's own CSV and their units, which a header may repeat in brackets: `radiation [W/m2]`.
`humidity` or `vapour` is needed; `co2` and `wind` may be missing."""
STORED_UNITS = (0.1, 0.01, 1e-4, 0.1, 0.01)
"""What one count of a stored integer is worth, per column."""
_HOUR_S = 3600.0


def read(path: Path) -> Series:
    """A weather file by its suffix; raises BadInput where it cannot be read."""
    suffix = path.suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise BadInput(f"{path}: weather files end in {', '.join(_BY_SUFFIX)}")
    if not path.is_file():
        raise BadInput(f"{path}: there is no such weather file")
    return _BY_SUFFIX[suffix](path)


def read_csv(path: Path) -> Series:
    """The project's own CSV, or TMY3, which begins with the number of its station."""
    with path.open(newline="", encoding="utf-8-sig") as f:
        rows = list(csv.reader(f))
    if rows and rows[0] and rows[0][0].strip().isdigit():
        return read_tmy3(path)
    names = _header(path, rows[0] if rows else [])
    columns = {name: np.full(len(rows) - 1, np.nan) for name in names if name != "time_utc"}
    t_s, begins = np.zeros(len(rows) - 1), np.datetime64("1970-01-01", "ms")
    for i, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise BadInput(f"{path}: row {i + 2}: {len(row)} values; expected {len(names)}")
        for name, text in zip(names, row, strict=True):
            if name == "time_utc":
                t_s[i] = _instant(path, i + 2, text)
            else:
                columns[name][i] = _number(path, i + 2, name, text)
    if "vapour" in columns:
        columns["humidity"] = _humidity(columns.pop("vapour"), columns["temperature"])
    else:
        columns["humidity"] = 0.01 * columns["humidity"]
    return checked(str(path), t_s, columns, begins=begins, first_row=2)


def write_csv(path: Path, series: Series) -> None:
    """A series as the project's own CSV."""
    with path.open("w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        names = ("time_utc", *COLUMNS)
        out.writerow([f"{name} [{OWN[name]}]" if OWN[name] else name for name in names])
        for i, (radiation, temperature, humidity, co2, wind) in enumerate(series.values):
            instant = series.begins + np.timedelta64(round(1e3 * i * series.step_s), "ms")
            numbers = (radiation, temperature, 100.0 * humidity, co2, wind)
            out.writerow([str(instant), *(f"{value:.6g}" for value in numbers)])


def read_npz(path: Path) -> Series:
    """A year as `store` wrote it."""
    with np.load(path) as stored:
        values = stored["values"] * np.array(STORED_UNITS)
        name, begins, step_s = str(stored["name"]), np.datetime64(str(stored["begins"]), "ms"), float(stored["step_s"])
    return Series(name, begins, step_s, values)


def store(path: Path, series: Series) -> None:
    """Writes a series as small integers, compressed: 0.1 W/m2, 0.01 degC, 0.01 %, 0.1 ppm, 0.01 m/s."""
    values = np.round(series.values / np.array(STORED_UNITS)).astype(np.int16)
    np.savez_compressed(path, values=values, name=series.name, begins=str(series.begins), step_s=series.step_s)


def read_epw(path: Path) -> Series:
    """EnergyPlus weather; its rows begin the hours that they stand for."""
    data, meta = _parsed(path, "read_epw", coerce_year=2001)
    return _hourly(path, data, float(meta["TZ"]), row_ends_hour=False, first_row=9)


def read_tmy3(path: Path) -> Series:
    """A typical year of the NSRDB; its rows end the hours that they stand for."""
    data, meta = _parsed(path, "read_tmy3", map_variables=True, coerce_year=2001)
    return _hourly(path, data, float(meta["TZ"]), row_ends_hour=True, first_row=3)


def read_tmy2(path: Path) -> Series:
    """A typical year of the older NSRDB; temperature and wind in tenths."""
    data, meta = _parsed(path, "read_tmy2")
    named = {"ghi": data["GHI"], "relative_humidity": data["RHum"]}
    named |= {"temp_air": 0.1 * data["DryBulb"], "wind_speed": 0.1 * data["Wspd"]}
    return _hourly(path, named, float(meta["TZ"]), row_ends_hour=False, first_row=2)


def read_knmi(path: Path) -> Series:
    """Hourly measurements of KNMI: T in 0.1 degC, FH in 0.1 m/s, Q in J/cm2 per hour, U in percent; HH ends the hour.

    Global radiation is not measured everywhere; a station without it is refused.
    """
    needed = {"YYYYMMDD": "time", "HH": "time", "T": "temperature", "Q": "radiation", "U": "humidity", "FH": "wind"}
    names: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), start=1):
        cells = [cell.strip() for cell in line.lstrip("# ").split(",")]
        if "YYYYMMDD" in cells:
            names = cells
        elif names and cells[0].isdigit():
            rows.append((number, cells))
    missing = [name for name in needed if name not in names]
    if missing or not rows:
        what = f"column {', '.join(missing)}" if missing else "a row of numbers below the header"
        raise BadInput(f"{path}: not an hourly file of KNMI: lacks {what}")
    at = {name: names.index(name) for name in needed}
    table = {name: np.full(len(rows), np.nan) for name in needed}
    for i, (number, cells) in enumerate(rows):
        if len(cells) != len(names):
            raise BadInput(f"{path}: row {number}: {len(cells)} values; expected {len(names)}")
        for name, column in at.items():
            table[name][i] = _number(path, number, name, cells[column])
    days = [_instant(path, number, f"{c[at['YYYYMMDD']][:4]}-{c[at['YYYYMMDD']][4:6]}-{c[at['YYYYMMDD']][6:]}")
            for number, c in rows]  # fmt: skip
    t_s = np.array(days) + _HOUR_S * table["HH"]
    columns = {
        "radiation": _begun(table["Q"] * (1e4 / _HOUR_S)),
        "temperature": 0.1 * table["T"],
        "humidity": 0.01 * table["U"],
        "wind": 0.1 * np.abs(table["FH"]),
    }
    begins = np.datetime64("1970-01-01", "ms")
    return checked(str(path), t_s, columns, begins=begins, first_row=rows[0][0], mean_radiation=True)


def read_bleiswijk(path: Path) -> Series:
    """Outdoor weather of WUR Glas, Bleiswijk, 2014: rows of 300 s from 10 January 00:00 (Kempkes et al. 2014)."""
    table = np.loadtxt(path, delimiter=",")
    columns = {"radiation": table[:, 1], "temperature": table[:, 2], "humidity": 0.01 * table[:, 3]}
    columns |= {"wind": table[:, 4], "co2": table[:, 5]}
    return checked("bleiswijk-2014", table[:, 0], columns, begins=np.datetime64("2014-01-10T00:00:00", "ms"))


def read_gl_gym(path: Path, year: int) -> Series:
    """Amsterdam as gl-gym brings it: rows of 300 s, interpolated from hours; its CO2 is a constant 400 ppm."""
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    columns = {"radiation": table[:, 1], "wind": table[:, 2], "temperature": table[:, 3]}
    columns |= {"co2": table[:, 6], "humidity": 0.01 * table[:, 8]}
    begins = np.datetime64(f"{year}-01-01T00:00:00", "ms")
    return checked(f"amsterdam-{year}", table[:, 0], columns, begins=begins, first_row=2)


_BY_SUFFIX = {".csv": read_csv, ".npz": read_npz, ".epw": read_epw, ".tm2": read_tmy2, ".txt": read_knmi}


def _header(path: Path, cells: list[str]) -> list[str]:
    """Column names of the project's own CSV."""
    names = []
    for cell in cells:
        name, _, unit = cell.strip().partition("[")
        name, unit = name.strip().lower(), unit.rstrip("] ").strip()
        if name not in OWN:
            raise BadInput(f"{path}: row 1: column '{cell.strip()}' not known; columns: {', '.join(OWN)}")
        if unit and unit != OWN[name]:
            raise BadInput(f"{path}: row 1, column {name}: unit {unit}; expected {OWN[name]}")
        names.append(name)
    missing = [name for name in ("time_utc", "radiation", "temperature") if name not in names]
    if not {"humidity", "vapour"} & set(names):
        missing.append("humidity (or vapour)")
    if missing or len(set(names)) < len(names):
        raise BadInput(f"{path}: row 1: lacks column {', '.join(missing) or 'names that differ'}")
    return names


def _instant(path: Path, row: int, text: str) -> float:
    """Seconds since 1970 of an ISO 8601 instant in UTC."""
    try:
        return float(np.datetime64(text.strip().removesuffix("Z"), "ms").astype(np.int64)) / 1e3
    except ValueError as e:
        raise BadInput(f"{path}: row {row}, column time: '{text}' is not an instant like 2014-02-09T00:00:00") from e


def _number(path: Path, row: int, name: str, text: str) -> float:
    try:
        return float(text) if text.strip() else np.nan
    except ValueError as e:
        raise BadInput(f"{path}: row {row}, column {name}: '{text}' is not a number") from e


def _humidity(vapour: Array, temperature: Array) -> Array:
    """Relative humidity (1) of vapour densities (kg/m3); see sim.dynamics.greenhouse."""
    saturated = 610.78 * np.exp(17.2694 * temperature / (temperature + 238.3))
    return 8.3144598 / 0.01801528 * (temperature + 273.15) * vapour / saturated


def _parsed(path: Path, reader: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A file through pvlib; its complaints become one line."""
    try:
        from pvlib import iotools
    except ImportError as e:
        raise BadInput(f'{path}: reading it needs pvlib; pip install "robo-rl[greenhouse]"') from e
    try:
        return getattr(iotools, reader)(str(path), **options)
    except Exception as e:  # whatever a parser stumbles over, the file is not what its name says
        first = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise BadInput(f"{path}: pvlib's {reader} cannot read it: {first}") from e


def _hourly(path: Path, data: Any, zone_h: float, *, row_ends_hour: bool, first_row: int) -> Series:
    """An hourly year in local standard time: radiation is the hour's mean, the rest holds at the row's instant."""
    names = {"radiation": "ghi", "temperature": "temp_air", "humidity": "relative_humidity", "wind": "wind_speed"}
    columns = {ours: np.asarray(data[theirs], dtype=np.float64) for ours, theirs in names.items()}
    columns["humidity"] = 0.01 * columns["humidity"]
    if row_ends_hour:
        columns["radiation"] = _begun(columns["radiation"])
    t_s = (np.arange(len(columns["radiation"]), dtype=np.float64) + float(row_ends_hour) - zone_h) * _HOUR_S
    begins = np.datetime64("2001-01-01T00:00:00", "ms")
    return checked(str(path), t_s, columns, begins=begins, first_row=first_row, mean_radiation=True)


def _begun(means: Array) -> Array:
    """Means over the hour that ends at their row, as means over the hour that begins there."""
    return np.concatenate([means[1:], means[-1:]])
