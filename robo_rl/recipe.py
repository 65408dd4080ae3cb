"""What the training loop and an algorithm agree on, and the algorithms there are: the files of `robo_rl/recipes`.

A recipe is a module there with
- `CONFIG`: its hyper-parameters, a frozen dataclass instance, shown as `--algo.*`;
- `DATA`: whether it learns from recorded transitions (`--data DIR`): "none", "optional" or "required";
- `check(config)`: raises BadInput with one line for settings that cannot work together;
- `prepare(config, env, group, data)`: a `Trainee` made ready for a budget;
and, where it can, `PROCESSES = True` (data-parallel over several processes), `STEPS` (its usual budget) and
`resolve(config)` (the matrix product to use here, and its gain).
"""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hardware.errors import BadInput, NotFoundError
from robo_rl import config as settings
from robo_rl.config import RunConfig

if TYPE_CHECKING:
    from torch import nn

    from robo_rl.distributed import Group
    from robo_rl.norm import RunningNorm


class Trainee(Protocol):
    """What the training loop needs of an algorithm at work."""

    env_steps: int
    """Progress towards the budget: environment steps, or gradient steps where no environment is stepped."""
    updates: int

    def iterate(self) -> dict[str, float]:
        """One update; the same names every time, `return_mean` among them (NaN where unknown)."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that evolves, the environment included, as tensors and plain values."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        ...

    def policy(self) -> "tuple[nn.Module, RunningNorm]":
        """Normalised observations (N, D) of group `policy` -> actions (N, A), and the normaliser: what is exported."""
        ...


class Recipe(Protocol):
    """The module of one algorithm."""

    CONFIG: Any
    DATA: Literal["none", "optional", "required"]

    def check(self, config: RunConfig) -> None:
        """Raises BadInput for settings that cannot work together."""
        ...

    def prepare(self, config: RunConfig, env: Any, group: "Group", data: Path | None) -> Trainee:
        """Networks, buffers and first observations; `env` holds this process's share of the environments."""
        ...


def algorithms() -> list[str]:
    """Names that `--algo` accepts; imports none of them."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules([str(Path(__file__).with_name("recipes"))]))


def recipe(name: str) -> Recipe:
    """The module of an algorithm; raises NotFoundError listing those there are."""
    if name not in algorithms():
        raise NotFoundError("algorithm", name, algorithms())
    return importlib.import_module(f"robo_rl.recipes.{name.replace('-', '_')}")  # pyright: ignore[reportReturnType]


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for a run that cannot work, whatever the algorithm."""
    settings.check(config)
    module = recipe(config.algorithm)
    if config.processes > 1 and not getattr(module, "PROCESSES", False):
        raise BadInput(f"processes = {config.processes}: algorithm {config.algorithm} trains in one process")
    if module.DATA == "none" and config.data:
        raise BadInput(
            f"--data {config.data}: algorithm {config.algorithm} learns from its own experience and takes no data"
        )
    if module.DATA == "required" and not config.data:
        raise BadInput(f"algorithm {config.algorithm} learns from recorded transitions: give --data DIR")
    module.check(config)


def resolve(config: RunConfig) -> tuple[str, float]:
    """Which matrix product this machine should use for such a run, and its measured gain over torch's."""
    module: Any = recipe(config.algorithm)
    if hasattr(module, "resolve"):
        return module.resolve(config)
    return ("torch" if config.linear == "auto" else config.linear), 1.0
