"""What a scene is: parameters with sources, fields, rates, rewards; and what a batch of it looks like when stepped."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from controllers.interface import Field
from sim.param import Param

__all__ = ["Param", "SceneSpec", "Step", "VecEnv"]


@dataclass(frozen=True)
class SceneSpec:
    """The contract of one task in one scene."""

    id: str
    summary: str
    robot: str
    mode: str
    """Command mode of the robot that the action drives."""
    params: Mapping[str, Param]
    observation: tuple[Field, ...]
    action: tuple[Field, ...]
    rate_hz: float
    """Control rate."""
    episode_s: float
    rewards: Mapping[str, float]
    """Reward term -> weight."""
    terminations: tuple[str, ...]
    success: str
    """What counts as success, in words and numbers."""
    agents: int = 1
    """Robots A per environment: rows are then agent-major, row = a E + e."""


class Step(NamedTuple):
    """What one step of N environments returns; tensors are valid until the next step."""

    obs: dict[str, Tensor]
    """Group -> (N, D), after the same-step reset of ended episodes; 'critic' is privileged."""
    reward: Tensor
    cost: Tensor
    terminated: Tensor
    """(N,) bool: ended by the task; never bootstrapped."""
    truncated: Tensor
    """(N,) bool: ended by time; bootstrapped from final_obs."""
    final_obs: dict[str, Tensor]
    """Group -> (N, D): last observation of each episode that ended in this step (other rows: equal to obs)."""
    metrics: dict[str, Tensor]
    """Name -> (N,), scene-specific quantities of this step, before the reset."""
    alive: Tensor | None = None
    """(N,) bool: rows whose step counts for learning, for worlds in which a row may wait for others; None: all."""


class VecEnv(Protocol):
    """N copies of a scene, stepped as one batch, with same-step autoreset."""

    num_envs: int
    device: Any
    spec: SceneSpec

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        """Starts every environment anew and returns the observation groups."""
        ...

    def step(self, action: Tensor) -> Step:
        """Applies actions (N, A) in -1..1."""
        ...

    def get_state(self) -> dict[str, Tensor]:
        """Everything that evolves, generators included, as tensors with N rows (or generator bytes): exact resume."""
        ...

    def set_state(self, ids: Tensor | None, state: Mapping[str, Tensor]) -> None:
        """Puts rows `ids` (None: all) into a state from get_state."""
        ...
