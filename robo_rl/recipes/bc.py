"""Behaviour cloning: imitate the recorded actions."""

from pathlib import Path
from typing import Any, Literal

from hardware.errors import BadInput, NotFoundError
from robo_rl import fast_linear
from robo_rl.algorithms.bc import BcConfig, BcLearner
from robo_rl.config import RunConfig, check_network, check_numbers
from robo_rl.distributed import Group
from robo_rl.offline import Offline, normalised, open_data

CONFIG = BcConfig()
DATA: Literal["none", "optional", "required"] = "required"
STEPS = 20_000
"""Gradient steps where neither the scene nor the command line says how many."""


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> Offline:  # noqa: B008
    """The network and the rows of positive weight."""
    a: BcConfig = config.algo
    rows = open_data(config, env, data)
    table, norm = normalised(rows, a.obs_clip, config.device)
    weight = table.weight * (1.0 + (a.intervention_weight - 1.0) * table.intervention)
    if not bool((weight > 0.0).any()):
        raise BadInput(f"{config.data}: every row has weight 0")
    _, linear, _ = fast_linear.choose(config.linear, a.batch, a.hidden, config.device)
    learner = BcLearner(
        a, table.obs.shape[1], table.action.shape[1], seed=config.seed, device=config.device, linear=linear
    )
    return Offline(
        learner, table, norm, batch=a.batch, every=a.report_every, anneal_steps=a.anneal_steps, seed=config.seed
    )


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: BcConfig = config.algo
    if a.loss not in ("mse", "gaussian"):
        raise NotFoundError("algo.loss", a.loss, ("gaussian", "mse"))
    check_offline(a, ("batch", "report_every"))
    if a.intervention_weight < 0.0:
        raise BadInput(f"algo.intervention_weight = {a.intervention_weight}; expected at least 0")


def check_offline(a: Any, counts: tuple[str, ...]) -> None:
    """What all algorithms that learn from data want of their settings; raises BadInput."""
    for name in counts:
        if getattr(a, name) < 1:
            raise BadInput(f"algo.{name} = {getattr(a, name)}; expected at least 1")
    check_numbers(a)
    check_network(a.hidden, a.activation)
    if a.learning_rate == 0.0 or not a.ema < 1.0 or a.anneal_steps < 0:
        raise BadInput("algo.learning_rate must be positive, algo.ema below 1, algo.anneal_steps at least 0")
