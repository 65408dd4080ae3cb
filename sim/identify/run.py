"""Identification from start to end: delay first, then the fit, then intervals, then held-out windows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from hardware.errors import BadInput
from sim.identify.fit import Problem, Solution, first_noise, fit, unknowns
from sim.identify.judge import Estimate, HeldOut, estimates, judge, noise_factor
from sim.identify.rollout import Rollout, residuals
from sim.identify.windows import Split
from sim.randomization import draw_range

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Identified:
    """Everything that a fit found."""

    estimates: list[Estimate]
    held_out: HeldOut
    first_delay_s: float | None
    """Dead time by cross-correlation, where the model has one and it shows."""
    noise_factor: dict[str, float]
    """Signal -> residuals over the noise that neighbouring samples show."""
    problem: Problem
    solution: Solution

    @property
    def identified(self) -> dict[str, Estimate]:
        """Only what the data show."""
        return {e.name: e for e in self.estimates if e.identified}


def identify(
    rollout: Rollout, windows: Split, *, known: Mapping[str, float], seed: int = 0, search: str = "auto"
) -> Identified:
    """Raises BadInput for a known parameter that the model does not have."""
    strange = sorted(set(known) - set(rollout.params))
    if strange:
        raise BadInput(f"{', '.join(strange)} not among the parameters; known: {', '.join(rollout.params)}")
    rng = np.random.default_rng(seed)
    problem = Problem(rollout, windows.train, unknowns(rollout.params, known), known)
    first = problem.start_unit.numpy().copy()
    names = [f.name for f in problem.free]
    delay_s = None
    if rollout.delay in names:
        delay_s = first_delay(problem, names.index(rollout.delay))
        if delay_s is not None:
            unknown = problem.free[names.index(rollout.delay)]
            first[names.index(rollout.delay)] = np.clip(
                (delay_s - unknown.low) / (unknown.high - unknown.low), 0.02, 0.98
            )
    solution = fit(problem, first, rng, search=search)
    priors = {}
    for name, p in rollout.params.items():
        low, high = draw_range(replace(p, group=""), "train")
        priors[name] = (p.unit, low, high, p.nominal)
    return Identified(
        estimates(problem, solution, priors),
        judge(problem, solution, windows.held_out, rng),
        delay_s,
        noise_factor(problem, solution, first_noise(problem).std),
        problem,
        solution,
    )


def first_delay(problem: Problem, column: int) -> float | None:
    """How much later than a simulation without dead time the log answers (s), by cross-correlation with a parabola
    through the peak; None where nothing moves enough to tell."""
    unit = problem.start_unit.clone()
    unit[column] = 0.0
    starts = problem.zero_starts()
    errors = residuals(problem.rollout, problem.windows, problem.params(unit[None]), starts[None])
    logged, simulated = [], []
    for name in problem.rollout.signals:
        if name == "quat_wxyz":
            continue
        seen = problem.windows.signals[name]
        moved = torch.diff(seen, n=2, dim=1)
        scale = float(moved.std())
        if scale > 0.0:
            logged.append(moved / scale)
            simulated.append(torch.diff(seen + errors[name][0], n=2, dim=1) / scale)
    if not logged:
        return None
    a, b = torch.cat(logged, 2), torch.cat(simulated, 2)
    last = max(2, min(a.shape[1] // 3, round(problem.free[column].high * problem.rollout.rate_hz) + 2))
    scores = np.array([_correlation(b[:, : a.shape[1] - k], a[:, k:]) for k in range(last)])
    peak = int(np.argmax(scores))
    if scores[peak] < 0.2 or peak == last - 1:
        return None
    shift = 0.0
    if peak > 0:
        left, mid, right = scores[peak - 1 : peak + 2]
        bend = left - 2.0 * mid + right
        shift = 0.5 * (left - right) / bend if bend < 0.0 else 0.0
    return float(max(peak + shift, 0.0) / problem.rollout.rate_hz)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    norm = float(torch.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0.0 else 0.0
