"""Which pendula to train on: contexts chosen by a model of transfer, at random, or all of them in one policy.

    python examples/choose_contexts.py [--full]

Rods of 0.6 to 1.4 m; each strategy has the same number of steps. `--full` is the study of the docs (ten minutes); by
default the trainings are far too short to swing up, to show that it works.
"""

import argparse
import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch

from robo_rl import recipe
from robo_rl.config import RunConfig
from robo_rl.contexts import grid
from robo_rl.pendulum import PendulumFamily
from robo_rl.recipes import mbtl, sac
from robo_rl.seeds import child_seed
from robo_rl.stats import bootstrap

STRATEGIES: tuple[Any, ...] = ("mbtl", "random", "multitask")
NUM_ENVS = 9
ALGO = dataclasses.replace(sac.CONFIG, hidden=(64, 64), learning_rate=2e-3, tau=0.01)


class Size(NamedTuple):
    """How big the study is."""

    source_steps: int
    warmup: int
    sources: int
    points: int
    seeds: int
    repeats: int


SHORT, FULL = Size(200, 100, 2, 3, 2, 2), Size(5_000, 1_000, 3, 9, 5, 20)


def earned(strategy: Any, seed: int, size: Size) -> tuple[float, float, list[float]]:
    """Mean and least return over the contexts, each with the policy that serves it best; lengths trained on."""
    env = PendulumFamily(NUM_ENVS, seed=seed)
    contexts, places = grid(env.spec, torch.ones(2, 1), ("length",), size.points)
    steps = size.source_steps * (size.sources if strategy == "multitask" else 1)
    algo = dataclasses.replace(ALGO, warmup_steps=size.warmup)

    def start(number: int) -> recipe.Trainee:
        inside = RunConfig("pendulum/family", seed=child_seed(seed, "source", number), num_envs=NUM_ENVS, algo=algo)
        return sac.prepare(dataclasses.replace(inside, linear="torch"), env)

    config = dataclasses.replace(mbtl.CONFIG, strategy=strategy, source_steps=steps, repeats=size.repeats)
    make = lambda count, at: PendulumFamily(count, seed=at)  # noqa: E731
    study = mbtl.Sources(config, env, start, make, contexts, places, seed)
    while study.env_steps < size.source_steps * size.sources:
        study.iterate()
    if study.inner:
        study.keep(study.inner)
    best = np.array(study.transfer).max(0)
    lengths = [] if strategy == "multitask" else [round(float(contexts[0, i]), 2) for i in study.trained]
    return float(best.mean()), float(best.min()), lengths


def main() -> None:
    """Prints a row per strategy and seed, then the means with their intervals over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the study of the docs")
    size = FULL if parser.parse_args().full else SHORT
    torch.set_num_threads(1)
    for strategy in STRATEGIES:
        rows = []
        for seed in range(size.seeds):
            mean, least, lengths = earned(strategy, seed, size)
            rows.append((mean, least))
            print(
                f"{strategy:10s} seed {seed}: mean {mean:8.1f}, least {least:8.1f}  trained at {lengths} m", flush=True
            )
        means = np.array(rows)[:, 0]
        low, high = bootstrap(means, lambda x: float(np.mean(x)), rng=np.random.default_rng(0))
        worst = np.array(rows)[:, 1].mean()
        print(
            f"{strategy:10s} return over contexts {means.mean():.1f} [{low:.1f}, {high:.1f}], least context {worst:.1f}"
        )


if __name__ == "__main__":
    main()
