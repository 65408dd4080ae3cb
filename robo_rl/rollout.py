"""Collecting experience: preallocated time-major buffers and the loop that fills them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from robo_rl.gae import gae_
from robo_rl.norm import RunningNorm

CHUNK = 8192
"""Rows per piece of the critic's pass over a rollout: its activations stay in cache."""


class Batch(Protocol):
    """What collecting needs of an environment; every `sim.spec.VecEnv` has it."""

    num_envs: int

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        """Starts every environment anew."""
        ...

    def step(self, action: Tensor) -> Any:
        """Applies actions (N, A); returns a `sim.spec.Step`."""
        ...


class Policy(Protocol):
    """What collecting needs of a learner."""

    norms: dict[str, RunningNorm]
    critic_group: str

    @property
    def act(self) -> Callable[[Tensor], Tensor]:
        """Normalised observation (N, D) -> mean action (N, A)."""
        ...

    @property
    def log_std(self) -> Tensor:
        """(A)."""
        ...


@dataclass
class Rollout:
    """T steps of N environments, one tensor per quantity, allocated once."""

    obs: dict[str, Tensor]
    """Group -> (T + 1, N, D) as observed."""
    seen: dict[str, Tensor]
    """Group -> (T + 1, N, D) as the networks see it: normalised, clipped."""
    final: Tensor
    """(T, N, D) of the critic's group: last observations of ended episodes."""
    noise: Tensor
    """(T, N, A) standard normal, drawn once per rollout."""
    action: Tensor
    mean: Tensor
    log_prob: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    value: Tensor
    """(T + 1, N)."""
    bootstrap: Tensor
    """(T, N) V(final observation) of truncated rows, zero elsewhere."""
    advantage: Tensor
    returns: Tensor
    alive: Tensor | None = None
    """(T, N) bool, whether a row's step counts; None: all do."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Name -> scalar: the environment's own quantities, mean over the last step's environments."""

    @property
    def steps(self) -> int:
        """T."""
        return self.reward.shape[0]


@dataclass
class Episodes:
    """Running return and length of each environment's present episode, (N)."""

    total: Tensor
    length: Tensor


def allocate(
    sizes: dict[str, int], groups: set[str], critic: str, steps: int, num_envs: int, actions: int, device: torch.device
) -> Rollout:
    """Buffers for the observation groups that the networks use; `critic` names the group of the value."""
    make = lambda *shape: torch.zeros(*shape, device=device)  # noqa: E731
    flags = lambda: torch.zeros(steps, num_envs, dtype=torch.bool, device=device)  # noqa: E731
    per_step = lambda: make(steps, num_envs)  # noqa: E731
    return Rollout(
        obs={g: make(steps + 1, num_envs, sizes[g]) for g in sorted(groups)},
        seen={g: make(steps + 1, num_envs, sizes[g]) for g in sorted(groups)},
        final=make(steps, num_envs, sizes[critic]),
        noise=make(steps, num_envs, actions),
        action=make(steps, num_envs, actions),
        mean=make(steps, num_envs, actions),
        log_prob=per_step(),
        reward=per_step(),
        terminated=flags(),
        truncated=flags(),
        value=make(steps + 1, num_envs),
        bootstrap=per_step(),
        advantage=per_step(),
        returns=per_step(),
    )


def collect_(rollout: Rollout, env: Batch, policy: Policy, generator: torch.Generator) -> None:
    """Runs the policy for T steps from `rollout.obs[...][0]` and fills all but values, advantages and returns.

    The policy does not change during the rollout.
    """
    rollout.noise.normal_(generator=generator)
    std, norm, critic = policy.log_std.exp(), policy.norms["policy"], policy.critic_group
    obs, seen = rollout.obs["policy"], rollout.seen["policy"]
    step = None
    for t in range(rollout.steps):
        mean = policy.act(norm.apply(obs[t], out=seen[t]))
        rollout.mean[t] = mean
        step = env.step(torch.addcmul(mean, rollout.noise[t], std, out=rollout.action[t]))
        for group, values in rollout.obs.items():
            values[t + 1] = step.obs[group]
        rollout.final[t] = step.final_obs[critic]
        rollout.reward[t] = step.reward
        rollout.terminated[t] = step.terminated
        rollout.truncated[t] = step.truncated
        if step.alive is not None:
            if rollout.alive is None:
                rollout.alive = torch.ones_like(rollout.terminated)
            rollout.alive[t] = step.alive
        elif rollout.alive is not None:
            rollout.alive[t] = True
    if step is not None:
        rollout.metrics = {name: values.float().mean() for name, values in step.metrics.items()}
    # The noise is the standardised action: its density needs no pass through the network.
    torch.sum(rollout.noise * rollout.noise, dim=-1, out=rollout.log_prob)
    rollout.log_prob.mul_(-0.5).sub_(policy.log_std.sum())


def evaluate_(rollout: Rollout, critic: Any, norm: RunningNorm, group: str, gamma: float, gae_lambda: float) -> None:
    """Values of all observations in one pass, of the truncated episodes' own last ones in another; then advantages."""
    seen = norm.apply(rollout.obs[group], out=rollout.seen[group])
    values = rollout.value.view(-1)
    for rows, out in zip(seen.view(-1, seen.shape[-1]).split(CHUNK), values.split(CHUNK), strict=True):
        out.copy_(critic(rows).squeeze(-1))
    rollout.bootstrap.zero_()
    ended = (rollout.truncated & ~rollout.terminated).view(-1).nonzero().squeeze(-1)
    final = rollout.final.view(-1, rollout.final.shape[-1]).index_select(0, ended)
    rollout.bootstrap.view(-1).index_copy_(0, ended, critic(norm.apply(final)).squeeze(-1))
    gae_(
        rollout.advantage,
        reward=rollout.reward,
        value=rollout.value,
        bootstrap=rollout.bootstrap,
        terminated=rollout.terminated,
        truncated=rollout.truncated,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    torch.add(rollout.advantage, rollout.value[:-1], out=rollout.returns)


def count_episodes(rollout: Rollout, episodes: Episodes) -> Tensor:
    """Sums over the episodes that ended in this rollout: (count, return, length, terminated).

    Steps that do not count add nothing, and the end of an episode that such a step reports is not one.
    """
    over = (rollout.terminated | rollout.truncated).to(rollout.reward.dtype)
    ended, reward, died = over, rollout.reward, rollout.terminated.to(over.dtype)
    alive = None if rollout.alive is None else rollout.alive.to(over.dtype)
    if alive is not None:
        ended, reward, died = over * alive, reward * alive, died * alive
    totals, lengths = [], []
    for t in range(rollout.steps):
        episodes.total += reward[t]
        episodes.length += 1.0 if alive is None else alive[t]
        totals.append(episodes.total * ended[t])
        lengths.append(episodes.length * ended[t])
        goes_on = 1.0 - over[t]
        episodes.total *= goes_on
        episodes.length *= goes_on
    count = ended.sum()
    died = died.sum()
    return torch.stack([count, torch.stack(totals).sum(), torch.stack(lengths).sum(), died])
