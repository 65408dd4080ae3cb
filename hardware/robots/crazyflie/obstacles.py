"""Obstacles of the room: upright cylinders from the floor to the ceiling, known to the world and to policies on board.

A file lists them as TOML:

    centres_m = [[1.0, -0.5], [2.5, 0.0]]
    radius_m = 0.3                          # or one per centre: [0.3, 0.2]
"""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput


class Obstacles(NamedTuple):
    """L cylinders, m."""

    centre: NDArray[np.float64]
    """(L, 2) world."""
    radius: NDArray[np.float64]
    """(L,)"""


NOTHING = Obstacles(np.zeros((0, 2)), np.zeros(0))


def read_obstacles(path: Path) -> Obstacles:
    """The obstacles in a file; raises BadInput naming what is wrong with it."""
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    except tomllib.TOMLDecodeError as e:
        raise BadInput(f"{path}: cannot be read as TOML: {e}") from e
    if set(raw) != {"centres_m", "radius_m"}:
        given = ", ".join(raw) or "nothing"
        raise BadInput(f"{path} holds {given}; expected centres_m = [[x, y], ...] and radius_m = r or [r, ...]")
    try:
        return _checked(np.asarray(raw["centres_m"], np.float64).reshape(-1, 2), raw["radius_m"])
    except (ValueError, TypeError) as e:
        raise BadInput(f"{path}: expected centres_m = [[x, y], ...] and radius_m above 0, one or one per centre") from e


def _checked(centre: NDArray[np.float64], radius: Any) -> Obstacles:
    each = np.broadcast_to(np.asarray(radius, np.float64), len(centre)).copy()
    if not (np.isfinite(centre).all() and (each > 0.0).all() and np.isfinite(each).all()):
        raise ValueError("not finite")
    return Obstacles(centre, each)
