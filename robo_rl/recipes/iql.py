"""Implicit Q-learning: improve on the recorded actions without ever valuing others."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hardware.errors import BadInput
from robo_rl import fast_linear
from robo_rl.algorithms.iql import IqlConfig, IqlLearner
from robo_rl.config import RunConfig
from robo_rl.distributed import Group
from robo_rl.offline import Offline, normalised, open_data
from robo_rl.recipes.bc import check_offline

CONFIG = IqlConfig()
DATA: Literal["none", "optional", "required"] = "required"
STEPS = 50_000
"""Gradient steps where neither the scene nor the command line says how many."""


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> Offline:  # noqa: B008
    """Networks, and the rows with scaled rewards."""
    a: IqlConfig = config.algo
    table, norm = normalised(open_data(config, env, data), a.obs_clip, config.device)
    table = table._replace(reward=table.reward * (a.reward_scale or 1.0 / spread(table.reward)))
    _, linear, _ = fast_linear.choose(config.linear, a.batch, a.hidden, config.device)
    learner = IqlLearner(
        a, table.obs.shape[1], table.action.shape[1], seed=config.seed, device=config.device, linear=linear
    )
    return Offline(
        learner, table, norm, batch=a.batch, every=a.report_every, anneal_steps=a.anneal_steps, seed=config.seed
    )


def spread(reward: Tensor) -> float:
    """How far rewards differ: the range of their middle half over that of a standard normal distribution, which a few
    wrong ones do not move; the standard deviation where half of them are equal, as sparse ones are."""
    quarter, three = torch.quantile(reward[:: 1 + len(reward) // 1_000_000], torch.tensor([0.25, 0.75]).to(reward))
    middle = float(three - quarter) / 1.349
    return middle or float(reward.std(correction=0)) or 1.0


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: IqlConfig = config.algo
    check_offline(a, ("batch", "report_every", "critics"))
    for name, low, high in (("gamma", 0.0, 1.0), ("expectile", 0.5, 1.0), ("tau", 0.0, 1.0), ("quantile", 0.0, 1.0)):
        if not low <= getattr(a, name) <= high:
            raise BadInput(f"algo.{name} = {getattr(a, name)}; expected {low:g} to {high:g}")
    if a.weight_clip < 1.0:
        raise BadInput(f"algo.weight_clip = {a.weight_clip}; expected at least 1")
