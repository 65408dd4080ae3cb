"""What a policy file is worth by a data set alone: two estimates with intervals, or "insufficient data"."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from controllers.artifact import PolicyArtifact
from hardware.errors import BadInput
from robo_rl.algorithms.bc import BcConfig, BcLearner
from robo_rl.algorithms.fqe import (
    FqeConfig,
    Table,
    discounted_returns,
    effective_sample_size,
    fitted_q,
    per_decision,
)
from robo_rl.datasets import DataSet
from robo_rl.evaluate import law_of
from robo_rl.norm import RunningNorm
from robo_rl.offline import Batch
from robo_rl.seeds import child_seed
from robo_rl.stats import bootstrap

LEAST_EPISODES = 10
"""Episodes, or effective ones, below which no estimate is given."""
FAR = 0.5
"""Mean distance (action units, per component) between policy and data beyond which values were never seen."""
BEHAVIOUR_STEPS = 2000
STD_FLOOR = 0.05


def estimate(
    artifact: PolicyArtifact, data: DataSet, *, config: FqeConfig | None = None, seed: int = 0
) -> dict[str, Any]:
    """Discounted return of a policy from the data's starts: by fitted Q evaluation and by importance sampling.

    Each is a value with a 95 % interval over resampled episodes, or None with the reason. Raises BadInput where the
    policy sees or does something else than the data hold.
    """
    config = config or FqeConfig()
    card = artifact.card
    if (card.observation, card.action) != (data.card.observation, data.card.action):
        raise BadInput(f"policy {artifact.path} has other fields than the data set of {data.card.scene}")
    torch.manual_seed(child_seed(seed, "evaluation"))
    act = law_of(artifact)
    ours = act({"policy": torch.from_numpy(data.obs)}).clamp(-1.0, 1.0)
    after = act({"policy": torch.from_numpy(data.next_obs)}).clamp(-1.0, 1.0)
    recorded = discounted_returns(data.reward.astype(np.float64), data.episode, config.gamma)
    away = float((ours - torch.from_numpy(data.action)).abs().mean())
    found: dict[str, Any] = {
        "episodes": len(recorded),
        "rows": len(data),
        "gamma": config.gamma,
        "recorded_return": float(recorded.mean()),
        "action_distance": away,
    }
    if len(recorded) < LEAST_EPISODES:
        reason = f"insufficient data: {len(recorded)} episodes, at least {LEAST_EPISODES} needed"
        return found | {"fqe": {"value": None, "reason": reason}, "wis": {"value": None, "reason": reason}}
    return found | {
        "fqe": _by_fitting(data, ours, after, config, seed, away),
        "wis": _by_weighting(data, ours, config, seed),
    }


def _by_fitting(
    data: DataSet, ours: Tensor, after: Tensor, config: FqeConfig, seed: int, away: float
) -> dict[str, Any]:
    """Mean Q at the episodes' first states over networks that saw resampled episodes."""
    if away > FAR:
        reason = f"insufficient data: the policy's actions lie {away:.2f} from the recorded ones, at most {FAR} allowed"
        return {"value": None, "reason": reason}
    obs, norm = _normalised(data)
    scale = float(data.reward.std()) or 1.0
    tensor = lambda values: torch.from_numpy(np.asarray(values, dtype=np.float32))  # noqa: E731
    table = Table(
        obs,
        tensor(data.action),
        tensor(data.reward) / scale,
        norm.apply(tensor(data.next_obs)),
        after,
        tensor(data.terminated),
    )
    first, which = _starts(data)
    rng = np.random.default_rng(child_seed(seed, "bootstrap"))
    values = []
    for k in range(config.networks):
        drawn = np.bincount(rng.integers(0, len(first), len(first)), minlength=len(first))
        net = fitted_q(table, config, seed + k, torch.from_numpy(drawn[which].astype(np.float32)))
        with torch.no_grad():
            q = net(torch.cat([obs[first], ours[first]], -1)).squeeze(-1).double().numpy() * scale
        values.append(q)
    mean = float(np.mean(values))
    # Two sources add up: which episodes began, and which the networks were fitted to.
    low, high = bootstrap(np.mean(values, axis=0), lambda x: float(np.mean(x)), rng=rng)
    fit = 1.96 * float(np.std([v.mean() for v in values], ddof=1)) if config.networks > 1 else 0.0
    below, above = np.hypot(mean - low, fit), np.hypot(high - mean, fit)
    return {"value": mean, "ci95": [mean - float(below), mean + float(above)], "reason": ""}


def _by_weighting(data: DataSet, ours: Tensor, config: FqeConfig, seed: int) -> dict[str, Any]:
    """Weighted importance sampling; both policies are Gaussians of the behaviour's own spread."""
    learner = BcLearner(BcConfig(loss="gaussian", hidden=config.hidden), data.obs.shape[1], ours.shape[1], seed=seed)
    obs, _ = _normalised(data)
    action, ones = torch.from_numpy(data.action), torch.ones(len(data))
    draws = torch.Generator().manual_seed(child_seed(seed, "policy"))
    for _ in range(BEHAVIOUR_STEPS):
        pick = torch.randint(0, len(data), (config.batch,), generator=draws)
        nothing = ones[pick] * 0.0
        learner.step(Batch(obs[pick], action[pick], nothing, obs[pick], nothing, nothing, ones[pick]), 1.0)
    with torch.no_grad():
        theirs = learner.net()(obs)
        spread = (action - theirs).std(0).clamp(min=STD_FLOOR)
        log_ratio = (((action - theirs) / spread).square() - ((action - ours) / spread).square()).sum(-1) / 2
    reward = data.reward.astype(np.float64)
    contributions, weights = per_decision(log_ratio.double().numpy(), reward, data.episode, config.gamma)
    size = effective_sample_size(weights)
    if size < LEAST_EPISODES:
        return {
            "value": None,
            "effective_episodes": size,
            "reason": f"insufficient data: {size:.1f} effective episodes, at least {LEAST_EPISODES} needed",
        }
    rng = np.random.default_rng(child_seed(seed, "bootstrap"))
    count = len(contributions)
    low, high = bootstrap(contributions * count, lambda x: float(np.mean(x)), rng=rng)
    return {
        "value": float(contributions.sum()),
        "ci95": [low, high],
        "effective_episodes": size,
        "reason": "",
    }


def _normalised(data: DataSet) -> tuple[Tensor, RunningNorm]:
    obs = torch.from_numpy(data.obs)
    norm = RunningNorm(obs.shape[1])
    norm.update(obs)
    return norm.apply(obs), norm


def _starts(data: DataSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of every episode, and the episode's number of every row."""
    _, first, which = np.unique(data.episode, return_index=True, return_inverse=True)
    return first.astype(np.int64), which.astype(np.int64)
