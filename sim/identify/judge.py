"""What a fit is worth: intervals, which parameters the log identifies, and whether the model fits the log at all.

An interval is 95 %, the wider of two: by the curvature at the optimum, and by the spread between windows (jackknife),
which also feels what the noise model leaves out. A parameter is identified if its interval is narrower than 30 % of
its value, off its bounds, not collinear with another, and seen by the data at all; otherwise the prior stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from sim.identify.fit import PRIOR_STD, Problem, Solution, descend, first_noise
from sim.identify.rollout import Windows, residuals

Array = NDArray[np.float64]

WIDEST = 0.30
"""Widest interval of an identified parameter over its value."""
COLLINEAR = 0.95
ON_BOUND = 0.01
"""Within this share of the width between the bounds."""
EXPLAINED = 0.5
"""Held-out error with the window's own commands over that with another window's, above which the model is rejected."""

RESPONDS = 10.0
"""A signal answers to commands where others' commands make errors so many times its noise."""


@dataclass(frozen=True)
class Estimate:
    """One parameter after a fit, in its unit."""

    name: str
    unit: str
    prior: tuple[float, float]
    """Range before."""
    fit: float
    low: float
    """95 % interval."""
    high: float
    identified: bool
    reason: str
    """Why it is not identified; empty where it is."""
    curvature: float
    """Standard error from the curvature."""
    jackknife: float
    """Standard error from the spread between windows."""
    between_logs: float
    """Standard deviation of fits to single logs; 0 for one log."""

    @property
    def range(self) -> tuple[float, float]:
        """Randomization range: fit plus and minus the larger of the interval and the spread between logs."""
        half = max(0.5 * (self.high - self.low), self.between_logs)
        return self.fit - half, self.fit + half


def estimates(
    problem: Problem, solution: Solution, priors: Mapping[str, tuple[str, float, float, float]]
) -> list[Estimate]:
    """Every free parameter judged; `priors` name -> (unit, low, high, nominal)."""
    size, normal = len(problem.free), solution.normal
    hessian = normal.hessian.sum(0) + np.eye(size) / PRIOR_STD**2
    covariance = np.linalg.inv(hessian) * _lost_freedom(problem)
    curvature = np.sqrt(np.diag(covariance))
    jackknife = _jackknife(normal.hessian, normal.gradient, hessian)
    between = _between_logs(problem, solution, hessian)
    correlation = covariance / np.outer(curvature, curvature)
    seen = _seen(normal.hessian.sum(0))
    found = []
    quantile = float(student.ppf(0.975, max(problem.windows.count - 1, 2)))
    span = np.array([f.high - f.low for f in problem.free])
    values = problem.values(solution.unit)
    for j, f in enumerate(problem.free):
        unit, low, high, nominal = priors[f.name]
        floor = problem.rollout.accuracy * abs(values[j])
        half = quantile * np.hypot(max(curvature[j], jackknife[j]) * span[j], floor)
        scale = max(abs(values[j]), 1e-3 * span[j]) if nominal != 0.0 else high - low
        reason = ""
        others = np.abs(correlation[j]) * (np.arange(size) != j)
        partner = int(np.argmax(others))
        if not seen[j]:
            reason = "the data do not see it (rank of the Jacobian)"
        elif not ON_BOUND < solution.unit[j] < 1.0 - ON_BOUND:
            if not _natural(f.low, f.high, solution.unit[j], low, high):
                reason = "on its bound"
        elif size > 1 and others[partner] > COLLINEAR:
            reason = f"collinear with {problem.free[partner].name} ({correlation[j, partner]:+.3f})"
        if not reason and 2.0 * half > WIDEST * scale:
            ratio = 2.0 * half / scale
            width = f"{ratio:.0%} of its value" if ratio < 10.0 else "many times its value"
            reason = f"its interval is {width} wide (allowed {WIDEST:.0%})"
        if not reason and not ON_BOUND < solution.unit[j] < 1.0 - ON_BOUND:
            reason = "on its bound"
        found.append(
            Estimate(
                f.name, unit, (low, high), float(values[j]), float(values[j] - half), float(values[j] + half),
                not reason, reason, float(curvature[j] * span[j]), float(jackknife[j] * span[j]),
                float(between[j] * span[j]),
            )
        )  # fmt: skip
    return found


def _lost_freedom(problem: Problem) -> float:
    """Residuals shrink because every window has a start of its own: their variance is that much larger."""
    count = sum(int(problem.windows.signals[n].numel()) for n in problem.rollout.signals)
    used = len(problem.free) + problem.windows.count * (problem.start_size - problem.hidden)
    return count / max(count - used, 1)


def _jackknife(hessians: Array, gradients: Array, total: Array) -> Array:
    """Standard errors from leaving out one window each, by one Newton step."""
    count = len(hessians)
    moved = np.array([np.linalg.solve(total - h, g) for h, g in zip(hessians, gradients, strict=True)])
    moved = moved - moved.mean(axis=0)
    return np.sqrt((count - 1) / count * (moved**2).sum(axis=0))


def _between_logs(problem: Problem, solution: Solution, total: Array) -> Array:
    logs = np.unique(problem.windows.log)
    if len(logs) < 2:
        return np.zeros(len(problem.free))
    moved = []
    for log in logs:
        rows = problem.windows.log == log
        own = solution.normal.hessian[rows].sum(0) + np.eye(len(total)) / PRIOR_STD**2
        moved.append(-np.linalg.solve(own, solution.normal.gradient[rows].sum(0)))
    return np.std(np.array(moved), axis=0, ddof=1)


