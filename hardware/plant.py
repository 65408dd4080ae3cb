"""The physics behind an emulator, injected so that a scene's batched world can stand in for the built-in one."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Plant(Protocol):
    """The true world of R emulated robots, advanced together."""

    num_robots: int

    def reset(self, index: int) -> None:
        """Puts robot `index` back to its start, at rest."""
        ...

    def step(self, actuators: NDArray[np.float64], dt_s: float) -> None:
        """Advances all robots by `dt_s` under actuator commands (R, J): rotor thrusts in 0..1, joint torques, ..."""
        ...

    def signals(self) -> Mapping[str, NDArray[np.float64]]:
        """True values by signal name, (R, *shape), SI units; the emulator adds noise, bias and latency."""
        ...
