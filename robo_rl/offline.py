"""Learning from recorded transitions: minibatches of a data set, gradient steps, exact resume."""

import math
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from robo_rl.algorithms.ppo import annealed
from robo_rl.config import RunConfig
from robo_rl.datasets import DataSet, read
from robo_rl.datasets.transitions import check_fits
from robo_rl.norm import RunningNorm
from robo_rl.seeds import child_seed


class Batch(NamedTuple):
    """B transitions as float tensors, observations normalised."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    intervention: Tensor
    weight: Tensor


class Learner(Protocol):
    """What learns from batches."""

    def step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """One gradient step at `rate` times the learning rate; scalars on the device, the same names every time."""
        ...

    def net(self) -> nn.Module:
        """What is exported: normalised observation (N, D) -> action (N, A)."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that evolves."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        ...


class Offline:
    """Gradient steps on a data set; see robo_rl.recipe.Trainee. Progress is counted in gradient steps."""

    def __init__(
        self, learner: Learner, table: Batch, norm: RunningNorm, *, batch: int, every: int, anneal_steps: int, seed: int
    ) -> None:
        """`table` holds all rows; `every` gradient steps make one update."""
        self.learner, self.table, self.norm = learner, table, norm
        self.batch, self.every, self.anneal_steps = batch, every, anneal_steps
        self.draws = torch.Generator(device=table.reward.device).manual_seed(child_seed(seed, "shuffle"))
        self.env_steps = self.updates = 0

    def iterate(self) -> dict[str, float]:
        """`every` gradient steps on rows drawn with replacement; means over them."""
        sums: dict[str, Tensor] = {}
        rows, device = len(self.table.reward), self.table.reward.device
        picks = torch.randint(0, rows, (self.every, self.batch), generator=self.draws, device=device)
        for pick in picks:
            batch = Batch(*(values.index_select(0, pick) for values in self.table))
            scalars = self.learner.step(batch, annealed(1.0, self.env_steps, self.anneal_steps))
            sums = {name: value + sums.get(name, 0.0) for name, value in scalars.items()}
            self.env_steps += 1
        self.updates += 1
        means = (torch.stack(list(sums.values())) / self.every).tolist()
        return {"update": float(self.updates), "return_mean": math.nan} | dict(zip(sums, means, strict=True))

    def state(self) -> dict[str, Any]:
        """Everything needed to go on; the data are read anew."""
        return {
            "learner": self.learner.state(),
            "norm": self.norm.state(),
            "draws": self.draws.get_state(),
            "env_steps": self.env_steps,
            "updates": self.updates,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back."""
        self.learner.load(state["learner"])
        self.norm.load(state["norm"])
        self.draws.set_state(state["draws"].cpu())
        self.env_steps, self.updates = state["env_steps"], state["updates"]

    def policy(self) -> tuple[nn.Module, RunningNorm]:
        """What is exported."""
        return self.learner.net(), self.norm


def open_data(config: RunConfig, env: Any, data: Path | None) -> DataSet:
    """The run's data set; raises BadInput where it is broken or belongs to another scene, mode or fields."""
    folder = Path(config.data) if data is None else data
    rows = read(folder)
    check_fits(rows.card, env.spec, str(folder))
    return rows


def normalised(data: DataSet, clip: float, device: torch.device | str = "cpu") -> tuple[Batch, RunningNorm]:
    """All rows as tensors, observations normalised by the mean and deviation of the data's own."""
    tensor = lambda values: torch.as_tensor(values, dtype=torch.float32, device=device)  # noqa: E731
    obs = tensor(data.obs)
    norm = RunningNorm(obs.shape[1], device, clip)
    norm.update(obs)
    table = Batch(
        norm.apply(obs),
        tensor(data.action),
        tensor(data.reward),
        norm.apply(tensor(data.next_obs)),
        tensor(data.terminated),
        tensor(data.intervention),
        tensor(data.weight),
    )
    return table, norm


def newest_share(ema: float, steps: int) -> float:
    """Share of the newest parameters in their average after `steps`; early averages forget faster than `ema` says, or
    they would remember the initial network."""
    return 1.0 - min(ema, (1.0 + steps) / (10.0 + steps))


def adam_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The moments of an optimiser over one flat parameter."""
    return {k: v.clone() for k, v in next(iter(optimiser.state.values()), {}).items()}


def load_adam(optimiser: torch.optim.Optimizer, moments: dict[str, Any]) -> None:
    """Puts them back."""
    if moments:
        optimiser.state[optimiser.param_groups[0]["params"][0]] = {k: v.clone() for k, v in moments.items()}
