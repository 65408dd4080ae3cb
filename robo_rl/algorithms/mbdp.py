"""Model-based policy learning with double dropout: an ensemble of learned models, and training on its bad days.

Zhang, Xiao, Yao, Chen and Luo 2021 (arXiv 2108.01295); for greenhouses, arXiv 2108.11645. K probabilistic networks
learn (observation, action) -> change and reward from recorded transitions. Model dropout sets aside the ceil(beta K)
with the largest error on held-out data. From every recorded state the others imagine M = K' r rollouts under the
policy; sample dropout keeps the worst alpha of them, so the policy climbs the conditional value at risk CVaR_alpha. We
deviate in two points: the policy follows the gradient through the models instead of a model-free update, and every
surviving model dreams equally often, one model per rollout, so that a rollout is one consistent world. Exogenous
observations (weather, forecasts) are replayed from the record, never predicted. What follows from the rest (the last
command, a signal shown once more near a bound) is computed, and so is the reward where the task can. The end of an
episode is not predicted: rollouts stay within recorded episodes, which suits tasks that end by time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hardware.errors import BadInput
from robo_rl.nets import MLP, Ensemble

LOG_VAR = (-10.0, 2.0)
"""Bounds of a predicted logarithmic variance, approached softly; in units of the targets' own variance."""


@dataclass(frozen=True)
class MbdpConfig:
    """Ensemble of learned models with model dropout and sample dropout; learns from recorded transitions alone."""

    models: int = 5
    """Networks K in the ensemble."""
    beta: float = 0.2
    """Model dropout: share of the models set aside for their error on held-out data."""
    alpha: float = 0.8
    """Sample dropout: share of the imagined rollouts of each state, the worst, that the policy learns from."""
    horizon: int = 24
    """Steps H of an imagined rollout."""
    rollouts: int = 2
    """Rollouts r of each state by each surviving model."""
    starts: int = 64
    """Recorded states from which each policy update imagines."""
    gamma: float = 0.99
    """Discount per step."""
    exogenous: tuple[str, ...] = ()
    """Signals that the policy sees but cannot influence: replayed from the record."""
    model_steps: int = 4_000
    """Gradient steps of the models, before the policy's first."""
    model_batch: int = 256
    """Transitions per gradient step and model, from a bootstrap sample of its own."""
    model_hidden: tuple[int, ...] = (128, 128)
    """Widths of the models' hidden layers."""
    model_learning_rate: float = 1e-3
    """Learning rate of the models at the start; it falls to zero along a cosine."""
    holdout: float = 0.1
    """Share of the record that ranks the models and trains none."""
    learning_rate: float = 1e-3
    """Learning rate of the policy at the start; it falls linearly to a twentieth over `anneal_steps`."""
    anneal_steps: int = 2_000
    """Policy steps over which its learning rate falls; 0 leaves it where it is."""
    max_grad_norm: float = 1.0
    """Largest gradient norm of the policy."""
    track: bool = True
    """Aim at a target that the command approaches as fast as the rate limit allows, where the mode has such a limit and
    the policy sees the last command; otherwise the network gives the action itself."""
    tracking_gain: float = 0.8
    """Share of the way to the target that a step goes, where the rate limit is far."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers."""
    activation: str = "elu"
    """Nonlinearity between layers: elu, relu or tanh."""
    ema: float = 0.99
    """Decay per step of the averaged policy that is evaluated and exported; 0 exports the newest one."""
    report_every: int = 100
    """Gradient steps between two lines of metrics.csv."""
    obs_clip: float = 10.0
    """Bound of a normalised observation's absolute value."""


class Prediction(NamedTuple):
    """What K models expect of one step, each of R rows of its own: (K, R, E + 1), change and, last, reward."""

    mean: Tensor
    log_var: Tensor


Model = Callable[[Tensor], Prediction]
"""Normalised observation and action (K, R, D + A) -> prediction, in units of the targets' deviation."""


def make_models(count: int, inputs: int, outputs: int, hidden: tuple[int, ...], generator: torch.Generator) -> Ensemble:
    """K untrained networks with mean and log-variance for each of `outputs` values."""
    return Ensemble(MLP((inputs, *hidden, 2 * outputs), "elu", generator=generator) for _ in range(count))


def predicted(raw: Tensor) -> Prediction:
    """Mean and softly bounded log-variance from a network's outputs (..., 2 O)."""
    mean, log_var = raw.chunk(2, -1)
    low, high = LOG_VAR
    log_var = high - F.softplus(high - log_var)
    return Prediction(mean, low + F.softplus(log_var - low))


def nll(prediction: Prediction, target: Tensor) -> Tensor:
    """Mean negative log-likelihood (K) of targets (K, R, O), without its constant."""
    error = (prediction.mean - target).square()
    return 0.5 * (error * torch.exp(-prediction.log_var) + prediction.log_var).mean((-1, -2))


