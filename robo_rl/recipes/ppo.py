"""Proximal policy optimisation: collect a rollout, estimate advantages, learn from it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hardware.errors import BadInput
from robo_rl import fast_linear
from robo_rl.config import PPOConfig, RunConfig, check_network, check_numbers, check_policy
from robo_rl.distributed import Group
from robo_rl.layout import layout_of
from robo_rl.learner import Learner
from robo_rl.norm import RunningNorm
from robo_rl.rollout import Episodes, Rollout, allocate, collect_, count_episodes, evaluate_
from robo_rl.seeds import child_seed

CONFIG = PPOConfig()
DATA: Literal["none", "optional", "required"] = "none"
PROCESSES = True


@dataclass
class OnPolicy:
    """Everything that evolves while PPO trains; see robo_rl.recipe.Trainee."""

    env: Any
    learner: Learner
    rollout: Rollout
    episodes: Episodes
    noise: torch.Generator
    group: Group
    env_steps: int = 0

    @property
    def updates(self) -> int:
        """Rollouts learnt from."""
        return self.learner.updates

    def iterate(self) -> dict[str, float]:
        """One rollout and the update it makes; numbers leave the device once, at the end."""
        rollout, learner = self.rollout, self.learner
        algo, group_name = learner.config, learner.critic_group
        with torch.no_grad():
            for values in rollout.obs.values():
                values[0] = values[-1]
            collect_(rollout, self.env, learner, self.noise)
            evaluate_(rollout, learner.critic, learner.norms[group_name], group_name, algo.gamma, algo.gae_lambda)
            counts = self.group.sum_(count_episodes(rollout, self.episodes))
        scalars = learner.update(rollout, self.env_steps) | rollout.metrics
        self.env_steps += rollout.reward.numel() * self.group.size
        count, total, length, died, *rest = torch.cat([counts, torch.stack(list(scalars.values()))]).tolist()
        values = {
            "update": float(learner.updates),
            "episodes": count,
            "return_mean": total / count if count else math.nan,
            "length_mean": length / count if count else math.nan,
            "terminated_share": died / count if count else math.nan,
        }
        return values | dict(zip(scalars, rest, strict=True))

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "env": dict(self.env.get_state()),
            "learner": self.learner.state(),
            "obs": {name: values[-1].clone() for name, values in self.rollout.obs.items()},
            "episode_total": self.episodes.total.clone(),
            "episode_length": self.episodes.length.clone(),
            "noise": self.noise.get_state(),
            "env_steps": self.env_steps,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back."""
        self.env.set_state(None, state["env"])
        self.learner.load(state["learner"])
        for name, values in self.rollout.obs.items():
            values[-1] = state["obs"][name]
        self.episodes.total.copy_(state["episode_total"])
        self.episodes.length.copy_(state["episode_length"])
        self.noise.set_state(state["noise"])
        self.env_steps = state["env_steps"]

    def begin_from(self, state: dict[str, Any]) -> None:
        """Takes the networks of another run's checkpoint."""
        self.learner.begin_from(state["learner"])

    def policy(self) -> tuple[nn.Module, RunningNorm]:
        """The averaged actor's mean, and its normaliser."""
        return self.learner.averaged_actor().net, self.learner.norms["policy"]


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> OnPolicy:  # noqa: B008
    """Networks, buffers and the first observations; `env` holds this process's share of the environments."""
    device = torch.device(config.device)
    obs = env.reset(child_seed(config.seed, "env", group.rank))
    sizes = {name: values.shape[-1] for name, values in obs.items()}
    if "policy" not in sizes:
        raise BadInput(f"scene {config.scene} has no observation group 'policy'; groups: {', '.join(sizes)}")
    _, linear, _ = fast_linear.choose(config.linear, 1, config.algo.hidden, config.device)
    actions = len(env.spec.action)
    learner = Learner(
        config.algo,
        sizes,
        actions,
        seed=config.seed,
        device=device,
        linear=linear,
        compiled=config.compile,
        group=group,
        layout=None if config.algo.network == "mlp" else layout_of(env.spec.observation),
    )
    rollout = allocate(
        sizes, set(learner.norms), learner.critic_group, config.algo.rollout_steps, env.num_envs, actions, device
    )
    if hasattr(env, "stagger"):
        env.stagger()
    for name, values in rollout.obs.items():
        values[-1] = obs[name]
    noise = torch.Generator(device=device).manual_seed(child_seed(config.seed, "policy", group.rank))
    counters = Episodes(torch.zeros(env.num_envs, device=device), torch.zeros(env.num_envs, device=device))
    return OnPolicy(env, learner, rollout, counters, noise, group)


def resolve(config: RunConfig) -> tuple[str, float]:
    """Which matrix product this machine should use for such minibatches, and its measured gain over torch's."""
    rows = config.num_envs // config.processes * config.algo.rollout_steps // config.algo.minibatches
    name, _, gain = fast_linear.choose(config.linear, rows, config.algo.hidden, config.device)
    return name, gain


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: PPOConfig = config.algo
    for name in ("rollout_steps", "epochs", "minibatches"):
        if getattr(a, name) < 1:
            raise BadInput(f"algo.{name} = {getattr(a, name)}; expected at least 1")
    check_numbers(a)
    check_network(a.hidden, a.activation)
    check_policy(a.network, a.token_width, a.heads, a.parameters)
    if not a.gamma <= 1.0 or not a.gae_lambda <= 1.0 or not a.ema < 1.0:
        raise BadInput("algo.gamma and algo.gae_lambda lie in 0..1, algo.ema in 0..1 without 1")
    if a.std_floor == 0.0 or a.init_std < a.std_floor:
        raise BadInput(
            f"algo.init_std = {a.init_std} lies below algo.std_floor = {a.std_floor}, or that is not positive"
        )
    rows = config.num_envs // config.processes * a.rollout_steps
    if rows % a.minibatches:
        raise BadInput(f"{rows} rows per rollout are not divisible by algo.minibatches = {a.minibatches}")
