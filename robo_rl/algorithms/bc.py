"""Behaviour cloning: losses as functions of tensors, and the learner that applies them.

Rows carry weights: demonstrations against corrections by a human (HG-DAgger: Kelly et al. 2019, arXiv 1810.02890;
weighted interventions: Mandlekar et al. 2020, arXiv 2012.06733). B rows, A action components.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robo_rl.fast_linear import LinearFn
from robo_rl.nets import MLP, Actor, FlatParameters
from robo_rl.offline import Batch, adam_state, load_adam, newest_share
from robo_rl.seeds import child_seed

LOG_STD = (-5.0, 2.0)
"""Bounds of the logarithmic standard deviation of a Gaussian policy."""


@dataclass(frozen=True)
class BcConfig:
    """Behaviour cloning."""

    loss: str = "mse"
    """mse: squared error; gaussian: likelihood of a Gaussian with a learnt deviation per action component."""
    intervention_weight: float = 1.0
    """Factor on the weight of rows in which a human corrected the policy."""
    batch: int = 256
    """Rows per gradient step."""
    learning_rate: float = 1e-3
    """Learning rate (Adam)."""
    anneal_steps: int = 0
    """Gradient steps over which the learning rate falls linearly to a twentieth; 0 keeps it."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers."""
    activation: str = "relu"
    """Nonlinearity between layers: elu, relu or tanh."""
    ema: float = 0.999
    """Decay per gradient step of the averaged policy that is exported; 0 exports the newest one."""
    obs_clip: float = 10.0
    """Bound of a normalised observation's absolute value."""
    report_every: int = 100
    """Gradient steps per line of metrics.csv."""


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of values (B) under weights (B); 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-12)


def mse_loss(mean: Tensor, action: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the squared distance between actions (B, A)."""
    return weighted_mean((mean - action).square().sum(-1), weight)


def gaussian_log_likelihood(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log-density (B) of actions (B, A) without the constant -A/2 log(2 pi); `log_std` (A) is held in bounds."""
    log_std = log_std.clamp(*LOG_STD)
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * z.square().sum(-1) - log_std.sum(-1)


def gaussian_loss(mean: Tensor, log_std: Tensor, action: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the negative log-density."""
    return -weighted_mean(gaussian_log_likelihood(mean, log_std, action), weight)


class BcLearner:
    """A network that answers observations with recorded actions; see robo_rl.offline.Learner."""

    def __init__(
        self,
        config: BcConfig,
        obs: int,
        actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        linear: LinearFn = F.linear,
    ) -> None:
        self.config = config
        weights = torch.Generator().manual_seed(child_seed(seed, "weights"))
        net = MLP((obs, *config.hidden, actions), config.activation, last_gain=0.01, linear=linear, generator=weights)
        self.actor = Actor(net, actions, 0.3).to(device)
        self.flat = FlatParameters([self.actor])
        self.optimiser = torch.optim.Adam([self.flat.value], lr=config.learning_rate, fused=True)
        self.average, self.steps = self.flat.value.detach().clone(), 0

    def step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """One gradient step at `rate` times the learning rate; scalars on the device."""
        config = self.config
        weight = batch.weight * (1.0 + (config.intervention_weight - 1.0) * batch.intervention)
        mean = self.actor(batch.obs)
        if config.loss == "mse":
            loss = mse_loss(mean, batch.action, weight)
        else:
            loss = gaussian_loss(mean, self.actor.log_std, batch.action, weight)
        self.flat.grad.zero_()
        loss.backward()
        self.optimiser.param_groups[0]["lr"] = config.learning_rate * rate
        self.optimiser.step()
        self.average.lerp_(self.flat.value.data, newest_share(config.ema, self.steps))
        self.steps += 1
        return {"actor_loss": loss.detach(), "action_error": (mean.detach() - batch.action).square().mean().sqrt()}

    def net(self) -> nn.Module:
        """The averaged network: normalised observation -> action, with torch's own product."""
        return averaged(self.actor, self.average)

    def state(self) -> dict[str, Any]:
        """Everything that evolves."""
        return {
            "actor": self.flat.value.detach().clone(),
            "adam": adam_state(self.optimiser),
            "average": self.average.clone(),
            "steps": self.steps,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        self.flat.value.data.copy_(state["actor"])
        load_adam(self.optimiser, state["adam"])
        self.average.copy_(state["average"])
        self.steps = state["steps"]


def averaged(actor: Actor, average: Tensor) -> nn.Module:
    """A copy of the actor's network with parameters from the flat vector `average` of the whole actor."""
    twin = copy.deepcopy(actor)
    flat = FlatParameters([twin])
    flat.value.data.copy_(average)
    if isinstance(twin.net, MLP):
        twin.net.linear = F.linear
    return twin.net
