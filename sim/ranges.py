"""Reads and checks a scene's `ranges.toml`: tasks with summaries, parameters with ranges and sources."""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hardware.errors import BadInput
from sim.param import Param

HOW, SOURCES = ("scale", "add", "set"), ("identified", "datasheet", "guess")
_TEXT, _NUMBERS = ("unit", "how", "source", "reference"), ("nominal", "low", "high")
_OPTIONAL = ("minimum", "maximum", "group")


@dataclass(frozen=True)
class Ranges:
    """One scene folder's `ranges.toml`."""

    path: Path
    tasks: Mapping[str, Mapping[str, str]]
    """Task name -> its table: at least `summary` and `robot`."""
    params: Mapping[str, Param]

    def digest(self) -> str:
        """SHA-256 over every number, unit and rule that shapes the worlds; not over sources or comments."""
        shaping = {
            name: {k: v for k, v in asdict(p).items() if k not in ("source", "reference")}
            for name, p in self.params.items()
        }
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def read_ranges(path: Path) -> Ranges:
    """The file's contents; raises BadInput naming the file, the entry and what is wrong with it."""
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise BadInput(f"{path}: cannot be read as TOML: {e}") from e
    unknown = set(raw) - {"scene", "param"}
    if unknown or not isinstance(raw.get("scene"), dict):
        raise BadInput(f"{path}: expected tables [scene.TASK] and [param.NAME], found {', '.join(sorted(raw))}")
    for task, table in raw["scene"].items():
        missing = [k for k in ("summary", "robot") if not isinstance(table.get(k), str)]
        if missing:
            raise BadInput(f"{path}: [scene.{task}] lacks {', '.join(missing)}")
    params = {name: _param(path, name, table) for name, table in raw.get("param", {}).items()}
    return Ranges(path, raw["scene"], params)


def _param(path: Path, name: str, table: Any) -> Param:
    where = f"{path}: [param.{name}]"
    if not isinstance(table, dict):
        raise BadInput(f"{where} is not a table")
    missing = [k for k in (*_NUMBERS, *_TEXT) if k not in table]
    unknown = sorted(set(table) - {*_NUMBERS, *_TEXT, *_OPTIONAL})
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"does not know {', '.join(unknown)}"] * bool(
            unknown
        )
        raise BadInput(f"{where} {' and '.join(parts)}")
    for key in (*_NUMBERS, "minimum", "maximum"):
        value = table.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise BadInput(f"{where} {key} = {value!r} is not a number")
    for key in _TEXT:
        if not isinstance(table[key], str) or (key != "unit" and not table[key].strip()):
            raise BadInput(f"{where} {key} = {table[key]!r} is not a text")
    for key, known in (("how", HOW), ("source", SOURCES)):
        if table[key] not in known:
            raise BadInput(f"{where} {key} = {table[key]!r}; expected one of {', '.join(known)}")
    low, high = float(table["low"]), float(table["high"])
    minimum, maximum = float(table.get("minimum", -math.inf)), float(table.get("maximum", math.inf))
    if not minimum <= low <= high <= maximum:
        raise BadInput(f"{where} needs minimum <= low <= high <= maximum; got {minimum}, {low}, {high}, {maximum}")
    return Param(
        name=name,
        nominal=float(table["nominal"]),
        unit=table["unit"],
        low=low,
        high=high,
        how=table["how"],
        source=table["source"],
        reference=table["reference"],
        minimum=minimum,
        maximum=maximum,
        group=table.get("group", ""),
    )
