"""A scene's batched physics as the world behind emulated robots: several robots, one batch, numpy at the edge."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardware.errors import BadInput


class DrivenWorld(Protocol):
    """Physics of N robots that takes actuator commands directly, without the scene's own delays and firmware."""

    num_envs: int

    def park(self, ids: Tensor) -> None:
        """Puts robots at their start on the floor, at rest."""
        ...

    def drive(self, actuators: Tensor, dt_s: float) -> None:
        """Advances all robots by `dt_s` under actuator commands (J, N)."""
        ...

    def truth(self) -> Mapping[str, Tensor]:
        """True signals, name -> (N, *shape)."""
        ...


class ScenePlant:
    """A `hardware.plant.Plant` over a scene's physics."""

    def __init__(self, world: DrivenWorld) -> None:
        self._world, self.num_robots = world, world.num_envs
        world.park(torch.arange(self.num_robots))

    @property
    def obstacles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Axes (L, 2) and radii (L,) of the world's upright cylinders, m; None for a world that knows of none."""
        cylinders = getattr(self._world, "obstacles", None)
        if cylinders is None:
            return None
        listed = cylinders.numpy().astype(np.float64)
        return listed[:, :2], listed[:, 2]

    @property
    def contacts(self) -> dict[str, int] | None:
        """How often robots began to touch something, by kind; None for a world that does not count."""
        return getattr(self._world, "contacts", None)

    def reset(self, index: int) -> None:
        """Puts robot `index` back to its start, at rest."""
        if not 0 <= index < self.num_robots:
            raise BadInput(f"robot {index} of {self.num_robots}; expected 0..{self.num_robots - 1}")
        self._world.park(torch.tensor([index]))

    @torch.inference_mode()
    def step(self, actuators: NDArray[np.float64], dt_s: float) -> None:
        """Advances all robots under actuator commands (R, J)."""
        if actuators.ndim != 2 or len(actuators) != self.num_robots:
            raise BadInput(f"actuator commands have shape {actuators.shape}; expected ({self.num_robots}, J)")
        self._world.drive(torch.tensor(actuators.T, dtype=torch.float32), dt_s)

    def signals(self) -> Mapping[str, NDArray[np.float64]]:
        """True signals, name -> (R, *shape)."""
        return {name: value.numpy().astype(np.float64) for name, value in self._world.truth().items()}
