"""Incremental worst-case search: soft actor-critic in ever worse worlds, and one actor on the least of all critics."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hardware.errors import BadInput
from robo_rl.algorithms.iwocs import settled
from robo_rl.algorithms.sac import SacConfig, SacLearner
from robo_rl.config import RunConfig
from robo_rl.contexts import Act, Make, drawn, present, returns_in, set_contexts, task_of
from robo_rl.distributed import Group
from robo_rl.norm import RunningNorm
from robo_rl.recipes import sac
from robo_rl.replay_buffer import sample
from robo_rl.seeds import child_seed


@dataclass(frozen=True)
class IwocsConfig:
    """Incremental worst-case search (Zouitine et al. 2024) over the scene's parameters."""

    round_steps: int = 100_000
    """Environment steps of each specialist."""
    actor_steps: int = 2_000
    """Gradient steps of the joint actor on the least of all critics, after each specialist but the first."""
    memory: int = 20_000
    """States kept of each specialist, on which the joint actor learns."""
    candidates: int = 64
    """Worlds drawn from the family, among which the worst is looked for."""
    repeats: int = 4
    """Episodes in each of them."""
    tolerance: float = 0.0
    """How much worse than the specialists' worst value a world may be before it becomes the next problem, in units of
    the return."""
    sac: SacConfig = SacConfig()  # noqa: RUF009 - frozen
    """Settings of the specialists."""


CONFIG = IwocsConfig()
DATA: Literal["none", "optional", "required"] = "none"


class Specialist:
    """What remains of a finished round."""

    def __init__(self, context: int, learner: SacLearner, norm: RunningNorm, seen: Tensor, worth: float) -> None:
        self.context, self.learner, self.norm, self.seen, self.worth = context, learner, norm, seen, worth
        learner.critics.requires_grad_(False)

    def state(self) -> dict[str, Any]:
        """As tensors and plain values."""
        parts = {"context": self.context, "worth": self.worth, "seen": self.seen}
        return parts | {"learner": self.learner.state(), "norm": self.norm.state()}


