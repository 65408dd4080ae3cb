"""Multiple shooting: parameters shared by all windows, a start of its own for each, Levenberg-Marquardt on both.

Residuals are output errors whitened by first-order autoregressive noise per signal, whose size and correlation are
estimated from the residuals themselves; large ones count linearly (Huber). The windows' starts are eliminated window
by window (Schur complement), so that a step costs one batch of simulations, however many windows there are. What each
window contributes to the normal equations also gives the jackknife for free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardware.errors import BadInput, RoboError
from sim.identify.rollout import Rollout, Windows, residuals, start_size, tangent_size
from sim.param import Param
from sim.randomization import draw_range

Array = NDArray[np.float64]

HUBER = 3.0
"""Whitened residuals beyond this count linearly."""
PRIOR_STD = 0.5
"""Standard deviation of the weak prior on a parameter, in widths between its bounds: only what the data do not show
feels it."""
ENOUGH = 0.1
"""Gain in the log-likelihood below which a step no longer matters: half a standard error at most, and
steps shrink fast near the optimum."""
MAX_WORLDS = 16384
"""Largest batch of simulated windows."""


@dataclass(frozen=True)
class Unknown:
    """A parameter to be found, between bounds that a drawn world never reaches."""

    name: str
    start: float
    low: float
    high: float


def unknowns(params: Mapping[str, Param], known: Mapping[str, float]) -> list[Unknown]:
    """Everything in `params` that is not known; bounds: the range widened by its width on both sides."""
    found = []
    for name, p in params.items():
        if name in known:
            continue
        low, high = draw_range(replace(p, group=""), "train")
        nominal = min(max(p.nominal, low), high)
        wide_low, wide_high = low - (high - low), high + (high - low)
        if p.how == "set":
            wide_low, wide_high = max(wide_low, p.minimum), min(wide_high, p.maximum)
        if low > 0.0:
            wide_low = max(wide_low, 0.3 * low)
        if not wide_high > wide_low:
            raise BadInput(f"parameter {name} has no range: nothing to identify")
        found.append(Unknown(name, nominal, wide_low, wide_high))
    return found


class Noise(NamedTuple):
    """Measurement noise per signal."""

    std: dict[str, float]
    correlation: dict[str, float]
    """Of neighbouring samples."""


class Normal(NamedTuple):
    """The normal equations at a point, starts eliminated: per window, and what the starts would do."""

    hessian: Array
    """(W, P, P)."""
    gradient: Array
    """(W, P)."""
    back: tuple[Array, Array]
    """Start step of a window = back[0] (W, Z) + back[1] (W, Z, P) @ parameter step."""


@dataclass(frozen=True)
class Solution:
    """Where the iteration ended."""

    unit: Array
    """(P,) parameters in 0..1 between their bounds."""
    starts: Tensor
    """(W, Z)."""
    cost: float
    noise: Noise
    normal: Normal
    iterations: int


class Problem:
    """One rollout, its windows, and the parameters to find."""

    def __init__(self, rollout: Rollout, windows: Windows, free: Sequence[Unknown], known: Mapping[str, float]) -> None:
        self.rollout, self.windows, self.free, self.known = rollout, windows, list(free), dict(known)
        names = list(rollout.params)
        self._base = torch.tensor([known.get(n, p.nominal) for n, p in rollout.params.items()], dtype=torch.float64)
        self._columns = torch.tensor([names.index(f.name) for f in self.free], dtype=torch.long)
        self._low = torch.tensor([f.low for f in self.free], dtype=torch.float64)
        self._span = torch.tensor([f.high - f.low for f in self.free], dtype=torch.float64)
        self.start_unit = (torch.tensor([f.start for f in self.free], dtype=torch.float64) - self._low) / self._span
        self.start_size = start_size(rollout, windows)
        self.start_scale = torch.cat(
            [
                *(torch.full((tangent_size(n, windows.signals[n]),), s) for n, s in rollout.signals.items()),
                torch.tensor(list(rollout.hidden.values())),
            ]
        ).double()
        self.hidden = len(rollout.hidden)

    def params(self, unit: Tensor) -> Tensor:
        """All parameters (B, P_all) at free ones (B, P) in 0..1."""
        values = self._base.expand(len(unit), -1).clone()
        values[:, self._columns] = self._low + self._span * unit
        return values

    def values(self, unit: Array) -> Array:
        """Free parameters in their units."""
        return self._low.numpy() + self._span.numpy() * unit

    def errors(self, unit: Tensor, starts: Tensor) -> dict[str, Tensor]:
        """Residuals per signal for trials of parameters (B, P) and starts (B, W, Z), in batches that fit memory."""
        size = max(1, MAX_WORLDS // max(self.windows.count, 1))
        parts = [
            residuals(self.rollout, self.windows, self.params(u), s)
            for u, s in zip(unit.split(size), starts.split(size), strict=True)
        ]
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    def zero_starts(self) -> Tensor:
        """Starts as measured."""
        return torch.zeros(self.windows.count, self.start_size, dtype=torch.float64)


def first_noise(problem: Problem) -> Noise:
    """White noise of the size that neighbouring samples of the log suggest: second differences see little motion."""
    std = {}
    for name, least in problem.rollout.signals.items():
        v = problem.windows.signals[name]
        bend = v[:, 2:] - 2.0 * v[:, 1:-1] + v[:, :-2]
        std[name] = max(float(bend.abs().median()) / 0.6745 / 6.0**0.5, least)
    return Noise(std, dict.fromkeys(std, 0.0))


def refined_noise(errors: Mapping[str, Tensor], least: Mapping[str, float]) -> Noise:
    """Size and correlation of one trial's residuals (1, W, T + 1, m), robust against outliers."""
    std, correlation = {}, {}
    for name, e in errors.items():
        r = e[0]
        scale = float(r.abs().median()) / 0.6745
        r = r.clamp(-4.0 * scale, 4.0 * scale) if scale > 0.0 else r
        power = float((r * r).mean())
        phi = float((r[:, 1:] * r[:, :-1]).mean()) / max(float((r[:, :-1] ** 2).mean()), 1e-300)
        std[name], correlation[name] = max(power**0.5, least[name]), min(max(phi, 0.0), 0.98)
    return Noise(std, correlation)


