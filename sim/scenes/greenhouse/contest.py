"""Worlds in which controllers are compared: the benchmark's standard season, and 64 fixed seasons of a family.

All are fixed here, before any training that they judge. Starts and greenhouses of the family are drawn from the stored
seed alone, so everybody meets the same ones.
"""

import dataclasses
from typing import Any

import torch

from sim.env import BatchEnv
from sim.scenes.greenhouse.config import LettuceConfig

SCENE = "greenhouse/lettuce"
STANDARD_DAY = 40.0
"""9 February."""
STARTS, HOUSES, SEED = 8, 8, 20261120
"""Weather starts, greenhouses, and the seed that draws both."""


def standard_season(make: Any, config: LettuceConfig, *, draws: int = 1, seed: int = 0) -> BatchEnv:
    """The nominal greenhouse in the season of 40 days from 9 February, `draws` times (they differ by noise only)."""
    config = dataclasses.replace(config, start_days=(STANDARD_DAY, STANDARD_DAY), leak="benchmark")
    return make(draws, family="nominal", seed=seed, device="cpu", config=config)


def family_of_seasons(make: Any, config: LettuceConfig, *, family: str = "train", every: int = 1) -> BatchEnv:
    """Every `every`-th of 64 worlds: 8 starts, spread evenly over those that the weather offers, x 8 greenhouses.

    They are there from the next reset on.
    """
    rows = torch.arange(0, STARTS * HOUSES, every)
    env: BatchEnv = make(len(rows), family=family, seed=SEED, device="cpu", config=config)
    task: Any = env.task
    houses = make(HOUSES, family=family, seed=SEED, device="cpu", config=config).task.state["params"]
    pick = torch.linspace(0, len(task.bank.starts) - 1, STARTS).round().long()
    task.starts = task.bank.starts[pick[rows // HOUSES]]
    task.contexts = houses[:, rows % HOUSES]
    return env