def survivors(errors: Tensor, beta: float) -> Tensor:
    """Indices of the models that stay when the ceil(beta K) with the largest error (K) go; at least one stays."""
    gone = min(math.ceil(beta * len(errors) - 1e-9), len(errors) - 1)
    return errors.argsort()[: len(errors) - gone].sort().values


def frozen(models: Ensemble, members: Tensor) -> Model:
    """Some of the models as one stack of products, without gradients to their weights."""
    nets: list[Any] = [models.nets[i] for i in members.tolist()]
    stack = lambda kind, i: torch.stack([getattr(net, kind)[i].detach() for net in nets])  # noqa: E731
    layers = [(stack("weights", i).mT.contiguous(), stack("biases", i)[:, None]) for i in range(len(nets[0].weights))]

    def predict(x: Tensor) -> Prediction:
        for weight, bias in layers[:-1]:
            x = F.elu(torch.baddbmm(bias, x, weight))
        weight, bias = layers[-1]
        return predicted(torch.baddbmm(bias, x, weight))

    return predict


class Windows(NamedTuple):
    """B stretches of H steps of the record, from which to imagine."""

    obs: Tensor
    """(H, B, D) normalised observations as recorded; only the first and the exogenous columns are used."""
    last_action: Tensor
    """(B, A) sent in the step before."""


class Repeats(NamedTuple):
    """R observed values that follow from others: clamp(gain * x + bias, low, high), all (R) and normalised."""

    columns: Tensor
    """Columns of the observation."""
    of: Tensor
    """Which x: a predicted value (0 to E - 1) or, from E on, a component of the last action."""
    gain: Tensor
    bias: Tensor
    low: Tensor
    high: Tensor


NO_REPEATS = Repeats(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), *torch.zeros(4, 0))


class Units(NamedTuple):
    """From a model's numbers to normalised observations and rewards."""

    columns: Tensor
    """(E) columns of the observation that the models predict; the rest repeat them or are exogenous."""
    scale: Tensor
    """(E + 1) deviation of change and reward."""
    shift: Tensor
    """(E + 1) mean of change and reward."""
    repeats: Repeats = NO_REPEATS


Pay = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Reward (...) of a step: predicted values before and after (..., E), normalised, and the action (..., A)."""


def slew(action: Tensor, last: Tensor, step: Tensor) -> Tensor:
    """The action that leaves the guard: within +-1 and within `step` (A), which may be infinite, of the last one.

    Where the limit bites, the gradient is that of a soft limit, last + x / (1 + |x|) with x in units of `step`: a wish
    beyond reach keeps a direction.
    """
    wish = action.clamp(-1.0, 1.0)
    way = wish - last
    hard = last + torch.minimum(torch.maximum(way, -step), step)
    soft = last + way / (1.0 + (way / step).abs())
    return soft + (hard - soft).detach()


def imagine(
    model: Model,
    policy: Callable[[Tensor], Tensor],
    windows: Windows,
    units: Units,
    step: Tensor,
    noise: Tensor,
    *,
    gamma: float,
    obs_clip: float,
    pay: Pay | None = None,
) -> Tensor:
    """Discounted returns (B, M) of M = K r rollouts from each window's first state; differentiable in the policy.

    `noise` (H, K, r B, E + 1) is standard normal and gives each prediction its spread; `step` (A) is the guard's.
    Without `pay`, rewards are the models' too.
    """
    horizon, models, rows, _ = noise.shape
    times = rows // windows.obs.shape[1]
    recorded = windows.obs.repeat(1, times, 1)  # (H, r B, D)
    obs = recorded[0].expand(models, rows, -1)
    last = windows.last_action.repeat(times, 1).expand(models, rows, -1)
    total, repeats = obs.new_zeros(models, rows), units.repeats
    for h in range(horizon):
        last = slew(policy(obs.flatten(0, 1)).unflatten(0, (models, rows)), last, step)
        mean, log_var = model(torch.cat([obs, last], -1))
        change = units.shift + units.scale * (mean + noise[h] * torch.exp(0.5 * log_var))
        before = obs[..., units.columns]
        after = (before + change[..., :-1]).clamp(-obs_clip, obs_clip)
        total = total + gamma**h * (change[..., -1] if pay is None else pay(before, after, last))
        if h + 1 < horizon:
            known = torch.cat([after, last], -1)[..., repeats.of]
            repeated = torch.addcmul(repeats.bias, repeats.gain, known).clamp(repeats.low, repeats.high)
            obs = recorded[h + 1].expand(models, rows, -1).index_copy(-1, units.columns, after)
            obs = obs.index_copy(-1, repeats.columns, repeated)
    return total.view(models, times, -1).flatten(0, 1).T


def tail_mean(returns: Tensor, alpha: float) -> Tensor:
    """Mean over the worst ceil(alpha M) of each row's M returns (B, M): CVaR_alpha (B), and its gradient."""
    if not 0.0 < alpha <= 1.0:
        raise BadInput(f"alpha = {alpha}; expected a share above 0, up to 1")
    keep = math.ceil(alpha * returns.shape[1] - 1e-9)
    return returns.topk(keep, dim=1, largest=False).values.mean(1)