def whitened(problem: Problem, errors: Mapping[str, Tensor], starts: Tensor, noise: Noise) -> Tensor:
    """(B, W, R): residuals of unit variance without correlation, then the hidden starts over their spread."""
    parts = []
    for name, e in errors.items():
        phi, std = noise.correlation[name], noise.std[name]
        fresh = (e[:, :, 1:] - phi * e[:, :, :-1]) / (std * (1.0 - phi * phi) ** 0.5)
        parts.append(torch.cat([e[:, :, :1] / std, fresh], 2).flatten(2))
    if problem.hidden:
        parts.append(starts[..., -problem.hidden :] / problem.start_scale[-problem.hidden :])
    return torch.cat(parts, 2)


def cost_of(problem: Problem, unit: Tensor, starts: Tensor, noise: Noise) -> Array:
    """(B,) half sums of Huber losses and the weak prior; infinity where the simulation is not finite."""
    r = whitened(problem, problem.errors(unit, starts), starts, noise)
    loss = torch.where(r.abs() <= HUBER, 0.5 * r * r, HUBER * (r.abs() - 0.5 * HUBER)).sum((1, 2))
    loss = loss + 0.5 * (((unit - problem.start_unit) / PRIOR_STD) ** 2).sum(1)
    return torch.nan_to_num(loss, nan=np.inf, posinf=np.inf).numpy()


def linearized(problem: Problem, unit: Tensor, starts: Tensor, noise: Noise, *, fixed: bool = False) -> Normal:
    """Residuals and all their derivatives from one batch of simulations: forward differences in double precision.

    `fixed`: by the starts only, as if there were no free parameter.
    """
    p, z = 0 if fixed else len(problem.free), problem.start_size
    step_u, step_z = 1e-6, 1e-4 * problem.start_scale
    trial_u = unit.expand(1 + p + z, -1).clone()
    trial_z = starts.expand(1 + p + z, -1, -1).clone()
    inward = torch.where(unit > 0.5, -step_u, step_u)[:p]
    for j in range(p):
        trial_u[1 + j, j] += inward[j]
    for k in range(z):
        trial_z[1 + p + k, :, k] += step_z[k]
    r = whitened(problem, problem.errors(trial_u, trial_z), trial_z, noise)
    scale = torch.cat([inward, step_z])[:, None, None]
    slope = ((r[1:] - r[:1]) / scale).movedim(0, 2)  # (W, R, P + Z)
    r0 = r[0]
    weight = torch.clamp(HUBER / r0.abs().clamp(min=1e-12), max=1.0)
    weighted = slope * weight[..., None]
    full = (slope.transpose(1, 2) @ weighted).numpy()
    push = (weighted.transpose(1, 2) @ r0[..., None])[..., 0].numpy()
    a, b, c = full[:, :p, :p], full[:, :p, p:], full[:, p:, p:]
    c = c + 1e-9 * np.eye(z) * np.trace(c, axis1=1, axis2=2)[:, None, None]
    solved = np.linalg.solve(c, np.concatenate([push[:, p:, None], b.transpose(0, 2, 1)], axis=2))
    hessian = a - b @ solved[:, :, 1:]
    gradient = push[:, :p] - (b @ solved[:, :, :1])[..., 0]
    return Normal(hessian, gradient, (-solved[:, :, 0], -solved[:, :, 1:]))


