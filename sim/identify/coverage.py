"""Do the scene's ranges cover what a log shows? Worlds drawn from them, the log's commands, and a band of 5 to 95 %."""

from typing import NamedTuple

import numpy as np
import torch

from sim.identify.fit import Problem, first_noise, unknowns
from sim.identify.rollout import Rollout, Windows, residuals
from sim.randomization import draw_range

WORLDS = 48
"""Sampled worlds."""


class Coverage(NamedTuple):
    """Shares of the log's samples that lie inside the band."""

    share: dict[str, float]
    """Signal -> share over all components and windows; 0.9 where ranges and log agree exactly."""
    by_step: dict[str, list[float]]
    """Signal -> the same after every step."""


@torch.no_grad()
def coverage(rollout: Rollout, windows: Windows, *, seed: int = 0, worlds: int = WORLDS) -> Coverage:
    """Starts are measured ones with noise; every world adds measurement noise of the size that the log shows."""
    problem = Problem(rollout, windows, unknowns(rollout.params, {}), {})
    noise = first_noise(problem).std
    rng = np.random.default_rng(seed)
    drawn = np.array([[rng.uniform(*draw_range(p, "train")) for p in rollout.params.values()] for _ in range(worlds)])
    starts = torch.zeros(worlds, windows.count, problem.start_size, dtype=torch.float64)
    at = 0
    for name, std in noise.items():
        size = 3 if name == "quat_wxyz" else windows.signals[name].shape[-1]
        starts[..., at : at + size] = torch.tensor(rng.normal(0.0, std, (worlds, windows.count, size)))
        at += size
    if problem.hidden:
        starts[..., at:] = torch.tensor(rng.normal(0.0, 0.3, (worlds, windows.count, problem.hidden)))
        starts[..., at:] *= problem.start_scale[at:]
    errors = residuals(rollout, windows, torch.tensor(drawn), starts)
    share, by_step = {}, {}
    for name, e in errors.items():
        seen = e.numpy() + rng.normal(0.0, noise[name], e.shape)
        low, high = np.quantile(seen, [0.05, 0.95], axis=0)
        inside = ((low <= 0.0) & (high >= 0.0))[:, 1:]
        share[name] = float(inside.mean())
        by_step[name] = inside.mean(axis=(0, 2)).tolist()
    return Coverage(share, by_step)
