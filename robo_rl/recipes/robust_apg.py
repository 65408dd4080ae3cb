"""Robust analytic policy gradient: every environment keeps one world, and the worst worlds weigh more."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hardware.errors import BadInput
from robo_rl.algorithms.apg import ApgConfig, bounded
from robo_rl.config import RunConfig
from robo_rl.contexts import keep_worlds
from robo_rl.distributed import Group
from robo_rl.recipes import apg
from robo_rl.seeds import child_seed


@dataclass(frozen=True)
class RobustApgConfig:
    """Analytic policy gradient on (1 - share) mean + share CVaR_alpha over worlds that stay the same."""

    alpha: float = 0.25
    """Share of the worlds, the worst, that the tail's mean is taken over."""
    share: float = 0.5
    """Weight of the tail; 0 is the plain algorithm."""
    memory: int = 80
    """Windows over which a world's mean reward is averaged (an episode's worth of them)."""
    apg: ApgConfig = ApgConfig()  # noqa: RUF009 - frozen
    """Settings of the gradient."""


CONFIG = RobustApgConfig()
DATA: Literal["none", "optional", "required"] = "none"


class Robust(apg.Unrolled):
    """Unrolled windows whose environments are weighted by how badly their worlds go; see robo_rl.recipe.Trainee."""

    robust = CONFIG
    score: Tensor
    """(N) mean reward of each world, averaged over its last windows."""
    earned: Tensor
    """(N) reward of the present window."""

    def iterate(self) -> dict[str, float]:
        """One window under the present weights, then new weights."""
        self.earned = torch.zeros_like(self.total)
        values = super().iterate()
        rate = 1.0 / min(self.updates, self.robust.memory)
        self.score = torch.lerp(self.score, self.earned / self.config.window, rate)
        self.weights = tail_weights(self.score, self.robust.alpha, self.robust.share)
        worst = self.score[self.score.argsort()[: math.ceil(self.robust.alpha * len(self.score))]]
        return values | {"score_mean": self.score.mean().item(), "score_tail": worst.mean().item()}

    def _count(self, step: Any) -> Tensor:
        self.earned = self.earned + step.reward.detach()
        return super()._count(step)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return super().state() | {"score": self.score.clone(), "weights": self.weights.clone()}

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back."""
        super().load(state)
        self.score.copy_(state["score"])
        self.weights.copy_(state["weights"])


def tail_weights(score: Tensor, alpha: float, share: float) -> Tensor:
    """Weights (N), 1 on average, of which the mean of scores (N) becomes (1 - share) mean + share CVaR_alpha."""
    keep = math.ceil(alpha * len(score))
    tail = torch.zeros_like(score)
    tail[score.argsort()[:keep]] = len(score) / keep
    return (1.0 - share) + share * tail


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> Robust:  # noqa: B008
    """The worlds are drawn once, from the run's family; the rest is as in APG."""
    env.reset(child_seed(config.seed, "worlds"))
    keep_worlds(env)
    plain = apg.prepare(dataclasses.replace(config, algo=config.algo.apg), env, group, data)
    trainee = Robust(plain.config, env, plain.obs, plain.actor, compiled=config.compile)
    trainee.robust, trainee.score = config.algo, torch.zeros_like(trainee.total)
    if plain.config.max_adjoint > 0.0:  # the bound leaves the worst worlds their weight
        largest = 1.0 - config.algo.share + config.algo.share / config.algo.alpha
        env.boundary = functools.partial(bounded, largest * plain.config.max_adjoint / env.num_envs)
    trainee.earned = torch.zeros_like(trainee.total)
    return trainee


def resolve(config: RunConfig) -> tuple[str, float]:
    """Which matrix product this machine should use for such batches, and its measured gain over torch's."""
    return apg.resolve(dataclasses.replace(config, algo=config.algo.apg))


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: RobustApgConfig = config.algo
    if not 0.0 < a.alpha <= 1.0 or not 0.0 <= a.share <= 1.0:
        raise BadInput(f"algo.alpha = {a.alpha}, algo.share = {a.share}; expected shares of 1, alpha above 0")
    if a.memory < 1:
        raise BadInput(f"algo.memory = {a.memory}; expected at least 1")
    apg.check(dataclasses.replace(config, algo=a.apg))
