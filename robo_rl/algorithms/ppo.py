"""The losses and rules of proximal policy optimisation, as functions of tensors.

Schulman et al. 2017 (arXiv 1707.06347), with a diagonal Gaussian policy whose standard deviation does not depend on
the state. B rows, A action components. A `weight` (B), 1 or 0, says which rows count in a mean; None: all.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Losses(NamedTuple):
    """What one minibatch says; scalars on the device."""

    total: Tensor
    surrogate: Tensor
    value: Tensor
    kl: Tensor
    clipped: Tensor
    """Share of rows whose ratio lies outside the interval."""


def gaussian_log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density (B) of actions (B, A), without the constant -A/2 log(2 pi), which cancels in every ratio."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum(-1)


def gaussian_kl(old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B) of the new policy from the old one, KL(old || new), in nats."""
    inverse = torch.exp(-2.0 * log_std)
    spread = 0.5 * torch.exp(2.0 * old_log_std) * inverse + (log_std - old_log_std) - 0.5
    return (0.5 * (old_mean - mean) ** 2 * inverse + spread).sum(-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy of a diagonal Gaussian (nats)."""
    return (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum(-1)


def weighted_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over the rows (B) that count; 0 where none does."""
    return x.mean() if weight is None else (x * weight).sum() / weight.sum().clamp(min=1.0)


def surrogate_loss(ratio: Tensor, advantage: Tensor, clip: float, weight: Tensor | None = None) -> Tensor:
    """Clipped surrogate (eq. 7), negated: the mean of the more pessimistic of both products."""
    worse = torch.minimum(ratio * advantage, torch.clamp(ratio, 1.0 - clip, 1.0 + clip) * advantage)
    return -weighted_mean(worse, weight)


def value_loss(
    value: Tensor, old_value: Tensor, returns: Tensor, clip: float | None, weight: Tensor | None = None
) -> Tensor:
    """Mean squared error of the value (B); with `clip`, the worse of it and that of the value held near the old one."""
    error = (value - returns) ** 2
    if clip is None:
        return weighted_mean(error, weight)
    held = old_value + torch.clamp(value - old_value, -clip, clip)
    return weighted_mean(torch.maximum(error, (held - returns) ** 2), weight)


def ppo_losses(
    mean: Tensor,
    log_std: Tensor,
    value: Tensor,
    *,
    action: Tensor,
    old_mean: Tensor,
    old_log_std: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    returns: Tensor,
    old_value: Tensor,
    clip: float,
    clip_value: bool,
    value_coef: float,
    entropy_coef: float,
    weight: Tensor | None = None,
) -> Losses:
    """All losses of one minibatch; the total is differentiable in `mean`, `log_std` and `value`."""
    ratio = torch.exp(gaussian_log_prob(action, mean, log_std) - old_log_prob)
    surrogate = surrogate_loss(ratio, advantage, clip, weight)
    critic = value_loss(value, old_value, returns, clip if clip_value else None, weight)
    total = surrogate + value_coef * critic
    if entropy_coef:
        total = total - entropy_coef * gaussian_entropy(log_std)
    with torch.no_grad():
        kl = weighted_mean(gaussian_kl(old_mean, old_log_std, mean, log_std), weight)
        clipped = weighted_mean(((ratio - 1.0).abs() > clip).to(ratio.dtype), weight)
    return Losses(total, surrogate.detach(), critic.detach(), kl, clipped)


class Gradients(NamedTuple):
    """Of the total loss, with respect to what the networks gave."""

    mean: Tensor
    log_std: Tensor
    value: Tensor


def ppo_gradients(
    mean: Tensor,
    log_std: Tensor,
    value: Tensor,
    *,
    action: Tensor,
    old_mean: Tensor,
    old_log_std: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    returns: Tensor,
    clip: float,
    value_coef: float,
    entropy_coef: float,
    weight: Tensor | None = None,
) -> tuple[Losses, Gradients]:
    """`ppo_losses` with an unclipped value, and its derivatives in closed form: a third of automatic differentiation.

    With z = (action - mean) / std, the ratio's derivative is ratio z / std by the mean and ratio (z^2 - 1) by the
    logarithm of the deviation; it counts where the surrogate's first product is the smaller one or both are equal.
    """
    inverse = torch.exp(-log_std)
    z = (action - mean).mul_(inverse)
    square = z * z
    ratio = torch.exp_(square.sum(-1).mul_(-0.5).sub_(log_std.sum()).sub_(old_log_prob))
    gain = ratio * advantage
    held = ratio.clamp(1.0 - clip, 1.0 + clip).mul_(advantage)
    error = value - returns
    share = 1.0 / len(value) if weight is None else weight / weight.sum().clamp(min=1.0)
    by_log_prob = torch.where(gain <= held, gain, torch.zeros_like(gain)).mul_(-share)
    by_log_std = by_log_prob @ square.sub_(1.0) - entropy_coef
    by_mean = z.mul_(inverse).mul_(by_log_prob[:, None])
    surrogate = -weighted_mean(torch.minimum(gain, held), weight)
    critic = weighted_mean(error * error, weight)
    total = surrogate + value_coef * critic
    if entropy_coef:
        total = total - entropy_coef * gaussian_entropy(log_std)
    kl = weighted_mean(gaussian_kl(old_mean, old_log_std, mean, log_std), weight)
    clipped = weighted_mean((ratio.sub_(1.0).abs_() > clip).to(ratio.dtype), weight)
    by_value = error.mul_(2.0 * value_coef * share)
    return Losses(total, surrogate, critic, kl, clipped), Gradients(by_mean, by_log_std, by_value)


def adapt_learning_rate_(rate: Tensor, kl: Tensor, *, target: float, low: float, high: float) -> None:
    """Divides the learning rate by 1.5 where the policy moved more than twice the target, multiplies it where less than
    half, and keeps it within its bounds; in place and without asking the device for a number."""
    bold, timid = (kl < 0.5 * target).to(rate.dtype), (kl > 2.0 * target).to(rate.dtype)
    rate.mul_(1.0 + 0.5 * bold - timid / 3.0).clamp_(low, high)


def annealed(start: float, step: int, horizon: int, floor: float = 0.05) -> float:
    """`start` falling linearly to `floor * start` over `horizon` steps, and staying there; 0 means never."""
    if horizon <= 0:
        return start
    return start * max(floor, 1.0 - (1.0 - floor) * step / horizon)