class Rounds:
    """Everything that evolves during the search; see robo_rl.recipe.Trainee. It counts as done when settled."""

    def __init__(self, config: RunConfig, env: Any, make: Make, contexts: Tensor) -> None:
        """`contexts` (P, 1 + C): the nominal world, then the candidates."""
        self.config, self.algo, self.env, self.make, self.contexts = config, config.algo, env, make, contexts
        self.present = 0
        """Index of the world that is being solved."""
        self.specialists: list[Specialist] = []
        self.joint: SacLearner | None = None
        self.inner: sac.OffPolicy | None = None
        self.steps, self.updates, self.worst, self.done = 0, 0, math.nan, False

    @property
    def env_steps(self) -> int:
        """Steps of all specialists; the whole budget once the search has settled."""
        return self.config.steps if self.done else self.steps + (self.inner.env_steps if self.inner else 0)

    def iterate(self) -> dict[str, float]:
        """One update of the present specialist; at the end of its time, the joint actor and the next world."""
        inner = self.inner or self._begin()
        values = inner.iterate()
        if inner.env_steps >= self.algo.round_steps:
            self._conclude(inner)
        self.updates += 1
        worths = [s.worth for s in self.specialists]
        mine = {
            "round": float(len(self.specialists)),
            "world": float(self.present),
            "least_worth": min(worths, default=math.nan),
            "worst_return": self.worst,
        }
        return values | mine | {"update": float(self.updates)}

    def _begin(self) -> sac.OffPolicy:
        """A fresh specialist in the present world."""
        set_contexts(self.env, self.contexts[:, [self.present]])
        seed = child_seed(self.config.seed, "specialist", len(self.specialists))
        inside = dataclasses.replace(self.config, algorithm="sac", algo=self.algo.sac, seed=seed)
        self.inner = sac.prepare(inside, self.env)
        return self.inner

    def _conclude(self, inner: sac.OffPolicy) -> None:
        """Keeps the specialist, fits the joint actor, and looks for the world in which that earns least."""
        algo: IwocsConfig = self.algo
        everywhere = self._returns(sac_act(inner.learner, inner.norm), self.contexts)
        draw = torch.Generator().manual_seed(child_seed(self.config.seed, "memory", len(self.specialists)))
        seen = sample(inner.buffer.data, len(inner.buffer), algo.memory, draw).obs
        worth = everywhere[self.present].item()
        self.specialists.append(Specialist(self.present, inner.learner, inner.norm, seen, worth))
        self.steps, self.inner = self.env_steps, None
        if self.joint is None:
            self.joint = self._joint(inner.learner.state())
        else:
            self._fit_joint(self.joint)
            everywhere = self._returns(sac_act(self.joint, self.specialists[0].norm), self.contexts)
        self.present, self.worst = int(everywhere.argmin()), everywhere.min().item()
        known = self.present in [s.context for s in self.specialists]
        # Solving a world again would add nothing: the specialists there are cannot do better together.
        self.done = known or settled(self.worst, [s.worth for s in self.specialists], algo.tolerance)

    def _joint(self, state: dict[str, Any]) -> SacLearner:
        """A learner of the specialists' shape in a given state; only its actor and temperature are used."""
        obs, actions = self.specialists[0].seen.shape[1], self.specialists[0].learner.actions
        joint = SacLearner(self.algo.sac, obs, actions, seed=self.config.seed, device=self.config.device)
        joint.load(state)
        return joint

    def _returns(self, act: Act, contexts: Tensor) -> Tensor:
        seed = child_seed(self.config.seed, "worst")
        return returns_in(self.make, act, contexts, repeats=self.algo.repeats, seed=seed)

    def _fit_joint(self, joint: SacLearner) -> None:
        """Gradient steps of the joint actor towards argmax_a min_j Q_j(s, a), on states of all rounds."""
        seen = torch.cat([s.seen for s in self.specialists])
        norm, batch = self.specialists[0].norm, self.algo.sac.batch
        for _ in range(self.algo.actor_steps):
            obs = seen[torch.randint(0, len(seen), (batch,), generator=joint.noise)]
            joint.improve_actor(norm.apply(obs), lambda _, action, obs=obs: self.least(obs, action))

    def least(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B) the least that any specialist's critics expect of an action for an observation as observed."""
        return torch.stack([s.learner.judge(s.norm.apply(obs), action) for s in self.specialists]).amin(0)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "contexts": self.contexts.clone(),
            "present": self.present,
            "specialists": [s.state() for s in self.specialists],
            "joint": self.joint.state() if self.joint else None,
            "inner": self.inner.state() if self.inner else None,
            "steps": self.steps,
            "updates": self.updates,
            "worst": self.worst,
            "done": self.done,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        self.contexts = state["contexts"].clone()
        self.specialists, self.joint, self.inner = [], None, None
        for part in state["specialists"]:
            self.present = part["context"]
            blank = self._begin()
            blank.learner.load(part["learner"])
            blank.norm.load(part["norm"])
            self.specialists.append(
                Specialist(part["context"], blank.learner, blank.norm, part["seen"].clone(), part["worth"])
            )
        if state["joint"] is not None:
            self.joint = self._joint(state["joint"])
        self.inner, self.present = None, state["present"]
        if state["inner"] is not None:
            self._begin().load(state["inner"])
        self.steps, self.updates, self.worst = state["steps"], state["updates"], state["worst"]
        self.done = state["done"]

    def policy(self) -> tuple[nn.Module, RunningNorm]:
        """The joint actor's squashed mean; the first specialist's before there is one."""
        if self.joint is None:
            return (self.inner or self._begin()).policy()
        return self.joint.policy(), self.specialists[0].norm


def sac_act(learner: SacLearner, norm: RunningNorm) -> Act:
    """The deterministic policy over observations as observed."""
    net = learner.policy()
    return lambda obs: net(norm.apply(obs))


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> Rounds:  # noqa: B008
    """Draws the candidates from the run's family; the first problem is the nominal world."""
    from sim.registry import make_env

    task_of(env)
    make = lambda count, seed: make_env(  # noqa: E731
        config.scene, count, family=config.family, seed=seed, device=config.device, config=config.scene_config
    )
    nominal = present(task_of(make_env(config.scene, 1, family="nominal", config=config.scene_config)))
    candidates = drawn(make, config.algo.candidates, child_seed(config.seed, "candidates"))
    return Rounds(config, env, make, torch.cat([nominal.to(candidates), candidates], 1))


def resolve(config: RunConfig) -> tuple[str, float]:
    """Which matrix product this machine should use for the specialists, and its measured gain over torch's."""
    return sac.resolve(dataclasses.replace(config, algo=config.algo.sac))


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: IwocsConfig = config.algo
    for name in ("round_steps", "memory", "candidates", "repeats"):
        if getattr(a, name) < 1:
            raise BadInput(f"algo.{name} = {getattr(a, name)}; expected at least 1")
    if a.actor_steps < 0 or not 0.0 <= a.tolerance < math.inf:
        raise BadInput(f"algo.actor_steps = {a.actor_steps}, algo.tolerance = {a.tolerance}; expected at least 0")
    sac.check(dataclasses.replace(config, algo=a.sac))
