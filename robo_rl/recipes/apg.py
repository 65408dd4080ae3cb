"""Analytic policy gradient: unroll a window of the differentiable simulator, ascend its return, go on from its end."""

import copy
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from controllers.interface import Interface
from hardware.errors import BadInput
from robo_rl import fast_linear
from robo_rl.algorithms.apg import ApgConfig, TanhPolicy, TrackingPolicy, bounded, clip_gradient_, learning_rate
from robo_rl.config import ACTIVATIONS, RunConfig
from robo_rl.distributed import Group
from robo_rl.nets import MLP, FlatParameters
from robo_rl.norm import RunningNorm
from robo_rl.seeds import child_seed
from sim.env import Verdict
from sim.spec import Step

CONFIG = ApgConfig()
DATA: Literal["none", "optional", "required"] = "none"


class Unrolled:
    """Everything that evolves while APG trains; see robo_rl.recipe.Trainee."""

    def __init__(
        self, config: ApgConfig, env: Any, obs: Tensor, actor: TanhPolicy | TrackingPolicy, *, compiled: bool = False
    ) -> None:
        self.config, self.env, self.obs, self.actor = config, env, obs, actor
        self.flat = FlatParameters([actor])
        self.average = self.flat.value.detach().clone()
        self.optimiser = torch.optim.Adam([self.flat.value], lr=config.learning_rate, fused=True)
        self.norm = RunningNorm(obs.shape[1], obs.device, config.obs_clip)
        self.total = torch.zeros(env.num_envs, device=obs.device)
        """(N) return of each environment's present episode."""
        self.weights = torch.ones_like(self.total)
        """(N) weight of each environment's return."""
        self._fused = torch.compile(self._act, dynamic=False)
        self._step = self._fused_step if compiled else self._plain_step
        if config.max_adjoint > 0.0:
            env.boundary = functools.partial(bounded, config.max_adjoint / env.num_envs)
        self.env_steps, self.updates = 0, 0

    def iterate(self) -> dict[str, float]:
        """One window of every environment, and the gradient step that its return asks for."""
        config, env = self.config, self.env
        seen: list[Tensor] = []
        counts = torch.zeros(2, device=self.obs.device)
        loss = torch.zeros((), device=self.obs.device)
        for _ in range(config.window):
            seen.append(self.obs.detach())
            step = self._step(self.obs)
            self.obs = step.obs["policy"]
            loss = loss - (self.weights * step.reward).mean()
            counts += self._count(step)
        if not loss.requires_grad:
            raise BadInput(f"the reward of scene {env.spec.id} has no gradient; train with --algo ppo or sac")
        self.flat.grad.zero_()
        loss.backward()
        norm = clip_gradient_(self.flat.grad, config.max_grad_norm)
        rate = learning_rate(config, self.env_steps)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        env.detach()
        self.obs = self.obs.detach()
        self.env_steps += env.num_envs * config.window
        self.updates += 1
        self._follow(seen)
        count, total, lost, size = torch.cat([counts, torch.stack([loss.detach(), norm])]).tolist()
        return {
            "update": float(self.updates),
            "episodes": count,
            "return_mean": total / count if count else math.nan,
            "window_loss": lost,
            "grad_norm": size,
            "learning_rate": rate,
        }

    def _act(self, obs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """One step of policy and simulator without branches: rewards, what ended, and the observation groups."""
        verdict, final = self.env.move(self.actor(self.norm.apply(obs)))
        return verdict.reward, verdict.terminated, {"policy": final["policy"]}

    def _fused_step(self, obs: Tensor) -> Step:
        reward, terminated, final = self._fused(obs)
        return self.env.renew(Verdict(reward, torch.zeros_like(reward), terminated, {}), final)

    def _plain_step(self, obs: Tensor) -> Step:
        return self.env.step(self.actor(self.norm.apply(obs)))

    def _count(self, step: Any) -> Tensor:
        """(episodes that ended, sum of their returns)."""
        over = (step.terminated | step.truncated).to(self.total)
        self.total = self.total + step.reward.detach()
        ended = torch.stack([over.sum(), (over * self.total).sum()])
        self.total = self.total * (1.0 - over)
        return ended

    def _follow(self, seen: list[Tensor]) -> None:
        """The averaged policy and the normaliser follow."""
        decay = min(self.config.ema, self.updates / (self.updates + 9.0))  # young averages forget faster
        self.average.lerp_(self.flat.value.detach(), 1.0 - decay)
        if self.updates <= self.config.norm_updates:
            self.norm.update(torch.cat(seen))
            self._use_norm()

    def _use_norm(self) -> None:
        if isinstance(self.actor, TrackingPolicy):
            self.actor.use_norm(self.norm.scale, self.norm.shift)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        moments = self.optimiser.state.get(self.flat.value, {})
        return {
            "env": dict(self.env.get_state()),
            "parameters": self.flat.value.detach().clone(),
            "average": self.average.clone(),
            "adam": {k: v.clone() for k, v in moments.items()},
            "norm": self.norm.state(),
            "obs": self.obs.clone(),
            "total": self.total.clone(),
            "env_steps": self.env_steps,
            "updates": self.updates,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        self.env.set_state(None, state["env"])
        self.flat.value.data.copy_(state["parameters"])
        self.average.copy_(state["average"])
        self.optimiser.state[self.flat.value] = {k: v.clone() for k, v in state["adam"].items()}
        self.norm.load(state["norm"])
        self._use_norm()
        self.obs, self.total = state["obs"].to(self.obs, copy=True), state["total"].to(self.total, copy=True)
        self.env_steps, self.updates = state["env_steps"], state["updates"]

    def policy(self) -> tuple[nn.Module, RunningNorm]:
        """The averaged policy, its head included, and the normaliser."""
        averaged = copy.deepcopy(self.actor)
        averaged.net.linear = torch.nn.functional.linear
        FlatParameters([averaged]).value.data.copy_(self.average)
        return averaged, self.norm


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> Unrolled:  # noqa: B008
    """Network and first observations; raises BadInput for a scene that is not differentiable."""
    algo: ApgConfig = config.algo
    if not getattr(env, "differentiable", False):
        raise BadInput(
            f"algorithm apg needs a simulator with gradients, which scene {config.scene} has not; train with ppo or sac"
        )
    obs = env.reset(child_seed(config.seed, "env", group.rank))["policy"].clone()
    if hasattr(env, "stagger"):
        env.stagger()
    _, linear, _ = fast_linear.choose(config.linear, 1, algo.hidden, config.device)
    weights = torch.Generator().manual_seed(child_seed(config.seed, "weights"))
    sizes = (obs.shape[1], *algo.hidden, len(env.spec.action))
    net = MLP(sizes, algo.activation, last_gain=0.01, linear=linear, generator=weights)
    actor = policy_over(net, env.interface if hasattr(env, "interface") else None, env.spec.rate_hz, algo)
    return Unrolled(algo, env, obs, actor.to(config.device), compiled=config.compile)


def policy_over(net: MLP, interface: Interface | None, rate_hz: float, algo: ApgConfig) -> TanhPolicy | TrackingPolicy:
    """The network with its head: tracking where the mode limits rates and the policy sees the last command."""
    if not algo.track or interface is None:
        return TanhPolicy(net)
    rate = [
        limit / (rate_hz * abs(f.scale)) for limit, f in zip(interface.mode.limits.rate, interface.action, strict=True)
    ]
    first = 0
    for f in interface.observation:
        if f.group != "policy":
            continue
        if f.source == "command" and f.scale == 1.0 and f.offset == 0.0 and all(map(math.isfinite, rate)):
            return TrackingPolicy(net, range(first, first + f.size), rate, algo.tracking_gain)
        first += f.size * f.history
    return TanhPolicy(net)


def resolve(config: RunConfig) -> tuple[str, float]:
    """Which matrix product this machine should use for such batches, and its measured gain over torch's."""
    name, _, gain = fast_linear.choose(config.linear, config.num_envs, config.algo.hidden, config.device)
    return name, gain


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: ApgConfig = config.algo
    if a.window < 1:
        raise BadInput(f"algo.window = {a.window}; expected at least 1")
    for field in dataclasses.fields(a):
        value = getattr(a, field.name)
        if isinstance(value, float) and not 0.0 <= value < math.inf:  # NaN fails too
            raise BadInput(f"algo.{field.name} = {value}; expected a finite number, at least 0")
    if a.learning_rate <= 0.0 or a.learning_rate_end <= 0.0:
        raise BadInput("algo.learning_rate and algo.learning_rate_end must be positive")
    if not a.ema < 1.0:
        raise BadInput(f"algo.ema = {a.ema}; expected 0..1 without 1")
    if min(a.hidden, default=1) < 1:
        raise BadInput(f"algo.hidden = {a.hidden}; expected widths of at least 1")
    if a.activation not in ACTIVATIONS:
        raise BadInput(f"algo.activation = '{a.activation}'; expected one of {', '.join(ACTIVATIONS)}")
