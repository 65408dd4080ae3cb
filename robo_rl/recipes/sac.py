"""Soft actor-critic: act at random first, keep everything, learn from what was kept; recorded data may be mixed in."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hardware.errors import BadInput
from robo_rl import fast_linear
from robo_rl.algorithms.sac import SacConfig, SacLearner
from robo_rl.config import ACTIVATIONS, RunConfig
from robo_rl.datasets import transitions
from robo_rl.distributed import Group
from robo_rl.norm import RunningNorm
from robo_rl.replay_buffer import ReplayBuffer, Transitions, both, sample
from robo_rl.seeds import child_seed

CONFIG = SacConfig()
DATA: Literal["none", "optional", "required"] = "optional"


class OffPolicy:
    """Everything that evolves while SAC trains; see robo_rl.recipe.Trainee."""

    def __init__(self, env: Any, learner: SacLearner, obs: Tensor, *, seed: int, prior: Transitions | None) -> None:
        config = learner.config
        self.env, self.learner, self.obs, self.prior = env, learner, obs, prior
        self.buffer = ReplayBuffer(config.buffer, obs.shape[1], learner.actions, obs.device)
        self.norm = RunningNorm(obs.shape[1], obs.device, config.obs_clip)
        if prior is not None:
            self.norm.update(prior.obs)
        self.draws = torch.Generator(device=obs.device).manual_seed(child_seed(seed, "policy"))
        self.total = torch.zeros(env.num_envs, device=obs.device)
        """(N) return of each environment's present episode."""
        self.length = torch.zeros(env.num_envs, device=obs.device)
        self.env_steps, self.updates = 0, 0

    def iterate(self) -> dict[str, float]:
        """A few steps of every environment, and the gradient steps that they pay for."""
        config = self.learner.config
        counts = torch.zeros(3, device=self.obs.device)
        steps = max(config.rollout_steps, -(-config.warmup_steps // self.env.num_envs) if self.env_steps == 0 else 0)
        with torch.no_grad():
            for _ in range(steps):
                counts += self._step()
        scalars: dict[str, Tensor] = {}
        owed = math.floor(max(0, self.env_steps - config.warmup_steps) * config.utd)
        for _ in range(owed - self.learner.updates):
            scalars |= self.learner.update(self._batch())
        self.updates += 1
        names = ("critic_loss", "actor_loss", "temperature", "entropy")
        rest = torch.stack([scalars.get(name, counts.new_tensor(math.nan)) for name in names])
        count, total, length, *rest = torch.cat([counts, rest]).tolist()
        values = {"update": float(self.updates), "gradient_steps": float(self.learner.updates), "episodes": count}
        values |= {"return_mean": total / count if count else math.nan}
        values |= {"length_mean": length / count if count else math.nan}
        # Losses are 0 before the first gradient step: nothing has been learnt, and nothing has gone wrong.
        return values | {name: 0.0 if math.isnan(v) and not scalars else v for name, v in zip(names, rest, strict=True)}

    def _step(self) -> Tensor:
        """One step of all environments into the buffer; returns (episodes ended, their returns, their lengths)."""
        if self.env_steps < self.learner.config.warmup_steps:
            shape = (self.env.num_envs, self.learner.actions)
            action = torch.rand(shape, generator=self.draws, device=self.obs.device).mul_(2.0).sub_(1.0)
        else:
            action = self.learner.sample(self.norm.apply(self.obs)).action
        step = self.env.step(action)
        terminated = step.terminated.to(step.reward)
        self.buffer.add(Transitions(self.obs, action, step.reward, step.final_obs["policy"], terminated))
        self.norm.update(self.obs)
        self.obs = step.obs["policy"].clone()
        self.env_steps += self.env.num_envs
        over = (step.terminated | step.truncated).to(step.reward)
        self.total += step.reward
        self.length += 1.0
        counts = torch.stack([over.sum(), (self.total * over).sum(), (self.length * over).sum()])
        self.total *= 1.0 - over
        self.length *= 1.0 - over
        return counts

    def _batch(self) -> Transitions:
        """Normalised transitions; half of them recorded ones where there are any."""
        count, prior = self.learner.config.batch, self.prior
        fresh = self.buffer.sample(count if prior is None else count // 2, self.draws)
        if prior is not None:
            fresh = both(fresh, sample(prior, prior.obs.shape[0], count - count // 2, self.draws))
        return fresh._replace(obs=self.norm.apply(fresh.obs), next_obs=self.norm.apply(fresh.next_obs))

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, the buffer included."""
        return {
            "env": dict(self.env.get_state()),
            "learner": self.learner.state(),
            "buffer": self.buffer.state(),
            "norm": self.norm.state(),
            "obs": self.obs.clone(),
            "total": self.total.clone(),
            "length": self.length.clone(),
            "draws": self.draws.get_state(),
            "env_steps": self.env_steps,
            "updates": self.updates,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        self.env.set_state(None, state["env"])
        self.learner.load(state["learner"])
        self.buffer.load(state["buffer"])
        self.norm.load(state["norm"])
        for name in ("obs", "total", "length"):
            getattr(self, name).copy_(state[name])
        self.draws.set_state(state["draws"].cpu())
        self.env_steps, self.updates = state["env_steps"], state["updates"]

    def policy(self) -> tuple[nn.Module, RunningNorm]:
        """The squashed mean, and the normaliser."""
        return self.learner.policy(), self.norm


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> OffPolicy:  # noqa: B008
    """Networks, an empty buffer and the first observations; recorded transitions where a folder is given."""
    obs = env.reset(child_seed(config.seed, "env", group.rank))["policy"].clone()
    if hasattr(env, "stagger"):
        env.stagger()
    _, linear, _ = fast_linear.choose(config.linear, 1, config.algo.hidden, config.device)
    actions = len(env.spec.action)
    learner = SacLearner(config.algo, obs.shape[1], actions, seed=config.seed, device=config.device, linear=linear)
    prior = None if data is None else recorded(data, env.spec, obs.device)
    return OffPolicy(env, learner, obs, seed=config.seed, prior=prior)


def recorded(folder: Path, spec: Any, device: torch.device) -> Transitions:
    """The transitions of a data set; raises BadInput where they belong to another scene or other fields."""
    data = transitions.read(folder)
    transitions.check_fits(data.card, spec, str(folder))
    tensor = lambda values: torch.as_tensor(values, dtype=torch.float32, device=device)  # noqa: E731
    return Transitions(*(tensor(getattr(data, name)) for name in Transitions._fields))


def resolve(config: RunConfig) -> tuple[str, float]:
    """Which matrix product this machine should use for such batches, and its measured gain over torch's."""
    name, _, gain = fast_linear.choose(config.linear, config.algo.batch, config.algo.hidden, config.device)
    return name, gain


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: SacConfig = config.algo
    for name in ("rollout_steps", "batch", "critics", "target_critics", "actor_every"):
        if getattr(a, name) < 1:
            raise BadInput(f"algo.{name} = {getattr(a, name)}; expected at least 1")
    for field in dataclasses.fields(a):
        value = getattr(a, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"algo.{field.name} = {value}; expected a finite number")
    if not 0.0 <= a.gamma <= 1.0 or not 0.0 < a.tau <= 1.0:
        raise BadInput(f"algo.gamma = {a.gamma}, algo.tau = {a.tau}; expected 0..1, and tau above 0")
    if a.learning_rate <= 0.0 or a.init_temperature <= 0.0 or a.utd < 0.0:
        raise BadInput("algo.learning_rate and algo.init_temperature must be positive, algo.utd not negative")
    if a.target_critics > a.critics:
        raise BadInput(f"algo.target_critics = {a.target_critics} of algo.critics = {a.critics}; expected at most all")
    if a.buffer < config.num_envs:
        raise BadInput(f"algo.buffer = {a.buffer} does not hold one step of {config.num_envs} environments")
    if min(a.hidden, default=1) < 1:
        raise BadInput(f"algo.hidden = {a.hidden}; expected widths of at least 1")
    if a.activation not in ACTIVATIONS:
        raise BadInput(f"algo.activation = '{a.activation}'; expected one of {', '.join(ACTIVATIONS)}")
