"""Model-based transfer learning: a few policies, each trained in one context, which together serve all contexts."""

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from hardware.errors import BadInput
from robo_rl import recipe
from robo_rl.algorithms.mbtl import choose
from robo_rl.config import RunConfig
from robo_rl.contexts import Act, Make, grid, present, returns_in, set_contexts, task_of
from robo_rl.distributed import Group
from robo_rl.norm import RunningNorm
from robo_rl.seeds import child_seed


@dataclass(frozen=True)
class MbtlConfig:
    """Model-based transfer learning (Cho et al. 2024) over a grid of contexts, with any algorithm inside."""

    inner: str = "apg"
    """Algorithm that trains each policy, with the scene's settings for it."""
    params: tuple[str, ...] = ()
    """Parameters of the scene that span the contexts."""
    points: int = 5
    """Values of each parameter, equally spaced over its range."""
    source_steps: int = 1_000_000
    """Environment steps of each policy; the budget of the run decides how many there are."""
    strategy: Literal["mbtl", "random", "multitask"] = "mbtl"
    """How contexts are chosen: by the model, at random, or all at once in one policy trained for the whole budget."""
    length: float = 0.4
    """Length scale of the Gaussian process, in shares of a parameter's range."""
    noise: float = 0.01
    """Variance of the noise of the returns, as a share of their variance."""
    beta: float = 1.0
    """Optimism: the square root of it is the number of standard deviations that count in favour of a context."""
    repeats: int = 8
    """Episodes of each policy in each context."""


CONFIG = MbtlConfig()
DATA: Literal["none", "optional", "required"] = "none"


class Sources:
    """Everything that evolves while one policy after the other is trained; see robo_rl.recipe.Trainee."""

    def __init__(
        self,
        config: MbtlConfig,
        env: Any,
        start: Callable[[int], recipe.Trainee],
        make: Make,
        contexts: Tensor,
        places: Tensor,
        seed: int,
    ) -> None:
        """`start(number)` begins a fresh inner training in the environment's present contexts."""
        self.config, self.env, self.start, self.make, self.seed = config, env, start, make, seed
        self.contexts, self.places = contexts, places.double().numpy()
        self.trained: list[int] = []
        """Indices of the contexts trained in, the present one last."""
        self.transfer: list[list[float]] = []
        """What each finished policy earns in every context."""
        self.finished: list[dict[str, Any]] = []
        """Parameters and normaliser of each finished policy."""
        self.promised, self.before, self.updates = math.nan, 0, 0
        self.inner: recipe.Trainee | None = None

    @property
    def env_steps(self) -> int:
        """Environment steps of all policies."""
        return self.before + (self.inner.env_steps if self.inner else 0)

    def iterate(self) -> dict[str, float]:
        """One update of the present policy; a finished one is tried everywhere before the next context is chosen."""
        if self.inner is None:
            index, self.promised = self._next()
            self.trained.append(index)
        inner = self.inner or self._begin()
        values = inner.iterate()
        if self.config.strategy != "multitask" and inner.env_steps >= self.config.source_steps:
            self.keep(inner)
            self.before, self.inner = self.env_steps, None
        self.updates += 1
        mine = {
            "source": float(len(self.trained)),
            "context": float(self.trained[-1]),
            "promised_gain": self.promised,
            "contexts_mean": float(np.max(self.transfer, 0).mean()) if self.transfer else math.nan,
        }
        return values | mine | {"update": float(self.updates)}

    def _next(self) -> tuple[int, float]:
        if self.config.strategy == "mbtl":
            c = self.config
            transfer = np.array(self.transfer)
            return choose(self.places, self.trained, transfer, length=c.length, noise=c.noise, beta=c.beta)
        rest = [i for i in range(len(self.places)) if i not in self.trained]
        draw = np.random.default_rng(child_seed(self.seed, "contexts", len(self.trained)))
        return int(draw.choice(rest)), math.nan

    def _begin(self) -> recipe.Trainee:
        """A fresh inner training in the context chosen last, or in all of them."""
        everywhere = self.config.strategy == "multitask"
        set_contexts(self.env, self.contexts if everywhere else self.contexts[:, [self.trained[-1]]])
        self.inner = self.start(len(self.trained))
        return self.inner

    def keep(self, inner: recipe.Trainee) -> list[float]:
        """Tries a policy in every context and keeps it with what it earns."""
        net, norm = inner.policy()
        seed = child_seed(self.seed, "transfer")
        earned = returns_in(self.make, acting(net, norm), self.contexts, repeats=self.config.repeats, seed=seed)
        self.transfer.append(earned.tolist())
        self.finished.append({"net": dict(net.state_dict()), "norm": norm.state()})
        return self.transfer[-1]

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "trained": self.trained.copy(),
            "transfer": [row.copy() for row in self.transfer],
            "finished": copy.deepcopy(self.finished),
            "promised": self.promised,
            "before": self.before,
            "updates": self.updates,
            "inner": self.inner.state() if self.inner else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        self.trained, self.transfer = list(state["trained"]), [list(row) for row in state["transfer"]]
        self.finished = copy.deepcopy(state["finished"])
        self.promised, self.before, self.updates = state["promised"], state["before"], state["updates"]
        self.inner = None
        if state["inner"] is not None:
            self._begin().load(state["inner"])

    def policy(self) -> tuple[nn.Module, RunningNorm]:
        """The finished policy that earns most over all contexts; the present one before any is finished."""
        if self.finished:
            return self.source(int(np.array(self.transfer).mean(1).argmax()))
        return (self.inner or self.start(1)).policy()

    def policy_for(self, context: int) -> tuple[nn.Module, RunningNorm]:
        """The finished policy that earns most in one context of the grid."""
        return self.source(int(np.array(self.transfer)[:, context].argmax()))

    def source(self, number: int) -> tuple[nn.Module, RunningNorm]:
        """A finished policy by its number."""
        net, norm = (self.inner or self.start(1)).policy()
        net.load_state_dict(self.finished[number]["net"])
        norm = copy.deepcopy(norm)
        norm.load(self.finished[number]["norm"])
        return net, norm


