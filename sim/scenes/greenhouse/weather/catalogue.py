"""Which weather serves for what: training, validation, test and climate shift never share a year.

`synthetic` is generated and the same on every machine. `measured` reads weather that installed packages bring along
(none of it is part of this project): Amsterdam 2008-2012 of gl-gym, Bleiswijk 2014 of lettuce-greenhouse-gym, and the
typical years of pvlib. Amsterdam's CO2 is a constant 400 ppm, not measured: it is generated, so that a policy trained
there has seen CO2 that varies.
"""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from hardware.errors import BadInput, NotFoundError
from sim.scenes.greenhouse.weather import readers
from sim.scenes.greenhouse.weather.series import Series
from sim.scenes.greenhouse.weather.synthetic import generate, outdoor_co2

Split = Literal["train", "validation", "test", "shift"]
SPLITS: tuple[str, ...] = get_args(Split)
Source = Callable[[], Series]

TRAINING_YEARS, VALIDATION_YEARS, TEST_YEARS = range(10), range(100, 103), range(200, 203)
"""Seeds of the generator."""
BUNDLED = Path(__file__).with_name("netherlands-0.npz")
"""The generator's first year, stored: it does not depend on anybody's random numbers.

`python -m sim.scenes.greenhouse.weather.catalogue` writes it anew.
"""
AMSTERDAM_TRAINING, AMSTERDAM_VALIDATION = (2008, 2009, 2010, 2011), (2012,)


def load(source: str, split: str) -> list[Series]:
    """The years of a split: of `synthetic`, of `measured`, or of a file, which serves every split alike."""
    if split not in SPLITS:
        raise NotFoundError("weather split", split, SPLITS)
    if source == "synthetic":
        return [_generated(*year) for year in _SYNTHETIC[split]]
    if source == "measured":
        return [_measured(name) for name in _MEASURED[split]]
    if source == "bundled":
        return [_file(str(BUNDLED))]
    if source in _READERS:
        return [_measured(source)]
    if Path(source).suffix:
        return [_file(source)]
    raise NotFoundError(
        "weather", source, ["synthetic", "bundled", "measured", *_READERS, "a file (.csv, .epw, .tm2, .txt)"]
    )


_SYNTHETIC = {
    "train": [("netherlands", seed) for seed in TRAINING_YEARS],
    "validation": [("netherlands", seed) for seed in VALIDATION_YEARS],
    "test": [("netherlands", seed) for seed in TEST_YEARS],
    "shift": [("south", 300), ("north", 300)],
}
_MEASURED = {
    "train": [f"amsterdam-{year}" for year in AMSTERDAM_TRAINING],
    "validation": [f"amsterdam-{year}" for year in AMSTERDAM_VALIDATION],
    "test": ["bleiswijk-2014"],
    "shift": ["sand-point", "greensboro"],
}


@functools.cache
def _generated(climate: str, seed: int) -> Series:
    return generate(climate, seed)


@functools.cache
def _measured(name: str) -> Series:
    return replace(_READERS[name](), name=name)


@functools.cache
def _file(path: str) -> Series:
    return readers.read(Path(path))


def _packaged(package: str, path: str, extra: str) -> Path:
    """A data file of an installed package, found without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise BadInput(f"weather of {package} is not installed; {extra}, or use the weather `synthetic`")
    return Path(next(iter(found.submodule_search_locations))) / path


def _amsterdam(year: int) -> Series:
    path = _packaged("gl_gym", f"data/weather/Amsterdam/{year}.csv", "pip install --no-deps gl-gym")
    series = readers.read_gl_gym(path, year)
    values = series.values.copy()
    values[:, 3] = outdoor_co2(values[:, 0], values[:, 4], series.step_s, np.random.default_rng(year))
    return replace(series, values=values)


def _bleiswijk() -> Series:
    path = _packaged(
        "lettuce_greenhouse_gym",
        "data/outdoorWeatherWurGlas2014.csv",
        "pip install --no-deps lettuce-greenhouse-gym",
    )
    return readers.read_bleiswijk(path)


def _pvlib(name: str) -> Series:
    return readers.read(_packaged("pvlib", f"data/{name}", 'pip install "robo-rl[greenhouse]"'))


_READERS: dict[str, Source] = {
    **{f"amsterdam-{y}": functools.partial(_amsterdam, y) for y in (*AMSTERDAM_TRAINING, *AMSTERDAM_VALIDATION)},
    "bleiswijk-2014": _bleiswijk,
    "sand-point": functools.partial(_pvlib, "703165TY.csv"),
    "greensboro": functools.partial(_pvlib, "723170TYA.CSV"),
    "miami": functools.partial(_pvlib, "12839.tm2"),
}


if __name__ == "__main__":
    readers.store(BUNDLED, generate("netherlands", TRAINING_YEARS[0]))
