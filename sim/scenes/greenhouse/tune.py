"""Tunes the set-point rule by cross-entropy (Rubinstein 1999), all candidates as one batch of greenhouses.

    python -m sim.scenes.greenhouse.tune

Every candidate runs the same seasons of training weather; the best tenth makes the next generation.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sim.registry import make_env, scene_entry
from sim.scenes.greenhouse.baseline import GROWER, SetPoints, lettuce_baseline, set_points

SPREAD = SetPoints(3.0, 3.0, 40.0, 20.0, 3.0, 3.0, 1.5, 5.0, 0.5, 400.0, 0.004, 2.0)
"""Standard deviation of the first generation."""
LEAST = SetPoints(5.0, 5.0, 0.0, 1.0, 8.0, 8.0, 0.05, 50.0, 0.0, 350.0, 0.0002, 0.0)
MOST = SetPoints(25.0, 25.0, 300.0, 150.0, 35.0, 35.0, 7.5, 100.0, 5.0, 1800.0, 0.02, 7.6)


class Tuning(NamedTuple):
    """What the search found."""

    points: SetPoints
    """Mean of the last generation's best."""
    returns: list[float]
    """Mean return of the best tenth, per generation."""


def cross_entropy(
    score: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    candidates: int,
    generations: int,
    generator: torch.Generator,
    floor: float = 0.02,
) -> tuple[Tensor, list[float]]:
    """The mean (K) to which a normal distribution over vectors (K) shrinks when its best tenth redraws it, and history.

    `score` gives the value (C) of candidates (C, K). The deviation keeps `floor` of its first size, and moves by half.
    """
    first, history = std, []
    elite = max(2, candidates // 10)
    for _ in range(generations):
        noise = torch.randn((candidates, len(mean)), generator=generator)
        tried = torch.minimum(torch.maximum(mean + std * noise, low), high)
        tried[0] = mean
        value = score(tried)
        best = tried[value.topk(elite).indices]
        mean = best.mean(0)
        std = torch.maximum(0.5 * (std + best.std(0)), floor * first)
        history.append(float(value.topk(elite).values.mean()))
    return mean, history


def tune(*, weather: str, candidates: int, seasons: int, generations: int, seed: int) -> Tuning:
    """Tunes on `seasons` seasons of training weather with their own greenhouses (family `train`)."""
    config = dataclasses.replace(scene_entry("greenhouse/lettuce").config, weather=weather, split="train")
    num = candidates * seasons
    env = make_env("greenhouse/lettuce", num, family="train", seed=seed, config=config)

    def score(tried: Tensor) -> Tensor:
        env.reset(seed)
        shared = {k: v if _no_rows(k) else v[torch.arange(num) % seasons] for k, v in env.get_state().items()}
        env.set_state(None, shared)
        act = lettuce_baseline(env, set_points(tried.repeat_interleave(seasons, 0).T))
        total = torch.zeros(num)
        with torch.no_grad():
            for _ in range(env.episode_steps):
                total += env.step(act()).reward
        return total.view(candidates, seasons).mean(1)

    vector = lambda points: torch.tensor(dataclasses.astuple(points))  # noqa: E731
    generator = torch.Generator().manual_seed(seed)
    found, history = cross_entropy(
        score,
        vector(GROWER),
        vector(SPREAD),
        vector(LEAST),
        vector(MOST),
        candidates=candidates,
        generations=generations,
        generator=generator,
    )
    return Tuning(set_points(found), history)


def _no_rows(name: str) -> bool:
    return name == "generator" or name.startswith("shared.")


def main() -> None:
    """Prints the tuned set points as Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weather", default="synthetic", help="weather to tune on (its training years)")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--seasons", type=int, default=16)
    parser.add_argument("--generations", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    torch.set_num_threads(1)
    found = tune(**vars(parser.parse_args()))
    print("best tenth per generation:", " ".join(f"{r:.2f}" for r in found.returns))
    for field in dataclasses.fields(SetPoints):
        print(f"    {field.name}={float(getattr(found.points, field.name)):.4g},")


if __name__ == "__main__":
    main()
