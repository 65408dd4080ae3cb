"""Where the members of a swarm are sent: named formations around the place where they stand."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FormationName = Literal["circle", "grid", "line", "swap"]


def formation(name: FormationName, starts: Array, *, spacing_m: float, height_m: float) -> Array:
    """Goals (N, 3), m, at one height, for robots that start at (N, 3).

    `circle`, `grid` and `line` (along y) lie around the middle of the starts, `spacing_m` between next places; every
    robot gets a place such that the sum of squared ways is least, so that few paths cross. `swap` sends each through
    the middle to the place opposite its own.
    """
    from scipy.optimize import linear_sum_assignment  # half a second to import

    middle = starts[:, :2].mean(axis=0)
    if name == "swap":
        flat = 2.0 * middle - starts[:, :2]
    else:
        places = middle + _places(name, len(starts)) * spacing_m
        ways = ((starts[:, None, :2] - places[None]) ** 2).sum(axis=-1)
        flat = places[linear_sum_assignment(ways)[1]]
    return np.column_stack([flat, np.full(len(starts), height_m)])


def nearest_pair(points: Sequence[Array]) -> tuple[float, int, int]:
    """The least distance between two of several points, m, and which two; infinite for fewer than two."""
    best = (math.inf, 0, 0)
    for i in range(len(points)):
        for j in range(i + 1, len(points)):
            best = min(best, (float(np.linalg.norm(points[i] - points[j])), i, j))
    return best


def _places(name: str, num: int) -> Array:
    """(N, 2) places around the origin, next ones 1 apart."""
    if name == "circle" and num > 1:
        angle = 2.0 * np.pi * np.arange(num) / num
        return np.column_stack([np.cos(angle), np.sin(angle)]) / (2.0 * math.sin(math.pi / num))
    columns = 1 if name == "line" else math.ceil(math.sqrt(num))
    index = np.arange(num)
    places = np.column_stack([index % columns, index // columns]).astype(np.float64)
    return places - places.mean(axis=0)
