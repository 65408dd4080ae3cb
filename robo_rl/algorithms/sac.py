"""Soft actor-critic: its losses as functions of tensors, and the learner that applies them.

Haarnoja et al. 2018 (arXiv 1812.05905), with any number of critics. The switches of RLPD (Ball et al. 2023, arXiv
2302.02948) are settings: more critics, a random subset of them in the target, layer normalisation, many updates per
step, and half of each batch from recorded data. B rows, A action components, E critics.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robo_rl.fast_linear import LinearFn
from robo_rl.nets import MLP, Ensemble, FlatParameters
from robo_rl.replay_buffer import Transitions
from robo_rl.seeds import child_seed

LOG_STD = (-5.0, 2.0)
"""Bounds of the policy's logarithmic standard deviation before the squashing."""


@dataclass(frozen=True)
class SacConfig:
    """Soft actor-critic (Haarnoja et al. 2018); the defaults are those of the paper's second version."""

    gamma: float = 0.99
    """Discount per step."""
    learning_rate: float = 3e-4
    """Learning rate of actor, critics and temperature (Adam)."""
    batch: int = 256
    """Transitions per gradient step."""
    utd: float = 1.0
    """Gradient steps per environment step, all environments counted."""
    rollout_steps: int = 8
    """Steps that every environment takes between two updates."""
    warmup_steps: int = 5_000
    """Environment steps with uniformly random actions, before any learning."""
    buffer: int = 300_000
    """Newest transitions kept; a checkpoint holds them all."""
    tau: float = 0.005
    """Share of the newest critics that enters their slowly moving copies per gradient step."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    activation: str = "relu"
    """Nonlinearity between layers: elu, relu or tanh."""
    critics: int = 2
    """Critics E."""
    target_critics: int = 2
    """Critics, drawn anew each time, whose smallest value makes the target."""
    layer_norm: bool = False
    """Standardise the hidden layers of the critics."""
    actor_every: int = 1
    """Critic steps per step of actor and temperature."""
    entropy_in_target: bool = True
    """Count the next action's entropy in the target."""
    init_temperature: float = 0.2
    """Price of entropy at the start."""
    target_entropy: float = -1.0
    """Wanted entropy of the squashed policy, per action component (nats)."""
    reward_scale: float = 1.0
    """Factor on rewards before learning; large returns slow a critic."""
    obs_clip: float = 10.0
    """Bound of a normalised observation's absolute value."""


class Sample(NamedTuple):
    """Squashed actions (B, A) and their log-densities (B)."""

    action: Tensor
    log_prob: Tensor


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> Sample:
    """tanh(mean + std * noise) and its log-density; noise (B, A) is standard normal.

    log(1 - tanh(x)^2) is written as 2 (log 2 - x - softplus(-2 x)), which stays finite where tanh saturates.
    """
    x = mean + log_std.exp() * noise
    gaussian = -0.5 * noise * noise - log_std - 0.5 * math.log(2.0 * math.pi)
    return Sample(torch.tanh(x), (gaussian - 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))).sum(-1))


def td_target(
    reward: Tensor,
    terminated: Tensor,
    next_values: Tensor,
    next_log_prob: Tensor,
    *,
    gamma: float,
    temperature: Tensor | float,
) -> Tensor:
    """r + gamma (1 - terminated) (min over critics Q'(s', a') - temperature log pi(a' | s')), (B); values (E, B).

    Time-outs are not terminations: they bootstrap like any other step.
    """
    return reward + gamma * (1.0 - terminated) * (next_values.amin(0) - temperature * next_log_prob)


def critic_loss(values: Tensor, target: Tensor) -> Tensor:
    """Sum over critics (E, B) of their mean squared error against the target (B)."""
    return (values - target).square().mean(-1).sum()


def actor_loss(value: Tensor, log_prob: Tensor, temperature: Tensor | float) -> Tensor:
    """Mean of temperature log pi - Q, all (B): the divergence from the policy that Q prefers."""
    return (temperature * log_prob - value).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Falls where the temperature rises while the policy's entropy is below its target, and the reverse."""
    return -(log_temperature * (log_prob.detach() + target_entropy)).mean()


class SquashedMean(nn.Module):
    """The deterministic policy: tanh of the mean, the other half of the network's outputs unused."""

    def __init__(self, net: MLP, actions: int) -> None:
        super().__init__()
        self.net, self.actions = net, actions

    def forward(self, obs: Tensor) -> Tensor:
        """Normalised observation (B, D) -> action (B, A)."""
        return torch.tanh(self.net(obs)[..., : self.actions])


