"""Model-based transfer learning: which contexts to train in, so that the policies together serve all of them.

Cho, Jayawardana, Li and Wu 2024 (arXiv 2408.04498). A Gaussian process models what a policy trained in context x
earns there, J(x); away from home a policy loses in proportion to the distance, J(x -> y) = J(x) - theta |x - y|. Each
next context is the one that promises the largest gain over the best policy so far, averaged over all contexts.
C contexts of K numbers each, in units in which distances are comparable; T of them trained.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def distances(contexts: Array) -> Array:
    """Euclidean distances (C, C) between contexts (C, K)."""
    return np.linalg.norm(contexts[:, None] - contexts[None], axis=-1)


def gaussian_process(
    distance: Array, trained: list[int], values: Array, *, length: float, noise: float
) -> tuple[Array, Array]:
    """Mean and standard deviation (C) of J, from its values (T) in the trained contexts.

    Squared-exponential kernel; mean and variance of the prior are those of the values (unit variance where there is
    but one), `noise` is a share of that variance. Rasmussen and Williams 2006, eq. 2.25 and 2.26.
    """
    centre, spread = values.mean(), values.std() if len(values) > 1 and values.std() > 0.0 else 1.0
    kernel = np.exp(-0.5 * (distance / length) ** 2)
    among = kernel[np.ix_(trained, trained)] + noise * np.eye(len(trained))
    across = kernel[:, trained]
    mean = across @ np.linalg.solve(among, (values - centre) / spread)
    variance = 1.0 - np.einsum("ct,tc->c", across, np.linalg.solve(among, across.T))
    return centre + spread * mean, spread * np.sqrt(np.clip(variance, 0.0, None))


def gap_slope(distance: Array, trained: list[int], transfer: Array) -> float:
    """Loss per distance, theta: least squares through the origin over all that transfers (T, C) have lost.

    0 where policies lose nothing on average.
    """
    away = distance[trained]
    at_home = transfer[np.arange(len(trained)), trained][:, None]
    return float(max(0.0, (away * (at_home - transfer)).sum() / max((away**2).sum(), 1e-12)))


def expected_gain(distance: Array, mean: Array, std: Array, best: Array, *, slope: float, beta: float) -> Array:
    """What training in each context x promises (C): the mean over contexts y of the gain in y, if there is one.

    max(J(x) + sqrt(beta) s(x) - theta |x - y| - V(y), 0), where V(y), `best`, is what the best policy so far earns.
    """
    promise = (mean + np.sqrt(beta) * std)[:, None] - slope * distance
    return np.maximum(promise - best[None], 0.0).mean(1)


def choose(
    contexts: Array, trained: list[int], transfer: Array, *, length: float, noise: float, beta: float
) -> tuple[int, float]:
    """The context to train in next, and the gain it promises.

    `transfer` (T, C) holds what each trained policy earns in every context. The first is the context nearest to the
    middle of all, before anything is known.
    """
    distance = distances(contexts)
    if not trained:
        return int(distance.sum(1).argmin()), float("nan")
    values = transfer[np.arange(len(trained)), trained]
    mean, std = gaussian_process(distance, trained, values, length=length, noise=noise)
    slope = gap_slope(distance, trained, transfer)
    gain = expected_gain(distance, mean, std, transfer.max(0), slope=slope, beta=beta)
    gain[trained] = -np.inf
    return int(gain.argmax()), float(gain.max())
