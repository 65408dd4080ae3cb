"""Implicit Q-learning and its robust form: losses as functions of tensors, and the learner that applies them.

IQL: Kostrikov et al. 2021 (arXiv 2110.06169). RIQL: Yang et al. 2024 (arXiv 2310.12955): normalised observations, the
Huber loss, and a low quantile over more critics where IQL takes the smaller of two. Values are never asked for actions
that the data do not hold. B rows, A action components, E critics.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robo_rl.algorithms.bc import averaged, gaussian_log_likelihood
from robo_rl.fast_linear import LinearFn
from robo_rl.nets import MLP, Actor, Ensemble, FlatParameters
from robo_rl.offline import Batch, adam_state, load_adam, newest_share
from robo_rl.seeds import child_seed


@dataclass(frozen=True)
class IqlConfig:
    """Implicit Q-learning; `riql` is the same with other defaults."""

    gamma: float = 0.99
    """Discount per step."""
    expectile: float = 0.7
    """Which expectile of Q over the data's actions V is: 0.5 their mean, towards 1 the best of them."""
    beta: float = 3.0
    """Inverse temperature: how much more the policy imitates actions of higher advantage; 0 is behaviour cloning."""
    weight_clip: float = 100.0
    """Largest weight exp(beta * advantage) of a row."""
    critics: int = 2
    """Critics E."""
    quantile: float = 0.0
    """Which quantile over the critics counts; 0 is the smallest of them."""
    huber: float = 0.0
    """Error at which the critic's loss turns from square to linear, in scaled rewards; 0 stays square."""
    tau: float = 0.005
    """Share of the newest critics that enters their slowly moving copies per gradient step."""
    reward_scale: float = 0.0
    """Factor on rewards; 0 is one over their spread in the data."""
    batch: int = 256
    """Rows per gradient step."""
    learning_rate: float = 3e-4
    """Learning rate of actor, value and critics (Adam)."""
    anneal_steps: int = 0
    """Gradient steps over which the actor's learning rate falls linearly to a twentieth; 0 keeps it."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers."""
    activation: str = "relu"
    """Nonlinearity between layers: elu, relu or tanh."""
    layer_norm: bool = False
    """Standardise the hidden layers of the critics."""
    ema: float = 0.999
    """Decay per gradient step of the averaged policy that is exported; 0 exports the newest one."""
    obs_clip: float = 10.0
    """Bound of a normalised observation's absolute value."""
    report_every: int = 100
    """Gradient steps per line of metrics.csv."""


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1(u < 0)| u^2 (eq. 5); u (B) = Q - V."""
    weight = torch.where(difference < 0.0, 1.0 - expectile, expectile)
    return (weight * difference.square()).mean()


def critic_loss(values: Tensor, target: Tensor, huber: float = 0.0) -> Tensor:
    """Sum over critics (E, B) of the mean error against the target (B): square, or Huber's (half the square inside)."""
    if huber > 0.0:
        return F.huber_loss(values, target.expand_as(values), reduction="none", delta=huber).mean(-1).sum()
    return (values - target).square().mean(-1).sum()


def pessimistic(values: Tensor, quantile: float = 0.0) -> Tensor:
    """The smallest value over critics (E, B), or a low quantile of them, interpolated linearly."""
    return values.amin(0) if quantile == 0.0 else torch.quantile(values, quantile, dim=0)


def advantage_weight(advantage: Tensor, beta: float, clip: float) -> Tensor:
    """exp(beta A), at most `clip`."""
    return torch.exp(beta * advantage).clamp(max=clip)


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """r + gamma (1 - terminated) V(s'); data that merely end are bootstrapped like any other."""
    return reward + gamma * (1.0 - terminated) * next_value


class IqlLearner:
    """Actor, value, critics with slow copies; see robo_rl.offline.Learner."""

    def __init__(
        self,
        config: IqlConfig,
        obs: int,
        actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        linear: LinearFn = F.linear,
    ) -> None:
        self.config = config
        weights = torch.Generator().manual_seed(child_seed(seed, "weights"))

        def mlp(ins: int, outs: int, gain: float, norm: bool = False) -> MLP:
            sizes = (ins, *config.hidden, outs)
            return MLP(sizes, config.activation, last_gain=gain, layer_norm=norm, linear=linear, generator=weights)

        self.actor = Actor(mlp(obs, actions, 0.01), actions, 0.3).to(device)
        self.value = mlp(obs, 1, 1.0).to(device)
        critics = [mlp(obs + actions, 1, 1.0, config.layer_norm) for _ in range(config.critics)]
        self.critics = Ensemble(critics).to(device)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        parts: dict[str, nn.Module] = {
            "actor": self.actor,
            "value": self.value,
            "critics": self.critics,
            "target": self.target,
        }
        self.flats = {name: FlatParameters([part]) for name, part in parts.items()}
        self.optimisers = {
            name: torch.optim.Adam([self.flats[name].value], lr=config.learning_rate, fused=True)
            for name in ("actor", "value", "critics")
        }
        self.average, self.steps = self.flats["actor"].value.detach().clone(), 0

    def step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """One gradient step of value, critics and actor, in the order of the paper; scalars on the device."""
        config = self.config
        pair = torch.cat([batch.obs, batch.action], -1)
        with torch.no_grad():
            q = pessimistic(self.target(pair).squeeze(-1), config.quantile)
            target = td_target(batch.reward, batch.terminated, self.value(batch.next_obs).squeeze(-1), config.gamma)
        value = self.value(batch.obs).squeeze(-1)
        advantage = (q - value).detach()
        value_loss = expectile_loss(q - value, config.expectile)
        self._descend("value", value_loss)
        loss = critic_loss(self.critics(pair).squeeze(-1), target, config.huber)
        self._descend("critics", loss)
        self.flats["target"].value.data.lerp_(self.flats["critics"].value.data, config.tau)
        weight = advantage_weight(advantage, config.beta, config.weight_clip)
        likelihood = gaussian_log_likelihood(self.actor(batch.obs), self.actor.log_std, batch.action)
        actor_loss = -(weight * likelihood).mean()
        self.optimisers["actor"].param_groups[0]["lr"] = config.learning_rate * rate
        self._descend("actor", actor_loss)
        self.average.lerp_(self.flats["actor"].value.data, newest_share(config.ema, self.steps))
        self.steps += 1
        return {
            "value_loss": value_loss.detach(),
            "critic_loss": loss.detach(),
            "actor_loss": actor_loss.detach(),
            "value": value.detach().mean(),
            "advantage": advantage.mean(),
            "advantage_std": advantage.std(correction=0),
            "weight": weight.mean(),
        }

    def _descend(self, name: str, loss: Tensor) -> None:
        self.flats[name].grad.zero_()
        loss.backward()
        self.optimisers[name].step()

    def net(self) -> nn.Module:
        """The averaged network: normalised observation -> action, with torch's own product."""
        return averaged(self.actor, self.average)

    def state(self) -> dict[str, Any]:
        """Everything that evolves."""
        return {
            "parameters": {name: flat.value.detach().clone() for name, flat in self.flats.items()},
            "adam": {name: adam_state(o) for name, o in self.optimisers.items()},
            "average": self.average.clone(),
            "steps": self.steps,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        for name, flat in self.flats.items():
            flat.value.data.copy_(state["parameters"][name])
        for name, optimiser in self.optimisers.items():
            load_adam(optimiser, state["adam"][name])
        self.average.copy_(state["average"])
        self.steps = state["steps"]