def descend(
    problem: Problem,
    unit: Array,
    starts: Tensor,
    noise: Noise,
    *,
    iterations: int = 15,
    fixed: bool = False,
    least: float = ENOUGH,
) -> Solution:
    """Levenberg-Marquardt from one point under one noise, until a step gains less than `least`.

    `fixed` moves the starts only.
    """
    u, z = torch.tensor(unit, dtype=torch.float64), starts
    cost = float(cost_of(problem, u[None], z[None], noise)[0])
    damping, normal, done = 1e-3, None, 0
    while done < iterations:
        done += 1
        normal = linearized(problem, u, z, noise, fixed=fixed)
        before = cost
        for _ in range(6):
            step = np.zeros(len(unit)) if fixed else _step(problem, normal, u.numpy(), damping)
            new_u = (u + torch.tensor(step)).clamp(0.0, 1.0)
            moved = (new_u - u).numpy()
            along = normal.back[0] if fixed else normal.back[0] + normal.back[1] @ moved
            new_z = z + torch.tensor(along) / (1.0 + (damping if fixed else 0.0))
            trial = float(cost_of(problem, new_u[None], new_z[None], noise)[0])
            if trial < cost:
                u, z, cost, damping = new_u, new_z, trial, max(damping * 0.2, 1e-9)
                break
            damping = max(damping * 8.0, 1e-6)
        if not before - cost > least:
            break
    last = linearized(problem, u, z, noise, fixed=fixed) if normal is None else normal
    return Solution(u.numpy(), z, cost, noise, last, done)


def _step(problem: Problem, normal: Normal, unit: Array, damping: float) -> Array:
    """Damped step; parameters that would leave their bounds stay there and the others move without them."""
    size = len(unit)
    hessian = normal.hessian.sum(0) + np.eye(size) / PRIOR_STD**2
    gradient = normal.gradient.sum(0) + (unit - problem.start_unit.numpy()) / PRIOR_STD**2
    hessian = hessian + damping * np.diag(np.diag(hessian))
    movable = np.ones(size, dtype=bool)
    for _ in range(size):
        step = np.zeros(size)
        step[movable] = -np.linalg.solve(hessian[np.ix_(movable, movable)], gradient[movable])
        out = movable & (((unit <= 0.0) & (step < 0.0)) | ((unit >= 1.0) & (step > 0.0)))
        if not out.any():
            return step
        movable &= ~out
    return np.zeros(size)


def fit(problem: Problem, first: Array, rng: np.random.Generator, *, search: str = "auto", tries: int = 24) -> Solution:
    """The best of several descents: from `first`, from the best random points, and from where CMA-ES ends if need be.

    `search`: gradient, cma (evolution first), or auto (evolution where no descent gets anywhere).
    """
    noise, starts = first_noise(problem), problem.zero_starts()
    centre = np.clip(np.concatenate([first[None], _scattered(problem, tries, rng)]), 0.0, 1.0)
    costs = cost_of(problem, torch.tensor(centre), starts.expand(len(centre), -1, -1), noise)
    if not np.isfinite(costs).any():
        raise RoboError(
            "the model is rejected: no simulation of this log stays finite; check the mapping, unit and sign of "
            "commands and signals"
        )
    order = [0, *(1 + np.argsort(costs[1:])[:2])]
    solutions = []
    if search != "cma":
        rough = 1e-3 * float(costs.min()) if np.isfinite(costs.min()) else ENOUGH
        solutions = [
            descend(problem, centre[i], starts, noise, iterations=8, least=rough)
            for i in order
            if np.isfinite(costs[i])
        ]
    stuck = all(s.cost > 0.999 * costs.min() and s.cost > 10.0 * _residual_count(problem) for s in solutions)
    if search == "cma" or (search == "auto" and stuck):
        begun = _evolved(problem, centre[int(np.argmin(costs))], starts, noise, rng)
        solutions.append(descend(problem, begun, starts, noise, iterations=12))
    best = min(solutions, key=lambda s: s.cost)
    for _ in range(3):  # the noise is known better once the parameters are, and the other way round
        errors = problem.errors(torch.tensor(best.unit)[None], best.starts[None])
        noise = refined_noise(errors, problem.rollout.signals)
        best = descend(problem, best.unit, best.starts, noise)
    unit, starts = torch.tensor(best.unit), best.starts
    normal = linearized(problem, unit, starts, noise)
    if not (np.isfinite(best.cost) and np.isfinite(normal.hessian).all()):
        raise RoboError(
            "the model is rejected: the fitted simulation does not stay finite; check the mapping, unit and sign of "
            "commands and signals"
        )
    return replace(best, normal=normal)


def _scattered(problem: Problem, count: int, rng: np.random.Generator) -> Array:
    """Random points in the middle third of the bounds: the range of the prior."""
    return rng.uniform(1.0 / 3.0, 2.0 / 3.0, (count, len(problem.free)))


def _residual_count(problem: Problem) -> int:
    return sum(int(v.numel()) for n, v in problem.windows.signals.items() if n in problem.rollout.signals)


def _evolved(problem: Problem, unit: Array, starts: Tensor, noise: Noise, rng: np.random.Generator) -> Array:
    """Where CMA-ES ends, starts as measured: needs no derivatives."""
    import cma  # the extra [identify]

    options = {"bounds": [0.0, 1.0], "maxiter": 40, "seed": int(rng.integers(1, 2**31)), "verbose": -9}
    search = cma.CMAEvolutionStrategy(unit.tolist(), 0.15, options)
    while not search.stop():
        points = search.ask()
        trial = torch.tensor(np.array(points))
        costs = cost_of(problem, trial, starts.expand(len(points), -1, -1), noise)
        search.tell(points, np.where(np.isfinite(costs), costs, 1e30).tolist())
    return np.asarray(search.result.xbest)