def acting(net: nn.Module, norm: RunningNorm) -> Act:
    """A policy over observations as observed."""
    return lambda obs: net(norm.apply(obs))


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> Sources:  # noqa: B008
    """Lays the grid of contexts; every policy is trained by the inner algorithm in this environment."""
    from robo_rl.job import default_config
    from sim.registry import make_env

    algo: MbtlConfig = config.algo
    task_of(env)
    make = lambda count, seed: make_env(  # noqa: E731
        config.scene, count, family=config.family, seed=seed, device=config.device, config=config.scene_config
    )
    nominal = present(task_of(make_env(config.scene, 1, family="nominal", config=config.scene_config)))
    contexts, places = grid(env.spec, nominal, algo.params, algo.points)
    own = default_config(config.scene, getattr(config.scene_config, "mode", None), algo.inner).algo

    def start(number: int) -> recipe.Trainee:
        seed = child_seed(config.seed, "source", number)
        inside = dataclasses.replace(config, algorithm=algo.inner, algo=own, seed=seed)
        recipe.check(inside)
        return recipe.recipe(algo.inner).prepare(inside, env, group, None)

    return Sources(algo, env, start, make, contexts.to(config.device), places, config.seed)


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: MbtlConfig = config.algo
    if a.inner in ("mbtl", "iwocs") or recipe.recipe(a.inner).DATA == "required":
        raise BadInput(f"algo.inner = '{a.inner}'; expected an algorithm that trains in an environment, such as apg")
    if not a.params:
        raise BadInput("algo.params is empty; name the parameters of the scene that span the contexts")
    for name in ("source_steps", "repeats"):
        if getattr(a, name) < 1:
            raise BadInput(f"algo.{name} = {getattr(a, name)}; expected at least 1")
    if a.points < 2 or a.points ** len(a.params) > 1024:
        raise BadInput(
            f"algo.points = {a.points} of {len(a.params)} parameters; expected 2 or more, 1,024 contexts at most"
        )
    contexts, policies = a.points ** len(a.params), -(-config.steps // a.source_steps)
    if a.strategy == "multitask" and config.num_envs < contexts:
        raise BadInput(f"{config.num_envs} environments for {contexts} contexts; expected one each")
    if not a.length > 0.0 or not a.noise > 0.0 or not a.beta >= 0.0:
        raise BadInput(
            f"algo.length = {a.length}, algo.noise = {a.noise}, algo.beta = {a.beta}; expected positive numbers"
        )
    if a.strategy != "multitask" and policies > contexts:
        raise BadInput(
            f"steps = {config.steps} pay for {policies} policies of algo.source_steps = {a.source_steps}; "
            f"there are {contexts} contexts to train them in"
        )
