"""The learner: two networks, one optimiser, and the update that a rollout makes to them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hardware.errors import BadInput
from robo_rl.algorithms.ppo import Losses, adapt_learning_rate_, annealed, ppo_gradients, ppo_losses
from robo_rl.config import PPOConfig
from robo_rl.distributed import Group
from robo_rl.fast_linear import LinearFn
from robo_rl.layout import Layout
from robo_rl.nets import MLP, Actor, FlatParameters, pulled
from robo_rl.norm import RunningNorm
from robo_rl.policy_nets import build, shape_of
from robo_rl.rollout import Rollout
from robo_rl.seeds import child_seed


class Learner:
    """Actor, critic, their normalisers and the averaged actor; learns from rollouts.

    The critic reads the observation group `critic` where the environment offers one (it may hold what the robot
    cannot measure), and `policy` otherwise. `layout` says which numbers of the policy's observation describe whom;
    without it they all describe the robot.
    """

    def __init__(
        self,
        config: PPOConfig,
        sizes: dict[str, int],
        actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        linear: LinearFn = F.linear,
        compiled: bool = False,
        group: Group = Group(),  # noqa: B008 - frozen
        layout: Layout | None = None,
    ) -> None:
        self.config, self.group = config, group
        self.critic_group = "critic" if "critic" in sizes else "policy"
        weights = torch.Generator().manual_seed(child_seed(seed, "weights"))
        layout = layout or Layout(sizes["policy"], tuple(range(sizes["policy"])))
        self.shape = shape_of(config, layout, actions)
        self.actor = Actor(build(self.shape, linear, weights), actions, config.init_std).to(device)
        self.critic = MLP(
            (sizes[self.critic_group], *config.hidden, 1), config.activation, linear=linear, generator=weights
        ).to(device)
        self.flat = FlatParameters([self.actor, self.critic], extra=1)
        self.learning_rate = torch.tensor(config.learning_rate, device=device)
        self.optimiser = torch.optim.Adam([self.flat.value], lr=self.learning_rate, fused=True)
        self.norms = {g: RunningNorm(sizes[g], device, config.obs_clip) for g in sorted({"policy", self.critic_group})}
        if self.shape.widths is not None:
            self.norms["policy"] = RunningNorm(
                layout.size, device, config.obs_clip, flags=layout.flags, alike=layout.alike
            )
        self.average = self.flat.value.detach().clone()
        self.updates = 0
        self.shuffle = torch.Generator(device=device).manual_seed(child_seed(seed, "shuffle", group.rank))
        self._by_hand = not compiled and not config.clip_value
        self.losses: Callable[..., Losses] = torch.compile(self._losses, dynamic=False) if compiled else self._losses
        self.act: Callable[[Tensor], Tensor] = torch.compile(self.actor, dynamic=False) if compiled else self.actor
        self._shuffled: dict[str, Tensor] = {}
        self._log_floor = float(torch.tensor(config.std_floor).log())

    @property
    def log_std(self) -> Tensor:
        """Logarithmic standard deviation (A) of the policy."""
        return self.actor.log_std.detach()

    def update(self, rollout: Rollout, env_steps: int) -> dict[str, Tensor]:
        """All epochs over one rollout; returns scalars on the device. `env_steps` places it in the schedule."""
        config = self.config
        ceiling = annealed(config.learning_rate_max, env_steps, config.anneal_steps)
        data = self._batch(rollout)
        rows = rollout.reward.numel()
        part = rows // config.minibatches
        old_log_std = self.log_std.clone()
        last: tuple[Losses, Tensor, Tensor] | None = None
        for _ in range(config.epochs):
            order = torch.randperm(rows, generator=self.shuffle, device=rollout.reward.device)
            for name, values in data.items():
                torch.index_select(values, 0, order, out=self._shuffled[name])
            for i in range(config.minibatches):
                batch = {name: values[i * part : (i + 1) * part] for name, values in self._shuffled.items()}
                last = self._minibatch(batch, old_log_std, ceiling)
        self._average()
        for name, norm in self.norms.items():
            norm.update(rollout.obs[name][:-1], self.group.sum_, rollout.alive)
        if last is None:
            return {}
        losses, actor_norm, critic_norm = last
        return {
            "surrogate_loss": losses.surrogate,
            "value_loss": losses.value,
            "kl": losses.kl,
            "clipped": losses.clipped,
            "actor_grad_norm": actor_norm,
            "critic_grad_norm": critic_norm,
            "learning_rate": self.learning_rate,
            "std": self.log_std.exp().mean(),
        }

    def averaged_actor(self) -> Actor:
        """A copy of the policy with the averaged parameters and torch's own product, for evaluation and export."""
        copy = Actor(build(self.shape), self.shape.actions, self.config.init_std).to(self.average.device)
        begin, end = self.flat.bounds[0]
        FlatParameters([copy]).value.data.copy_(self.average[begin:end])
        return copy

    def state(self) -> dict[str, Any]:
        """Everything that evolves, as tensors and plain values."""
        moments = self.optimiser.state.get(self.flat.value, {})
        return {
            "parameters": self.flat.value.detach().clone(),
            "average": self.average.clone(),
            "adam": {k: v.clone() for k, v in moments.items()},
            "learning_rate": self.learning_rate.clone(),
            "norms": {g: n.state() for g, n in self.norms.items()},
            "shuffle": self.shuffle.get_state(),
            "updates": self.updates,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        self.flat.value.data.copy_(state["parameters"])
        self.average.copy_(state["average"])
        self.optimiser.state[self.flat.value] = {k: v.clone() for k, v in state["adam"].items()}
        self.learning_rate.copy_(state["learning_rate"])
        for g, norm in self.norms.items():
            norm.load(state["norms"][g])
        self.shuffle.set_state(state["shuffle"].cpu())
        self.updates = state["updates"]

    def begin_from(self, state: dict[str, Any]) -> None:
        """Takes networks and normalisers of another learner's state; everything else begins anew.

        Raises BadInput where its networks have other shapes.
        """
        sizes = {g: len(n["mean"]) for g, n in state["norms"].items()}
        mine = {g: len(n.mean) for g, n in self.norms.items()}
        if sizes != mine or state["parameters"].shape != self.flat.value.shape:
            theirs = f"observations {sizes}, {state['parameters'].numel()} parameters"
            raise BadInput(f"networks of {theirs} do not fit {mine}, {self.flat.value.numel()}")
        self.flat.value.data.copy_(state["parameters"])
        self.average.copy_(state["average"])
        for g, norm in self.norms.items():
            norm.load(state["norms"][g])

    def _batch(self, rollout: Rollout) -> dict[str, Tensor]:
        """The rollout as rows, (T N, ...), advantages standardised over all processes' rows that count."""
        flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
        advantage = flat(rollout.advantage)
        weight = None if rollout.alive is None else flat(rollout.alive).to(advantage.dtype)
        if weight is None:
            n = float(advantage.numel() * self.group.size)
        else:
            n = self.group.sum_(weight.sum()).clamp(min=1.0)
            advantage = advantage * weight
        mean = self.group.sum_(advantage.sum()) / n
        away = advantage - mean if weight is None else (advantage - mean) * weight
        std = torch.sqrt(self.group.sum_((away * away).sum()) / n)
        data = {
            "action": flat(rollout.action),
            "old_mean": flat(rollout.mean),
            "old_log_prob": flat(rollout.log_prob),
            "advantage": away / (std + 1e-8),
            "returns": flat(rollout.returns),
            "old_value": flat(rollout.value[:-1]),
        }
        if weight is not None:
            data["weight"] = weight
        data |= {f"obs_{g}": flat(rollout.seen[g][:-1]) for g in self.norms}
        if self._shuffled.keys() != data.keys():
            self._shuffled = {k: torch.empty_like(v) for k, v in data.items()}
        return data

    def _losses(self, batch: dict[str, Tensor], old_log_std: Tensor) -> Losses:
        c = self.config
        return ppo_losses(
            self.actor(batch["obs_policy"]),
            self.actor.log_std,
            self.critic(batch[f"obs_{self.critic_group}"]).squeeze(-1),
            action=batch["action"],
            old_mean=batch["old_mean"],
            old_log_std=old_log_std,
            old_log_prob=batch["old_log_prob"],
            advantage=batch["advantage"],
            returns=batch["returns"],
            old_value=batch["old_value"],
            clip=c.clip,
            clip_value=c.clip_value,
            value_coef=c.value_coef,
            entropy_coef=c.entropy_coef,
            weight=batch.get("weight"),
        )

    @torch.no_grad()
    def _gradients_by_hand(self, batch: dict[str, Tensor], old_log_std: Tensor) -> Losses:
        """As `_losses` and its backward pass, without an automatic graph around the networks."""
        c = self.config
        mean, pull_actor = pulled(self.actor.net, batch["obs_policy"])
        value, pull_critic = pulled(self.critic, batch[f"obs_{self.critic_group}"])
        losses, by = ppo_gradients(
            mean,
            self.actor.log_std.detach(),
            value.squeeze(-1),
            action=batch["action"],
            old_mean=batch["old_mean"],
            old_log_std=old_log_std,
            old_log_prob=batch["old_log_prob"],
            advantage=batch["advantage"],
            returns=batch["returns"],
            clip=c.clip,
            value_coef=c.value_coef,
            entropy_coef=c.entropy_coef,
            weight=batch.get("weight"),
        )
        pull_critic(by.value.unsqueeze(-1))
        pull_actor(by.mean)
        if self.actor.log_std.grad is not None:
            self.actor.log_std.grad.copy_(by.log_std)
        return losses

    def _minibatch(
        self, batch: dict[str, Tensor], old_log_std: Tensor, ceiling: float
    ) -> tuple[Losses, Tensor, Tensor]:
        """One gradient step; the divergence travels between processes in the gradient's last element."""
        flat, config = self.flat, self.config
        flat.grad_and_extra.zero_()
        if self._by_hand:
            losses = self._gradients_by_hand(batch, old_log_std)
        else:
            losses = self.losses(batch, old_log_std)
            losses.total.backward()
        flat.extra[0] = losses.kl
        self.group.mean_(flat.grad_and_extra)
        norms = [flat.clip_grad_(part, config.max_grad_norm) for part in range(2)]
        if config.target_kl > 0.0:
            adapt_learning_rate_(
                self.learning_rate, flat.extra[0], target=config.target_kl, low=config.learning_rate_min, high=ceiling
            )
        self.optimiser.step()
        with torch.no_grad():
            self.actor.log_std.clamp_(min=self._log_floor)
        return losses, norms[0], norms[1]

    def _average(self) -> None:
        self.updates += 1
        decay = min(self.config.ema, self.updates / (self.updates + 9.0))  # young averages forget faster
        self.average.lerp_(self.flat.value.detach(), 1.0 - decay)