def _seen(hessian: Array) -> NDArray[np.bool_]:
    """Which parameters have no part in a direction that the data leave free."""
    scale = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    free = values < 1e-10 * max(values.max(), 1e-300)
    hidden = (vectors[:, free] ** 2).sum(axis=1) > 0.01
    return ~hidden & (np.diag(hessian) > 1e-6)


def _natural(low: float, high: float, unit: float, prior_low: float, prior_high: float) -> bool:
    """Whether the bound that was met is one of the prior's own ends (a physical bound such as no drag)."""
    return (unit <= ON_BOUND and low >= prior_low) or (unit >= 1.0 - ON_BOUND and high <= prior_high)


@dataclass(frozen=True)
class HeldOut:
    """Windows that the fit has not seen."""

    rmse: dict[str, float]
    """Signal -> root mean square error of the fitted model."""
    nominal: dict[str, float]
    """The same of the nominal model."""
    ratio: float
    """Total error, fitted over nominal, in units of noise."""
    shuffled: float
    """Total error with the windows' own commands over that with another window's."""
    rejection: str
    """Why the model does not fit the log; empty where it does."""


def judge(problem: Problem, solution: Solution, held_out: Windows, rng: np.random.Generator) -> HeldOut:
    """Compares fitted, nominal and misled models on held-out windows, each with the best start for every window."""
    other = Problem(problem.rollout, held_out, problem.free, problem.known)
    nominal_unit = problem.start_unit.numpy()
    fitted = _best_starts(other, solution.unit, solution)
    nominal = _best_starts(other, nominal_unit, solution)
    rmse, nominal_rmse = ({n: _rms(v) for n, v in e.items()} for e in (fitted, nominal))
    total, at_nominal = _total(rmse, solution.noise.std), _total(nominal_rmse, solution.noise.std)
    misled = [_misled(problem, solution, held_out, rng)] if held_out.count > 1 else []
    shuffled = {n: float(np.median([m[n] for m in misled])) for n in rmse} if misled else {}
    told = total / max(_total(shuffled, solution.noise.std), 1e-300) if misled else 0.0
    ratio = total / max(at_nominal, 1e-300)
    floor = first_noise(problem).std
    unexplained = {
        n: rmse[n] / v for n, v in shuffled.items() if v > RESPONDS * floor[n] and not rmse[n] < EXPLAINED * v
    }
    rejection = ""
    if not np.isfinite(total):
        rejection = "the fitted model does not even stay finite"
    elif unexplained or told > EXPLAINED:
        name, share = max(unexplained.items(), key=lambda x: x[1]) if unexplained else ("all signals", told)
        rejection = (
            f"on held-out windows the commands explain little of {name}: the error is {share:.0%} of that with other "
            f"windows' commands (allowed {EXPLAINED:.0%}); check the mapping, unit and sign of commands and signals"
        )
    elif ratio > 1.02:
        rejection = f"on held-out windows the fit is {ratio - 1.0:.0%} worse than the nominal model"
    return HeldOut(rmse, nominal_rmse, ratio, told, rejection)


def _misled(problem: Problem, solution: Solution, held_out: Windows, rng: np.random.Generator) -> dict[str, float]:
    """Errors of the fitted model under the commands and inputs of other windows."""
    other = torch.as_tensor(np.roll(np.arange(held_out.count), int(rng.integers(1, held_out.count))))
    signals = held_out.signals | {n: held_out.signals[n][other] for n in problem.rollout.inputs}
    wrong = held_out._replace(commands=held_out.commands[other], signals=signals)
    errors = _best_starts(Problem(problem.rollout, wrong, problem.free, problem.known), solution.unit, solution)
    return {n: _rms(e) for n, e in errors.items()}


def _best_starts(problem: Problem, unit: Array, solution: Solution) -> dict[str, torch.Tensor]:
    found = descend(problem, unit, problem.zero_starts(), solution.noise, iterations=4, fixed=True)
    return residuals(problem.rollout, problem.windows, problem.params(torch.tensor(unit)[None]), found.starts[None])


def _total(rmse: Mapping[str, float], std: Mapping[str, float]) -> float:
    return float(np.sqrt(np.mean([(v / std[n]) ** 2 for n, v in rmse.items()])))


def _rms(values: torch.Tensor) -> float:
    return float(torch.sqrt((values * values).mean()))


def noise_factor(problem: Problem, solution: Solution, first: Mapping[str, float]) -> dict[str, float]:
    """Signal -> residuals over the noise that neighbouring samples show: far above 1, the model misses something."""
    return {n: solution.noise.std[n] / first[n] for n in problem.rollout.signals}


def summary(found: Sequence[Estimate]) -> dict[str, dict[str, object]]:
    """Plain values for `--json`."""
    return {
        e.name: {
            "fit": e.fit, "low": e.low, "high": e.high, "identified": e.identified, "reason": e.reason,
            "unit": e.unit, "prior": list(e.prior), "se_curvature": e.curvature, "se_jackknife": e.jackknife,
            "between_logs": e.between_logs,
        }
        for e in found
    }  # fmt: skip