class SacLearner:
    """Actor, critics with their slow copies, temperature and optimisers; learns from normalised transitions."""

    def __init__(
        self,
        config: SacConfig,
        obs: int,
        actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        linear: LinearFn = F.linear,
    ) -> None:
        self.config, self.actions, self.updates = config, actions, 0
        weights = torch.Generator().manual_seed(child_seed(seed, "weights"))
        mlp = lambda ins, outs, gain, ln: MLP(  # noqa: E731
            (ins, *config.hidden, outs),
            config.activation,
            last_gain=gain,
            layer_norm=ln,
            linear=linear,
            generator=weights,
        )
        self.actor = mlp(obs, 2 * actions, 0.01, False).to(device)
        critics = [mlp(obs + actions, 1, 1.0, config.layer_norm) for _ in range(config.critics)]
        self.critics = Ensemble(critics).to(device)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(config.init_temperature, device=device).log())
        self.flats = {
            "actor": FlatParameters([self.actor]),
            "critics": FlatParameters([self.critics]),
            "target": FlatParameters([self.target]),
        }
        adam = lambda value: torch.optim.Adam([value], lr=config.learning_rate, fused=True)  # noqa: E731
        self.optimisers = {name: adam(self.flats[name].value) for name in ("actor", "critics")}
        self.optimisers["temperature"] = adam(self.log_temperature)
        self.noise = torch.Generator(device=device).manual_seed(child_seed(seed, "shuffle"))

    def sample(self, obs: Tensor) -> Sample:
        """Random actions of the present policy for normalised observations (B, D)."""
        mean, spread = self.actor(obs).split(self.actions, -1)
        low, high = LOG_STD
        log_std = low + 0.5 * (high - low) * (torch.tanh(spread) + 1.0)
        return squashed(mean, log_std, torch.randn(mean.shape, generator=self.noise, device=mean.device))

    def values(self, obs: Tensor, action: Tensor) -> Tensor:
        """Values (E, B) by all critics."""
        return self.critics(torch.cat([obs, action], -1)).squeeze(-1)

    def update(self, batch: Transitions) -> dict[str, Tensor]:
        """One gradient step of the critics, and of the actor when its turn has come; scalars on the device."""
        self.updates += 1
        loss = self._critic_step(batch)
        scalars = {"critic_loss": loss, "temperature": self.log_temperature.detach().exp()}
        if self.updates % self.config.actor_every == 0:
            scalars |= self.improve_actor(batch.obs, self.judge)
        return scalars

    def _critic_step(self, batch: Transitions) -> Tensor:
        config, flat = self.config, self.flats["critics"]
        with torch.no_grad():
            action, log_prob = self.sample(batch.next_obs)
            values = self.target(torch.cat([batch.next_obs, action], -1)).squeeze(-1)
            if config.target_critics < config.critics:
                order = torch.randperm(config.critics, generator=self.noise, device=values.device)
                values = values[order[: config.target_critics]]
            temperature = self.log_temperature.exp() if config.entropy_in_target else 0.0
            target = td_target(
                batch.reward * config.reward_scale,
                batch.terminated,
                values,
                log_prob,
                gamma=config.gamma,
                temperature=temperature,
            )
        flat.grad.zero_()
        loss = critic_loss(self.values(batch.obs, batch.action), target)
        loss.backward()
        self.optimisers["critics"].step()
        self.flats["target"].value.data.lerp_(flat.value.data, config.tau)
        return loss.detach()

    def improve_actor(self, obs: Tensor, judge: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """One gradient step of actor and temperature; `judge` gives values (B) of observations and actions."""
        flat = self.flats["actor"]
        flat.grad.zero_()
        action, log_prob = self.sample(obs)
        self.critics.requires_grad_(False)
        loss = actor_loss(judge(obs, action), log_prob, self.log_temperature.detach().exp())
        loss.backward()
        self.critics.requires_grad_(True)
        self.optimisers["actor"].step()
        self.optimisers["temperature"].zero_grad()
        temperature_loss(self.log_temperature, log_prob, self.config.target_entropy * self.actions).backward()
        self.optimisers["temperature"].step()
        return {"actor_loss": loss.detach(), "entropy": -log_prob.detach().mean()}

    def judge(self, obs: Tensor, action: Tensor) -> Tensor:
        """The value (B) that the actor climbs: the smallest of two critics, the mean of more (RLPD)."""
        values = self.values(obs, action)
        return values.amin(0) if self.config.critics <= 2 else values.mean(0)

    def policy(self) -> nn.Module:
        """A copy of the deterministic policy, with torch's own product."""
        net = copy.deepcopy(self.actor)
        net.linear = F.linear
        return SquashedMean(net, self.actions)

    def state(self) -> dict[str, Any]:
        """Everything that evolves, as tensors and plain values."""
        moments = {
            name: {k: v.clone() for k, v in next(iter(o.state.values()), {}).items()}
            for name, o in self.optimisers.items()
        }
        flats = {name: flat.value.detach().clone() for name, flat in self.flats.items()}
        rest = {"log_temperature": self.log_temperature.detach().clone(), "noise": self.noise.get_state()}
        return {"parameters": flats, "adam": moments, "updates": self.updates} | rest

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        for name, flat in self.flats.items():
            flat.value.data.copy_(state["parameters"][name])
        self.log_temperature.data.copy_(state["log_temperature"])
        for name, optimiser in self.optimisers.items():
            moments = {k: v.clone() for k, v in state["adam"][name].items()}
            if moments:
                optimiser.state[optimiser.param_groups[0]["params"][0]] = moments
        self.noise.set_state(state["noise"].cpu())
        self.updates = state["updates"]
