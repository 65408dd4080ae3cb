"""Statistics of evaluations: robust means, tail averages, and intervals for rates and for scores."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]


def iqm(scores: Scores) -> float:
    """Interquartile mean: the mean of the middle half, as many whole scores cut from each side as a quarter holds.

    Agarwal et al. 2021 (arXiv 2108.13264).
    """
    ordered = np.sort(np.asarray(scores, dtype=float).ravel())
    cut = int(0.25 * ordered.size)
    return float(np.mean(ordered[cut : ordered.size - cut]))


def cvar(scores: Scores, tail: float = 0.1) -> float:
    """Mean of the worst `tail` share of the scores, at least one: what a bad day brings."""
    ordered = np.sort(np.asarray(scores, dtype=float).ravel())
    count = max(1, math.ceil(tail * ordered.size - 1e-9))
    return float(np.mean(ordered[:count]))


def wilson(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Interval of a rate (Wilson 1927), 95 % by default; holds its level near 0 and 1, where +-2 sigma does not."""
    if trials == 0:
        return 0.0, 1.0
    return _wilson(successes / trials, float(trials), z)


def _wilson(p: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the interval touches 0 or 1 exactly; rounding must not take that away.
    return (0.0 if p == 0.0 else centre - half), (1.0 if p == 1.0 else centre + half)


def wilson_clustered(hits: Scores | NDArray[np.bool_], clusters: NDArray[np.integer]) -> tuple[float, float]:
    """95 % interval of the mean of hits (R,) of 0 or 1 that come in clusters (R,), such as drones of one flight.

    Wilson's interval for as many independent trials as the variance between clusters leaves (Kish 1965); never more
    than there are, and where all hits are equal, one per cluster.
    """
    scores = np.asarray(hits, dtype=float)
    _, index, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    trials, groups = len(scores), len(sizes)
    rate = float(scores.mean())
    if groups == trials:
        return wilson(round(scores.sum()), trials)
    if groups < 2 or rate in (0.0, 1.0):
        effective = float(groups)
    else:
        residual = np.bincount(index, scores - rate)
        variance = float((residual**2).sum()) / trials**2 * groups / (groups - 1)
        effective = min(float(trials), rate * (1.0 - rate) / variance) if variance > 0.0 else float(trials)
    return _wilson(rate, effective)


def bootstrap(
    scores: Scores,
    statistic: Callable[[Scores], float] = iqm,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile interval of a statistic of scores (R runs,) or (R runs, K tasks).

    Stratified: every task is resampled on its own, so that each resample holds every task equally often.
    """
    table = np.asarray(scores, dtype=float)
    if table.ndim == 1:
        table = table[:, None]
    runs, tasks = table.shape
    draws = [
        statistic(np.take_along_axis(table, rng.integers(0, runs, size=(runs, tasks)), axis=0))
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
