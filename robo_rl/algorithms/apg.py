"""Analytic policy gradient: the return of short windows, differentiated through the simulator.

The simulator's own derivative replaces the estimates of other algorithms, so a few thousand updates suffice. What makes
it work on long seasons: many environments in different phases of their episodes, windows much shorter than an episode,
adjoints that are bounded per environment and step, and a policy that aims at targets which the rate limit tracks.
N environments, D observed values, A action components.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robo_rl.nets import MLP


@dataclass(frozen=True)
class ApgConfig:
    """Analytic policy gradient: back-propagation through windows of a differentiable simulator."""

    window: int = 24
    """Steps through which each gradient is propagated."""
    learning_rate: float = 2e-3
    """Learning rate at the start (Adam)."""
    learning_rate_end: float = 5e-5
    """Learning rate after `anneal_steps`; it falls exponentially and then stays."""
    anneal_steps: int = 0
    """Environment steps over which the learning rate falls; 0 leaves it where it is. It belongs to the schedule, not
    to the budget: a run cut in two parts stays the run it would have been."""
    max_adjoint: float = 0.1
    """Largest norm of one environment's adjoint at one step: the change of its window's return per change of its state
    and command, each measured in its own root mean square; 0 = no bound."""
    max_grad_norm: float = 1.0
    """Largest norm of the gradient of all parameters."""
    track: bool = True
    """Aim at a target that the command approaches as fast as the rate limit allows, where the mode has such a limit and
    the policy sees the last command; otherwise the network gives the action itself."""
    tracking_gain: float = 0.8
    """Share of the way to the target that a step goes, where the rate limit is far."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers."""
    activation: str = "elu"
    """Nonlinearity between layers: elu, relu or tanh."""
    ema: float = 0.995
    """Decay per update of the averaged policy that is evaluated and exported; 0 exports the newest one."""
    norm_updates: int = 400
    """Updates after which the observation's mean and variance stay as they are; 0 = never scaled."""
    obs_clip: float = 10.0
    """Bound of a normalised observation's absolute value."""


class Bounded(torch.autograd.Function):
    """Identity of tensors (N, K); backwards, each row's adjoint is scaled down to a largest norm over all of them.

    The adjoint is measured per root mean square of its column, so that units do not matter.
    """

    @staticmethod
    def forward(ctx: Any, limit: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors, unchanged."""
        ctx.limit = limit
        ctx.save_for_backward(*(t.square().mean(0).sqrt() for t in tensors))
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> tuple[Tensor | None, ...]:
        """The adjoints, bounded."""
        squares = [(a * s).square().sum(1, keepdim=True) for a, s in zip(adjoints, ctx.saved_tensors, strict=True)]
        norm = torch.stack(squares).sum(0).sqrt()
        factor = (ctx.limit / norm.clamp(min=1e-30)).clamp(max=1.0)
        return None, *(a * factor for a in adjoints)


def bounded(limit: float, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors (N, K_i) with each row's joint adjoint bounded: at most `limit` per root mean square of a column."""
    return Bounded.apply(limit, *tensors)  # pyright: ignore[reportReturnType]


class TanhPolicy(nn.Module):
    """tanh of the network: the action itself."""

    def __init__(self, net: MLP) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Tensor) -> Tensor:
        """Normalised observation (N, D) -> action (N, A)."""
        return torch.tanh(self.net(obs))


class TrackingPolicy(nn.Module):
    """The network's output is a target; the action goes towards it from the last command, within the rate limit.

    action = last + rate * tanh(gain * (tanh(net / 2) - last) / rate). Unlike a clipped step, this keeps a derivative
    wherever the target lies. The last command is read from the observation, so the graph needs no memory.
    """

    def __init__(self, net: MLP, columns: Sequence[int], rate: Sequence[float], gain: float) -> None:
        """`columns`: where the last command stands in the observation; `rate` (A): largest change per step."""
        super().__init__()
        self.net, self.gain, self.first, self.last = net, gain, min(columns), max(columns) + 1
        self.rate = nn.Buffer(torch.tensor(rate))
        self.scale, self.shift = nn.Buffer(torch.ones(len(rate))), nn.Buffer(torch.zeros(len(rate)))

    def use_norm(self, scale: Tensor, shift: Tensor) -> None:
        """Takes over the normaliser (D) of the observation, so that the last command can be read back from it."""
        self.scale.copy_(scale[self.first : self.last])
        self.shift.copy_(shift[self.first : self.last])

    def forward(self, obs: Tensor) -> Tensor:
        """Normalised observation (N, D) -> action (N, A)."""
        last = (obs[:, self.first : self.last] - self.shift) / self.scale
        target = torch.tanh(0.5 * self.net(obs))
        return torch.clamp(last + self.rate * torch.tanh(self.gain * (target - last) / self.rate), -1.0, 1.0)


def learning_rate(config: ApgConfig, env_steps: int) -> float:
    """Exponential fall from `learning_rate` to `learning_rate_end` over `anneal_steps`."""
    if config.anneal_steps == 0:
        return config.learning_rate
    share = min(1.0, env_steps / config.anneal_steps)
    return config.learning_rate * (config.learning_rate_end / config.learning_rate) ** share


def clip_gradient_(gradient: Tensor, largest: float) -> Tensor:
    """Scales a gradient down to a norm of at most `largest`, in place, and returns the norm before."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_(torch.clamp(largest / (norm + 1e-12), max=1.0))
    return norm
