"""Off-policy evaluation: what a policy is worth, from data that another one made.

Fitted Q evaluation: Le et al. 2019 (arXiv 1903.08738). Weighted importance sampling: Precup et al. 2000, per decision;
effective sample size: Kish 1965. B rows, A action components, E episodes.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robo_rl.nets import MLP, FlatParameters
from robo_rl.seeds import child_seed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FqeConfig:
    """Fitted Q evaluation."""

    gamma: float = 0.99
    """Discount per step."""
    steps: int = 4000
    """Gradient steps."""
    batch: int = 256
    """Rows per gradient step."""
    learning_rate: float = 1e-3
    """Learning rate (Adam)."""
    tau: float = 0.005
    """Share of the newest network that enters its slowly moving copy per gradient step."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers."""
    networks: int = 3
    """Networks, each fitted to its own resampled episodes; their spread is the model's part of the interval."""


@dataclass(frozen=True)
class Table:
    """T transitions with the evaluated policy's actions in the states that followed."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    next_action: Tensor
    terminated: Tensor


def fqe_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """r + gamma (1 - terminated) Q(s', pi(s'))."""
    return reward + gamma * (1.0 - terminated) * next_value


def fitted_q(table: Table, config: FqeConfig, seed: int, weight: Tensor) -> MLP:
    """A network Q(s, a) of the policy whose `next_action` the table holds; rows are drawn by `weight` (T,)."""
    generator = torch.Generator().manual_seed(child_seed(seed, "weights"))
    draws = torch.Generator().manual_seed(child_seed(seed, "shuffle"))
    sizes = (table.obs.shape[1] + table.action.shape[1], *config.hidden, 1)
    net = MLP(sizes, "relu", generator=generator)
    slow = copy.deepcopy(net).requires_grad_(False)
    flat, slow_flat = FlatParameters([net]), FlatParameters([slow])
    optimiser = torch.optim.Adam([flat.value], lr=config.learning_rate, fused=True)
    now, after = torch.cat([table.obs, table.action], -1), torch.cat([table.next_obs, table.next_action], -1)
    for _ in range(config.steps):
        pick = torch.multinomial(weight, config.batch, replacement=True, generator=draws)
        with torch.no_grad():
            next_value = slow(after[pick]).squeeze(-1)
            target = fqe_target(table.reward[pick], table.terminated[pick], next_value, config.gamma)
        loss = (net(now[pick]).squeeze(-1) - target).square().mean()
        flat.grad.zero_()
        loss.backward()
        optimiser.step()
        slow_flat.value.data.lerp_(flat.value.data, config.tau)
    return slow


def per_decision(log_ratio: Array, reward: Array, episode: NDArray[np.int64], gamma: float) -> tuple[Array, Array]:
    """Weighted importance sampling per decision: contributions (E,) whose sum is the estimate, and weights (E,).

    `log_ratio` (T,) holds log pi(a|s) - log behaviour(a|s). At each step of an episode, rewards are weighted by the
    product of the ratios so far over the sum of those of all episodes. The weights returned are those of whole
    episodes, normalised.
    """
    _, which = np.unique(episode, return_inverse=True)
    count = int(which.max()) + 1
    starts = np.flatnonzero(np.append(True, which[1:] != which[:-1]))
    lengths = np.diff(np.append(starts, len(which)))
    longest = int(lengths.max())
    table, paid = np.full((count, longest), -np.inf), np.zeros((count, longest))
    final = np.zeros(count)
    for e, (first, length) in enumerate(zip(starts, lengths, strict=True)):
        product = np.cumsum(log_ratio[first : first + length])
        table[e, :length], final[e] = product, product[-1]
        paid[e, :length] = reward[first : first + length] * gamma ** np.arange(length)
        table[e, length:] = product[-1]  # an episode that has ended keeps its weight and earns nothing more
    shares = np.exp(table - table.max(axis=0))
    contributions = (shares / shares.sum(axis=0) * paid).sum(axis=1)
    whole = np.exp(final - final.max())
    return contributions, whole / whole.sum()


def effective_sample_size(weights: Array) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted episodes would say as much."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def discounted_returns(reward: Array, episode: NDArray[np.int64], gamma: float) -> Array:
    """Return (E,) of every episode, as recorded."""
    _, which = np.unique(episode, return_inverse=True)
    starts = np.flatnonzero(np.append(True, which[1:] != which[:-1]))
    age = np.arange(len(which)) - starts[which]
    return np.bincount(which, weights=reward * gamma**age).astype(np.float64)
